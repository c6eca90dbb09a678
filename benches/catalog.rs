//! The catalog at its largest: 100,000 routes and 1,000 subscribers.
//!
//! First a table of the figures that have bounds, then the criterion groups. The plain copy of the
//! route array is measured beside a delta, because no change can cost less.
//! `cargo bench --bench catalog -- bounds` prints only the table.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use keyviz_catalog::{
    Catalog, CatalogCommand, ClusterId, Delta, MAX_ROUTES, Retention, RouteTable, WatchEvent,
    WatchHub, plan_bootstrap,
};
use keyviz_core::{NodeId, RouteSpec, Sampler, SamplerConfig};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

const SUBSCRIBERS: usize = 1_000;

/// One route less than allowed, so that there is room for a split. Keys of 16 bytes.
fn full_catalog() -> Catalog {
    let keys: Vec<Vec<u8>> =
        (1..MAX_ROUTES - 1).map(|at| format!("user/{at:011}").into_bytes()).collect();
    let members = [NodeId(1), NodeId(2), NodeId(3)];
    let plan = plan_bootstrap(&members, 64, 3, &keys).expect("a sound plan");
    let mut catalog = Catalog::default();
    catalog.apply(plan.command(ClusterId([1; 16]), 1)).expect("a sound bootstrap");
    catalog
}

/// Splits the route in the middle, or merges the two that a split left there.
fn toggle(table: &RouteTable, request: u64) -> CatalogCommand {
    let middle = MAX_ROUTES / 2;
    let route = table.get(middle).expect("full");
    let (expected_version, request_id, time_ms) = (table.version(), request.to_string(), 2);
    if table.len() < MAX_ROUTES {
        let key = [route.range().start.as_ref(), b"!"].concat();
        let route_id = route.id();
        return CatalogCommand::Split { route_id, key, expected_version, request_id, time_ms };
    }
    let right_id = table.get(middle + 1).expect("full").id();
    let left_id = route.id();
    CatalogCommand::Merge { left_id, right_id, expected_version, request_id, time_ms }
}

fn history(mut catalog: Catalog, count: u64) -> Vec<Arc<Delta>> {
    (0..count)
        .map(|at| catalog.apply(toggle(catalog.table(), at)).expect("room for one").delta)
        .collect()
}

fn changes(c: &mut Criterion) {
    let catalog = full_catalog();
    let table = catalog.table().clone();
    let deltas = history(catalog.clone(), 1_024);
    let mut group = c.benchmark_group("100k routes");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function("plain copy of the route array", |b| {
        b.iter(|| black_box(table.specs().iter().cloned().collect::<Arc<[RouteSpec]>>()));
    });
    group.bench_function("one delta", |b| {
        b.iter(|| black_box(table.advance([deltas[0].as_ref()]).expect("the next")));
    });
    group.bench_function("1,024 deltas at once", |b| {
        b.iter(|| black_box(table.advance(deltas.iter().map(Arc::as_ref)).expect("contiguous")));
    });
    let mut changing = catalog.clone();
    let mut request = 0;
    group.bench_function("split or merge applied, with its records", |b| {
        b.iter(|| {
            request += 1;
            let command = toggle(changing.table(), request);
            black_box(changing.apply(command).expect("room for one"));
        });
    });
    group.bench_function("locate a key", |b| {
        b.iter(|| black_box(table.locate(black_box(b"user/00000077777"))));
    });
    let snapshot = catalog.encode_snapshot().expect("bounded");
    group.bench_function("snapshot encoded", |b| b.iter(|| black_box(catalog.encode_snapshot())));
    group.bench_function("snapshot decoded", |b| {
        b.iter(|| black_box(Catalog::decode_snapshot(&snapshot, Retention::DEFAULT)));
    });
    group.finish();
}

/// A full catalog and 1,000 tasks that wait for its changes and say when they have one.
fn subscribers() -> (Catalog, WatchHub, Runtime, UnboundedReceiver<Option<u64>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("threads");
    let catalog = full_catalog();
    let hub = WatchHub::default();
    hub.replace(catalog.table().clone(), &[]).expect("newer");
    let (done, finished) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..SUBSCRIBERS {
        let mut subscription = hub.subscribe(1).expect("not ahead");
        let done = done.clone();
        runtime.spawn(async move {
            while let Some(event) = subscription.next().await {
                if let WatchEvent::Deltas(deltas) = event {
                    let _ = done.send(deltas.last().map(|delta| delta.version));
                }
            }
        });
    }
    (catalog, hub, runtime, finished)
}

/// From `publish` until every one of 1,000 waiting tasks has its event.
fn one_change(
    catalog: &mut Catalog,
    hub: &WatchHub,
    finished: &mut UnboundedReceiver<Option<u64>>,
    request: u64,
) -> Duration {
    let command = toggle(catalog.table(), request);
    let delta = catalog.apply(command).expect("room for one").delta;
    let version = delta.version;
    let start = Instant::now();
    hub.publish(catalog.table().clone(), &[delta]).expect("in order");
    for _ in 0..SUBSCRIBERS {
        assert_eq!(finished.blocking_recv(), Some(Some(version)));
    }
    start.elapsed()
}

fn fan_out(c: &mut Criterion) {
    let (mut catalog, hub, _runtime, mut finished) = subscribers();
    let mut request = 0;
    c.benchmark_group("1,000 subscribers").sample_size(20).bench_function("one change", |b| {
        b.iter_custom(|rounds| {
            let mut one = || {
                request += 1;
                one_change(&mut catalog, &hub, &mut finished, request)
            };
            (0..rounds).map(|_| one()).sum()
        });
    });
}

/// The median of some rounds.
fn median(rounds: usize, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..rounds).map(|_| run()).collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn row(name: &str, value: Duration, bound_ms: f64) {
    let value = value.as_secs_f64() * 1e3;
    let verdict = if value <= bound_ms { "ok" } else { "OVER" };
    println!("{name:<78} {value:>9.3} ms  bound {bound_ms:>9.3}  {verdict}");
}

fn bounds() {
    const ROUNDS: usize = 21;
    let mut catalog = full_catalog();
    let table = catalog.table().clone();
    let copy = median(ROUNDS, || {
        let start = Instant::now();
        black_box(table.specs().iter().cloned().collect::<Arc<[RouteSpec]>>());
        start.elapsed()
    });
    println!("{:<78} {:>9.3} ms", "a plain copy of 100,000 routes", copy.as_secs_f64() * 1e3);
    let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
    let publish = |table: &RouteTable| {
        let routes = Arc::clone(table.specs());
        sampler.publish_routes(table.version(), routes).expect("a table");
    };
    publish(&table);
    let (mut request, mut published) = (0, Vec::new());
    let applied = median(ROUNDS, || {
        let before = catalog.table().clone();
        let command = toggle(&before, request);
        request += 1;
        let delta = catalog.apply(command).expect("room for one").delta;
        let start = Instant::now();
        let after = black_box(before.advance([delta.as_ref()]).expect("the next"));
        let elapsed = start.elapsed();
        let start = Instant::now();
        publish(&after);
        published.push(start.elapsed());
        elapsed
    });
    row("one delta applied to 100,000 routes", applied, 20.0);
    published.sort_unstable();
    row("the sampler's epoch of it, built and published", published[ROUNDS / 2], 150.0);
    let (mut catalog, hub, _runtime, mut finished) = subscribers();
    let fan_out = median(ROUNDS, || {
        request += 1;
        one_change(&mut catalog, &hub, &mut finished, request)
    });
    row("one change told to 1,000 subscribers in this process", fan_out, 20.0);
}

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    // `cargo test --benches` runs this without `--bench`: then criterion only tries each once.
    if has("--bench") {
        bounds();
    }
    if !has("bounds") {
        let mut criterion = Criterion::default().configure_from_args();
        changes(&mut criterion);
        fan_out(&mut criterion);
        criterion.final_summary();
    }
}
