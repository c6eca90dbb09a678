//! What history costs in memory and a matrix in time, each figure beside its bound.
//!
//! Settings: times are those of one thread on a core, except of flushes and in criterion's own
//! lines; 65,536 operations a column, spread at random over 10,000 routes (655,360 over 100,000),
//! half reads and half writes, values of 1 to 2,000 bytes; routes of three groups in turn, all led;
//! one axis. Run with `cargo bench --bench matrix`.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use keyviz_core::{history::*, matrix::*, query::*, sampler::*, wire::*, *};

const STEP_MS: u64 = 60_000;
const START_MS: u64 = 28_000_000 * STEP_MS;
const GROUPS: u64 = 3;

/// SplitMix64 (Steele, Lea, Flood, 2014): the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn routes(count: usize) -> Vec<RouteSpec> {
    let key = |index: usize| Bytes::from(format!("tenant/{:02}/user/{index:08}", index % 100 / 50));
    let mut starts: Vec<Bytes> = (1..count).map(key).collect();
    starts.sort();
    starts.insert(0, Bytes::new());
    let route = |index: usize| RouteSpec {
        id: RouteId::new(index as u64 + 1).expect("above 0"),
        range: KeyRange { start: starts[index].clone(), end: starts.get(index + 1).cloned() },
        group: GroupId(index as u64 % GROUPS + 1),
    };
    (0..count).map(route).collect()
}

fn layout(routes: &[RouteSpec], lead: impl Fn(&RouteSpec) -> bool) -> Arc<Layout> {
    let slot = |route: &RouteSpec| Slot {
        range: route.range.clone(),
        bucket: Bucket::Route(route.id),
        group: route.group,
        lead: lead(route).then_some(Term(7)),
    };
    Arc::new(Layout { catalog_version: 1, slots: routes.iter().map(slot).collect() })
}

fn segment(layout: &Arc<Layout>, operations: u64, numbers: &mut Numbers) -> Segment {
    let slots = layout.slots.len() as u64;
    let mut counts = vec![Counts::ZERO; layout.slots.len()];
    for _ in 0..operations {
        let cell = &mut counts[numbers.below(slots) as usize];
        let bytes = 1 + numbers.below(2_000);
        cell.add(&match numbers.next() & 1 {
            0 => Counts { reads: 1, read_bytes: bytes, ..Counts::ZERO },
            _ => Counts { writes: 1, write_bytes: bytes, ..Counts::ZERO },
        });
    }
    let cells = (0..).zip(counts).filter(|(_, counts)| !counts.is_zero()).collect();
    Segment { layout: Arc::clone(layout), cells }
}

/// A history of `columns` closed columns, and the number of their cells.
fn history(routes: &[RouteSpec], columns: u64, bytes: usize) -> (History, u64) {
    let config = HistoryConfig { step_ms: STEP_MS, columns: columns as usize, bytes };
    let history = History::new(config, NodeId(1), Incarnation(1), START_MS).expect("valid");
    let layout = layout(routes, |_| true);
    let mut numbers = Numbers(1);
    let mut cells = 0;
    for column in 1..=columns {
        let segment = segment(&layout, routes.len() as u64 * 65_536 / 10_000, &mut numbers);
        cells += segment.cells.len() as u64;
        let harvest = Harvest { segments: vec![segment], ..Harvest::default() };
        let _ = history.add(START_MS + column * STEP_MS, harvest);
    }
    (history, cells)
}

struct Asked {
    query: Query,
    now_ms: u64,
}

fn day(columns: u64, series: Series) -> Asked {
    let now_ms = START_MS + columns * STEP_MS;
    let window = Window { from_ms: START_MS, to_ms: now_ms };
    Asked { query: Query { window, range: KeyRange::all(), series, role: None }, now_ms }
}

fn plan_rows(routes: &[RouteSpec], range: &KeyRange, totals: &[NodeTotals]) -> RowPlan {
    let request = PlanRequest {
        routes,
        catalog_version: 1,
        range,
        max_rows: 256,
        max_route_ids: 256,
        boundaries: None,
    };
    plan(&request, totals).expect("the routes cover the key space")
}

/// Both rounds and the merge, as one node asks itself.
fn ask(history: &History, routes: &[RouteSpec], asked: &Asked) -> Matrix {
    let totals = history.totals(&asked.query, Harvest::default());
    let rows = plan_rows(routes, &asked.query.range, &[totals]);
    let columns = plan_columns(asked.query.window, STEP_MS, 480, asked.now_ms).expect("in bounds");
    let mine = history.columns(&asked.query, &rows.axis(), &columns, Harvest::default());
    let status = NodeStatus { node: Some(NodeId(1)), ok: true, ..NodeStatus::default() };
    merge(rows, columns, &asked.query, vec![mine], vec![status])
}

fn figure(what: &str, figure: impl std::fmt::Display, bound: &str) {
    println!("{what:<72} {figure:>14}   bound {bound}");
}

/// The largest resident set since the last call, in bytes; `None` where the system does not tell.
fn peak_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    // 5 resets the peak (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kib << 10)
}

/// Time that this thread spent on a core so far, which other processes do not add to; the time of
/// day where the system does not tell.
fn on_core(since: Instant) -> Duration {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|stat| stat.split_whitespace().next()?.parse().ok())
        .map_or_else(|| since.elapsed(), Duration::from_nanos)
}

/// The median and the longest of several runs, in time on a core.
fn times(runs: usize, mut run: impl FnMut()) -> (Duration, Duration) {
    let since = Instant::now();
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = on_core(since);
            run();
            on_core(since) - start
        })
        .collect();
    times.sort();
    (times[runs / 2], times[runs - 1])
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn memory() {
    let routes = routes(10_000);
    let (six_hours, cells) = history(&routes, 360, 1 << 30);
    let bytes = six_hours.holdings().bytes as f64 / cells as f64;
    figure("360 columns x 10,000 routes: bytes a non-zero cell", format!("{bytes:.2} B"), "6 B");
}

fn queries(criterion: &mut Criterion, count: usize, bound: &str) {
    let routes = routes(count);
    let (history, cells) = history(&routes, 1_440, 4 << 30);
    let mib = history.holdings().bytes as f64 / f64::from(1 << 20);
    let bound_mib = if count == 10_000 { "100 MiB" } else { "none" };
    figure(
        &format!("24 h x {count} busy routes: {cells} cells"),
        format!("{mib:.1} MiB"),
        bound_mib,
    );
    let mut group = criterion.benchmark_group(format!("{count} routes x 1,440 columns"));
    group.sample_size(10);
    for series in [Series::Writes, Series::WriteBytes] {
        let asked = day(1_440, series);
        let whole = ask(&history, &routes, &asked);
        assert_eq!((whole.rows.len(), whole.columns.len()), (256, 480));
        let answer = whole.rows.len() * whole.columns.len() * 8;
        drop(whole);
        let before = peak_bytes().and_then(|_| peak_bytes());
        drop(black_box(ask(&history, &routes, &asked)));
        if let (Some(before), Some(after)) = (before, peak_bytes()) {
            let more = after.saturating_sub(before) as f64 / f64::from(1 << 20);
            let bound = format!("answer ({:.1}) + 16 MiB", answer as f64 / f64::from(1 << 20));
            figure(&format!("  {series:?}: memory of a query"), format!("{more:.1} MiB"), &bound);
        }
        let (median, _) = times(7, || drop(black_box(ask(&history, &routes, &asked))));
        figure(
            &format!("  {series:?}: to 256 x 480, both rounds and merge"),
            millis(median),
            bound,
        );
        let (median, _) =
            times(7, || drop(black_box(history.totals(&asked.query, Harvest::default()))));
        figure(&format!("  {series:?}: of it round one"), millis(median), "-");
        group.bench_function(format!("{series:?} to 256 x 480"), |bench| {
            bench.iter(|| ask(&history, &routes, &asked));
        });
    }
    group.finish();
}

/// The median and the longest of several runs, by the clock: what a flush waits for counts.
fn waits(runs: usize, mut run: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    (times[runs / 2], times[runs - 1])
}

/// Flushes with and without queries on another thread.
fn flushes() {
    let routes = routes(10_000);
    let (history, _) = history(&routes, 1_440, 1 << 30);
    let layout = layout(&routes, |_| true);
    let mut numbers = Numbers(2);
    let segment = segment(&layout, 65_536, &mut numbers);
    let mut now_ms = START_MS + 1_440 * STEP_MS;
    let mut turn = || {
        now_ms += STEP_MS;
        let segments = vec![segment.clone()];
        let _ = history.add(now_ms, Harvest { segments, ..Harvest::default() });
    };
    let (median, longest) = waits(200, &mut turn);
    figure("closing a column of 10,000 cells: median", millis(median), "-");
    figure("closing a column of 10,000 cells: longest (folds five)", millis(longest), "-");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(ask(&history, &routes, &day(1_440, Series::Writes)));
            }
        });
        let (median, longest) = waits(200, &mut turn);
        figure("  beside a query at all times: median", millis(median), "as above");
        figure("  beside a query at all times: longest", millis(longest), "as above");
        stop.store(true, Ordering::Relaxed);
    });
}

/// The asker's own work for 100 nodes, each leading 1,000 of 100,000 routes and serving reads of
/// 3,000.
fn hundred_nodes() {
    let routes = routes(100_000);
    let asked = day(1_440, Series::Writes);
    let columns = plan_columns(asked.query.window, STEP_MS, 480, asked.now_ms).expect("in bounds");
    let totals = |node: usize| NodeTotals {
        node: NodeId(node as u64),
        incarnation: Incarnation(1),
        catalog_version: 1,
        columns: 1_440,
        oldest_ms: START_MS,
        open_ms: 0,
        newest_ms: 0,
        forgotten_before_ms: 0,
        unattributed: 0,
        ranges: routes
            .iter()
            .skip(node)
            .step_by(100)
            .map(|route| RangeTotal {
                range: route.range.clone(),
                total: 9_000,
                aggregate: false,
                cut: 0,
            })
            .collect(),
    };
    let totals: Vec<NodeTotals> = (0..100).map(totals).collect();
    let rows = plan_rows(&routes, &asked.query.range, &totals);
    let (planning, _) =
        times(5, || drop(black_box(plan_rows(&routes, &asked.query.range, &totals))));
    figure("100 nodes, 100,000 routes: planning the rows", millis(planning), "-");
    let keys = |node: u64| {
        let source = Source::LeaderWrite { group: GroupId(node), term: Some(Term(7)) };
        (0..rows.rows().len() as u32)
            .map(|row| CellKey { place: Place::Row(row), source })
            .collect::<Vec<_>>()
    };
    let contribution = |node: u64| NodeColumns {
        node: NodeId(node),
        held_by: NodeId(node),
        incarnation: Incarnation(1),
        covers: 0..columns.len() as u32,
        held: ColumnSet::of(0..columns.len() as u32),
        incomplete: ColumnSet::new(),
        forgotten_before_ms: 0,
        spans: Vec::new(),
        keys: keys(node),
        parts: (0..columns.len() as u32)
            .map(|column| ColumnPart {
                column,
                incarnation: Incarnation(1),
                partial: false,
                unattributed: 0,
                keys: (0..rows.rows().len() as u32).collect(),
                values: vec![u64::from(column) + 1; rows.rows().len()],
                apportioned: Vec::new(),
            })
            .collect(),
    };
    peak_bytes();
    let before = peak_bytes();
    let (mut merging, since) = (Duration::ZERO, Instant::now());
    let mut merge = Merge::new(rows.clone(), columns.clone());
    for node in 0..100 {
        // As it comes from a node.
        let contribution = PackedColumns::from(contribution(node));
        let start = on_core(since);
        let sound = contribution.checked(&rows.axis(), &columns).expect("fits the axes");
        merge.add_checked(sound).expect("checked for these axes");
        merging += on_core(since) - start;
    }
    let statuses = (0..100).map(|node| NodeStatus {
        node: Some(NodeId(node)),
        ok: true,
        ..NodeStatus::default()
    });
    let statuses = statuses.collect();
    let start = on_core(since);
    black_box(merge.finish(&asked.query, statuses));
    merging += on_core(since) - start;
    figure("100 nodes x 256 x 480 cells each: merging", millis(merging), "-");
    figure("100 nodes: the asker's own work", millis(planning + merging), "500 ms");
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        let mib = after.saturating_sub(before) as f64 / f64::from(1 << 20);
        figure("100 nodes: memory of the asker", format!("{mib:.1} MiB"), "256 MiB");
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hundred_nodes();
    memory();
    queries(&mut criterion, 10_000, "60 ms");
    queries(&mut criterion, 100_000, "600 ms");
    flushes();
    criterion.final_summary();
}
