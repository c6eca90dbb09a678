//! The client commands against one real node, and the demo.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Cluster, KEYVIZ, eventually, signal, stderr, write_file};
use serde_json::Value;

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn lines(output: &Output) -> Vec<Value> {
    let objects = stdout(output);
    objects.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
}

#[test]
fn what_is_put_can_be_read_listed_and_removed() {
    let cluster = Cluster::start(1, &["--split-at", "b,hex:ff", "--keyviz-step", "1s"]);
    let run = |arguments: &[&str]| cluster.run(arguments);
    let silent = |arguments: &[&str]| assert_eq!(stdout(&run(arguments)), "", "{arguments:?}");
    silent(&["put", "a", "one"]);
    silent(&["put", "b,1", "two\nlines"]);
    silent(&["put", "hex:ff00", "hex:0102"]);
    silent(&["put", "-1", ""]);
    assert_eq!(stdout(&run(&["get", "a"])), "one\n");
    assert_eq!(stdout(&run(&["get", "b,1", "--raw"])), "two\nlines");
    assert_eq!(stdout(&run(&["get", "hex:ff00"])), "hex:0102\n");
    assert_eq!(stdout(&run(&["get", "-1"])), "\n");
    let get = cluster.json(&["get", "hex:ff00", "--consistency", "stale"]);
    assert_eq!(get, serde_json::json!({"key": "hex:ff00", "value": "hex:0102"}));

    let missing = run(&["get", "nothing"]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(3), 0));
    assert_eq!(stderr(&missing), "keyviz: no such key: nothing\n");

    let rows = lines(&run(&["scan", "", "--format", "json"]));
    let keys: Vec<_> = rows.iter().map(|row| row["key"].as_str().expect("a key")).collect();
    assert_eq!(keys, ["-1", "a", "b,1", "hex:ff00"]);
    assert_eq!(stdout(&run(&["scan", "a", "b", "--format", "csv"])), "key,value\na,one\n");
    assert_eq!(stdout(&run(&["scan", "a", "--limit", "2", "--keys-only"])), "a\nb,1\n");

    assert_eq!(cluster.json(&["delete", "a"])["existed"], true);
    let again = run(&["delete", "a"]);
    assert_eq!(
        (stdout(&again).as_str(), stderr(&again).as_str()),
        ("", "keyviz: there was no such key\n")
    );

    let routes = cluster.json(&["routes", "list"]);
    let starts: Vec<_> =
        routes["routes"].as_array().expect("a list").iter().map(|r| &r["start"]).collect();
    assert_eq!(starts, ["", "b", "hex:ff"]);
    assert_eq!(routes["routes"][2]["end"], Value::Null);
    assert!(stdout(&run(&["routes", "list"])).contains("3 routes, catalog version"));

    let status = cluster.json(&["cluster", "status"]);
    assert_eq!(status["members"][0]["ok"], true);
    assert!(stdout(&run(&["cluster", "status"])).contains("1 of 1 members answer"));

    eventually("the writes are counted", || cluster.total(0, "writes", &[]) == 6);
    let picture = stdout(&run(&["heat", "--last", "1m"]));
    assert!(picture.contains("total 6 writes") && picture.contains("\\xff"), "{picture}");
    assert!(picture.contains("1 of 1 nodes"), "{picture}");
    let csv = stdout(&run(&["heat", "--last", "1m", "--format", "csv"]));
    assert_eq!(csv.lines().count(), 4, "{csv}");
    let empty = stdout(&run(&["heat", "--from", "1000", "--to", "5000"]));
    assert!(empty.contains("Nothing to draw: no writes in this window."), "{empty}");
    let role = cluster.heat(0, "writes", &["--role", "follower-read"]);
    assert_eq!(role["total"], 0);
}

/// Runs a command with `input` on its stdin.
fn with_stdin(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(KEYVIZ)
        .args(arguments)
        .args(["--node", &cluster.grpc[0]])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("it is piped").write_all(input).expect("the command reads it");
    child.wait_with_output().expect("the process is ours")
}

#[test]
fn what_a_table_shows_of_a_key_can_be_typed_back() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    for (key, bytes) in [("a\\x00b", "hex:610062"), ("C:\\\\new", "hex:433a5c6e6577")] {
        assert_eq!(stdout(&cluster.run(&["put", key, "v"])), "");
        assert_eq!(stdout(&cluster.run(&["get", bytes])), "v\n");
        let end = format!("{key}\\x00");
        assert_eq!(stdout(&cluster.run(&["scan", key, &end, "--keys-only"])), format!("{key}\n"));
    }
    let list = cluster.run(&["scan", "a", "b", "--keys-only", "--format", "json"]);
    assert_eq!(stdout(&list), "{\"key\":\"hex:610062\"}\n");
    let split = cluster.json(&["routes", "split", "1", "k\\xff"]);
    assert_eq!(split["created"][1]["start"], "hex:6bff");
    let id = split["created"][1]["route_id"].to_string();
    let one = cluster.json(&["routes", "split", &id, "k\\xff\\x00"]);
    let id = one["created"][0]["route_id"].to_string();
    let routes = stdout(&cluster.run(&["routes", "list"]));
    let shown = |line: &str| line.contains(" k\\xff ") && line.contains(" (one key) ");
    assert!(routes.lines().any(shown), "{routes}");
    let auto = cluster.run(&["routes", "split", &id, "--auto"]);
    assert!(stderr(&auto).contains("holds one key, k\\xff;"), "{}", stderr(&auto));
    let gone = cluster.run(&["routes", "split", "999", "--auto"]);
    assert_eq!(gone.status.code(), Some(3), "{}", stderr(&gone));
}

#[test]
fn values_come_from_stdin_and_files_up_to_a_mebibyte() {
    let cluster = Cluster::start(1, &[]);
    let value: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let put = with_stdin(&cluster, &["put", "stdin", "-"], &value);
    assert!(put.status.success(), "{}", stderr(&put));
    assert_eq!(cluster.run(&["get", "stdin", "--raw"]).stdout, value);
    let file = cluster.folder.path().join("value");
    std::fs::write(&file, &value).expect("the temporary folder takes a file");
    let file = file.to_str().expect("the path is text");
    assert_eq!(stdout(&cluster.run(&["put", "file", "--value-file", file])), "");
    assert_eq!(cluster.run(&["get", "file", "--raw"]).stdout, value);
    let large = with_stdin(&cluster, &["put", "stdin", "-"], &vec![0; (1 << 20) + 1]);
    assert_eq!(large.status.code(), Some(2));
    assert!(stderr(&large).contains("at most 1048576 bytes"), "{}", stderr(&large));
}

#[test]
fn compare_and_swap_batch_and_range_delete_say_what_they_did() {
    let cluster = Cluster::start(1, &["--groups", "2", "--split-at", "m"]);
    let code = |output: &Output| output.status.code();
    assert_eq!(stdout(&cluster.run(&["cas", "lock", "mine", "--expect-absent"])), "");
    let taken = cluster.run(&["cas", "lock", "theirs", "--expect-absent"]);
    assert_eq!(code(&taken), Some(5));
    assert_eq!(stderr(&taken), "keyviz: not swapped: lock holds mine\n");
    let absent = cluster.run(&["cas", "none", "b", "--expect", "a", "--format", "json"]);
    assert_eq!(code(&absent), Some(5));
    let json: Value = serde_json::from_slice(&absent.stdout).expect("an object");
    assert_eq!(json, serde_json::json!({"key": "none", "swapped": false, "actual": null}));
    assert!(cluster.run(&["cas", "lock", "--expect", "mine", "--delete"]).status.success());

    let missing = cluster.run(&["delete", "lock", "--expect-present"]);
    assert_eq!((code(&missing), stderr(&missing)), (Some(3), "keyviz: no such key: lock\n".into()));

    let batch = b"# all or none\nput a 1\nput b two words\nput c \\x00\ndelete lock\n";
    let applied = with_stdin(&cluster, &["batch", "-"], batch);
    assert_eq!(stdout(&applied), "4 operations applied\n");
    assert_eq!(stdout(&cluster.run(&["get", "b"])), "two words\n");
    assert_eq!(stdout(&cluster.run(&["get", "c"])), "hex:00\n");
    let across = with_stdin(&cluster, &["batch", "-"], b"put a 2\nput z 2\n");
    assert_eq!(code(&across), Some(5), "{}", stderr(&across));
    assert_eq!(stdout(&cluster.run(&["get", "a"])), "1\n");

    assert!(cluster.run(&["put", "z", "9"]).status.success());
    let deleted = cluster.json(&["delete-range", "b", "zz"]);
    let expected = serde_json::json!({"start": "b", "end": "zz", "deleted": 3, "next": null});
    assert_eq!(deleted, expected);
    assert_eq!(stdout(&cluster.run(&["delete-range", "", "--to-end"])), "1 keys deleted\n");
    assert_eq!(stdout(&cluster.run(&["scan", ""])), "");
}

#[test]
fn a_scan_outlives_a_slow_reader_and_ends_quietly_without_one() {
    // More than the connection's windows take, and longer than an unread connection lasts.
    const ROWS: usize = 120;
    const PAUSE: Duration = Duration::from_secs(20);
    let cluster = Cluster::start(1, &[]);
    let value = "v".repeat(100_000);
    for at in (0..ROWS).step_by(30) {
        // Keys of one route, because a batch has one group.
        let line = |at: usize| format!("put k{at:03} {value}\n");
        let batch: String = (at..at + 30).map(line).collect();
        let put = with_stdin(&cluster, &["batch", "-"], batch.as_bytes());
        assert!(put.status.success(), "{}", stderr(&put));
    }
    let scan = || {
        Command::new(KEYVIZ)
            .args(["scan", "", "--format", "json", "--node", &cluster.grpc[0]])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    };
    let slow = scan();
    std::thread::sleep(PAUSE);
    let slow = slow.wait_with_output().expect("the process is ours");
    assert_eq!(stdout(&slow).lines().count(), ROWS);
    let mut closed = scan();
    drop(closed.stdout.take());
    let closed = closed.wait_with_output().expect("the process is ours");
    assert_eq!((closed.status.code(), stderr(&closed).as_str()), (Some(141), ""));
}

#[test]
fn a_load_ends_near_its_duration_when_its_node_is_gone() {
    let mut cluster = Cluster::start(1, &[]);
    let started = Instant::now();
    let load = Command::new(KEYVIZ)
        .args(["load", "--rate", "500", "--duration", "3s", "--format", "json"])
        .args(["--node", &cluster.grpc[0]])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    std::thread::sleep(Duration::from_secs(1));
    cluster.kill(0);
    let output = load.wait_with_output().expect("the process is ours");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).expect("a report is an object");
    let count = |name: &str| report[name].as_u64().expect("a count");
    let all = count("writes_acked") + count("reads_ok") + count("errors");
    assert_eq!(all, 1_500, "every operation that was due is counted: {report}");
    assert!(report["errors_by_kind"]["NOT_BEGUN"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_heatmap_begins_where_there_is_something_and_names_its_node() {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s"]);
    assert!(cluster.run(&["put", "a", "b"]).status.success());
    eventually("the write is counted", || cluster.total(0, "writes", &[]) == 1);
    let picture = stdout(&cluster.run(&["heat", "--scope", "node"]));
    let named = format!("counted by node 1 ({}) alone\n", cluster.grpc[0]);
    assert!(picture.starts_with(&named), "{picture}");
    assert!(picture.contains("nothing was counted in this window before"), "{picture}");
    assert!(picture.contains("columns of 1s") || picture.contains("1 column of 1s"), "{picture}");
    assert!(picture.contains("(begin) → 7 "), "{picture}");
}

#[test]
fn routes_can_be_split_merged_and_watched() {
    let cluster = Cluster::start(1, &["--groups", "1", "--split-at", "m"]);
    let out = cluster.folder.path().join("watch.jsonl");
    let mut watch = Command::new(KEYVIZ)
        .args(["routes", "watch", "--format", "json", "--node", &cluster.grpc[0]])
        .stdout(File::create(&out).expect("the temporary folder takes a file"))
        .spawn()
        .expect("the binary starts");
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    eventually("the table came", || read().contains("\"snapshot\""));
    let split = cluster.json(&["routes", "split", "1", "f"]);
    let ids: Vec<_> = split["created"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["route_id"].to_string())
        .collect();
    assert_eq!((&split["retired"], ids.len()), (&serde_json::json!([1]), 2));
    let merge = cluster.run(&["routes", "merge", &ids[0], &ids[1]]);
    assert!(stdout(&merge).contains("from (begin) to m in group 1"), "{}", stdout(&merge));
    let gone = cluster.run(&["routes", "split", "1", "f"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(stderr(&gone).contains("NOT_FOUND"), "{}", stderr(&gone));
    let stale = cluster.run(&["routes", "split", "2", "x", "--expected-version", "1"]);
    assert_eq!(stale.status.code(), Some(5));
    assert!(stderr(&stale).contains("ABORTED"), "{}", stderr(&stale));
    eventually("both changes came", || read().matches("\"kind\"").count() == 2);
    signal(&watch, "KILL");
    watch.wait().expect("the process is ours");
}

#[test]
fn leadership_moves_where_it_is_told_to() {
    let cluster = Cluster::start(3, &["--groups", "1"]);
    let leader = || cluster.json(&["cluster", "status"])["groups"][1]["leader"].as_u64();
    eventually("the group has a leader", || leader().is_some());
    let to = leader().map_or(1, |leader| leader % 3 + 1);
    eventually("another node leads", || {
        let moved = cluster.run(&["cluster", "transfer-leader", "1", &to.to_string()]);
        moved.status.success() && leader() == Some(to)
    });
    let unknown = cluster.run(&["cluster", "transfer-leader", "99", "1"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(stderr(&unknown).contains("there is no Raft group 99"), "{}", stderr(&unknown));
}

#[test]
fn a_live_heatmap_goes_on_until_it_is_interrupted() {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s"]);
    assert!(cluster.run(&["put", "a", "b"]).status.success());
    let out = cluster.folder.path().join("live.jsonl");
    let mut live = Command::new(KEYVIZ)
        .args(["heat", "--live", "--format", "json", "--last", "1m", "--node", &cluster.grpc[0]])
        .stdout(File::create(&out).expect("the temporary folder takes a file"))
        .spawn()
        .expect("the binary starts");
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    eventually("three answers came", || read().lines().count() >= 3);
    signal(&live, "INT");
    assert_eq!(live.wait().expect("the process is ours").code(), Some(0));
    for line in read().lines() {
        let matrix: Value = serde_json::from_str(line).expect("a line is an object");
        assert!(matrix["total"].is_u64());
    }
}

#[test]
fn an_interrupted_load_verifies_and_reports() {
    let cluster = Cluster::start(1, &[]);
    let record = cluster.folder.path().join("record.jsonl");
    let load = Command::new(KEYVIZ)
        .args(["load", "--duration", "1h", "--verify", "--format", "json", "--clients", "8"])
        .args(["--node", &cluster.grpc[0], "--record"])
        .arg(&record)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    eventually("operations are made", || record.metadata().is_ok_and(|meta| meta.len() > 0));
    signal(&load, "INT");
    let output = load.wait_with_output().expect("the process is ours");
    let report: Value = serde_json::from_str(&stdout(&output)).expect("a report is an object");
    assert_eq!(report["interrupted"], true);
    assert_eq!((&report["errors"], &report["missing"]), (&0.into(), &0.into()));
    assert!(report["verified"].as_u64() > Some(0));
    let operations = report["writes_acked"].as_u64().zip(report["reads_ok"].as_u64());
    let lines = std::fs::read_to_string(&record).expect("the record was written").lines().count();
    assert_eq!(operations.map(|(writes, reads)| writes + reads), Some(lines as u64));
}

#[test]
fn output_that_cannot_be_written_exits_with_1() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return; // A system without that device cannot pretend that the disk is full.
    };
    let cluster = Cluster::start(1, &[]);
    let output = Command::new(KEYVIZ)
        .args(["routes", "list", "--node", &cluster.grpc[0]])
        .stdout(full)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("keyviz: cannot write the output: "),
        "{}",
        stderr(&output)
    );
}

/// Three gRPC ports in a row that are free, and those 100 above them. They lie above those of
/// [`free_addresses`], where no other test of this process takes one between this look and the
/// start.
fn demo_port() -> u16 {
    const BLOCKS: u32 = 8;
    const PORTS_IN_BLOCK: u32 = 33;
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..BLOCKS * PORTS_IN_BLOCK {
        // Relaxed: only each number once.
        let turn = TURNS.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id());
        let (block, place) = (turn % BLOCKS, turn / BLOCKS % PORTS_IN_BLOCK);
        let base = u16::try_from(31_000 + 200 * block + 3 * place).expect("it is a port");
        if (0..3).all(|node| free(base + node) && free(base + 100 + node)) {
            return base;
        }
    }
    panic!("loopback has no free ports");
}

/// The bounds of a row of the demo's heatmap after the prefix of its keys, and the row's sum.
fn row_of_picture(line: &str) -> Option<(&str, &str, u64)> {
    let (label, rest) = line.split_once('│')?;
    let (start, end) = label.split_once(" → ")?;
    let bound = |key| {
        let key = str::split(key, ['≡', ' ']).next()?;
        Some(key.trim_start_matches('…').trim_start_matches("demo/000"))
    };
    let total = rest.split_once('│')?.1.trim().replace(',', "").parse().ok()?;
    Some((bound(start)?, bound(end)?, total))
}

#[test]
fn a_demo_ends_in_time_with_a_heatmap_whose_hot_band_is_where_the_pattern_puts_it() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let started = Instant::now();
    let output = Command::new(KEYVIZ)
        .args(["demo", "--duration", "12s", "--step", "1s", "--port", &demo_port().to_string()])
        .env("TMPDIR", temporary.path())
        .output()
        .expect("the binary starts");
    let picture = stdout(&output);
    assert!(started.elapsed() >= Duration::from_secs(12));
    // The pattern sends most writes to the keys from 60,000 to 61,000. How finely their routes are
    // drawn is what the load taught, so the rows between the routes' own boundaries are summed.
    let (hot, all) = picture.lines().filter_map(row_of_picture).fold((0, 0), |sums, row| {
        let (starts, ends, total) = row;
        let is_hot = ("59375".."62500").contains(&starts) && ends <= "62500";
        (sums.0 + if is_hot { total } else { 0 }, sums.1 + total)
    });
    assert!(hot * 2 > all && all > 0, "{hot} of {all} writes are in the hot band: {picture}");
    assert!(picture.contains("3 of 3 nodes"), "{picture}");
    assert!(stderr(&output).contains(" 0 errors"), "{}", stderr(&output));
    let left: Vec<_> = temporary.path().read_dir().expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_without_the_visualizer_is_no_failure_and_an_interrupt_ends_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let talk = write_file(folder.path(), "talk", "");
    let mut demo = Command::new(KEYVIZ)
        .args(["demo", "--no-load", "--keyviz-enabled=false", "--port", &demo_port().to_string()])
        .arg("--data")
        .arg(folder.path().join("data"))
        .stdout(Stdio::null())
        .stderr(File::create(&talk).expect("the temporary folder takes a file"))
        .spawn()
        .expect("the binary starts");
    let said = || std::fs::read_to_string(&talk).unwrap_or_default();
    eventually("the demo says why there is no heatmap", || said().contains("is unavailable"));
    signal(&demo, "TERM");
    assert_eq!(demo.wait().expect("the process is ours").code(), Some(0), "{}", said());
    assert!(folder.path().join("data/node3").is_dir());
}
