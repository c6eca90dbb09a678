//! What each operation counts, as `docs/concepts.md` says, on real processes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hot_keys::keys;
use crate::support::{Cluster, eventually, http_get, stderr};
use bytes::Bytes;
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::metadata::{DELETED_METADATA, NEXT_METADATA, NOT_APPLIED_METADATA};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

type Kv = KvClient<Channel>;

/// Reads, writes, read bytes and write bytes.
type Counted = [u64; 4];

const SERIES: [&str; 4] = ["reads", "writes", "read-bytes", "write-bytes"];

fn counted(cluster: &Cluster) -> Counted {
    SERIES.map(|series| cluster.total(0, series, &[]))
}

/// What was counted since `before`.
fn since(cluster: &Cluster, before: Counted) -> Counted {
    let now = counted(cluster);
    std::array::from_fn(|at| now[at] - before[at])
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime starts")
}

async fn kv(cluster: &Cluster, node: usize) -> Kv {
    let url = format!("http://{}", cluster.grpc[node]);
    KvClient::connect(url).await.expect("the node listens")
}

fn put(key: &str, value: &str) -> proto::PutRequest {
    proto::PutRequest { key: key.to_owned().into(), value: value.to_owned().into() }
}

fn batch_of(operations: impl IntoIterator<Item = Operation>) -> proto::BatchRequest {
    let some = |operation| proto::BatchOperation { operation: Some(operation) };
    proto::BatchRequest { operations: operations.into_iter().map(some).collect() }
}

/// Puts `count` keys that begin with `prefix`, with values of so many bytes.
async fn fill(client: &mut Kv, prefix: &str, count: usize, value_bytes: usize) {
    let value = "v".repeat(value_bytes);
    for first in (0..count).step_by(512) {
        let keys = first..count.min(first + 512);
        let puts = keys.map(|at| Operation::Put(put(&format!("{prefix}{at:06}"), &value)));
        client.batch(batch_of(puts)).await.expect("it is stored");
    }
}

fn range(start: &str, end: Option<&str>) -> proto::DeleteRangeRequest {
    let end = end.map(|end| Bytes::from(end.to_owned()));
    proto::DeleteRangeRequest { start: start.to_owned().into(), end, max_keys: 0 }
}

fn scan(start: &str, limit: u64, keys_only: bool) -> proto::ScanRequest {
    proto::ScanRequest { start: start.to_owned().into(), limit, keys_only, ..Default::default() }
}

/// The keys of a scan.
async fn scanned(client: &mut Kv, request: proto::ScanRequest) -> Vec<Bytes> {
    let mut pages = client.scan(request).await.expect("it is served").into_inner();
    let mut keys = Vec::new();
    while let Some(page) = pages.message().await.expect("it is served") {
        keys.extend(page.rows.into_iter().map(|row| row.key));
    }
    keys
}

/// Two routes in one group, of one node.
fn two_routes() -> Cluster {
    Cluster::start(
        1,
        &["--replication", "1", "--groups", "1", "--split-at", "m", "--keyviz-step", "1s"],
    )
}

#[test]
fn once_each_operation_counts_what_the_concepts_say() {
    let cluster = two_routes();
    let runtime = runtime();
    let mut client = runtime.block_on(kv(&cluster, 0));
    let mut counts = |what: &str, expected: Counted, work: &mut dyn FnMut(&mut Kv) -> bool| {
        let before = counted(&cluster);
        assert!(work(&mut client), "{what}");
        assert_eq!(since(&cluster, before), expected, "{what}");
    };
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());

    counts("a put: key and value", [0, 1, 0, 3], &mut |client| {
        runtime.block_on(client.put(put("a", "vv"))).is_ok()
    });
    let get = |name| proto::GetRequest { key: key(name), consistency: 0 };
    counts("a get: the value", [1, 0, 2, 0], &mut |client| {
        runtime.block_on(client.get(get("a"))).is_ok()
    });
    counts("a get of nothing", [1, 0, 0, 0], &mut |client| {
        runtime.block_on(client.get(get("none"))).is_ok()
    });
    counts("a delete of nothing: its key", [0, 1, 0, 4], &mut |client| {
        let delete = proto::DeleteRequest { key: key("none") };
        !runtime.block_on(client.delete(delete)).expect("it is served").into_inner().existed
    });
    let swap = |expected, value| proto::CompareAndSwapRequest {
        key: key("a"),
        expected: Some(key(expected)),
        value: Some(key(value)),
    };
    for (expected, swapped) in [("other", false), ("vv", true)] {
        counts("a compare-and-swap: key and new value", [0, 1, 0, 7], &mut |client| {
            let answer = runtime.block_on(client.compare_and_swap(swap(expected, "longer")));
            answer.expect("it is served").into_inner().swapped == swapped
        });
    }
    counts("a batch: each operation, also on one key", [0, 3, 0, 5], &mut |client| {
        let delete = Operation::Delete(proto::DeleteRequest { key: key("b") });
        let puts = [Operation::Put(put("b", "1")), Operation::Put(put("b", "2")), delete];
        runtime.block_on(client.batch(batch_of(puts))).is_ok()
    });
    counts("a refused batch: nothing of it", [0; 4], &mut |client| {
        let puts = [Operation::Put(put("b", "1")), Operation::Put(put("", "2"))];
        let refused = runtime.block_on(client.batch(batch_of(puts))).expect_err("no key");
        refused.code() == Code::InvalidArgument
    });
    counts("a range delete: a write a route, and the bounds", [0, 2, 0, 2], &mut |client| {
        let answer = runtime.block_on(client.delete_range(range("", None)));
        answer.expect("it is served").into_inner().deleted == 1
    });
    counts("a range without a key in it", [0; 4], &mut |client| {
        runtime.block_on(client.delete_range(range("b", Some("b")))).is_ok()
    });

    counts("scans of nothing: a read a route", [2, 0, 0, 0], &mut |client| {
        runtime.block_on(scanned(client, scan("", 0, false))).is_empty()
    });
    counts("(three rows)", [0, 3, 0, 8], &mut |client| {
        let puts = [("a", "1"), ("b", "22"), ("x", "33")];
        let puts = puts.map(|(key, value)| Operation::Put(put(key, value)));
        runtime.block_on(client.batch(batch_of(puts))).is_ok()
    });
    counts("a scan: a read a route, and the rows", [2, 0, 8, 0], &mut |client| {
        runtime.block_on(scanned(client, scan("", 0, false))).len() == 3
    });
    counts("a scan of keys", [2, 0, 3, 0], &mut |client| {
        runtime.block_on(scanned(client, scan("", 0, true))).len() == 3
    });
    counts("a scan that ends in the first route", [1, 0, 2, 0], &mut |client| {
        runtime.block_on(scanned(client, scan("", 1, false))).len() == 1
    });

    // Hot keys: the same, of the key that each names, a scan and a range delete of their first in
    // each route.
    let exact = |counts: &[(&str, u64)]| -> BTreeMap<String, (u64, u64)> {
        counts.iter().map(|(key, count)| ((*key).to_owned(), (*count, *count))).collect()
    };
    let writes = exact(&[("", 1), ("a", 4), ("b", 4), ("m", 1), ("none", 1), ("x", 1)]);
    let reads = exact(&[("", 4), ("a", 1), ("m", 3), ("none", 1)]);
    for (series, expected) in [("writes", writes), ("reads", reads)] {
        let answer = cluster.json(&["hot", "--series", series]);
        assert_eq!(keys(&answer), expected, "{series}");
        assert_eq!((&answer["threshold"], &answer["partial"]), (&0.into(), &false.into()));
    }
}

#[test]
fn once_a_scan_of_many_pages_is_one_read_and_an_abandoned_one_counts_the_pages_it_took() {
    let cluster = two_routes();
    let runtime = runtime();
    let mut client = runtime.block_on(kv(&cluster, 0));
    runtime.block_on(fill(&mut client, "a/", 6_000, 1_000));
    let all_bytes = 6_000 * (8 + 1_000);
    let before = counted(&cluster);
    assert_eq!(runtime.block_on(scanned(&mut client, scan("a", 0, false))).len(), 6_000);
    assert_eq!(since(&cluster, before), [2, 0, all_bytes, 0], "the second route is empty");

    let before = counted(&cluster);
    runtime.block_on(async {
        let mut pages = client.scan(scan("a", 0, false)).await.expect("it serves").into_inner();
        let first = pages.message().await.expect("it serves").expect("a page");
        assert!(first.rows.len() > 100);
    });
    let [reads, _, bytes, _] = since(&cluster, before);
    assert_eq!(reads, 1);
    assert!((500_000..all_bytes).contains(&bytes), "{bytes} of {all_bytes}");
}

/// Each page is of its own moment: what happens ahead of a scan is seen by it.
#[test]
fn a_scan_sees_each_key_once_in_order_and_is_no_snapshot() {
    let cluster = two_routes();
    let runtime = runtime();
    runtime.block_on(async {
        let mut client = kv(&cluster, 0).await;
        fill(&mut client, "a/", 6_000, 1_000).await;
        let mut pages = client.scan(scan("a", 0, false)).await.expect("it serves").into_inner();
        let mut keys: Vec<Bytes> = Vec::new();
        let mut changed = false;
        let mut other = kv(&cluster, 0).await;
        while let Some(page) = pages.message().await.expect("it serves") {
            keys.extend(page.rows.into_iter().map(|row| row.key));
            if !std::mem::replace(&mut changed, true) {
                // Behind the scan, and far ahead of what it may have read.
                other.put(put("a/!", "new")).await.expect("it serves");
                other.put(put("z", "new")).await.expect("it serves");
                let deleted = other.delete_range(range("a/005900", Some("a0"))).await;
                assert_eq!(deleted.expect("it serves").into_inner().deleted, 100);
            }
        }
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        assert_eq!(keys.last().map(Bytes::as_ref), Some(&b"z"[..]));
        assert_eq!(keys.len(), 5_901);
    });
}

#[test]
fn conservation_a_window_is_widened_to_whole_columns_and_an_empty_one_refused() {
    let cluster = two_routes();
    assert!(cluster.run(&["put", "a", "v"]).status.success());
    let shown = cluster.heat(0, "writes", &[]);
    let columns = shown["columns"].as_array().expect("columns");
    let values = shown["rows"][0]["values"].as_array().expect("values");
    let at = values.iter().position(|value| value == 1).expect("the write is shown");
    let start_ms = columns[at]["start_ms"].as_u64().expect("a time");
    let runtime = runtime();
    runtime.block_on(async {
        let url = format!("http://{}", cluster.grpc[0]);
        let mut client = KeyVizClient::connect(url).await.expect("the node listens");
        let mut ask = async |from_ms, to_ms| {
            let (from_ms, to_ms) = (Some(from_ms), Some(to_ms));
            let request = proto::GetMatrixRequest { from_ms, to_ms, ..Default::default() };
            client.get_matrix(request).await.map(tonic::Response::into_inner)
        };
        let matrix = ask(start_ms + 400, start_ms + 401).await.expect("a millisecond");
        let column = &matrix.columns[0];
        assert_eq!((matrix.columns.len(), matrix.total), (1, 1));
        assert_eq!((column.start_ms, column.end_ms), (start_ms, start_ms + 1_000));
        for to_ms in [start_ms, start_ms - 1] {
            let refused = ask(start_ms, to_ms).await.expect_err("it ends before it begins");
            assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        }
    });
}

fn metric(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let page = http_get(&cluster.http[node], "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing")).parse().expect("a whole number")
}

/// Operations of batches, of clients that have left and of writes whose outcome is unknown.
#[test]
fn once_the_metric_of_proposed_writes_and_the_matrix_agree() {
    let cluster = Cluster::start(2, &["--replication", "2", "--groups", "1"]);
    let runtime = runtime();
    eventually("node 1 leads", || {
        cluster.run_on(0, &["cluster", "transfer-leader", "1", "1"]).status.success()
    });
    let own = |_: ()| {
        let matrix = cluster.heat(0, "writes", &["--scope", "node"]);
        let shown = matrix["total"].as_u64().expect("a total");
        (shown, metric(&cluster, 0, "keyviz_writes_proposed_total"))
    };
    runtime.block_on(async {
        let mut client = kv(&cluster, 0).await;
        fill(&mut client, "k/", 700, 10).await;
        client.delete_range(range("k/0001", None)).await.expect("it serves");
    });
    assert_eq!(own(()), (701, 701));
    // Nobody confirms what is proposed from here on, and the clients leave.
    cluster.signal(1, "STOP");
    runtime.block_on(async {
        let client = kv(&cluster, 0).await;
        let puts = (0..50).map(|at| {
            let mut client = client.clone();
            async move {
                let mut request = Request::new(put(&format!("left/{at}"), "v"));
                request.set_timeout(Duration::from_millis(300));
                client.put(request).await.expect_err("nobody confirms it")
            }
        });
        let failed: Vec<Status> = futures::future::join_all(puts).await;
        assert_eq!(failed.len(), 50);
    });
    eventually("all that was proposed is counted in both", || own(()) == (751, 751));
    cluster.signal(1, "CONT");
}

#[test]
fn a_call_that_is_given_up_costs_its_connection_nothing() {
    let cluster = Cluster::start(1, &["--replication", "1", "--groups", "1"]);
    let runtime = runtime();
    runtime.block_on(async {
        let client = kv(&cluster, 0).await;
        let beside = {
            let mut client = client.clone();
            tokio::spawn(async move {
                let mut served = 0;
                loop {
                    let get = proto::GetRequest { key: "k".into(), consistency: 0 };
                    match client.get(get).await {
                        Ok(_) => served += 1,
                        Err(status) => return (served, status),
                    }
                    tokio::task::yield_now().await;
                }
            })
        };
        for _ in 0..20 {
            let puts = (0..250).map(|at| {
                let mut client = client.clone();
                async move {
                    let mut request = Request::new(put(&format!("k/{at}"), "v"));
                    request.set_timeout(Duration::from_micros(1 + at * 7));
                    let _ = client.put(request).await;
                }
            });
            futures::future::join_all(puts).await;
        }
        assert!(!beside.is_finished(), "{:?}", beside.await);
        beside.abort();
    });
}

#[test]
fn any_node_hands_a_group_over() {
    let cluster = Cluster::start(3, &["--replication", "2", "--groups", "3"]);
    let runtime = runtime();
    let status = cluster.json(&["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups").clone();
    runtime.block_on(async {
        for group in &groups {
            let group_id = group["group_id"].as_u64().expect("an id");
            let replicas = group["replicas"].as_array().expect("replicas");
            let holders: Vec<u64> =
                replicas.iter().filter_map(|replica| replica["node_id"].as_u64()).collect();
            for node in 0..3 {
                let url = format!("http://{}", cluster.grpc[node]);
                let client = proto::cluster_client::ClusterClient::connect(url).await;
                let mut client = client.expect("the node listens");
                for to in &holders {
                    let request = proto::TransferLeaderRequest { group_id, to: *to };
                    // An election may be on; it may be asked again.
                    let mut moved = client.transfer_leader(request).await;
                    while moved.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        moved = client.transfer_leader(request).await;
                    }
                    let moved = moved.unwrap_or_else(|status| {
                        panic!("group {group_id} to {to} through {}: {status}", node + 1)
                    });
                    assert_eq!(moved.get_ref().leader, *to);
                }
                let strange = proto::TransferLeaderRequest { group_id: 99, to: 1 };
                let refused = client.transfer_leader(strange).await.expect_err("no such group");
                assert_eq!(refused.code(), Code::NotFound);
                let strange = proto::TransferLeaderRequest { group_id, to: 99 };
                let refused = client.transfer_leader(strange).await.expect_err("no such node");
                assert_eq!(refused.code(), Code::FailedPrecondition);
            }
        }
    });
}

#[test]
fn a_range_delete_that_meets_a_group_without_a_leader_says_how_far_it_came() {
    let flags = ["--replication", "1", "--groups", "2", "--split-at", "m"];
    let mut cluster = Cluster::start(2, &flags);
    for key in ["a", "b", "x", "y"] {
        assert!(cluster.run(&["put", key, "v"]).status.success());
    }
    let routes = cluster.json(&["routes", "list"]);
    let leader = |at: usize| routes["routes"][at]["leader"].as_u64().expect("a leader") - 1;
    let (first, second) = (leader(0) as usize, leader(1) as usize);
    assert_ne!(first, second);
    cluster.kill(second);
    let runtime = runtime();
    runtime.block_on(async {
        let mut client = kv(&cluster, first).await;
        let cut = client.delete_range(range("", None)).await.expect_err("half is out of reach");
        assert_eq!(cut.code(), Code::Unavailable);
        assert!(!cut.message().contains("nothing was changed"), "{}", cut.message());
        assert!(cut.message().contains("2 keys were deleted, all before \"m\""));
        assert!(cut.metadata().get(NOT_APPLIED_METADATA).is_none());
        assert_eq!(cut.metadata().get(DELETED_METADATA).expect("it says"), "2");
        let next = cut.metadata().get_bin(NEXT_METADATA).expect("it says").to_bytes();
        assert_eq!(next.expect("bytes").as_ref(), b"m");
        // Nothing was done at all: it may be sent again.
        let refused = client.delete_range(range("m", None)).await.expect_err("out of reach");
        assert_eq!(refused.metadata().get(NOT_APPLIED_METADATA).expect("it says"), "true");
    });
    assert!(cluster.run_on(first, &["put", "a", "v"]).status.success());
    let cut = cluster.run_on(first, &["delete-range", "", "--to-end", "--timeout", "20s"]);
    assert_eq!(cut.status.code(), Some(6), "{}", stderr(&cut));
    assert!(stderr(&cut).contains("1 keys were deleted: all before m"), "{}", stderr(&cut));
    cluster.spawn(second);
    cluster.wait_until_serving();
    let rest = cluster.json(&["delete-range", "m", "--to-end"]);
    assert_eq!((&rest["deleted"], &rest["next"]), (&2.into(), &serde_json::Value::Null));
}

#[test]
fn a_range_delete_goes_in_steps_and_as_far_as_it_is_asked_to() {
    let cluster = two_routes();
    let runtime = runtime();
    let before = counted(&cluster);
    runtime.block_on(async {
        let mut client = kv(&cluster, 0).await;
        fill(&mut client, "a/", 5_000, 4).await;
        // Of 300 KiB each: a step has room for four.
        fill(&mut client, "b/", 10, 300 << 10).await;
        let most = proto::DeleteRangeRequest { max_keys: 1_500, ..range("", None) };
        let part = client.delete_range(most).await.expect("it serves").into_inner();
        assert_eq!(part.deleted, 1_500);
        let next = part.next.expect("there is more");
        assert_eq!(next.as_ref(), b"a/001499\0");
        let rest = proto::DeleteRangeRequest { start: next, end: None, max_keys: 0 };
        let rest = client.delete_range(rest).await.expect("it serves").into_inner();
        assert_eq!((rest.deleted, rest.next), (3_510, None));
        assert!(scanned(&mut client, scan("", 0, true)).await.is_empty());
    });
    // 2 steps of 1,024 and 476 keys; then 3 of 1,024, one that ends with the first values, the rest
    // of them, and the other route.
    let [reads, writes, _, _] = since(&cluster, before);
    let steps = writes - 5_010;
    assert!((8..=10).contains(&steps), "{steps} steps");
    assert_eq!(reads, 2, "what a range delete reads counts as nothing; the scan's reads do");
}

#[test]
fn honest_partiality_a_stretch_without_the_sampler_is_partial() {
    let flags = ["--replication", "1", "--groups", "1", "--keyviz-step", "1s"];
    let mut cluster = Cluster::start(1, &flags);
    assert!(cluster.run(&["put", "a", "1"]).status.success());
    std::thread::sleep(Duration::from_millis(1_500));
    let switch = |cluster: &mut Cluster, enabled: &str| {
        assert_eq!(cluster.stop(0), Some(0));
        cluster.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        cluster.flags.push(format!("--keyviz-enabled={enabled}"));
        cluster.spawn(0);
        cluster.wait_until_serving();
    };
    switch(&mut cluster, "false");
    for at in 0..5 {
        assert!(cluster.run(&["put", "b", &at.to_string()]).status.success());
        std::thread::sleep(Duration::from_millis(500));
    }
    // What it has of before is in a backup too.
    let file = cluster.folder.path().join("backup");
    let made = cluster.json(&["backup", "--out", file.to_str().expect("a path is text")]);
    assert_eq!(made["histories_missing"], serde_json::json!([]));
    switch(&mut cluster, "true");
    assert!(cluster.run(&["put", "c", "1"]).status.success());
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(cluster.run(&["put", "d", "1"]).status.success());
    let matrix = cluster.heat(0, "writes", &[]);
    assert_eq!(matrix["total"], 3);
    let partial = matrix["rows"][0]["partial"].as_array().expect("a list").len();
    assert!(partial >= 2, "{matrix}");
    let values = matrix["rows"][0]["values"].as_array().expect("values");
    let last = values.iter().rposition(|value| value != 0).expect("d is shown");
    let whole = !matrix["rows"][0]["partial"].as_array().expect("a list").contains(&last.into());
    assert!(whole, "what is counted now is whole: {matrix}");
}
