//! Three nodes in one process, each with its own folder and gRPC on loopback: durable puts and
//! linearizable gets through the Raft layer alone.
//!
//! ```text
//! cargo bench --bench raft -- [--groups 4] [--clients 64] [--seconds 5] [--value-bytes 256] \
//!     [--mode put|get|lease|idle]
//! ```
//!
//! A put counts when it is durable on a majority and applied at the leader; a get when a quorum
//! confirmed it. Everything shares the cores of this process, the load included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use keyviz_raft::{
    Batch, Group, GroupOptions, Groups, Keyspace, LogPosition, Machine, MachineError, Member,
    Peers, PeersOptions, RaftNodeId, ReadGuarantee, Storage, StorageOptions, WriterStats,
};
use keyviz_types::GroupId;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 4)]
    groups: u64,
    #[arg(long, default_value_t = 64)]
    clients: u64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value = "put")]
    mode: String,
    /// Where the nodes keep their folders; a temporary folder otherwise.
    #[arg(long)]
    data: Option<PathBuf>,
    // Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// 8 bytes of key, then the value.
struct Map;

impl Machine for Map {
    fn restore(&mut self, _: &Keyspace) -> Result<(), MachineError> {
        Ok(())
    }

    fn apply(
        &mut self,
        _: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError> {
        batch.put(command.slice(..8), command.slice(8..))?;
        Ok(Bytes::new())
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

struct Cluster {
    nodes: Vec<Groups>,
    groups: Vec<GroupId>,
}

impl Cluster {
    async fn start(options: &Options, dir: &std::path::Path) -> Self {
        let groups: Vec<GroupId> = (1..=options.groups).map(GroupId).collect();
        let mut nodes = Vec::new();
        let mut members = BTreeMap::new();
        for node in 1..=3u64 {
            let listener =
                tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
            let listener = listener.expect("a free port");
            let addr = listener.local_addr().expect("a bound socket has an address");
            members.insert(node as RaftNodeId, Member::grpc(addr.to_string()));
            let storage = Storage::open(dir.join(node.to_string()), StorageOptions::default())
                .expect("the folder opens");
            let peers = Peers::anonymous(node, "bench", PeersOptions::default());
            let node = Groups::new(storage, peers, GroupOptions::default());
            for group in &groups {
                node.create(*group, Map).await.expect("the group opens");
            }
            let incoming =
                tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = tonic::transport::Server::builder().add_service(node.service());
            tokio::spawn(server.serve_with_incoming(incoming));
            nodes.push(node);
        }
        for node in &nodes {
            for group in node.list() {
                let members = members.clone();
                tokio::spawn(async move { group.initialize(members).await });
            }
        }
        Self { nodes, groups }
    }

    async fn leaders(&self) -> Vec<Arc<Group>> {
        let mut leaders = Vec::new();
        for id in &self.groups {
            loop {
                let replicas = self.nodes.iter().filter_map(|node| node.get(*id));
                let leader = replicas
                    .into_iter()
                    .find(|group| group.leadership().borrow().leading.is_some());
                if let Some(leader) = leader {
                    leaders.push(leader);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        leaders
    }

    fn writers(&self) -> Vec<WriterStats> {
        self.nodes.iter().map(|node| node.storage().writer_stats()).collect()
    }
}

fn main() {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the runtime starts");
    runtime.block_on(run(options));
}

async fn run(options: Options) {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = options.data.clone().unwrap_or_else(|| temporary.path().to_path_buf());
    let cluster = Cluster::start(&options, &dir).await;
    let leaders = cluster.leaders().await;
    for leader in &leaders {
        print!("{}->{} ", leader.id(), leader.node());
    }
    println!("(group->leader)");

    let (done, errors) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = cluster.writers();
    let (cpu, started) = (cpu_seconds(), Instant::now());
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut clients = Vec::new();
    for client in 0..options.clients {
        if options.mode == "idle" {
            break;
        }
        let (leaders, mode) = (leaders.clone(), options.mode.clone());
        let (done, errors) = (done.clone(), errors.clone());
        let (keys, value) = (options.keys, vec![client as u8; options.value_bytes]);
        clients.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut state = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            while Instant::now() < until {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let key = (state % keys).to_be_bytes();
                let group = &leaders[(state % leaders.len() as u64) as usize];
                let began = Instant::now();
                let limit = Duration::from_secs(5);
                let result = match mode.as_str() {
                    "put" => {
                        let command = Bytes::from([&key[..], &value[..]].concat());
                        group.propose(command).await.map(drop).map_err(|error| error.to_string())
                    }
                    mode => {
                        let consistency = if mode == "lease" {
                            ReadGuarantee::Lease
                        } else {
                            ReadGuarantee::Linearizable
                        };
                        let read = group.confirm_read(consistency, limit).await;
                        let read = read.map_err(|error| error.to_string());
                        read.and_then(|()| {
                            group.keyspace().get(&key).map(drop).map_err(|error| error.to_string())
                        })
                    }
                };
                match result {
                    Ok(()) => {
                        done.fetch_add(1, Ordering::Relaxed);
                        latencies.push(began.elapsed());
                    }
                    Err(error) => {
                        if errors.fetch_add(1, Ordering::Relaxed) < 3 {
                            let leadership = group.leadership().borrow().clone();
                            eprintln!("error: {error}, group {}: {leadership:?}", group.id());
                        }
                    }
                }
            }
            latencies
        }));
    }
    let mut latencies: Vec<Duration> = Vec::new();
    for client in clients {
        latencies.extend(client.await.expect("a client does not panic"));
    }
    if options.mode == "idle" {
        tokio::time::sleep_until(until.into()).await;
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    latencies.sort();
    let at = |q: f64| {
        let at = ((latencies.len() as f64 * q) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(at).copied().unwrap_or_default()
    };
    let done = done.load(Ordering::Relaxed);
    println!(
        "{} {} clients {} groups: {:.0}/s, p50 {:?} p99 {:?} p99.9 {:?}, errors {}, \
         {:.2} cores, {:.0} us CPU each, {} MiB",
        options.mode,
        options.clients,
        options.groups,
        done as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(0.999),
        errors.load(Ordering::Relaxed),
        cpu / elapsed,
        cpu * 1e6 / (done.max(1)) as f64,
        resident_mib(),
    );
    for (node, (before, after)) in before.iter().zip(cluster.writers()).enumerate() {
        let batches = (after.batches - before.batches).max(1);
        println!(
            "  node {}: {:.0} syncs/s, {:.1} entries and {:.1} operations a sync, \
             write {:.0} us, sync {:.0} us",
            node + 1,
            batches as f64 / elapsed,
            (after.entries - before.entries) as f64 / batches as f64,
            (after.operations - before.operations) as f64 / batches as f64,
            (after.write_time - before.write_time).as_micros() as f64 / batches as f64,
            (after.sync_time - before.sync_time).as_micros() as f64 / batches as f64,
        );
    }
    for node in &cluster.nodes {
        node.shutdown().await.expect("a clean shutdown");
    }
}
