//! kill -9 of the nodes that a move needs most, in each of its phases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::moves::{group_of, moves_under_way_on};
use crate::support::{Cluster, eventually, stderr};
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::routes_client::RoutesClient;
use tonic::transport::{Channel, Endpoint};

/// Slow enough for a phase to be met: 2,500 rows of 100 bytes are copied in two seconds, and
/// deleted in as many.
const FLAGS: &[&str] = &["--groups", "2", "--split-at", "m", "--move-rate", "128KiB"];
const ROWS: usize = 2_500;

const PHASES: [&str; 3] = ["copying", "sealing", "cleaning"];

/// The group whose leader is killed: that of the catalog, the source or the target.
const VICTIMS: [&str; 3] = ["catalog", "source", "target"];

/// A phase may be over before it is seen; then the next move is tried.
const TRIES: usize = 10;

fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is one");
    endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(5)).connect_lazy()
}

/// What one client was told of its keys.
#[derive(Default)]
struct Told {
    acknowledged: [u64; 4],
    /// By key and value.
    unknown: BTreeSet<(usize, u64)>,
}

/// Puts and reads the keys of one client, each value one more than the one before, at any node that
/// answers.
async fn writes(addresses: Vec<String>, client: usize, stop: Arc<AtomicBool>) -> Told {
    let mut nodes: Vec<_> = addresses.iter().map(|at| KvClient::new(channel(at))).collect();
    let (mut told, mut value) = (Told::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        value += 1;
        let (at, node) = (value as usize % 4, (value as usize / 4 + client) % nodes.len());
        let key: bytes::Bytes = format!("a{client}/{at}").into();
        let put = proto::PutRequest { key: key.clone(), value: value.to_string().into() };
        match nodes[node].put(put).await {
            Ok(_) => told.acknowledged[at] = value,
            Err(_) => {
                told.unknown.insert((at, value));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let other = (node + 1) % nodes.len();
        let get = proto::GetRequest { key, ..Default::default() };
        if let Ok(found) = nodes[other].get(get).await {
            let found = found.into_inner().value;
            assert!(told.may_be(at, found.as_deref()), "a{client}/{at}: {found:?}");
        }
    }
    told
}

impl Told {
    /// Whether a key may have this value now.
    fn may_be(&self, at: usize, found: Option<&[u8]>) -> bool {
        let text = found.map(|found| String::from_utf8_lossy(found).into_owned());
        match text.and_then(|text| text.parse().ok()) {
            None => self.acknowledged[at] == 0,
            Some(value) => value == self.acknowledged[at] || self.unknown.contains(&(at, value)),
        }
    }
}

async fn fill(address: &str) {
    let mut kv = KvClient::new(channel(address));
    for first in (0..ROWS).step_by(500) {
        let put = |at: usize| proto::PutRequest {
            key: format!("k{at:05}").into(),
            value: format!("{at:0100}").into(),
        };
        let operations = (first..first + 500)
            .map(|at| proto::BatchOperation { operation: Some(Operation::Put(put(at))) });
        kv.batch(proto::BatchRequest { operations: operations.collect() })
            .await
            .expect("it serves");
    }
}

/// The node (from 0) that leads a group.
fn leader(cluster: &Cluster, group: u64) -> usize {
    let mut found = None;
    eventually("the group has a leader", || {
        let output = cluster.run(&["cluster", "status", "--format", "json"]);
        let status = serde_json::from_slice::<serde_json::Value>(&output.stdout);
        let groups = status.ok().and_then(|status| status["groups"].as_array().cloned());
        let is = |known: &&serde_json::Value| known["group_id"] == group;
        found = groups.and_then(|all| all.iter().find(is)?["leader"].as_u64());
        found.is_some()
    });
    found.expect("it was just seen") as usize - 1
}

/// Waits until a node knows the move in this phase; false: it is over, or was never seen.
async fn reaches(routes: &mut RoutesClient<Channel>, phase: &str) -> bool {
    let position = |phase: &str| PHASES.iter().position(|known| *known == phase);
    loop {
        let list = routes.list_routes(proto::ListRoutesRequest::default()).await.expect("it is up");
        let list = list.into_inner();
        let Some(moving) = list.moves.first() else { return false };
        match position(&moving.phase).cmp(&position(phase)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Greater => return false,
        }
    }
}

/// Moves the first route and kills the leader of a group when the move is in a phase. False: the
/// phase was over before it was seen, and nobody was killed.
fn move_and_kill(
    runtime: &tokio::runtime::Runtime,
    cluster: &mut Cluster,
    victim: &str,
    phase: &str,
) -> bool {
    let from = group_of(cluster, 0, 1);
    let to = 3 - from;
    let killed = leader(
        cluster,
        match victim {
            "catalog" => 0,
            "source" => from,
            _ => to,
        },
    );
    let observer = (killed + 1) % 3;
    let mut routes = RoutesClient::new(channel(&cluster.grpc[observer]));
    let begun = cluster.run_on(observer, &["routes", "move", "1", &to.to_string(), "--no-wait"]);
    assert!(begun.status.success(), "{}", stderr(&begun));
    let reached = runtime.block_on(reaches(&mut routes, phase));
    if reached {
        cluster.kill(killed);
        std::thread::sleep(Duration::from_millis(500));
        cluster.spawn(killed);
        cluster.wait_until_serving();
    }
    // Who was down may not have heard of it yet.
    for node in (0..3).map(|at| (observer + at) % 3) {
        eventually("the move has ended", || moves_under_way_on(cluster, node) == 0);
        eventually("who was down hears of it", || {
            group_of(cluster, node, 1) == group_of(cluster, observer, 1)
        });
    }
    let history = cluster.json_on(observer, &["routes", "history"]);
    let last = history["moves"].as_array().expect("moves").clone();
    let last = last.last().expect("one was begun");
    let now = group_of(cluster, observer, 1);
    match last["phase"].as_str() {
        Some("moved") => assert_eq!(now, to, "{last}"),
        Some("abandoned") => assert_eq!(now, from, "{last}"),
        _ => panic!("it has ended: {last}"),
    }
    if reached {
        println!("moves: {victim} killed while {phase}: {} in the end", last["phase"]);
    }
    reached
}

#[test]
fn no_lost_write_when_the_leaders_that_a_move_needs_are_killed_in_each_phase() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _entered = runtime.enter();
    let mut cluster = Cluster::start(3, FLAGS);
    runtime.block_on(fill(&cluster.grpc[0]));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|at| runtime.spawn(writes(cluster.grpc.clone(), at, Arc::clone(&stop))))
        .collect();
    for phase in PHASES {
        for victim in VICTIMS {
            let met = (0..TRIES).any(|_| move_and_kill(&runtime, &mut cluster, victim, phase));
            assert!(met, "{phase} was never seen in time to kill the leader of the {victim}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (client, task) in clients.into_iter().enumerate() {
        let told = runtime.block_on(task).expect("no read was wrong");
        assert!(told.acknowledged.iter().all(|value| *value > 100), "{:?}", told.acknowledged);
        for at in 0..4 {
            for node in 0..3 {
                let found = cluster.run_on(node, &["get", &format!("a{client}/{at}"), "--raw"]);
                assert!(found.status.success(), "{}", stderr(&found));
                assert!(told.may_be(at, Some(&found.stdout)), "a{client}/{at} at {node}");
            }
        }
    }
    for node in 0..3 {
        let scan = cluster.run_on(node, &["scan", "k", "--format", "json"]);
        let text = String::from_utf8_lossy(&scan.stdout).into_owned();
        let rows = text.matches("\"key\":\"k").count();
        assert_eq!(rows, ROWS, "node {node} has each row once");
    }
    let verified = cluster.run(&["cluster", "verify"]);
    assert!(verified.status.success(), "{}", stderr(&verified));
}
