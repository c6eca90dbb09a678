//! Moves, splits and merges at random under load: nothing is lost, missing, there twice or counted
//! other than once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::moves::moves_under_way;
use crate::support::{Cluster, eventually};
use keyviz_proto as proto;
use keyviz_proto::Consistency;
use keyviz_proto::batch_operation::Operation;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::routes_client::RoutesClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::transport::Channel;

const FLAGS: &[&str] = &["--groups", "3", "--split-at", "h,q"];

/// Rows that stay, over the whole key space.
const STILL: usize = 520;

/// Keys that each client puts.
const KEYS: usize = 13;

fn changes() -> usize {
    let asked = std::env::var("KEYVIZ_CHANGES").ok();
    asked.map_or(100, |text| text.parse().expect("KEYVIZ_CHANGES is a number"))
}

async fn kv(address: &str) -> KvClient<Channel> {
    KvClient::connect(format!("http://{address}")).await.expect("it serves")
}

fn letter(at: usize) -> char {
    char::from(b'a' + (at % 26) as u8)
}

/// Puts its keys in turn, reads each back in both ways that must see it, and deletes what it put
/// beside it; the last values, and how many writes were acknowledged.
async fn writes(address: String, client: usize, stop: Arc<AtomicBool>) -> (Vec<u64>, u64) {
    let mut kv = kv(&address).await;
    let (mut last, mut acknowledged, mut round) = (vec![0; KEYS], 0, 0);
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        for (at, known) in last.iter_mut().enumerate() {
            let key: bytes::Bytes = format!("{}/w{client}", letter(at * 2)).into();
            let value: bytes::Bytes = round.to_string().into();
            let old = (*known > 0).then(|| known.to_string().into());
            if round % 3 == 0 {
                let expected = old.clone();
                let swap = proto::CompareAndSwapRequest {
                    key: key.clone(),
                    expected,
                    value: Some(value.clone()),
                };
                let swapped = kv.compare_and_swap(swap).await.expect("no write fails");
                assert!(swapped.into_inner().swapped, "it is the only writer of {key:?}");
            } else {
                let put = proto::PutRequest { key: key.clone(), value: value.clone() };
                kv.put(put).await.expect("no write fails while routes change");
            }
            (*known, acknowledged) = (round, acknowledged + 1);
            let consistency = match round % 2 {
                0 => Consistency::Linearizable,
                _ => Consistency::Lease,
            };
            let get = proto::GetRequest { key: key.clone(), consistency: consistency.into() };
            let found = kv.get(get).await.expect("no read fails").into_inner().value;
            assert_eq!(found, Some(value), "{key:?} {consistency:?}");
        }
    }
    (last, acknowledged)
}

/// Scans everything again and again, in each consistency; how often.
async fn scans(address: String, stop: Arc<AtomicBool>) -> u64 {
    let mut kv = kv(&address).await;
    let mut scans = 0;
    while !stop.load(Ordering::Relaxed) {
        let all = [Consistency::Linearizable, Consistency::Lease, Consistency::Stale];
        let consistency = all[scans as usize % 3];
        let scan = proto::ScanRequest { consistency: consistency.into(), ..Default::default() };
        let mut pages = kv.scan(scan).await.expect("it serves").into_inner();
        let mut keys = Vec::new();
        while let Some(page) = pages.message().await.expect("no scan fails") {
            keys.extend(page.rows.into_iter().map(|row| row.key));
        }
        assert!(keys.is_sorted_by(|one, next| one < next), "{consistency:?}: twice or unsorted");
        let still = keys.iter().filter(|key| key.get(1) == Some(&b'-')).count();
        assert_eq!(still, STILL, "{consistency:?}: a key is missing");
        scans += 1;
    }
    scans
}

/// Changes routes at random until so many changes are made, by kind. What is refused counts not.
async fn change_routes(addresses: &[String], wanted: usize) -> BTreeMap<&'static str, usize> {
    let mut rng = StdRng::seed_from_u64(19);
    let mut nodes = Vec::new();
    for address in addresses {
        let url = format!("http://{address}");
        nodes.push(RoutesClient::connect(url).await.expect("it serves"));
    }
    let mut made = BTreeMap::new();
    while made.values().sum::<usize>() < wanted {
        let node = &mut nodes[rng.random_range(0..addresses.len())];
        let list = node.list_routes(proto::ListRoutesRequest::default()).await.expect("it serves");
        let proto::ListRoutesResponse { routes, .. } = list.into_inner();
        let at = rng.random_range(0..routes.len());
        let route = &routes[at];
        let dice = rng.random_range(0..10);
        let change = match (dice, routes.get(at + 1)) {
            (0..5, _) => {
                let to_group = (route.group_id + rng.random_range(0..2u64)) % 3 + 1;
                let request = proto::MoveRouteRequest {
                    route_id: route.route_id,
                    to_group,
                    ..Default::default()
                };
                node.move_route(request).await.map(|_| "moves")
            }
            (5..8, Some(right)) if routes.len() > 4 => {
                let request = proto::MergeRoutesRequest {
                    left_id: route.route_id,
                    right_id: right.route_id,
                    ..Default::default()
                };
                node.merge_routes(request).await.map(|_| "merges")
            }
            _ => {
                let key = format!("{}{}", letter(rng.random_range(0..26)), rng.random_range(0..10));
                let request = proto::SplitRouteRequest {
                    route_id: route.route_id,
                    key: key.into(),
                    ..Default::default()
                };
                node.split_route(request).await.map(|_| "splits")
            }
        };
        match change {
            Ok(kind) => *made.entry(kind).or_default() += 1,
            Err(status) => assert_ne!(status.code(), tonic::Code::Internal, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lost_write_and_once_through_random_moves_splits_and_merges_under_load() {
    let cluster = Arc::new(Cluster::start(3, FLAGS));
    let mut first = kv(&cluster.grpc[0]).await;
    for at in 0..STILL {
        let key = format!("{}-{:03}", letter(at), at / 26).into();
        let put = proto::PutRequest { key, value: "still".into() };
        first.put(put).await.expect("it serves");
    }
    // A batch stays whole where its keys stay in one group.
    let operations = ["a/w9", "a/w8"].map(|key| proto::BatchOperation {
        operation: Some(Operation::Put(proto::PutRequest { key: key.into(), value: "b".into() })),
    });
    first.batch(proto::BatchRequest { operations: operations.into() }).await.expect("one group");
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|at| tokio::spawn(writes(cluster.grpc[at].clone(), at, Arc::clone(&stop))))
        .collect();
    let scanners: Vec<_> =
        (0..3).map(|at| tokio::spawn(scans(cluster.grpc[at].clone(), Arc::clone(&stop)))).collect();
    let made = change_routes(&cluster.grpc, changes()).await;
    let idle = Arc::clone(&cluster);
    let ended = tokio::task::spawn_blocking(move || {
        eventually("all moves come to their end", || moves_under_way(&idle) == 0);
    });
    ended.await.expect("no panic");
    stop.store(true, Ordering::Relaxed);
    let mut total = STILL as u64 + 2;
    for (client, task) in clients.into_iter().enumerate() {
        let (last, acknowledged) = task.await.expect("no write failed and no read was wrong");
        total += acknowledged;
        for (at, value) in last.into_iter().enumerate() {
            for address in &cluster.grpc {
                let key = format!("{}/w{client}", letter(at * 2)).into();
                let get = proto::GetRequest { key, ..Default::default() };
                let found = kv(address).await.get(get).await.expect("up").into_inner().value;
                assert_eq!(found, Some(value.to_string().into()), "{client} {at} at {address}");
            }
        }
    }
    let mut scans = 0;
    for scanner in scanners {
        scans += scanner.await.expect("each scan had every key once");
    }
    println!("moves: {made:?}, {total} writes acknowledged, {scans} scans");
    let check = tokio::task::spawn_blocking(move || {
        for node in 0..3 {
            assert_eq!(cluster.total(node, "writes", &[]), total, "each is counted once");
        }
        let moves = cluster.json(&["routes", "history"])["moves"].clone();
        let phase = |of: &serde_json::Value| of["phase"].as_str().map(str::to_owned);
        let moves: Vec<_> = moves.as_array().expect("moves").iter().map(phase).collect();
        assert!(moves.iter().all(|phase| phase.as_deref() == Some("moved")), "{moves:?}");
    });
    check.await.expect("no panic");
}
