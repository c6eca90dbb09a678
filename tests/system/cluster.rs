//! Three real nodes, a trace, and the counts that every one of them must show.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::{self, Cluster, KEYVIZ, eventually, http_get, stderr, write_file};
use serde_json::Value;

const FLAGS: &[&str] = &["--groups", "4", "--split-at", "dir/c,dir/f,dir/m,src/,src/k"];

/// What a trace adds up to.
#[derive(Default, Debug)]
struct Tally {
    reads: u64,
    puts: u64,
    deletes: u64,
    write_bytes: u64,
}

/// A trace in the form that `load --trace` reads: every key is written, some are read or deleted.
fn trace(operations: u64) -> (String, Tally) {
    let mut text = "t_s,op,key,value_bytes\n".to_owned();
    let mut tally = Tally::default();
    // A linear congruential sequence (Knuth, MMIX): any fixed mix will do.
    let mut state = 42u64;
    for at in 0..operations {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = state >> 33;
        let folder = ["dir", "src", "top", "dir/deep/deeper"][(pick % 4) as usize];
        let key = format!("{folder}/{}{}", char::from(b'a' + (pick % 26) as u8), pick % 97);
        let size = pick % 500;
        let op = match pick % 10 {
            0..5 => "write",
            5..9 => "read",
            _ => "delete",
        };
        match op {
            "write" => {
                tally.puts += 1;
                tally.write_bytes += key.len() as u64 + size;
            }
            "read" => tally.reads += 1,
            _ => {
                tally.deletes += 1;
                tally.write_bytes += key.len() as u64;
            }
        }
        let size = if op == "delete" { 0 } else { size };
        writeln!(text, "{at},{op},{key},{size}").expect("a string takes text");
    }
    (text, tally)
}

fn assert_counts(cluster: &Cluster, tally: &Tally) {
    let expected = [
        ("writes", tally.puts + tally.deletes),
        ("reads", tally.reads),
        ("write-bytes", tally.write_bytes),
    ];
    for (series, total) in expected {
        let mut scoped = 0;
        for node in 0..cluster.len() {
            for rows in [&[][..], &["--rows", "8"], &["--rows", "2", "--columns", "1"]] {
                let matrix = cluster.heat(node, series, rows);
                assert_eq!(matrix["total"], total, "{series} at node {}", node + 1);
                assert_eq!(matrix["unattributed"], 0);
                assert_eq!(matrix["responded"], cluster.len());
                assert_eq!(cells(&matrix), total, "the cells sum to the total");
                assert_rows_are_in_order(&matrix);
            }
            scoped += cluster.total(node, series, &["--scope", "node"]);
        }
        assert_eq!(scoped, total, "the nodes' own matrices sum to the cluster's: {series}");
    }
}

fn cells(matrix: &Value) -> u64 {
    let rows = matrix["rows"].as_array().expect("rows");
    let blocks = matrix["blocks"].as_array().expect("blocks").iter();
    let inside = blocks.filter(|block| block["straddling"] == false);
    rows.iter()
        .flat_map(|row| row["values"].as_array().expect("values"))
        .chain(inside.map(|block| &block["value"]))
        .map(|value| value.as_u64().expect("whole numbers"))
        .sum()
}

fn assert_rows_are_in_order(matrix: &Value) {
    let rows = matrix["rows"].as_array().expect("rows");
    for pair in rows.windows(2) {
        assert_eq!(pair[0]["end"], pair[1]["start"], "order: rows neither gap nor overlap");
    }
    assert_eq!(rows[0]["start"], "");
    assert_eq!(rows[rows.len() - 1]["end"], Value::Null);
}

#[test]
fn conservation_and_once_a_replayed_trace_counts_the_same_on_every_node() {
    let cluster = Cluster::start(3, FLAGS);
    // Waiting for the nodes to serve read something, and was counted.
    let before = cluster.total(0, "reads", &[]);
    let (text, tally) = trace(3_000);
    let file = write_file(cluster.folder.path(), "trace.csv", &text);
    let file = file.to_str().expect("a temporary path is text");
    let report =
        cluster.json(&["load", "--trace", file, "--speed", "max", "--clients", "16", "--verify"]);
    assert_eq!(report["writes_acked"], tally.puts, "{report}");
    assert_eq!(report["reads_ok"], tally.reads);
    assert_eq!(report["deletes_acked"], tally.deletes);
    assert_eq!(report["errors"], 0);
    assert_eq!(report["missing"], 0);
    let verified = report["verified"].as_u64().expect("a count");
    // The verification reads what the trace wrote, and those reads are counted like all others. A
    // read that the load repeated, because no answer came in time, may have been served before.
    let reads = before + tally.reads + verified;
    let repeated = report["retries"].as_u64().expect("a count");
    let counted = cluster.total(0, "reads", &[]);
    assert!((reads..=reads + repeated).contains(&counted), "{counted} of {reads} reads: {report}");
    assert_counts(&cluster, &Tally { reads: counted, ..tally });
}

#[test]
fn no_lost_write_when_a_node_is_killed_and_honest_partiality_while_it_is_down() {
    let mut cluster = Cluster::start(3, FLAGS);
    let survivors = [cluster.grpc[0].clone(), cluster.grpc[1].clone()].join(",");
    let load = std::process::Command::new(KEYVIZ)
        .args(["load", "--pattern", "uniform", "--keys", "2000", "--read-ratio", "0"])
        .args(["--duration", "6s", "--clients", "8", "--seed", "7", "--format", "json"])
        .args(["--record"])
        .arg(cluster.folder.path().join("record.jsonl"))
        .args(["--node", &survivors])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.kill(2);
    let matrix = cluster.heat(0, "writes", &[]);
    assert_eq!((&matrix["responded"], &matrix["expected"]), (&2.into(), &3.into()));
    let nodes = matrix["nodes"].as_array().expect("a status a member");
    let dead = nodes.iter().find(|node| node["id"] == 3).expect("node 3 is a member");
    assert_eq!(dead["ok"], false);
    assert_ne!(dead["error"], "", "the status says why");
    let output = load.wait_with_output().expect("the load ends");
    assert!(!output.stdout.is_empty(), "the load reports: {}", stderr(&output));
    cluster.spawn(2);
    cluster.wait_until_serving();
    let last = acknowledged(&cluster.folder.path().join("record.jsonl"));
    assert!(last.len() > 100, "the load wrote");
    for (key, allowed) in last.iter().step_by(last.len() / 100 + 1) {
        let found = cluster.run_on(2, &["get", key]);
        assert!(found.status.success(), "{key} was acknowledged and is gone: {}", stderr(&found));
        assert!(*allowed > 0);
    }
}

/// Keys with an acknowledged write, and how many each has.
fn acknowledged(record: &std::path::Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(record).expect("the load recorded");
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        let operation: Value = serde_json::from_str(line).expect("a JSON object a line");
        if operation["outcome"] == "ok" {
            let key = operation["key"].as_str().expect("keys are text").to_owned();
            *keys.entry(key).or_default() += 1;
        }
    }
    keys
}

#[test]
fn no_lost_write_over_a_restart_of_every_node_and_a_second_bootstrap_is_refused() {
    let mut cluster = Cluster::start(3, FLAGS);
    for key in ["a", "dir/d", "src/z", "hex:ff00"] {
        let put = cluster.run_on(1, &["put", key, "value"]);
        assert!(put.status.success(), "{}", stderr(&put));
    }
    for node in 0..3 {
        assert_eq!(
            cluster.stop(node),
            Some(0),
            "SIGTERM ends a node cleanly: {}",
            cluster.log(node)
        );
    }
    cluster.flags = ["--groups", "2"].map(str::to_owned).to_vec();
    let second = cluster.serve_command(0).output().expect("the binary starts");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("second bootstrap"), "{}", stderr(&second));
    cluster.flags = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    for node in 0..3 {
        cluster.spawn(node);
    }
    cluster.wait_until_serving();
    for key in ["a", "dir/d", "src/z", "hex:ff00"] {
        let got = cluster.run_on(2, &["get", key]);
        assert_eq!(String::from_utf8_lossy(&got.stdout).trim_end(), "value", "{}", stderr(&got));
    }
}

#[test]
fn no_harm_the_store_works_with_keyviz_disabled_and_heat_says_unavailable() {
    let cluster = Cluster::start(1, &["--replication", "1", "--keyviz-enabled=false"]);
    assert!(cluster.run_on(0, &["put", "k", "v"]).status.success());
    assert_eq!(cluster.run_on(0, &["get", "k"]).stdout, b"v\n");
    let heat = cluster.run_on(0, &["heat", "--last", "1h"]);
    assert_eq!(heat.status.code(), Some(1));
    let said = stderr(&heat).to_lowercase();
    assert!(said.contains("disabled") || said.contains("unavailable"), "{said}");
}

#[test]
fn every_consistency_reads_the_value_from_every_node() {
    let cluster = Cluster::start(3, FLAGS);
    assert!(cluster.run_on(0, &["put", "src/x", "1"]).status.success());
    for node in 0..3 {
        for consistency in ["linearizable", "lease"] {
            let got = cluster.run_on(node, &["get", "src/x", "--consistency", consistency]);
            assert_eq!(got.stdout, b"1\n", "{consistency} at {}: {}", node + 1, stderr(&got));
        }
        eventually("a stale read catches up", || {
            cluster.run_on(node, &["get", "src/x", "--consistency", "stale"]).stdout == b"1\n"
        });
    }
}

#[test]
fn a_taken_port_a_locked_folder_and_a_missing_origin_are_named_and_exit_1() {
    let cluster = Cluster::start(1, &["--replication", "1"]);
    let other = support::free_addresses(1).remove(0);
    let serve = |listen: &str, data: &std::path::Path| {
        let output = std::process::Command::new(KEYVIZ)
            .args(["serve", "--id", "1", "--listen", listen, "--data"])
            .arg(data)
            .output()
            .expect("the binary starts");
        (output.status.code(), stderr(&output))
    };
    let (code, said) = serve(&other, &cluster.data(0));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    let empty = cluster.folder.path().join("empty");
    let (code, said) = serve(&cluster.grpc[0], &empty);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&cluster.grpc[0]), "{said}");
    let (code, said) = serve(&other, &empty);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--bootstrap") && said.contains("--join"), "{said}");
}

/// The value of the one line of `/metrics` that starts with `series`.
fn metric(page: &str, series: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in:\n{page}"))
}

#[test]
fn metrics_tell_requests_groups_log_sampler_fan_out_and_process() {
    let cluster = Cluster::start(1, &["--groups", "2"]);
    assert!(cluster.run(&["put", "apple", "1"]).status.success());
    assert!(cluster.run(&["put", "banana", "2"]).status.success());
    assert!(cluster.run(&["get", "apple"]).status.success());
    assert!(cluster.run(&["scan", "a"]).status.success());
    assert_eq!(cluster.total(0, "writes", &[]), 2);
    let page = http_get(&cluster.http[0], "/metrics");
    assert!(page.ends_with('\n'), "the page is whole:\n{page}");
    let is = |series: &str, value: f64| assert_eq!(metric(&page, series), value, "{series}");
    is("keyviz_requests_total{kind=\"put\",outcome=\"ok\"}", 2.0);
    is("keyviz_requests_total{kind=\"get\",outcome=\"ok\"}", 1.0);
    is("keyviz_requests_total{kind=\"scan\",outcome=\"ok\"}", 1.0);
    is("keyviz_requests_total{kind=\"matrix\",outcome=\"ok\"}", 1.0);
    is("keyviz_request_seconds_count{kind=\"put\"}", 2.0);
    is("keyviz_request_seconds_bucket{le=\"+Inf\",kind=\"put\"}", 2.0);
    is("keyviz_requests_in_flight{kind=\"put\"}", 0.0);
    is("keyviz_raft_leading{group=\"1\"}", 1.0);
    is("keyviz_raft_apply_lag{group=\"2\"}", 0.0);
    is(
        "keyviz_raft_commit_index{group=\"1\"}",
        metric(&page, "keyviz_raft_applied_index{group=\"1\"}"),
    );
    is("keyviz_log_sync_seconds_count", metric(&page, "keyviz_log_batches_total"));
    is("keyviz_log_batch_operations_count", metric(&page, "keyviz_log_batches_total"));
    is("keyviz_log_queue", 0.0);
    is("keyviz_sampler_unattributed_total", 0.0);
    // The autopilot asks too.
    let answered = metric(&page, "keyviz_fanout_members_total{outcome=\"answered\"}");
    assert!(answered >= 1.0, "{answered}");
    is("keyviz_fanout_members_total{outcome=\"failed\"}", 0.0);
    for more in ["keyviz_sampler_slots", "keyviz_history_bytes", "keyviz_process_threads"] {
        assert!(metric(&page, more) > 0.0, "{more}");
    }
}

#[test]
fn a_stopped_nodes_folder_is_checked_and_a_running_ones_is_not() {
    let mut cluster = Cluster::start(1, &["--groups", "2"]);
    assert!(cluster.run(&["put", "apple", "1"]).status.success());
    let folder = cluster.data(0);
    let check = |folder: &std::path::Path| {
        let mut command = std::process::Command::new(KEYVIZ);
        command.arg("check").arg("--data").arg(folder).output().expect("the binary starts")
    };
    let running = check(&folder);
    assert_eq!(running.status.code(), Some(1));
    assert!(stderr(&running).contains("in use by another process"), "{}", stderr(&running));

    assert_eq!(cluster.stop(0), Some(0));
    let sound = check(&folder);
    assert_eq!(sound.status.code(), Some(0), "{}", stderr(&sound));
    let said = String::from_utf8_lossy(&sound.stdout);
    assert!(said.contains("read 3 groups") && said.ends_with("sound\n"), "{said}");

    let elsewhere = check(cluster.folder.path());
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(stderr(&elsewhere).contains("there is no node's data in"), "{}", stderr(&elsewhere));
}

#[test]
fn once_a_read_counts_what_it_returned_and_a_scan_one_read_a_route() {
    let cluster = Cluster::start(3, &["--groups", "2", "--split-at", "g,p"]);
    for (key, value) in [("a", "12345"), ("h", "123"), ("z", "1")] {
        assert!(cluster.run(&["put", key, value]).status.success());
    }
    let counted = |series| cluster.total(1, series, &[]);
    assert_eq!((counted("reads"), counted("read-bytes")), (0, 0), "a write is no read");
    assert_eq!((counted("writes"), counted("write-bytes")), (3, 12));
    (0..3).for_each(|node| assert!(cluster.run_on(node, &["get", "a"]).status.success()));
    assert_eq!((counted("reads"), counted("read-bytes")), (3, 15), "values, whoever is asked");
    assert_eq!(cluster.run(&["get", "nothing"]).status.code(), Some(3));
    assert_eq!((counted("reads"), counted("read-bytes")), (4, 15), "nothing was returned");
    assert!(cluster.run_on(1, &["scan", ""]).status.success());
    assert_eq!((counted("reads"), counted("read-bytes")), (7, 27), "keys and values");
    // It ends within the second route, where there is nothing.
    assert!(cluster.run_on(2, &["scan", "a", "h", "--keys-only"]).status.success());
    assert_eq!((counted("reads"), counted("read-bytes")), (9, 28), "keys alone");
}
