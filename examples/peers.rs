//! The same load on keyviz and on etcd: closed-loop clients, one request each at a time, over the
//! same gRPC client, so that only the servers differ. A client of keyviz goes to the node that
//! leads its key's group once an answer has told it which (`spread` keeps it at its own, as one of
//! etcd is, whose nodes do not say). Run by `benches/peers/compare`.
//!
//! `cargo run --release --example peers -- keyviz|etcd put|get|fill NODE,NODE,NODE CLIENTS SECONDS
//! [spread]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use keyviz_client::{Access, Address, Leaders};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// The load generator shares two cores with what it measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
/// Clients that share a connection, as `keyviz load` has it.
const CLIENTS_PER_CHANNEL: usize = 64;

/// `PutRequest` of both: etcd and keyviz number key and value alike.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `GetRequest` of keyviz and `RangeRequest` of etcd; neither asks for less than linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct Get {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// What is not looked at is not decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Ignored {}

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Put,
    Get,
    /// Puts every key once.
    Fill,
}

struct Plan {
    op: Op,
    /// By node; the clients share those of a node.
    channels: Vec<Vec<Channel>>,
    leaders: Leaders,
    path: PathAndQuery,
    until: Instant,
    next: AtomicU64,
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key/{number:05}"))
}

impl Plan {
    fn pick(&self, random: &mut StdRng) -> Option<u64> {
        match self.op {
            Op::Fill => Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|next| *next < KEYS),
            _ => (Instant::now() < self.until).then(|| random.random_range(0..KEYS)),
        }
    }
}

async fn client(plan: Arc<Plan>, number: usize) -> anyhow::Result<Histogram<u64>> {
    let mut random = StdRng::seed_from_u64(number as u64);
    let (home, place) = (number % plan.channels.len(), number / plan.channels.len());
    let stub = |channels: &Vec<Channel>| Grpc::new(channels[place % channels.len()].clone());
    let mut stubs: Vec<Grpc<Channel>> = plan.channels.iter().map(stub).collect();
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut latencies = Histogram::new(3)?;
    while let Some(number) = plan.pick(&mut random) {
        let (key, path) = (key(number), plan.path.clone());
        let group = plan.leaders.group_of(&key);
        let node = group.and_then(|group| plan.leaders.leader(group)).unwrap_or(home);
        let started = Instant::now();
        stubs[node].ready().await?;
        let answer = if plan.op == Op::Get {
            let codec = ProstCodec::<Get, Ignored>::default();
            stubs[node].unary(tonic::Request::new(Get { key }), path, codec).await?
        } else {
            let codec = ProstCodec::<Put, Ignored>::default();
            let put = Put { key, value: value.clone() };
            stubs[node].unary(tonic::Request::new(put), path, codec).await?
        };
        latencies.record(u64::try_from(started.elapsed().as_micros())?)?;
        if let Some(group) = group {
            plan.leaders.answered(group, node, answer.metadata());
        }
    }
    Ok(latencies)
}

fn path(system: &str, op: Op) -> anyhow::Result<&'static str> {
    Ok(match (system, op) {
        ("keyviz", Op::Get) => "/keyviz.v1.Kv/Get",
        ("keyviz", _) => "/keyviz.v1.Kv/Put",
        ("etcd", Op::Get) => "/etcdserverpb.KV/Range",
        ("etcd", _) => "/etcdserverpb.KV/Put",
        _ => anyhow::bail!("the system is keyviz or etcd"),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (args, spread) = match args.as_slice() {
        [rest @ .., spread] if spread == "spread" => (rest, true),
        all => (all, false),
    };
    let [system, op, nodes, clients, seconds] = args else {
        anyhow::bail!(
            "usage: peers keyviz|etcd put|get|fill NODE,NODE,NODE CLIENTS SECONDS [spread]"
        );
    };
    let op = match op.as_str() {
        "put" => Op::Put,
        "get" => Op::Get,
        "fill" => Op::Fill,
        _ => anyhow::bail!("the operation is put, get or fill"),
    };
    let (clients, seconds): (usize, u64) = (clients.parse()?, seconds.parse()?);
    let nodes: Vec<&str> = nodes.split(',').collect();
    let mut channels = Vec::new();
    for node in &nodes {
        let endpoint = Endpoint::from_shared(format!("http://{node}"))?.tcp_nodelay(true);
        let connect = || endpoint.connect();
        let count = clients.div_ceil(nodes.len()).div_ceil(CLIENTS_PER_CHANNEL);
        let connected = futures::future::try_join_all((0..count).map(|_| connect())).await;
        channels.push(connected.with_context(|| format!("node {node}"))?);
    }
    let leaders = if system == "keyviz" && !spread {
        let nodes = nodes.iter().map(|node| node.parse()).collect::<Result<Vec<Address>, _>>()?;
        Leaders::learn(&nodes, &Access::default(), Duration::from_secs(5)).await
    } else {
        Leaders::default()
    };
    let started = Instant::now();
    let plan = Arc::new(Plan {
        op,
        channels,
        leaders,
        path: PathAndQuery::from_static(path(system, op)?),
        until: started + Duration::from_secs(seconds),
        next: AtomicU64::new(0),
    });
    let running: Vec<_> =
        (0..clients).map(|n| tokio::spawn(client(Arc::clone(&plan), n))).collect();
    let mut all = Histogram::<u64>::new(3)?;
    for client in running {
        all.add(client.await??)?;
    }
    let rate = all.len() as f64 / started.elapsed().as_secs_f64();
    let at = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    let name = &args[1];
    println!(
        "{system} {name} clients {clients}: {rate:.0}/s p50 {:.2} ms p99 {:.2} ms",
        at(0.5),
        at(0.99)
    );
    Ok(())
}
