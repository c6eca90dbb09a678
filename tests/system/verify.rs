//! `cluster verify` on real processes: replicas that agree under load, a row that was changed by
//! hand in one replica's database, and a replica that does not answer.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Cluster, KEYVIZ, eventually, http_get, stderr};
use serde_json::Value;

const TWO_GROUPS: &[&str] = &["--groups", "2", "--split-at", "m"];

/// What `cluster verify` exits with.
const AGREE: Option<i32> = Some(0);
const DIFFER: Option<i32> = Some(1);
const IN_PART: Option<i32> = Some(6);

fn verify(cluster: &Cluster, index: usize, more: &[&str]) -> Output {
    cluster.run_on(index, &[&["cluster", "verify"], more].concat())
}

fn verdicts(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

fn group(verdicts: &Value, id: u64) -> &Value {
    let groups = verdicts["groups"].as_array().expect("groups");
    groups.iter().find(|group| group["group_id"] == id).expect("the group is verified")
}

fn put(cluster: &Cluster, index: usize, key: &str, value: &str) {
    let put = cluster.run_on(index, &["put", key, value]);
    assert!(put.status.success(), "{}", stderr(&put));
}

/// Changes the value of a key in the database of a stopped node, as no program would: a short value
/// is a zero byte and its bytes. Everything else, the number of the last sync too, stays as it was.
fn change_by_hand(data: &Path, tree: &str, key: &[u8], value: &[u8]) {
    let path = data.join("db");
    assert!(path.exists(), "{}", path.display());
    // As the node opens it: data format 2 has segments of 2 MiB in a file of its own.
    let config = sled::Config::new().path(data).segment_size(2 << 20);
    let database = config.open().expect("the node is stopped");
    let names = database.tree_names();
    let name = names.iter().find(|name| name.starts_with(tree.as_bytes())).expect("the tree");
    let rows = database.open_tree(name).expect("it opens");
    let record = [&[0], value].concat();
    let old = rows.insert(key, record).expect("it is written").expect("the key is there");
    assert_eq!(old[0], 0, "a short value");
    database.flush().expect("it is flushed");
}

/// A node that counts as a replica of the group and does not lead it.
fn follower(cluster: &Cluster, id: u64) -> usize {
    let mut leader = 0;
    eventually("the group has a leader", || {
        let status = cluster.json(&["cluster", "status"]);
        let groups = status["groups"].as_array().expect("groups").clone();
        let group = groups.iter().find(|group| group["group_id"] == id).expect("the group");
        leader = group["leader"].as_u64().unwrap_or(0);
        leader > 0
    });
    (0..3).find(|index| *index as u64 + 1 != leader).expect("three nodes")
}

#[test]
fn no_lost_write_under_load_replicas_agree_and_nothing_is_counted() {
    let cluster = Cluster::start(3, TWO_GROUPS);
    // Idle: brought to the entry by proposals that change nothing.
    let idle = verify(&cluster, 0, &["--format", "json"]);
    assert_eq!(idle.status.code(), AGREE, "{}", stderr(&idle));
    let found = verdicts(&idle);
    assert_eq!(found["verdict"], "agree");
    for id in 0..=2 {
        let group = group(&found, id);
        assert_eq!(group["replicas"].as_array().map(Vec::len), Some(3), "{group}");
        let rows = group["replicas"][0]["rows"].as_u64().expect("a count");
        assert_eq!(rows > 0, id == 0, "{group}");
    }
    assert_eq!(cluster.total(0, "writes", &[]), 0, "what changes nothing is not counted");

    let load = Command::new(KEYVIZ)
        .args(["load", "--duration", "12s", "--verify", "--node", &cluster.grpc.join(",")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    eventually("the load has begun", || cluster.total(0, "writes", &[]) > 50);
    for round in 0..3 {
        let rate = ["64KiB", "1MiB", "1GiB"][round];
        let busy = verify(&cluster, round, &["--rate", rate, "--format", "json"]);
        assert_eq!(busy.status.code(), AGREE, "{}", stderr(&busy));
        println!("under load, at node {}: {}", round + 1, verdicts(&busy)["groups"][1]);
    }
    let load = load.wait_with_output().expect("it ends");
    assert!(load.status.success(), "{}", stderr(&load));
    let table = verify(&cluster, 2, &["--group", "1", "--group", "2"]);
    let printed = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(printed.contains("2 groups: 2 agree, 0 differ, 0 incomplete"), "{printed}");
    println!("{printed}");
    let unknown = verify(&cluster, 0, &["--group", "7"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(stderr(&unknown).contains("there is no Raft group 7"), "{}", stderr(&unknown));
}

#[test]
fn no_lost_write_goes_unseen_a_row_changed_by_hand_is_found_and_named() {
    let flags = [TWO_GROUPS, &["--verify-every", "2s"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    put(&cluster, 0, "a/key", "as it was acknowledged");
    put(&cluster, 0, "z/key", "of the other group");
    let by_itself = |cluster: &Cluster, pattern: &str| {
        (0..3).any(|index| http_get(&cluster.http[index], "/metrics").contains(pattern))
    };
    eventually("the groups are verified by themselves", || {
        by_itself(&cluster, "keyviz_verify_differing_replicas{group=\"1\"} 0\n")
    });
    let changed = follower(&cluster, 1);
    assert_eq!(cluster.stop(changed), Some(0));
    change_by_hand(&cluster.data(changed), "g1.", b"a/key", b"as somebody made it up");
    cluster.spawn(changed);
    cluster.wait_until_serving();

    // Nobody has asked for it.
    eventually("a metric says so", || {
        by_itself(&cluster, "keyviz_verify_differing_replicas{group=\"1\"} 1\n")
            && by_itself(&cluster, "keyviz_verify_runs_total{result=\"differ\"} ")
            && by_itself(&cluster, "keyviz_verify_last_timestamp_seconds{group=\"1\"}")
    });
    let words = "the replicas of Raft group 1 differ at entry";
    let named = format!("Not as the majority: node {}. Stop it and keep its folder", changed + 1);
    eventually("the log says so, and what to do", || {
        (0..3).any(|index| {
            let log = cluster.log(index);
            log.lines().any(|line| line.contains(words) && line.contains(&named))
        })
    });

    let asked = (changed + 1) % 3;
    let differ = verify(&cluster, asked, &["--format", "json"]);
    assert_eq!(differ.status.code(), DIFFER, "{}", stderr(&differ));
    let found = verdicts(&differ);
    assert_eq!(found["verdict"], "differ");
    let verdict = group(&found, 1);
    assert_eq!((&verdict["verdict"], &verdict["majority"]), (&"differ".into(), &true.into()));
    for replica in verdict["replicas"].as_array().expect("replicas") {
        let is_it = replica["node_id"] == changed as u64 + 1;
        assert_eq!(replica["differs"], is_it, "{verdict}");
    }
    assert_eq!(group(&found, 2)["verdict"], "agree", "the other group is sound");
    assert_eq!(group(&found, 0)["verdict"], "agree");
    let said = stderr(&differ);
    let words = format!("node {} (not as the majority)", changed + 1);
    assert!(said.contains(&words) && said.contains("replace-node"), "{said}");
    let table = verify(&cluster, asked, &[]);
    println!("{}{}", stderr(&table), String::from_utf8_lossy(&table.stdout));

    // It stays where it is until an operator acts: nothing is repaired by itself.
    let again = verify(&cluster, asked, &["--group", "1"]);
    assert_eq!(again.status.code(), DIFFER, "{}", stderr(&again));
}

#[test]
fn a_replica_that_does_not_answer_leaves_the_verification_incomplete() {
    let mut cluster = Cluster::start(3, &["--groups", "1", "--verify-every", "0s"]);
    put(&cluster, 0, "key", "value");
    cluster.kill(2);
    // The others elect a leader first, where it led.
    eventually("the others have a leader", || cluster.run_on(0, &["get", "key"]).status.success());
    let part = verify(&cluster, 0, &["--format", "json"]);
    assert_eq!(part.status.code(), IN_PART, "{}", stderr(&part));
    let found = verdicts(&part);
    assert_eq!(found["verdict"], "incomplete");
    for id in 0..=1 {
        let replicas = group(&found, id)["replicas"].as_array().expect("replicas").clone();
        let digests: Vec<&Value> = replicas.iter().map(|replica| &replica["digest"]).collect();
        assert!(digests[0].is_string() && digests[0] == digests[1], "{replicas:?}");
        assert!(digests[2].is_null() && replicas[2]["error"] != "", "{replicas:?}");
    }
    assert!(stderr(&part).contains("node 3 (no digest)"), "{}", stderr(&part));
    // Without a majority nobody can bring the group anywhere.
    cluster.kill(1);
    let alone = verify(&cluster, 0, &["--group", "1", "--format", "json", "--timeout", "60s"]);
    assert_eq!(alone.status.code(), IN_PART, "{}", stderr(&alone));
    let none = group(&verdicts(&alone), 1)["replicas"][0].clone();
    println!("without a majority: {none}");
    assert!(none["digest"].is_null(), "{none}");
}
