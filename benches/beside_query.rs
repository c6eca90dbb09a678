//! Whether a running query delays recorders or the flush: both are timed with and without a thread
//! that asks for a whole day over and over. `cargo bench --bench beside_query`.
//!
//! Settings: 10,000 routes, 1,440 columns of 65,536 operations each, a query of all of it to
//! 256 x 480; rounds with and without the query take turns, so that other load on the machine meets
//! both alike. Record and flush are each given in time on a core, which a lock or a shared line
//! would show in, and flush also by the clock, which waiting for a lock would show in.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyviz_core::{history::*, matrix::*, query::*, sampler::*, *};

const ROUTES: u64 = 10_000;
const STEP_MS: u64 = 60_000;
const START_MS: u64 = 28_000_000 * STEP_MS;
const COLUMNS: u64 = 1_440;
const OPERATIONS: u64 = 65_536;
const ROUNDS: usize = 60;
/// Passes over all keys that are timed together.
const REPEATS: u64 = 8;

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

struct Local {
    sampler: Sampler,
    history: History,
    keys: Vec<[u8; 10]>,
    now_ms: AtomicU64,
}

impl Local {
    fn new(columns: u64) -> Local {
        let start = |n: u64| Bytes::from(if n == 0 { String::new() } else { format!("u/{n:08}") });
        let route = |n: u64| RouteSpec {
            id: RouteId::new(n + 1).expect("from 1"),
            range: KeyRange { start: start(n), end: (n + 1 < ROUTES).then(|| start(n + 1)) },
            group: GroupId(n % 3 + 1),
        };
        let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
        sampler.publish_routes(1, (0..ROUTES).map(route).collect::<Vec<_>>()).expect("a table");
        let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(1), Incarnation(1), START_MS).expect("valid");
        let mut numbers = Numbers(1);
        let mut key = |_| {
            let mut key = *b"u/00000000";
            let digits = format!("{:08}", numbers.below(ROUTES));
            key[2..].copy_from_slice(digits.as_bytes());
            key
        };
        let keys = (0..OPERATIONS).map(&mut key).collect();
        let local = Local { sampler, history, keys, now_ms: AtomicU64::new(START_MS) };
        for _ in 0..columns {
            local.record();
            local.flush();
        }
        local
    }

    fn record(&self) {
        for key in &self.keys {
            let epoch = self.sampler.epoch();
            let located = epoch.locate(key).expect("published");
            epoch.record_write(located, key, 1, 100);
        }
    }

    /// What is harvested closes a column of about 10,000 cells.
    fn flush(&self) {
        let now_ms = self.now_ms.fetch_add(STEP_MS, Ordering::Relaxed) + STEP_MS;
        let _ = self.history.add(now_ms, self.sampler.harvest());
    }

    fn query(&self) -> Matrix {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let window = Window { from_ms: now_ms - COLUMNS * STEP_MS, to_ms: now_ms };
        let query = Query { window, range: KeyRange::all(), series: Series::Writes, role: None };
        let epoch = self.sampler.epoch_full();
        let request = PlanRequest {
            routes: epoch.routes(),
            catalog_version: epoch.catalog_version(),
            range: &query.range,
            max_rows: 256,
            max_route_ids: 256,
            boundaries: None,
        };
        let view = self.history.view(window, self.sampler.peek());
        let rows = plan(&request, &[view.totals(&query)]).expect("the routes cover the keys");
        let columns = plan_columns(window, STEP_MS, 480, now_ms).expect("few");
        let mine = view.columns(&query, &rows.axis(), &columns);
        merge(rows, columns, &query, vec![mine], Vec::new())
    }
}

/// Time that this thread spent on a core so far; the time of day where the system does not tell.
fn on_core(since: Instant) -> Duration {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|stat| stat.split_whitespace().next()?.parse().ok())
        .map_or_else(|| since.elapsed(), Duration::from_nanos)
}

/// Times of one kind of call, without and with a query beside it.
#[derive(Default)]
struct Times([Vec<Duration>; 2]);

impl Times {
    /// The mean of all rounds: the system counts time on a core in ticks, which only many even out.
    fn print_mean(&self, what: &str, calls: u64) {
        let mean = |times: &[Duration]| {
            times.iter().sum::<Duration>().as_nanos() as f64 / (calls * times.len() as u64) as f64
        };
        print(&format!("{what}, mean"), mean(&self.0[0]), mean(&self.0[1]));
    }

    fn print_spread(mut self, what: &str) {
        self.0.iter_mut().for_each(|times| times.sort());
        let last = self.0[0].len() - 1;
        for (name, at) in [("median", last / 2), ("9 of 10 below", last * 9 / 10)] {
            let nanos = |times: &[Duration]| times[at].as_nanos() as f64;
            print(&format!("{what}, {name}"), nanos(&self.0[0]), nanos(&self.0[1]));
        }
    }
}

fn print(what: &str, alone: f64, beside: f64) {
    let ratio = beside / alone;
    println!(
        "{what:<44} {alone:>12.1} ns alone {beside:>12.1} ns beside a query   ratio {ratio:.2}"
    );
}

fn main() {
    // `cargo test --benches` runs this without `--bench`: then each call once.
    let (rounds, columns) = match std::env::args().any(|arg| arg == "--bench") {
        true => (ROUNDS, COLUMNS),
        false => (1, 3),
    };
    let local = Local::new(columns);
    let (ask, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let asked = AtomicU64::new(0);
    let (mut record, mut flush, mut wait) = (Times::default(), Times::default(), Times::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match ask.load(Ordering::Relaxed) {
                    true => {
                        black_box(local.query());
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    false => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let since = Instant::now();
        for round in 0..2 * rounds {
            let beside = round % 2;
            ask.store(beside == 1, Ordering::Relaxed);
            // A query that was under way ends, or one begins.
            std::thread::sleep(Duration::from_millis(50));
            let start = on_core(since);
            (0..REPEATS).for_each(|_| local.record());
            record.0[beside].push(on_core(since) - start);
            let (start, clock) = (on_core(since), Instant::now());
            local.flush();
            flush.0[beside].push(on_core(since) - start);
            wait.0[beside].push(clock.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} queries of {columns} columns x {ROUTES} routes", asked.into_inner());
    record.print_mean("locate + record, time on a core a call", REPEATS * OPERATIONS);
    flush.print_mean("flush, time on a core", 1);
    wait.print_spread("flush, by the clock");
}
