//! Routes that move to another group, on real processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Cluster, eventually, stderr};
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::{GetRequest, PutRequest, ScanRequest};
use serde_json::Value;

const FLAGS: &[&str] = &["--groups", "2", "--split-at", "m"];
const ALONE: &[&str] = &["--replication", "1", "--groups", "2", "--split-at", "m"];

fn group_of(cluster: &Cluster, index: usize, route: u64) -> u64 {
    let list = cluster.json_on(index, &["routes", "list"]);
    let routes = list["routes"].as_array().expect("routes");
    let route = routes.iter().find(|listed| listed["route_id"] == route).expect("it is listed");
    route["group_id"].as_u64().expect("a group")
}

fn moves_under_way(cluster: &Cluster) -> usize {
    cluster.json(&["routes", "list"])["moves"].as_array().expect("moves").len()
}

fn put(cluster: &Cluster, key: &str, value: &str) {
    let output = cluster.run(&["put", key, value]);
    assert!(output.status.success(), "{}", stderr(&output));
}

fn get(cluster: &Cluster, index: usize, key: &str) -> String {
    let output = cluster.run_on(index, &["get", key]);
    assert!(output.status.success(), "{key}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Puts the keys of one client, each value one more than the one before, until told to stop; the
/// last acknowledged value of each key, and how many puts were acknowledged.
async fn writes(address: String, client: usize, stop: Arc<AtomicBool>) -> (Vec<u64>, u64) {
    let mut kv = KvClient::connect(format!("http://{address}")).await.expect("it serves");
    let (mut last, mut acknowledged, mut round) = (vec![0; 8], 0, 0);
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        for (at, known) in last.iter_mut().enumerate() {
            let (key, value) = (format!("a{client}/{at}").into(), format!("{round}").into());
            let put = PutRequest { key, value, ..Default::default() };
            kv.put(put).await.expect("no put fails while routes move");
            *known = round;
            acknowledged += 1;
        }
    }
    (last, acknowledged)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lost_write_and_once_while_a_route_moves_to_and_fro_under_load() {
    let cluster = Arc::new(Cluster::start(3, FLAGS));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|at| tokio::spawn(writes(cluster.grpc[at].clone(), at, Arc::clone(&stop))))
        .collect();
    for (turn, to) in [2, 1, 2, 1, 2].into_iter().enumerate() {
        let moving = Arc::clone(&cluster);
        let moved = tokio::task::spawn_blocking(move || {
            eventually("the move before it is cleaned up", || moves_under_way(&moving) == 0);
            let group = to.to_string();
            moving.json_on(turn % 3, &["routes", "move", "1", &group])
        });
        let moved = moved.await.expect("no panic");
        assert_eq!(moved["to_group"], to, "{moved}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (client, task) in clients.into_iter().enumerate() {
        let (last, acknowledged) = task.await.expect("no put failed");
        total += acknowledged;
        for (at, value) in last.iter().enumerate() {
            for address in &cluster.grpc {
                let mut kv = KvClient::connect(format!("http://{address}")).await.expect("up");
                let key = format!("a{client}/{at}").into();
                let found = kv.get(GetRequest { key, ..Default::default() }).await.expect("up");
                let found = found.into_inner().value.expect("it was put");
                assert_eq!(found, format!("{value}").into_bytes(), "a{client}/{at} at {address}");
            }
        }
    }
    let mut kv = KvClient::connect(format!("http://{}", cluster.grpc[0])).await.expect("up");
    let scan = ScanRequest { keys_only: true, ..Default::default() };
    let mut pages = kv.scan(scan).await.expect("up").into_inner();
    let mut rows = 0;
    while let Some(page) = pages.message().await.expect("it goes on") {
        rows += page.rows.len();
    }
    assert_eq!(rows, 24, "no key is missing or there twice");
    let counted = Arc::clone(&cluster);
    let check = tokio::task::spawn_blocking(move || {
        for node in 0..3 {
            assert_eq!(group_of(&counted, node, 1), 2);
            assert_eq!(counted.total(node, "writes", &[]), total, "each is counted once");
        }
    });
    check.await.expect("no panic");
}

#[test]
fn a_moved_route_is_where_it_went_after_kill_9_of_all() {
    let mut cluster = Cluster::start(3, FLAGS);
    for n in 0..40 {
        put(&cluster, &format!("k{n}"), &format!("v{n}"));
    }
    let moved = cluster.json(&["routes", "move", "1", "2"]);
    assert_eq!(moved["from_group"], 1, "{moved}");
    put(&cluster, "k7", "after");
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.spawn(node));
    cluster.wait_until_serving();
    for node in 0..3 {
        assert_eq!(group_of(&cluster, node, 1), 2);
        assert_eq!(get(&cluster, node, "k7"), "after");
        assert_eq!(get(&cluster, node, "k39"), "v39");
    }
    eventually("the old rows are gone", || moves_under_way(&cluster) == 0);
    let history = cluster.json(&["routes", "history"]);
    assert_eq!(history["changes"][0]["kind"], "move", "{history}");
    assert_eq!(history["moves"][0]["phase"], "moved", "{history}");
    let merged = cluster.json(&["routes", "merge", "1", "2"]);
    assert_eq!(merged["retired"], serde_json::json!([1, 2]), "they are in one group now");
    assert_eq!(get(&cluster, 0, "k7"), "after");
}

#[test]
fn moves_that_cannot_be_are_refused_with_the_reason() {
    let cluster = Cluster::start(1, ALONE);
    for (arguments, code, reason) in [
        (&["routes", "move", "99", "2"][..], 3, "NOT_FOUND"),
        (&["routes", "move", "1", "9"], 3, "there is no data group 9"),
        (&["routes", "move", "1", "1"], 1, "is in group 1 already"),
        (&["routes", "move", "1", "2", "--expected-version", "7"], 5, "ABORTED"),
        (&["routes", "move", "--cancel", "1"], 5, "is not being moved"),
        (&["routes", "move", "1"], 2, ""),
        (&["routes", "move", "0", "1"], 2, ""),
        (&["routes", "move", "1", "2", "--cancel"], 2, ""),
        (&["routes", "merge", "1", "2"], 5, "only routes of one group"),
    ] {
        let output = cluster.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
    }
    let once = ["routes", "move", "1", "2", "--request-id", "again"];
    let first = cluster.json(&once);
    eventually("the old rows are gone", || moves_under_way(&cluster) == 0);
    assert_eq!(cluster.json(&once)["move_id"], first["move_id"], "a retry starts no second move");
    let split = cluster.json(&["routes", "split", "2", "t"]);
    assert_eq!(split["created"][1]["group_id"], 2, "{split}");
    let retired = cluster.run(&["routes", "move", "2", "1"]);
    assert_eq!(retired.status.code(), Some(3), "{}", stderr(&retired));
    assert!(stderr(&retired).contains("was retired"), "{}", stderr(&retired));
}

#[test]
fn routes_of_two_groups_are_merged_after_a_move() {
    let cluster = Cluster::start(1, ALONE);
    put(&cluster, "a", "1");
    put(&cluster, "z", "2");
    let merged = cluster.json(&["routes", "merge", "1", "2", "--move"]);
    assert_eq!(merged["created"][0]["group_id"], 1, "{merged}");
    assert_eq!((get(&cluster, 0, "a").as_str(), get(&cluster, 0, "z").as_str()), ("1", "2"));
}

#[test]
fn a_move_that_is_cancelled_leaves_nothing_and_holds_the_route_meanwhile() {
    let cluster = Cluster::start(1, &[ALONE, &["--move-rate", "64KiB"]].concat());
    let value = "v".repeat(100_000);
    for n in 0..12 {
        put(&cluster, &format!("k{n}"), &value);
    }
    let begun = cluster.json(&["routes", "move", "1", "2", "--no-wait"]);
    assert_eq!(begun["phase"], "copying", "{begun}");
    for refused in [
        &["routes", "split", "1", "c"][..],
        &["routes", "move", "1", "2"],
        &["backup", "--out", "/nonexistent/file"],
    ] {
        let output = cluster.run(refused);
        assert!(!output.status.success(), "{refused:?}");
        assert!(stderr(&output).contains("move"), "{refused:?}: {}", stderr(&output));
    }
    put(&cluster, "k0", "while it moves");
    let cancelled = cluster.json(&["routes", "move", "--cancel", "1"]);
    assert_eq!(cancelled["reason"], "it was cancelled", "{cancelled}");
    eventually("what was copied is gone", || moves_under_way(&cluster) == 0);
    let history = cluster.json(&["routes", "history"]);
    assert_eq!(history["moves"][0]["phase"], Value::from("abandoned"), "{history}");
    assert_eq!(group_of(&cluster, 0, 1), 1);
    assert_eq!(get(&cluster, 0, "k0"), "while it moves");
    cluster.json(&["routes", "split", "1", "c"]);
}
