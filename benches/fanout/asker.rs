//! The process that asks: `fanout ask SERIES ROUTES GROUPS FROM TO ADDRESS...`. For each line that
//! it reads it asks once and prints milliseconds, milliseconds on a core, the most MiB that it had,
//! and the cells that it got.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use keyviz_catalog::AppliedCatalog;
use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::query::{ColumnPlan, RowAxis};
use keyviz_core::wire::PackedColumns;
use keyviz_core::{NodeId, Query, Series};
use keyviz_directory::{Directory, MemberAddress};
use keyviz_fanout::{
    Fanout, FanoutParts, MatrixRequest, NodeHotKeys, PeerMatrix, PeerTotals, RoundError,
};
use keyviz_peer::PeerClient;
use keyviz_raft::{Peers, PeersOptions};

use super::nodes::{self, Node};
use super::{START_MS, STEP_MS, millis, request};

/// Long: the nodes share two cores, where each would have its own.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls the nodes as a node does, and counts what it gets.
struct Counting {
    client: Arc<PeerClient>,
    cells: Arc<AtomicU64>,
}

impl PeerMatrix for Counting {
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>> {
        self.client.totals(to, query)
    }

    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        let cells = Arc::clone(&self.cells);
        let answer = self.client.columns(to, query, rows, columns);
        async move {
            let parts = answer.await?;
            let count: usize = parts.iter().map(PackedColumns::cells).sum();
            cells.fetch_add(count as u64, Ordering::Relaxed);
            Ok(parts)
        }
        .boxed()
    }

    fn hot_keys(
        &self,
        to: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        self.client.hot_keys(to, query)
    }
}

pub fn main() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    let series = if arguments[0] == "reads" { Series::Reads } else { Series::Writes };
    let (routes, groups, from, to) = (number(1), number(2), number(3), number(4));
    let routes = nodes::routes(routes, groups);
    let me = Node::new(1_000, &routes, to);
    let directory = Directory::new();
    let member = |address: &String| MemberAddress { address: address.clone(), http: String::new() };
    let members: BTreeMap<_, _> =
        (1..).map(NodeId).zip(arguments[5..].iter().map(member)).collect();
    let nodes = members.len() as u32;
    directory.set_members(members);
    let peers = Peers::anonymous(me.id, "", PeersOptions::default());
    let cells = Arc::<AtomicU64>::default();
    let client = PeerClient::new(peers, Arc::clone(&directory), DEADLINE);
    let fanout = Fanout::new(FanoutParts {
        node: NodeId(me.id),
        local: Arc::clone(&me.local),
        peers: Arc::new(Counting { client, cells: Arc::clone(&cells) }),
        directory,
        catalog: AppliedCatalog::default(),
        deadline: DEADLINE,
    });
    let request = MatrixRequest {
        from_ms: Some(START_MS + from * STEP_MS),
        to_ms: Some(START_MS + to * STEP_MS),
        ..request(to, series)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // A thread that ended could not be asked for its time.
        .thread_keep_alive(Duration::from_secs(3_600))
        .build()
        .expect("the system has threads");
    for line in std::io::stdin().lock().lines() {
        line.expect("the other side speaks");
        peak_mib();
        let (core, began) = (on_cores(), Instant::now());
        cells.store(0, Ordering::Relaxed);
        let answer = runtime.block_on(fanout.cluster(&request)).expect("there is an answer");
        let (wall_ms, core_ms) = (millis(began.elapsed()), millis(on_cores() - core));
        assert_eq!(answer.matrix.responded, nodes + 1, "{:?}", answer.matrix.nodes);
        assert!(answer.matrix.total > 0 && !answer.matrix.saturated);
        let cells = cells.load(Ordering::Relaxed);
        println!("{wall_ms:.1} {core_ms:.1} {:.1} {cells}", peak_mib());
    }
}

/// Time that all threads of this process spent on cores; 0 where the system does not tell.
fn on_cores() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// The largest resident set since the last call; 0 where the system does not tell.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    // 5 resets the peak (proc(5)).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    kib.unwrap_or(0.0) / 1_024.0
}
