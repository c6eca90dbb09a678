//! What a split costs beside a plain put, and what changing routes costs the puts, on three real
//! nodes. Measured, not judged: `cargo test --release --test routes_speed -- --ignored --nocapture`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyviz::proto::kv_client::KvClient;
use keyviz::proto::routes_client::RoutesClient;
use keyviz::proto::watch_routes_response::Event;
use keyviz::proto::{
    ListRoutesRequest, MergeRoutesRequest, PutRequest, SplitRouteRequest, WatchRoutesRequest,
};
use support::Cluster;
use tokio::sync::watch;
use tonic::transport::Channel;

const PUTTERS: usize = 8;
const STRETCH: Duration = Duration::from_secs(8);

async fn channel(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("the node serves")
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Puts from all clients for a stretch: puts a second, and the time of each.
async fn puts(cluster: &Cluster) -> (f64, Vec<Duration>) {
    let mut tasks = Vec::new();
    for putter in 0..PUTTERS {
        let channel = channel(&cluster.grpc[putter % 3]).await;
        tasks.push(tokio::spawn(async move {
            let mut client = KvClient::new(channel);
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < STRETCH {
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
    (times.len() as f64 / STRETCH.as_secs_f64(), times)
}

/// The version that a node has published.
async fn published(address: &str) -> watch::Receiver<u64> {
    let (seen, version) = watch::channel(0);
    let mut client = RoutesClient::new(channel(address).await);
    let request = WatchRoutesRequest { after_version: 0 };
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
        let list = client.list_routes(ListRoutesRequest {}).await.expect("a list").into_inner();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of half a minute"]
async fn split_to_published_beside_puts_and_puts_beside_splits() {
    let cluster = Cluster::start(3, &["--groups", "2", "--split-at", "key/4"]);
    puts(&cluster).await;
    let mut rates = [Vec::new(), Vec::new()];
    let splits = AtomicU64::new(0);
    for turn in 0..4 {
        let changing = turn % 2 == 1;
        let stop = Arc::new(AtomicBool::new(!changing));
        let (rate, split_times) = tokio::join!(
            async {
                let (rate, _) = puts(&cluster).await;
                stop.store(true, Ordering::Relaxed);
                rate
            },
            change(&cluster, Duration::from_secs(1), Arc::clone(&stop)),
        );
        splits.fetch_add(split_times.len() as u64, Ordering::Relaxed);
        rates[usize::from(changing)].push(rate);
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (none, some) = (mean(&rates[0]), mean(&rates[1]));
    let change_words = 100.0 * (some / none - 1.0);
    println!("puts/s: {none:.0} without changes, {some:.0} with one split and one merge a second");
    println!("  ({change_words:+.1} %; each run: {rates:?}; {splits:?} splits)");

    let stop = Arc::new(AtomicBool::new(false));
    let ((_, mut put_times), mut split_times) = tokio::join!(
        async {
            let found = puts(&cluster).await;
            stop.store(true, Ordering::Relaxed);
            found
        },
        change(&cluster, Duration::from_millis(40), Arc::clone(&stop)),
    );
    let (count, split, put) = (split_times.len(), p99(&mut split_times), p99(&mut put_times));
    let ratio = split.as_secs_f64() / put.as_secs_f64();
    println!(
        "split to published on all nodes: p99 {split:?} of {count}; put p99 {put:?}; {ratio:.2} x"
    );
}
