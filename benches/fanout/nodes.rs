//! Simulated nodes: real histories behind real gRPC servers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keyviz_catalog::AppliedCatalog;
use keyviz_core::{history::*, sampler::*, *};
use keyviz_directory::{Directory, MemberAddress};
use keyviz_fanout::{Clock, Fanout, FanoutParts, LocalMatrix, Work};
use keyviz_peer::PeerClient;
use keyviz_raft::{Peers, PeersOptions};

use super::{START_MS, STEP_MS, counting};

/// SplitMix64 (Steele, Lea, Flood, 2014): the same numbers in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Routes of `groups` groups in turn.
pub fn routes(count: u64, groups: u64) -> Arc<[RouteSpec]> {
    let start = |n: u64| Bytes::from(if n == 0 { String::new() } else { format!("user/{n:08}") });
    let route = |n: u64| RouteSpec {
        id: RouteId::new(n + 1).expect("above 0"),
        range: KeyRange { start: start(n), end: (n + 1 < count).then(|| start(n + 1)) },
        group: GroupId(n % groups + 1),
    };
    (0..count).map(route).collect()
}

/// Slots of the routes that a node has, led or not.
pub fn layout(
    routes: &[RouteSpec],
    has: impl Fn(&RouteSpec) -> bool,
    leads: impl Fn(&RouteSpec) -> bool,
) -> Arc<Layout> {
    let slot = |route: &RouteSpec| Slot {
        range: route.range.clone(),
        bucket: Bucket::Route(route.id),
        group: route.group,
        lead: leads(route).then_some(Term(7)),
    };
    let slots = routes.iter().filter(|route| has(route)).map(slot).collect();
    Arc::new(Layout { catalog_version: 1, slots })
}

/// What three nodes counted of one route.
#[derive(Clone, Copy, Default)]
pub struct AtThree {
    writes: u64,
    reads: [u64; 3],
    leader: usize,
}

impl AtThree {
    pub fn total(&self) -> Counts {
        let reads = self.reads.iter().sum();
        Counts { writes: self.writes, reads, ..Counts::ZERO }
    }

    pub fn at_node(&self, node: usize) -> Counts {
        let writes = if node == self.leader { self.writes } else { 0 };
        Counts { writes, reads: self.reads[node], ..Counts::ZERO }
    }
}

/// Operations spread over routes at random.
pub fn spread(routes: &[RouteSpec], operations: u64, numbers: &mut Numbers) -> Vec<AtThree> {
    let leader = |route: &RouteSpec| route.group.0 as usize - 1;
    let mut all: Vec<AtThree> = routes
        .iter()
        .map(|route| AtThree { leader: leader(route), ..AtThree::default() })
        .collect();
    for _ in 0..operations {
        let at = &mut all[numbers.below(routes.len() as u64) as usize];
        match numbers.below(6) {
            reader @ 0..3 => at.reads[reader as usize] += 1,
            _ => at.writes += 1,
        }
    }
    all
}

pub struct Node {
    pub id: u64,
    pub local: Arc<LocalMatrix>,
    column: AtomicU64,
}

impl Node {
    pub fn new(id: u64, routes: &Arc<[RouteSpec]>, columns: u64) -> Self {
        let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
        if !routes.is_empty() {
            sampler.publish_routes(1, Arc::clone(routes)).expect("they cover the keys");
        }
        let config = HistoryConfig { step_ms: STEP_MS, columns: 2_000, bytes: 4 << 30 };
        let history = History::new(config, NodeId(id), Incarnation(1), START_MS).expect("valid");
        let clock = Clock::of(move || START_MS + columns * STEP_MS);
        let local = LocalMatrix::new(Arc::new(sampler), Arc::new(history), clock, true);
        // Many nodes share this process; each may use what a node of its own machine would.
        let local = local.with_work(Work::new(4, 64, 1, 128));
        Node { id, local: Arc::new(local), column: AtomicU64::new(0) }
    }

    /// Closes a column with these counts, one a slot.
    pub fn add_all(&self, layout: &Arc<Layout>, counts: &[Counts]) {
        let counted = |(_, counts): &(u32, Counts)| *counts != Counts::ZERO;
        let cells = (0..).zip(counts.iter().copied()).filter(counted).collect();
        let segment = Segment { layout: Arc::clone(layout), cells };
        let harvest = Harvest { segments: vec![segment], ..Harvest::default() };
        let column = self.column.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = self.local.history().add(START_MS + column * STEP_MS, harvest);
    }
}

/// A fan-out of `node` and the nodes at these addresses.
pub fn fanout(node: &Node, addresses: &[(u64, String)], deadline: Duration) -> Arc<Fanout> {
    let directory = Directory::new();
    let member = |address: &str| MemberAddress { address: address.into(), http: String::new() };
    let members: BTreeMap<_, _> =
        addresses.iter().map(|(id, address)| (NodeId(*id), member(address))).collect();
    directory.set_members(members);
    let peers = Peers::anonymous(node.id, "", PeersOptions::default());
    Fanout::new(FanoutParts {
        node: NodeId(node.id),
        local: Arc::clone(&node.local),
        peers: PeerClient::new(peers, Arc::clone(&directory), deadline) as _,
        directory,
        catalog: AppliedCatalog::default(),
        deadline,
    })
}

/// Many nodes and their servers.
pub struct Crowd {
    addresses: Vec<String>,
    routes: u64,
    columns: u64,
    sent: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

/// What one kind of question cost: medians over the runs.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub wall_ms: f64,
    pub core_ms: f64,
    pub peak_mib: f64,
    /// Cells of the nodes' answers.
    pub cells: u64,
    /// Bytes that the nodes sent for one answer.
    pub bytes: u64,
}

impl Asked {
    pub fn bytes_a_cell(&self) -> f64 {
        self.bytes as f64 / self.cells.max(1) as f64
    }
}

impl Crowd {
    /// Each of the nodes leads `led` routes and serves reads of three times as many.
    pub fn new(nodes: u64, led: u64, columns: u64) -> Self {
        let routes = routes(nodes * led, nodes);
        let built = std::sync::Mutex::new(BTreeMap::new());
        let next = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        if id > nodes {
                            return;
                        }
                        let node = crowded(id, nodes, &routes, columns);
                        built.lock().expect("no panic").insert(id, node);
                    }
                });
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("the system has threads");
        let sent = Arc::<AtomicU64>::default();
        let addresses = runtime.block_on(async {
            let mut addresses = Vec::new();
            for node in built.into_inner().expect("no panic").values() {
                addresses.push(counting::serve(node, Arc::clone(&sent)).await);
            }
            addresses
        });
        Crowd { addresses, routes: nodes * led, columns, sent, _runtime: runtime }
    }

    /// Has a process of its own ask the first `nodes` for all columns, `runs` times and once before
    /// to connect.
    pub fn ask(&self, nodes: u64, series: Series, runs: usize) -> Asked {
        let series = if series == Series::Reads { "reads" } else { "writes" };
        let groups = self.addresses.len() as u64;
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["ask", series])
            .args([self.routes, groups, 0, self.columns].map(|number| number.to_string()))
            .args(&self.addresses[..nodes as usize])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut go = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut ask = || {
            let before = self.sent.load(Ordering::Relaxed);
            writeln!(go, "go").expect("the asker listens");
            let line = answers.next().expect("the asker answers").expect("in text");
            let bytes = self.sent.load(Ordering::Relaxed) - before;
            let numbers: Vec<f64> =
                line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [wall_ms, core_ms, peak_mib, cells] = numbers[..] else {
                panic!("the asker said {line}")
            };
            Asked { wall_ms, core_ms, peak_mib, cells: cells as u64, bytes }
        };
        ask();
        let runs: Vec<Asked> = (0..runs).map(|_| ask()).collect();
        drop(go);
        assert!(child.wait().expect("it is ours").success(), "the asker failed");
        let median = |of: fn(&Asked) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Asked {
            wall_ms: median(|run| run.wall_ms),
            core_ms: median(|run| run.core_ms),
            peak_mib: runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max),
            cells: runs[0].cells,
            bytes: median(|run| run.bytes as f64) as u64,
        }
    }
}

/// Node `id` of a crowd leads the group of its number and follows the two after it.
fn crowded(id: u64, nodes: u64, routes: &[RouteSpec], columns: u64) -> Node {
    let replica = |route: &RouteSpec| (route.group.0 + nodes - id) % nodes < 3;
    let layout = layout(routes, replica, |route| route.group.0 == id);
    let node = Node::new(id, &Arc::from([]), columns);
    let mut numbers = Numbers(id);
    for _ in 0..columns {
        let counts: Vec<Counts> = layout
            .slots
            .iter()
            .map(|slot| {
                let random = numbers.next();
                let reads = 1 + random % 50;
                let writes = if slot.lead.is_some() { 1 + (random >> 32) % 50 } else { 0 };
                Counts { reads, writes, ..Counts::ZERO }
            })
            .collect();
        node.add_all(&layout, &counts);
    }
    node
}
