//! What a split costs beside a plain put, and what changing routes costs the puts, on three real
//! nodes: each figure beside its bound. `cargo bench --bench routes`, about two minutes.
//!
//! Stretches with and without changes take turns, because a machine that others use is not equally
//! fast for two minutes; each stretch with changes is compared with the two around it.

#[path = "../tests/support"]
mod support {
    mod cluster;

    pub use cluster::Cluster;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyviz_proto::kv_client::KvClient;
use keyviz_proto::routes_client::RoutesClient;
use keyviz_proto::watch_routes_response::Event;
use keyviz_proto::{
    ListRoutesRequest, MergeRoutesRequest, PutRequest, SplitRouteRequest, WatchRoutesRequest,
};
use support::Cluster;
use tokio::sync::watch;
use tonic::transport::Channel;

const PUTTERS: usize = 8;
/// One split and one merge in this time.
const PAUSE: Duration = Duration::from_secs(1);

async fn channel(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("the node serves")
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Puts from all clients for a stretch: puts a second, and the time of each.
async fn puts(cluster: &Cluster, stretch: Duration) -> (f64, Vec<Duration>) {
    let mut tasks = Vec::new();
    for putter in 0..PUTTERS {
        let channel = channel(&cluster.grpc[putter % 3]).await;
        tasks.push(tokio::spawn(async move {
            let mut client = KvClient::new(channel);
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < stretch {
                let key = format!("key/{putter}/{}", times.len() % 500).into();
                let request = PutRequest { key, value: vec![7; 100].into() };
                let start = Instant::now();
                client.put(request).await.expect("the put succeeds");
                times.push(start.elapsed());
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a putter does not panic"));
    }
    (times.len() as f64 / stretch.as_secs_f64(), times)
}

/// The version that a node has published.
async fn published(address: &str) -> watch::Receiver<u64> {
    let (seen, version) = watch::channel(0);
    let mut client = RoutesClient::new(channel(address).await);
    let request = WatchRoutesRequest { after_version: 0, ..Default::default() };
    let mut events = client.watch_routes(request).await.expect("a watch").into_inner();
    tokio::spawn(async move {
        while let Ok(Some(message)) = events.message().await {
            let version = match message.event {
                Some(Event::Snapshot(snapshot)) => snapshot.catalog_version,
                Some(Event::Deltas(deltas)) => {
                    deltas.deltas.last().map_or(0, |delta| delta.catalog_version)
                }
                _ => continue,
            };
            if seen.send(version).is_err() {
                return;
            }
        }
    });
    version
}

/// One split and one merge a `pause` until stopped; the time of each split up to its arrival from
/// all three nodes.
async fn change(cluster: &Cluster, pause: Duration, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut client = RoutesClient::new(channel(&cluster.grpc[1]).await);
    let mut nodes = Vec::new();
    for address in &cluster.grpc {
        nodes.push(published(address).await);
    }
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let list =
            client.list_routes(ListRoutesRequest::default()).await.expect("a list").into_inner();
        let route = list.routes.last().expect("a route").clone();
        let start = Instant::now();
        let split = SplitRouteRequest {
            route_id: route.route_id,
            key: "key/9".into(),
            ..Default::default()
        };
        let done = client.split_route(split).await.expect("the split succeeds").into_inner();
        for node in &mut nodes {
            node.wait_for(|seen| *seen >= done.catalog_version).await.expect("the node lives");
        }
        times.push(start.elapsed());
        let merge = MergeRoutesRequest {
            left_id: done.created[0].route_id,
            right_id: done.created[1].route_id,
            ..Default::default()
        };
        client.merge_routes(merge).await.expect("the merge succeeds");
        tokio::time::sleep(pause.saturating_sub(begin.elapsed())).await;
    }
    times
}

/// Puts for a stretch while routes change every `pause`: puts a second, and the times of puts and
/// of splits.
async fn puts_beside_changes(
    cluster: &Cluster,
    stretch: Duration,
    pause: Duration,
) -> (f64, Vec<Duration>, Vec<Duration>) {
    let stop = Arc::new(AtomicBool::new(false));
    let putting = async {
        let found = puts(cluster, stretch).await;
        stop.store(true, Ordering::Relaxed);
        found
    };
    let ((rate, put_times), split_times) =
        tokio::join!(putting, change(cluster, pause, Arc::clone(&stop)));
    (rate, put_times, split_times)
}

fn verdict(within: bool) -> &'static str {
    if within { "ok" } else { "OVER" }
}

/// How much slower the puts are beside changes, and how far two stretches without any differ.
async fn cost_to_puts(cluster: &Cluster, stretch: Duration, turns: usize) {
    let (mut plain, mut changing) = (vec![puts(cluster, stretch).await.0], Vec::new());
    for _ in 0..turns {
        changing.push(puts_beside_changes(cluster, stretch, PAUSE).await.0);
        plain.push(puts(cluster, stretch).await.0);
    }
    let around: Vec<f64> = plain.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    let mut losses: Vec<f64> =
        changing.iter().zip(&around).map(|(rate, plain)| 100.0 * (1.0 - rate / plain)).collect();
    losses.sort_by(f64::total_cmp);
    let median = losses[losses.len() / 2];
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (without, with) = (mean(&plain), mean(&changing));
    println!(
        "puts/s with one split and one merge a second {with:>8.0}, without {without:>8.0}: \
         {median:+.1} % slower (median of {turns})   bound 5 %   {}",
        verdict(median <= 5.0)
    );
    let rounded = |rates: &[f64]| rates.iter().map(|rate| rate.round()).collect::<Vec<_>>();
    println!("  stretches without: {:?}, with: {:?}", rounded(&plain), rounded(&changing));
}

async fn split_beside_puts(cluster: &Cluster, stretch: Duration) {
    let pause = Duration::from_millis(40);
    let (_, mut put_times, mut split_times) = puts_beside_changes(cluster, stretch, pause).await;
    let (count, split, put) = (split_times.len(), p99(&mut split_times), p99(&mut put_times));
    let ratio = split.as_secs_f64() / put.as_secs_f64();
    println!(
        "split to published on all three nodes: p99 {split:.1?} of {count}, put p99 {put:.1?}: \
         {ratio:.2} x   bound 3 x   {}",
        verdict(ratio <= 3.0)
    );
}

fn main() {
    // `cargo test --benches` runs this without `--bench`: each once, for a moment.
    let long = std::env::args().any(|argument| argument == "--bench");
    let (stretch, turns) =
        if long { (Duration::from_secs(6), 7) } else { (Duration::from_secs(1), 1) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let cluster = Cluster::start(3, &["--groups", "2", "--split-at", "key/4"]);
    runtime.block_on(async {
        puts(&cluster, stretch).await;
        cost_to_puts(&cluster, stretch, turns).await;
        split_beside_puts(&cluster, 2 * stretch).await;
    });
}
