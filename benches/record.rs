//! What recording, locating, publishing and harvesting cost, each beside its yardstick.
//!
//! Two parts. The table of bounds times each figure and its yardstick in turns, in the same run,
//! and takes the best of the rounds of each, which is steady on a noisy machine. The criterion
//! groups after it keep the history. `cargo bench --bench record -- bounds` prints only the table.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use keyviz_core::{GroupId, KeyRange, RouteId, RouteSpec, Sampler, SamplerConfig};

const ROUNDS: usize = 15;
const CALLS: usize = 200_000;

/// SplitMix64: a fixed stream, so that every run does the same.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_be_bytes()).take(len).collect()
    }
}

/// Keys one after the other in memory, so that fetching them costs both sides little.
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn new(keys: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut all = Keys { bytes: Vec::new(), ends: vec![0] };
        for key in keys {
            all.bytes.extend(key);
            all.ends.push(all.bytes.len());
        }
        all
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.ends.windows(2).map(|ends| &self.bytes[ends[0]..ends[1]])
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Random16,
    Shared40,
    Mixed200,
}

impl Shape {
    fn key(self, stream: &mut Stream) -> Vec<u8> {
        match self {
            Shape::Random16 => stream.bytes(16),
            Shape::Shared40 => {
                let mut key = vec![b'p'; 40];
                key.extend(stream.bytes(16));
                key
            }
            Shape::Mixed200 => {
                let len = 1 + stream.next() as usize % 200;
                stream.bytes(len)
            }
        }
    }
}

fn routes(count: usize, shape: Shape) -> Arc<[RouteSpec]> {
    let mut stream = Stream(7);
    let mut starts = BTreeSet::from([Vec::new()]);
    while starts.len() < count {
        starts.insert(shape.key(&mut stream));
    }
    let starts: Vec<Bytes> = starts.into_iter().map(Bytes::from).collect();
    (0..count)
        .map(|n| RouteSpec {
            id: RouteId::new(n as u64 + 1).expect("from 1"),
            range: KeyRange { start: starts[n].clone(), end: starts.get(n + 1).cloned() },
            group: GroupId(n as u64 % 16 + 1),
        })
        .collect()
}

/// Without names of keys, which `benches/hot_keys.rs` measures.
fn sampler(count: usize, shape: Shape) -> Sampler {
    let config = SamplerConfig { hot_keys: false, ..SamplerConfig::default() };
    let sampler = Sampler::new(config).expect("defaults are valid");
    sampler.publish_routes(1, routes(count, shape)).expect("a table");
    sampler
}

/// Teaches the sampler hot spots at one place after the other until its slots are used up, or
/// `rounds` columns have passed.
fn learn(sampler: &Sampler, shape: Shape, rounds: u64) {
    for round in 0..rounds {
        let mut stream = Stream(1_000 + round);
        let keys = Keys::new((0..40).map(|_| shape.key(&mut stream)));
        for near in keys.iter().cycle().take(60_000) {
            // Keys around 40 places: the last bytes differ.
            let key = [&near[..near.len().saturating_sub(9)], &stream.bytes(8)].concat();
            let epoch = sampler.epoch();
            let located = epoch.locate(&key).expect("published");
            epoch.record_write(located, &key, 1, 100);
        }
        let _ = sampler.harvest();
        sampler.replan();
        if sampler.stats().slots >= SamplerConfig::default().resolution_slots {
            break;
        }
    }
}

/// One route with 64 slots for it, learned from a uniform load.
fn bucketed(shape: Shape) -> Sampler {
    let config =
        SamplerConfig { resolution_slots: 64, hot_keys: false, ..SamplerConfig::default() };
    let sampler = Sampler::new(config).expect("valid");
    sampler.publish_routes(1, routes(1, shape)).expect("a table");
    let mut stream = Stream(5);
    for _ in 0..5 {
        let keys = Keys::new((0..60_000).map(|_| shape.key(&mut stream)));
        locate_and_record(&sampler, &keys, 60_000);
        let _ = sampler.harvest();
        sampler.replan();
    }
    sampler
}

fn locate_and_record(sampler: &Sampler, keys: &Keys, calls: usize) {
    for key in keys.iter().cycle().take(calls) {
        sampler.with_epoch(|epoch| {
            let located = epoch.locate(black_box(key)).expect("published");
            epoch.record_write(located, key, 1, 100);
        });
    }
}

/// The two figures in turns; the best time of each, in nanoseconds a call.
fn in_turns(mut left: impl FnMut(usize), mut right: impl FnMut(usize)) -> (f64, f64) {
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        best.0 = best.0.min(time(&mut left));
        best.1 = best.1.min(time(&mut right));
    }
    best
}

fn time(run: &mut impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    run(CALLS);
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

/// Away from whatever else is in memory, also for a prefetcher that takes lines in pairs.
#[derive(Default)]
#[repr(align(256))]
struct Apart([AtomicU64; 2]);

fn yardstick_a(line: &[AtomicU64; 2], calls: usize) {
    for _ in 0..calls {
        black_box(line)[0].fetch_add(1, Ordering::Relaxed);
        black_box(line)[1].fetch_add(100, Ordering::Relaxed);
    }
}

fn row(name: &str, value: f64, yardstick: f64, factor: f64) {
    let bound = yardstick * factor;
    let verdict = if value <= bound { "ok" } else { "OVER" };
    println!(
        "{name:<78} {value:>9.2} ns  bound {bound:>9.2} ({factor:.2} x {yardstick:.2})  {verdict}"
    );
}

fn row_ms(name: &str, value: Duration, bound_ms: f64) {
    let value = value.as_secs_f64() * 1e3;
    let verdict = if value <= bound_ms { "ok" } else { "OVER" };
    println!("{name:<78} {value:>9.3} ms  bound {bound_ms:>9.3} {:<16} {verdict}", "");
}

fn best_of(rounds: usize, mut run: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| run()).min().expect("at least one round")
}

fn bounds() {
    let line = [const { AtomicU64::new(0) }; 2];
    let one = sampler(1, Shape::Random16);
    let located = one.epoch().locate(b"k").expect("published");
    let hot = |calls: usize| {
        for _ in 0..calls {
            one.with_epoch(|epoch| epoch.record_write(black_box(located), b"k", 1, 100));
        }
    };
    let (alone, a) = in_turns(hot, |calls| yardstick_a(&line, calls));
    row("record, one hot route, located, epoch loaded each time", alone, a, 1.1);

    let kept = one.epoch_full();
    let under_a_kept_epoch = |calls: usize| {
        for _ in 0..calls {
            one.record_write(&kept, black_box(located), b"k", 1, 100);
        }
    };
    let (slower, a) = in_turns(under_a_kept_epoch, |calls| yardstick_a(&line, calls));
    row("the same under an epoch kept across an await", slower, a, 1.1);

    let name = "two threads on the same route, a thread";
    match (one_thread(&hot), two_threads(&hot)) {
        (alone, Some(pair)) => row(name, pair, alone, 1.3),
        (..) => println!("{name:<78}  not measured: this machine never ran both at once"),
    }
    let beside = |name: &str, pair: Option<f64>| match pair {
        Some(pair) => println!("  {name:<76} {pair:>9.2} ns"),
        None => println!("  {name:<76}  not measured"),
    };
    let one_line = two_threads(&|calls| yardstick_a(&line, calls));
    beside("(two threads with fetch_add on one line)", one_line);
    // What two threads cost each other where they share nothing: above A where the two cores
    // are one, or are wanted by others.
    thread_local! {
        static OWN: Box<Apart> = Box::default();
    }
    let apart = two_threads(&|calls| OWN.with(|own| yardstick_a(&own.0, calls)));
    beside("(two threads with fetch_add on a line each)", apart);

    // A thread looks through the samplers that it uses from the first one on.
    drop((one, kept));

    for (name, shape, factor) in [
        ("random keys", Shape::Random16, 0.2),
        ("first 40 bytes equal", Shape::Shared40, 0.4),
        ("1 to 200 bytes", Shape::Mixed200, 0.4),
    ] {
        let sampler = sampler(10_000, shape);
        learn(&sampler, shape, 60);
        let slots = sampler.stats().slots;
        let epoch = sampler.epoch_full();
        let starts: Vec<Bytes> = epoch.routes().iter().map(|r| r.range.start.clone()).collect();
        let mut stream = Stream(99);
        let keys = Keys::new((0..8192).map(|_| shape.key(&mut stream)));
        let (cost, b) = in_turns(
            |calls| locate_and_record(&sampler, &keys, calls),
            |calls| {
                for key in keys.iter().cycle().take(calls) {
                    let key = black_box(key);
                    black_box(starts.partition_point(|start| start.as_ref() <= key));
                }
            },
        );
        row(&format!("locate + record, 10,000 routes, {slots} slots, {name}"), cost, b, factor);
    }
    for (name, shape, factor) in [
        ("random keys", Shape::Random16, 3.0),
        ("first 40 bytes equal", Shape::Shared40, 6.0),
        ("1 to 200 bytes", Shape::Mixed200, 6.0),
    ] {
        let sampler = bucketed(shape);
        let mut stream = Stream(99);
        let keys = Keys::new((0..8192).map(|_| shape.key(&mut stream)));
        let (cost, a) = in_turns(
            |calls| locate_and_record(&sampler, &keys, calls),
            |calls| yardstick_a(&line, calls),
        );
        let slots = sampler.stats().slots;
        row(&format!("locate + record, one route, {slots} learned slots, {name}"), cost, a, factor);
    }
    slow_path_bounds();
}

/// Calls between two looks at the clock of progress.
const PART: usize = 1_000;

/// Runs a part and says so, as far as the others need to know.
fn part(run: &impl Fn(usize), progress: &Apart) {
    run(PART);
    let done = progress.0[0].load(Ordering::Relaxed) + PART as u64;
    progress.0[0].store(done, Ordering::Relaxed);
}

/// As [`two_threads`], but alone.
fn one_thread(run: &impl Fn(usize)) -> f64 {
    let progress = Apart::default();
    let round = || {
        part(run, &progress);
        let start = Instant::now();
        (0..CALLS / PART).for_each(|_| part(run, &progress));
        start.elapsed()
    };
    best_of(ROUNDS, round).as_nanos() as f64 / CALLS as f64
}

/// The best of the rounds in which two threads really ran at once, the longer of their times in
/// nanoseconds a call. On a machine that others use, two threads often take turns on one core, and
/// would then seem to cost each other nothing; such rounds do not count.
fn two_threads(run: &(impl Fn(usize) + Sync)) -> Option<f64> {
    let rounds = (0..4 * ROUNDS).filter_map(|_| two_threads_once(run)).take(ROUNDS);
    rounds.min().map(|best| best.as_nanos() as f64 / CALLS as f64)
}

fn two_threads_once(run: &(impl Fn(usize) + Sync)) -> Option<Duration> {
    let (ready, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress: [Apart; 2] = Default::default();
    let timed = |me: usize| {
        let others = || progress[1 - me].0[0].load(Ordering::Relaxed);
        part(run, &progress[me]);
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < 2 {
            std::hint::spin_loop();
        }
        let (start, before) = (Instant::now(), others());
        (0..CALLS / PART).for_each(|_| part(run, &progress[me]));
        let (elapsed, meanwhile) = (start.elapsed(), others() - before);
        done.fetch_add(1, Ordering::SeqCst);
        // The other is still timed.
        while done.load(Ordering::SeqCst) < 2 {
            part(run, &progress[me]);
        }
        (meanwhile * 2 >= CALLS as u64).then_some(elapsed)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| timed(1));
        let mine = timed(0);
        mine.zip(other.join().expect("recording does not panic")).map(|(a, b)| a.max(b))
    })
}

fn slow_path_bounds() {
    let full = sampler(10_000, Shape::Random16);
    learn(&full, Shape::Random16, 60);
    let layout = Arc::clone(full.epoch().layout());
    let keys = Keys::new(layout.slots.iter().map(|slot| slot.range.start.to_vec()));
    let slots = layout.slots.len();
    let flush = best_of(ROUNDS, || {
        locate_and_record(&full, &keys, slots);
        let start = Instant::now();
        let _ = black_box(full.harvest());
        start.elapsed()
    });
    row_ms(&format!("harvest, {slots} slots, all non-zero"), flush, 3.0);
    let idle = best_of(ROUNDS, || {
        let start = Instant::now();
        let _ = black_box(full.harvest());
        start.elapsed()
    });
    row_ms("harvest of an idle node", idle, 0.2);
    let replan = best_of(3, || {
        locate_and_record(&full, &keys, slots);
        let _ = full.harvest();
        let start = Instant::now();
        full.replan();
        start.elapsed()
    });
    println!("{:<78} {:>9.3} ms", format!("replan, {slots} slots"), replan.as_secs_f64() * 1e3);
    for (count, bound) in [(10_000, 10.0), (100_000, 150.0)] {
        let table = routes(count, Shape::Random16);
        let sampler = sampler(1, Shape::Random16);
        let mut version = 1;
        let publish = best_of(ROUNDS, || {
            version += 1;
            let table = Arc::clone(&table);
            let start = Instant::now();
            sampler.publish_routes(version, table).expect("a table");
            start.elapsed()
        });
        row_ms(&format!("publish {count} routes"), publish, bound);
        let mut term = 0;
        let lead = best_of(ROUNDS, || {
            term += 1;
            let start = Instant::now();
            sampler.set_leader_terms(&[(GroupId(1), Some(keyviz_types::Term(term)))]);
            start.elapsed()
        });
        row_ms(&format!("publish a term, {count} routes"), lead, bound);
    }
}

/// 90% of the operations on 1% of 100,000 keys, which share their first 40 bytes. After three
/// columns: the rows of the hot keys, and the part of the load, in percent, of the hottest row
/// without any.
fn learned(route_count: u64, hot: impl Fn(u64) -> u64) -> (usize, f64) {
    const KEYS: u64 = 100_000;
    const OPS_A_COLUMN: u64 = 65_536;
    let key = |number: u64| format!("{:p<40}{number:08}", "");
    let start = |n: u64| match n {
        0 => Bytes::new(),
        _ => Bytes::from(key(n * (KEYS / route_count))),
    };
    let route = |n: u64| RouteSpec {
        id: RouteId::new(n + 1).expect("from 1"),
        range: KeyRange { start: start(n), end: (n + 1 < route_count).then(|| start(n + 1)) },
        group: GroupId(1),
    };
    let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
    sampler.publish_routes(1, (0..route_count).map(route).collect::<Vec<_>>()).expect("a table");
    let mut stream = Stream(1);
    let mut column = || {
        for _ in 0..OPS_A_COLUMN {
            let number = match stream.next() % 10 {
                0 => stream.next() % KEYS,
                _ => hot(stream.next() % (KEYS / 100)),
            };
            let (key, epoch) = (key(number), sampler.epoch());
            let located = epoch.locate(key.as_bytes()).expect("published");
            epoch.record_write(located, key.as_bytes(), 1, 100);
        }
        sampler.harvest()
    };
    for _ in 0..3 {
        let _ = column();
        sampler.replan();
    }
    let harvest = column();
    let slot = |number| sampler.epoch().locate(key(number).as_bytes()).expect("published").slot();
    let rows: BTreeSet<u32> = (0..KEYS / 100).map(|n| slot(hot(n))).collect();
    let cells = harvest.segments.iter().flat_map(|segment| &segment.cells);
    let outside = cells.filter(|(slot, _)| !rows.contains(slot)).map(|(_, counts)| counts.writes);
    (rows.len(), 100.0 * outside.max().unwrap_or(0) as f64 / OPS_A_COLUMN as f64)
}

fn learned_bounds() {
    for (name, (rows, outside)) in [
        ("one route, 90% of the load on 1% of the keys", learned(1, |n| 42_000 + n)),
        (
            "10,000 routes of which 10 are hot",
            learned(10_000, |n| (n % 10) * 10_000 + 70 + n / 10 % 10),
        ),
    ] {
        let verdict = |within| if within { "ok" } else { "OVER" };
        let name = format!("after three columns, {name}");
        println!("{name:<78} {rows:>9} rows on the hot keys, at least 32  {}", verdict(rows >= 32));
        println!(
            "{:<78} {outside:>9.2} % in the hottest row elsewhere, at most 1 %  {}",
            "",
            verdict(outside <= 1.0)
        );
    }
}

fn criterion_groups() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let one = sampler(1, Shape::Random16);
    let located = one.epoch().locate(b"k").expect("published");
    criterion.bench_function("record/one_hot_route", |bench| {
        bench.iter(|| one.epoch().record_write(black_box(located), b"k", 1, 100));
    });
    for (name, shape) in [
        ("locate_record/10k_random", Shape::Random16),
        ("locate_record/10k_shared_40", Shape::Shared40),
        ("locate_record/10k_mixed_200", Shape::Mixed200),
    ] {
        let sampler = sampler(10_000, shape);
        let mut stream = Stream(99);
        let keys = Keys::new((0..8192).map(|_| shape.key(&mut stream)));
        criterion.bench_function(name, |bench| {
            bench.iter_custom(|calls| {
                let start = Instant::now();
                locate_and_record(&sampler, &keys, calls as usize);
                start.elapsed()
            });
        });
    }
    criterion.final_summary();
}

fn main() {
    let has = |wanted: &str| std::env::args().any(|arg| arg == wanted);
    // `cargo test --benches` runs this without `--bench`: then criterion only tries each once.
    if has("--bench") {
        bounds();
        learned_bounds();
    }
    if !has("bounds") {
        criterion_groups();
    }
}
