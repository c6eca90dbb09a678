//! What names of keys cost on the way of a request, beside two yardsticks in the same run: the same
//! without them, and the frequent-items sketch of the crate `datasketches` fed with the same keys.
//!
//! `cargo bench --bench hot_keys`. Figures are the best of several rounds, in turns, which is
//! steady on a noisy machine.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datasketches::frequencies::FrequentItemsSketch;
use keyviz_core::history::HistoryConfig;
use keyviz_core::{
    GroupId, History, Incarnation, KeyRange, NodeId, RouteId, RouteSpec, Sampler, SamplerConfig,
};

const CALLS: usize = 200_000;

/// `cargo test` runs everything once.
fn short() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn rounds() -> usize {
    if short() { 1 } else { 15 }
}

struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn key(&mut self) -> [u8; 16] {
        let (a, b) = (self.next(), self.next());
        let mut key = [0; 16];
        key[..8].copy_from_slice(&a.to_be_bytes());
        key[8..].copy_from_slice(&b.to_be_bytes());
        key
    }
}

fn routes(count: usize) -> Arc<[RouteSpec]> {
    let mut stream = Stream(7);
    let mut starts = BTreeSet::from([Bytes::new()]);
    while starts.len() < count {
        starts.insert(Bytes::copy_from_slice(&stream.key()));
    }
    let starts: Vec<Bytes> = starts.into_iter().collect();
    (0..count)
        .map(|n| RouteSpec {
            id: RouteId::new(n as u64 + 1).expect("from 1"),
            range: KeyRange { start: starts[n].clone(), end: starts.get(n + 1).cloned() },
            group: GroupId(n as u64 % 16 + 1),
        })
        .collect()
}

fn sampler(routes: &Arc<[RouteSpec]>, hot_keys: bool) -> Sampler {
    let config = SamplerConfig { hot_keys, ..SamplerConfig::default() };
    let sampler = Sampler::new(config).expect("valid");
    sampler.publish_routes(1, Arc::clone(routes)).expect("a table");
    sampler
}

/// Half reads, half writes, as many as `calls`.
fn record(sampler: &Sampler, keys: &[[u8; 16]], calls: usize) {
    for (n, key) in keys.iter().cycle().take(calls).enumerate() {
        sampler.with_epoch(|epoch| {
            let located = epoch.locate(black_box(key)).expect("published");
            match n % 2 {
                0 => epoch.record_read(located, key, 1, 100),
                _ => epoch.record_write(located, key, 1, 100),
            }
        });
    }
}

fn time(run: &mut dyn FnMut(usize)) -> f64 {
    let start = Instant::now();
    run(CALLS);
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

/// The best time of each, in nanoseconds a call.
fn in_turns<const N: usize>(mut runs: [&mut dyn FnMut(usize); N]) -> [f64; N] {
    let mut best = [f64::MAX; N];
    for _ in 0..rounds() {
        for (best, run) in best.iter_mut().zip(&mut runs) {
            *best = best.min(time(*run));
        }
    }
    best
}

/// Zipf with exponent 1 over `count` keys, by inversion of the harmonic sum.
fn zipf(count: usize, draws: usize) -> Vec<[u8; 16]> {
    let mut stream = Stream(3);
    let keys: Vec<[u8; 16]> = (0..count).map(|_| stream.key()).collect();
    let mut sums = Vec::with_capacity(count);
    let mut sum = 0.0;
    for n in 1..=count {
        sum += 1.0 / n as f64;
        sums.push(sum);
    }
    let draw = |stream: &mut Stream| {
        let at = (stream.next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
        keys[sums.partition_point(|sum| *sum < at).min(count - 1)]
    };
    (0..draws).map(|_| draw(&mut stream)).collect()
}

fn two_threads(sampler: &Sampler, keys: &[[u8; 16]]) -> Option<f64> {
    let ready = AtomicU64::new(0);
    let round = || {
        ready.store(0, Ordering::SeqCst);
        let timed = || {
            record(sampler, keys, 1_000);
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            record(sampler, keys, CALLS);
            start.elapsed()
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(timed);
            timed().max(other.join().expect("no panic"))
        })
    };
    let best: Option<Duration> = (0..rounds()).map(|_| round()).min();
    best.map(|best| best.as_nanos() as f64 / CALLS as f64)
}

fn main() {
    let routes = routes(10_000);
    let mut stream = Stream(99);
    let random: Vec<[u8; 16]> = (0..1 << 20).map(|_| stream.key()).collect();
    let skewed = zipf(1 << 20, 1 << 20);
    for (name, keys) in [("random keys", &random), ("zipf over 2^20 keys", &skewed)] {
        let (off, on) = (sampler(&routes, false), sampler(&routes, true));
        let sketch = || FrequentItemsSketch::<Vec<u8>>::new(4_096).expect("a power of two");
        let mut sketches = [sketch(), sketch()];
        let [base, named, sketched] = in_turns([
            &mut |calls| record(&off, keys, calls),
            &mut |calls| record(&on, keys, calls),
            &mut |calls| {
                for (n, key) in keys.iter().cycle().take(calls).enumerate() {
                    sketches[n % 2].update_ref(black_box(&key[..]));
                }
            },
        ]);
        println!("locate + record, 10,000 routes, {name}");
        println!("  off {base:.1} ns, with hot keys {named:.1} ns ({:.2} x off)", named / base);
        println!("  datasketches, the summary alone: {sketched:.1} ns");
        let alone = in_turns([&mut |calls| record(&on, keys, calls)])[0];
        match two_threads(&on, keys) {
            Some(pair) => println!("  two threads {pair:.1} ns, {:.2} x one", pair / alone),
            None => println!("  two threads: not measured"),
        }
        let best = (0..9).map(|_| {
            record(&on, keys, CALLS);
            let start = Instant::now();
            drop(black_box(on.harvest()));
            start.elapsed()
        });
        let off_best = (0..9).map(|_| {
            record(&off, keys, CALLS);
            let start = Instant::now();
            drop(black_box(off.harvest()));
            start.elapsed()
        });
        let (with, without) = (best.min().expect("nine"), off_best.min().expect("nine"));
        println!("  a harvest {with:.2?} with, {without:.2?} without");
    }
    close(&skewed);
}

/// The close of a column of 16,384 slots that all have counts, and the memory of a day of them.
fn close(keys: &[[u8; 16]]) {
    const SLOTS: usize = 16_384;
    let (step_ms, routes) = (60_000, routes(SLOTS));
    let mut times = Vec::new();
    for hot_keys in [false, true] {
        let config =
            SamplerConfig { hot_keys, max_tracked_routes: SLOTS, ..SamplerConfig::default() };
        let sampler = Sampler::new(config).expect("valid");
        sampler.publish_routes(1, Arc::clone(&routes)).expect("a table");
        let config = HistoryConfig { step_ms, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(1), Incarnation(1), step_ms).expect("valid");
        let mut closes = Vec::new();
        for column in 2..if short() { 22 } else { 1_442u64 } {
            for route in routes.iter() {
                sampler.with_epoch(|epoch| {
                    let located = epoch.locate(&route.range.start).expect("published");
                    epoch.record_write(located, &route.range.start, 1, 100);
                });
            }
            let from = column as usize * 7_919 % (keys.len() - 20_000);
            record(&sampler, &keys[from..from + 20_000], 20_000);
            let start = Instant::now();
            let harvest = sampler.harvest();
            assert_eq!(harvest.segments[0].cells.len(), SLOTS);
            drop(history.add(column * step_ms, harvest));
            closes.push(start.elapsed());
        }
        closes.sort_unstable();
        times.push([closes[closes.len() / 2], closes[closes.len() - 1]]);
        if hot_keys {
            let held = history.holdings().hot_key_bytes as f64 / f64::from(1 << 20);
            println!("a day of columns of 36,384 operations: {held:.1} MiB of hot keys");
        }
    }
    let [without, with] = [times[0], times[1]];
    println!("harvest and close of a column of {SLOTS} slots, median and longest:");
    println!("  {:.2?} and {:.2?} without hot keys", without[0], without[1]);
    println!("  {:.2?} and {:.2?} with them", with[0], with[1]);
}
