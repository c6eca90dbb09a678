//! Routes that move to another group, on real processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backup::{restored, text};
use crate::support::{Cluster, eventually, stderr};
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::{GetRequest, PutRequest, ScanRequest};
use serde_json::{Value, json};

const FLAGS: &[&str] = &["--groups", "2", "--split-at", "m"];
const ALONE: &[&str] = &["--replication", "1", "--groups", "2", "--split-at", "m"];

pub fn group_of(cluster: &Cluster, index: usize, route: u64) -> u64 {
    let list = cluster.json_on(index, &["routes", "list"]);
    let routes = list["routes"].as_array().expect("routes");
    let route = routes.iter().find(|listed| listed["route_id"] == route).expect("it is listed");
    route["group_id"].as_u64().expect("a group")
}

pub fn moves_under_way(cluster: &Cluster) -> usize {
    moves_under_way_on(cluster, 0)
}

/// A node that was down may not have heard of a move.
pub fn moves_under_way_on(cluster: &Cluster, index: usize) -> usize {
    cluster.json_on(index, &["routes", "list"])["moves"].as_array().expect("moves").len()
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
            let put = PutRequest { key, value };
            kv.put(put).await.expect("no put fails while routes move");
            *known = round;
            acknowledged += 1;
        }
    }
    (last, acknowledged)
}

/// The rows of the route that moved have all that was written, and each move is marked.
fn assert_one_row_with_marks(matrix: &Value, total: u64) {
    let rows = matrix["rows"].as_array().expect("rows");
    let of_route: Vec<_> = rows.iter().filter(|row| row["route_ids"] == json!([1])).collect();
    let values = of_route.iter().flat_map(|row| row["values"].as_array().expect("values"));
    let cells: u64 = values.filter_map(Value::as_u64).sum();
    let blocks = matrix["blocks"].as_array().expect("blocks").iter();
    let blocks: u64 = blocks.filter_map(|block| block["value"].as_u64()).sum();
    assert_eq!(cells + blocks, total, "under one id before and after: {matrix}");
    let events = matrix["events"].as_array().expect("events").iter();
    let marks: Vec<_> = events
        .filter(|event| event["kind"] == "move")
        .map(|event| (event["retired"][0].as_u64(), event["group_id"].as_u64()))
        .collect();
    let groups = [2, 1, 2, 1, 2].map(|group| (Some(1), Some(group)));
    assert_eq!(marks, groups, "each move is marked");
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
            assert_one_row_with_marks(&counted.heat(node, "writes", &[]), total);
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
    eventually("the status says what was copied", || {
        let moving = cluster.json(&["cluster", "status"])["route_moves"][0].clone();
        let of = |name: &str| moving[name].as_u64().unwrap_or(0);
        of("copied_rows") > 0 && of("copied_bytes") >= 100_000 * of("copied_rows")
    });
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

/// The node (from 0) that has the only replica of a group.
fn holder(cluster: &Cluster, group: u64) -> usize {
    let status = cluster.json(&["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups").clone();
    let group = groups.into_iter().find(|known| known["group_id"] == group).expect("it is there");
    group["replicas"][0]["node_id"].as_u64().expect("a replica") as usize - 1
}

/// The newest move that a node knows.
fn newest(cluster: &Cluster, index: usize) -> Value {
    let history = cluster.json_on(index, &["routes", "history"]);
    history["moves"].as_array().expect("moves").last().expect("there was one").clone()
}

#[test]
fn a_target_that_is_full_or_does_not_answer_leaves_the_route_where_it_is() {
    let mut cluster = Cluster::start(3, ALONE);
    put(&cluster, "k", "here");
    // The first move asks all members.
    cluster.json(&["routes", "move", "1", "2"]);
    eventually("the old rows are gone", || moves_under_way(&cluster) == 0);
    let target = holder(&cluster, 1);
    let other = (target + 1) % 3;

    cluster.stop(target);
    let space = rustix::fs::statvfs(cluster.data(target)).expect("it is there");
    let floor = (space.f_bavail * space.f_frsize / 2 * 3).to_string();
    cluster.environment[target].push(("KEYVIZ_MIN_FREE_BYTES".into(), floor.into()));
    cluster.spawn(target);
    eventually("the target is read-only", || {
        let members = cluster.json_on(other, &["cluster", "status"])["members"].clone();
        members[target]["read_only"].as_str().is_some_and(|reason| !reason.is_empty())
    });
    let refused = cluster.run_on(other, &["routes", "move", "1", "1"]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("no space") || stderr(&refused).contains("free"));
    assert_eq!(get(&cluster, other, "k"), "here");
    cluster.stop(target);
    cluster.environment[target].clear();
    cluster.spawn(target);
    eventually("what was copied is gone", || moves_under_way_on(&cluster, other) == 0);
    assert_eq!(newest(&cluster, other)["phase"], "abandoned");

    cluster.kill(target);
    let begun = cluster.json_on(other, &["routes", "move", "1", "1", "--no-wait"]);
    assert_eq!(begun["phase"], "copying", "{begun}");
    let status = cluster.json_on(other, &["cluster", "status"]);
    assert_eq!(status["route_moves"][0]["route_id"], 1, "{status}");
    put(&cluster, "k", "still here");
    let cancelled = cluster.json_on(other, &["routes", "move", "--cancel", "1"]);
    assert_eq!(cancelled["reason"], "it was cancelled", "{cancelled}");
    assert_eq!(get(&cluster, other, "k"), "still here");
    cluster.spawn(target);
    eventually("what was copied is gone", || moves_under_way_on(&cluster, other) == 0);
    assert_eq!(newest(&cluster, other)["phase"], "abandoned");

    cluster.wait_until_serving();
    let moved = cluster.json(&["routes", "move", "1", "1"]);
    assert_eq!((&moved["to_group"], get(&cluster, other, "k")), (&json!(1), "still here".into()));
}

#[test]
fn a_restored_cluster_has_its_routes_where_they_went_and_moves_them_on() {
    let old = Cluster::start(1, ALONE);
    for key in ["a", "b", "z"] {
        put(&old, key, key);
    }
    old.json(&["routes", "move", "1", "2"]);
    eventually("the old rows are gone", || moves_under_way(&old) == 0);
    let file = old.folder.path().join("moved.backup");
    old.json(&["backup", "--out", text(&file)]);
    let new = restored(1, &file);
    let all = |cluster: &Cluster| ["a", "b", "z"].map(|key| get(cluster, 0, key));
    assert_eq!((group_of(&new, 0, 1), all(&new)), (2, ["a", "b", "z"].map(str::to_owned)));
    put(&new, "c", "c");
    let back = new.json(&["routes", "move", "1", "1"]);
    assert_eq!(back["move_id"], 2, "the numbers of moves go on: {back}");
    assert_eq!((get(&new, 0, "c"), all(&new)), ("c".into(), ["a", "b", "z"].map(str::to_owned)));
}

#[test]
fn the_whole_key_space_and_an_empty_route_move_at_once() {
    let cluster = Cluster::start(1, &["--replication", "1", "--groups", "2"]);
    // One route has all keys that clients choose.
    cluster.json(&["routes", "merge", "1", "2", "--move"]);
    let list = cluster.json(&["routes", "list"]);
    assert_eq!(list["routes"].as_array().map(Vec::len), Some(1), "{list}");
    let (whole, group) = (&list["routes"][0]["route_id"], &list["routes"][0]["group_id"]);
    let to = 3 - group.as_u64().expect("a group");
    eventually("no move is under way", || moves_under_way(&cluster) == 0);
    let empty = cluster.json(&["routes", "move", &whole.to_string(), &to.to_string()]);
    let took = empty["moved_ms"].as_u64().zip(empty["started_ms"].as_u64());
    let took = took.map(|(moved, started)| moved - started).expect("it moved");
    println!("moves: an empty route took {took} ms");
    for key in ["\\x01", "m", "zz"] {
        put(&cluster, key, "v");
    }
    eventually("no move is under way", || moves_under_way(&cluster) == 0);
    let back = 3 - to;
    cluster.json(&["routes", "move", &whole.to_string(), &back.to_string()]);
    let scan = cluster.run(&["scan", "", "--format", "json"]);
    assert_eq!(String::from_utf8_lossy(&scan.stdout).matches("\"value\"").count(), 3);
}
