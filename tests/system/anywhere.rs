//! The same exact matrix from every node: while a node is stopped and after it goes on, while
//! leaders move and clocks are apart, and after kills.
//!
//! Brief in `cargo test`. As long as one likes:
//!
//! ```text
//! KEYVIZ_ANYWHERE=60s cargo test --release --test system anywhere:: -- --nocapture
//! ```

#![cfg(target_os = "linux")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Cluster, KEYVIZ, clock_apart, eventually, faketime, http_get};
use serde_json::{Value, json};

/// What a kill may cost: the node's counts since its last checkpoint, taken every second, and what
/// writing it takes on a busy machine.
const CHECKPOINT_US: u64 = 1_000_000 + 500_000;

/// How long there is load, and how often leaders move meanwhile (or nodes are killed).
fn lasting() -> (Duration, Duration) {
    match std::env::var("KEYVIZ_ANYWHERE") {
        Ok(text) => (humantime::parse_duration(&text).expect("a duration"), Duration::from_secs(5)),
        Err(_) => (Duration::from_secs(5), Duration::from_millis(1_500)),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

/// A load on all nodes, in a process of its own.
fn load(cluster: &Cluster, lasting: Duration, more: &[&str]) -> Child {
    Command::new(KEYVIZ)
        .args(["load", "--pattern", "zipf", "--keys", "500", "--read-ratio", "0.5"])
        .args(["--value-bytes", "64", "--clients", "8", "--seed", "3", "--format", "json"])
        .args(["--duration", &format!("{}ms", lasting.as_millis())])
        .args(["--node", &cluster.grpc.join(",")])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

fn report(load: Child) -> Value {
    let output = load.wait_with_output().expect("the load ends");
    serde_json::from_slice(&output.stdout).expect("it reports")
}

/// What must not depend on where it was asked.
fn comparable(matrix: &Value) -> Value {
    let nodes = matrix["nodes"].as_array().expect("a status a member").iter();
    let nodes: Vec<Value> = nodes
        .map(|node| json!([node["id"], node["address"], node["ok"], node["incarnation"]]))
        .collect();
    let of = |name: &str| matrix[name].clone();
    json!({
        "catalog_version": of("catalog_version"), "columns": of("columns"), "rows": of("rows"),
        "total": of("total"), "unattributed": of("unattributed"), "by_node": of("by_node"),
        "conflicts": of("conflicts"), "responded": of("responded"), "nodes": nodes,
    })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn groups(cluster: &Cluster) -> Vec<(u64, u64)> {
    let status = cluster.json(&["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups").iter();
    groups
        .filter_map(|group| Some((number(&group["group_id"]), group["leader"].as_u64()?)))
        .collect()
}

/// Whether a group came to be led by `to`. It may be on its way elsewhere.
fn transfer(cluster: &Cluster, group: u64, to: u64) -> bool {
    let (group, to) = (group.to_string(), to.to_string());
    cluster.run(&["cluster", "transfer-leader", &group, &to]).status.success()
}

#[test]
fn honest_partiality_a_node_that_leads_nothing_answers_as_the_leader_does_while_a_third_is_stopped()
{
    let flags = ["--groups", "1", "--split-at", "key/3", "--keyviz-step", "1s"];
    // Nobody answers for another.
    let cluster = Cluster::start(3, &[&flags[..], &["--keyviz-history-copies", "1"]].concat());
    // Node 1 leads everything, the catalog too.
    for group in [0, 1] {
        eventually("node 1 leads", || transfer(&cluster, group, 1));
    }
    eventually("everybody knows", || groups(&cluster).iter().all(|(_, leader)| *leader == 1));
    let from_ms = now_ms() - 60_000;
    let loaded = report(load(&cluster, Duration::from_secs(2), &[]));
    assert!(number(&loaded["writes_acked"]) > 0 && loaded["errors"] == 0, "{loaded}");
    let to_ms = now_ms() / 1_000 * 1_000 + 1_000;
    std::thread::sleep(Duration::from_millis(1_500));

    let (from, to) = (from_ms.to_string(), to_ms.to_string());
    let ask = |node: usize, series: &str, more: &[&str]| {
        // As a full grid: what is in a block is in no row.
        let window = ["heat", "--from", &from, "--to", &to, "--by-node", "--spread"];
        cluster.json_on(node, &[&window[..], &["--series", series], more].concat())
    };
    // The same from the leader (node 1) and from the one that leads nothing (node 2).
    let same = |series: &str, more: &[&str]| {
        std::thread::scope(|scope| {
            let leads_nothing = scope.spawn(|| ask(1, series, more));
            let leader = ask(0, series, more);
            let other = leads_nothing.join().expect("it answers");
            assert_eq!(comparable(&leader), comparable(&other), "{series} {more:?}");
            leader
        })
    };
    let writes = same("writes", &[]);
    let reads = same("reads", &[]);
    assert_eq!(writes["total"], loaded["writes_acked"]);
    assert_eq!(reads["total"], loaded["reads_ok"]);

    // Roles: all writes are the leader's; reads are by who served them.
    let role = |series: &str, role: &str| number(&same(series, &["--role", role])["total"]);
    assert_eq!(role("writes", "leader-write"), number(&writes["total"]));
    assert_eq!(role("writes", "leader-read"), 0);
    let (by_leader, by_followers) = (role("reads", "leader-read"), role("reads", "follower-read"));
    assert_eq!(by_leader + by_followers, number(&reads["total"]));
    let share = |matrix: &Value, node: usize| matrix["by_node"][node].clone();
    let sum = |rows: &Value, role: &str| -> u64 {
        rows.as_array().expect("rows").iter().map(|row| number(&row["roles"][role])).sum()
    };
    assert_eq!(sum(&reads["rows"], "leader_read"), by_leader);
    assert_eq!(sum(&reads["rows"], "follower_read"), by_followers);
    assert_eq!(number(&share(&reads, 0)["roles"]["leader_read"]), by_leader);
    for node in [1, 2] {
        let roles = &share(&reads, node)["roles"];
        assert!(number(&roles["follower_read"]) > 0, "every node serves reads: {roles}");
        assert_eq!(share(&writes, node)["total"], 0, "who leads nothing wrote nothing");
    }

    cluster.signal(2, "STOP");
    for (series, whole) in [("writes", &writes), ("reads", &reads)] {
        let stopped = same(series, &[]);
        assert_eq!((&stopped["responded"], &stopped["nodes"][2]["ok"]), (&json!(2), &json!(false)));
        assert_ne!(stopped["nodes"][2]["error"], "", "the status says why");
        let missing = number(&share(whole, 2)["total"]);
        assert_eq!(number(&stopped["total"]) + missing, number(&whole["total"]), "{series}");
        let columns = stopped["columns"].as_array().expect("columns").len();
        for row in stopped["rows"].as_array().expect("rows") {
            let partial = row["partial"].as_array().expect("a list").len();
            assert_eq!(partial, columns, "each cell may miss what the stopped node counted");
        }
    }
    cluster.signal(2, "CONT");
    eventually("the stopped node answers again", || ask(1, "reads", &[])["responded"] == 3);
    assert_eq!(comparable(&same("writes", &[])), comparable(&writes));
    assert_eq!(comparable(&same("reads", &[])), comparable(&reads));
}

/// Three nodes whose clocks are 2 s slow, right, and 2 s fast.
fn with_clocks_apart(flags: &[&str]) -> (Cluster, [i64; 3]) {
    let mut cluster = Cluster::prepare(3, flags);
    let mut apart_ms = [-2_000, 0, 2_000];
    match faketime() {
        Some(library) => {
            for (node, apart_ms) in apart_ms.iter().enumerate() {
                let seconds = *apart_ms as f64 / 1_000.0;
                cluster.environment[node] = clock_apart(&library, seconds);
            }
        }
        None => {
            println!("the clocks are not set apart: libfaketime is not installed");
            apart_ms = [0; 3];
        }
    }
    (0..3).for_each(|node| cluster.spawn(node));
    cluster.wait_until_serving();
    (cluster, apart_ms)
}

const FLAGS: &[&str] = &["--groups", "3", "--split-at", "key/2,key/4", "--keyviz-step", "1s"];

/// Waits until the slowest clock has passed every column that the fastest one counted in.
fn settle() {
    std::thread::sleep(Duration::from_millis(6_500));
}

/// The whole of a series, from every node, asked twice.
fn settled(cluster: &Cluster, series: &str) -> Value {
    // Not after the slowest clock.
    let to = (now_ms() / 1_000 * 1_000 - 2_000).to_string();
    let from = (now_ms() - 600_000).to_string();
    let ask = |node| {
        let arguments = ["heat", "--from", &from, "--to", &to, "--by-node", "--series", series];
        comparable(&cluster.json_on(node, &arguments))
    };
    let first = ask(0);
    for node in [0, 1, 1, 2, 2] {
        assert_eq!(ask(node), first, "{series} at node {}", node + 1);
    }
    first
}

/// Writes that a node says it proposed as leader since it started.
fn proposed(http: &str) -> u64 {
    let metrics = http_get(http, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with("keyviz_writes_proposed_total"));
    let number = line.and_then(|line| line.split(' ').nth(1)).expect("the counter is there");
    number.parse().expect("a whole number")
}

/// A node becomes a member for a third of the time, leads a group for a while, and is removed
/// again; what it proposed.
fn visit(cluster: &Cluster, index: usize, lasting: Duration) -> u64 {
    let id = (index + 1).to_string();
    let run = |node, arguments: &[&str]| {
        let output = cluster.run_on(node, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    std::thread::sleep(lasting / 6);
    run(0, &["cluster", "add-node", &id, &cluster.grpc[index]]);
    let leads = || (1..=3).any(|group| transfer(cluster, group, index as u64 + 1));
    eventually("the new node leads a group that it holds", leads);
    std::thread::sleep(lasting / 3);
    run(1, &["cluster", "remove-node", &id]);
    proposed(&cluster.http[index])
}

#[test]
fn conservation_and_once_while_leaders_move_and_clocks_are_apart() {
    let (lasting, every) = lasting();
    let (mut cluster, apart_ms) = with_clocks_apart(FLAGS);
    let load = load(&cluster, lasting, &[]);
    let began = Instant::now();
    // In the long form a fourth node comes and goes meanwhile.
    let visitor = std::env::var_os("KEYVIZ_ANYWHERE").map(|_| cluster.join(0));
    let cluster = &cluster;
    let (moved, by_visitor) = std::thread::scope(|scope| {
        let visit = visitor.map(|index| scope.spawn(move || visit(cluster, index, lasting)));
        let (mut moved, mut turn) = (0, 0);
        while began.elapsed() + every / 2 < lasting {
            std::thread::sleep(every);
            for (group, leader) in groups(cluster).into_iter().filter(|(group, _)| *group > 0) {
                // The next node round.
                let to = leader % 3 + 1;
                moved += u64::from((group + turn) % 3 == 0 && transfer(cluster, group, to));
            }
            turn += 1;
        }
        (moved, visit.map(|visit| visit.join().expect("it comes and goes")))
    });
    let loaded = report(load);
    assert!(moved > 0, "no leader moved");
    let (acknowledged, unknown) = (number(&loaded["writes_acked"]), number(&loaded["unknown"]));
    settle();
    let writes = settled(cluster, "writes");
    let total = number(&writes["total"]);
    let by_stayers: u64 = cluster.http[..3].iter().map(|http| proposed(http)).sum();
    let proposed = by_stayers + by_visitor.unwrap_or(0);
    println!(
        "{moved} transfers, clocks {apart_ms:?} ms: {acknowledged} writes acknowledged, {unknown} \
         unknown, {total} counted, {proposed} proposed by the leaders' own count"
    );
    if let Some(by_visitor) = by_visitor {
        println!("{by_visitor} of them by a node that came and left");
    }
    assert!((acknowledged..=acknowledged + unknown).contains(&total));
    assert_eq!(total, proposed);
    assert_eq!((&writes["conflicts"], &writes["unattributed"]), (&json!([]), &json!(0)));
    let partial = |row: &Value| row["partial"].as_array().expect("a list").is_empty();
    assert!(writes["rows"].as_array().expect("rows").iter().all(partial), "nothing is missing");
    let reads = settled(cluster, "reads");
    println!("{} reads answered, {} counted", loaded["reads_ok"], reads["total"]);
    assert_eq!(reads["total"], loaded["reads_ok"]);

    let seen = cluster.heat(1, "writes", &[]);
    for (node, apart_ms) in seen["nodes"].as_array().expect("statuses").iter().zip(apart_ms) {
        let skew = node["clock_skew_ms"].as_i64().expect("a number");
        assert!((skew - apart_ms).abs() < 1_000, "node {}: {skew} ms, not {apart_ms}", node["id"]);
    }
}

#[test]
fn conservation_and_honest_partiality_when_nodes_are_killed() {
    let (lasting, every) = lasting();
    let mut cluster = Cluster::start(3, FLAGS);
    let record = cluster.folder.path().join("record.jsonl");
    let load =
        load(&cluster, lasting, &["--record", record.to_str().expect("a temporary path is text")]);
    let began = Instant::now();
    let mut kills: Vec<u64> = Vec::new();
    while began.elapsed() + every / 2 < lasting {
        std::thread::sleep(every);
        let node = kills.len() % 3;
        kills.push(now_ms());
        cluster.kill(node);
        cluster.spawn(node);
        cluster.wait_until_serving();
    }
    let loaded = report(load);
    let acknowledged = number(&loaded["writes_acked"]);
    let unknown = number(&loaded["unknown"]);
    // What was acknowledged within one checkpoint before a kill may be gone, if that node led.
    let text = std::fs::read_to_string(&record).expect("the load recorded");
    let at_risk = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("one object a line"))
        .filter(|event| event["op"] == "write" && event["outcome"] == "ok")
        .filter(|event| {
            let (start, end) = (number(&event["start_us"]), number(&event["end_us"]));
            kills
                .iter()
                .map(|kill| kill * 1_000)
                .any(|kill| start <= kill && end + CHECKPOINT_US >= kill)
        })
        .count() as u64;
    settle();
    let writes = settled(&cluster, "writes");
    let total = number(&writes["total"]);
    println!(
        "{} kills: {acknowledged} writes acknowledged ({at_risk} within a checkpoint of a kill), \
         {unknown} unknown, {total} counted",
        kills.len()
    );
    assert!(!kills.is_empty());
    assert!(total <= acknowledged + unknown, "never more");
    assert!(total + at_risk >= acknowledged, "at most one checkpoint interval a kill less");
    assert_eq!(writes["conflicts"], json!([]));
    // The column in which a node was last heard of is partial in every row.
    let columns = writes["columns"].as_array().expect("columns");
    for kill in &kills {
        let about = |column: &&Value| {
            number(&column["end_ms"]) + CHECKPOINT_US / 1_000 > *kill
                && number(&column["start_ms"]) <= *kill
        };
        let near: Vec<u64> =
            (0..).zip(columns).filter(|(_, column)| about(column)).map(|(at, _)| at).collect();
        for row in writes["rows"].as_array().expect("rows") {
            let partial = row["partial"].as_array().expect("a list");
            let marked = partial.iter().any(|column| near.contains(&number(column)));
            assert!(marked, "no cell of {near:?} is partial: {partial:?}");
        }
    }
}
