//! Four hours of a store with 100,000 routes, at steps of a second, in about a minute:
//! `cargo run --release --example simulated_day [PICTURE.png]`.
//!
//! A hot spot of a thousand routes wanders over the keys, a second one jumps every half hour, and a
//! twentieth of the load is spread over all routes; leaders change. The clock is injected, sampler
//! and history are the real ones. Checked at the end: every call is in exactly one cell, the
//! history stayed inside its budget and forgot nothing.

use std::error::Error;
use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use keyviz_core::{history::*, matrix::*, query::*, sampler::*, *};

const ROUTES: u64 = 100_000;
const GROUPS: u64 = 16;
const STEP_MS: u64 = 1_000;
const STEPS: u64 = 4 * 3_600;
const CALLS_A_STEP: u64 = 3_000;
/// As a node with a step of a minute does.
const REPLAN_STEPS: u64 = 60;
const START_MS: u64 = 1_800_000_000_000;
const HISTORY_BYTES: usize = 128 << 20;
const MIB: f64 = 1_048_576.0;

/// SplitMix64 (Steele, Lea, Flood, 2014): the same day each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    /// The user whose key a call of this step is about.
    fn user(&mut self, step: u64) -> u64 {
        let wandering = {
            let turn = step as f64 / STEPS as f64 * std::f64::consts::TAU;
            ((0.5 - 0.4 * turn.cos()) * ROUTES as f64) as u64
        };
        let jumping = (step / 1_800 * 37 + 11) % 100 * (ROUTES / 100);
        match self.below(20) {
            0 => self.below(ROUTES),
            1..=4 => (jumping + self.below(100)) % ROUTES,
            _ => (wandering + self.below(1_000)) % ROUTES,
        }
    }
}

fn routes() -> Vec<RouteSpec> {
    let start = |n: u64| Bytes::from(if n == 0 { String::new() } else { format!("user/{n:05}") });
    let route = |n: u64| RouteSpec {
        id: RouteId::new(n + 1).expect("from 1"),
        range: KeyRange { start: start(n), end: (n + 1 < ROUTES).then(|| start(n + 1)) },
        group: GroupId(n * GROUPS / ROUTES + 1),
    };
    (0..ROUTES).map(route).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let sampler = Sampler::new(SamplerConfig::default())?;
    sampler.publish_routes(1, routes())?;
    let config = HistoryConfig { step_ms: STEP_MS, columns: STEPS as usize, bytes: HISTORY_BYTES };
    let history = History::new(config, NodeId(1), Incarnation(1), START_MS)?;
    let mut numbers = Numbers(1);
    let mut counted = Counts::ZERO;
    let (mut most_bytes, mut most_counters) = (0, 0);
    for step in 0..STEPS {
        if step % 900 == 0 {
            let group = GroupId(step / 900 % GROUPS + 1);
            sampler.set_leader_terms(&[(group, Some(Term(step / 900 + 1)))]);
        }
        for _ in 0..CALLS_A_STEP {
            let key = format!("user/{:05}/x", numbers.user(step));
            let (op, bytes) = match numbers.below(3) {
                0 => (Op::Read, numbers.below(1_000)),
                _ => (Op::Write, 1 + numbers.below(2_000)),
            };
            let epoch = sampler.epoch();
            let located = epoch.locate(key.as_bytes()).expect("published");
            epoch.record(op, located, key.as_bytes(), 1, bytes);
            counted.add(&match op {
                Op::Read => Counts { reads: 1, read_bytes: bytes, ..Counts::ZERO },
                Op::Write => Counts { writes: 1, write_bytes: bytes, ..Counts::ZERO },
            });
        }
        let _ = history.add(START_MS + (step + 1) * STEP_MS, sampler.harvest());
        if step % REPLAN_STEPS == REPLAN_STEPS - 1 {
            sampler.replan();
        }
        most_bytes = most_bytes.max(history.holdings().bytes);
        most_counters = most_counters.max(sampler.stats().counter_bytes);
    }
    let simulated = started.elapsed();

    for (series, exact) in [
        (Series::Reads, counted.reads),
        (Series::Writes, counted.writes),
        (Series::ReadBytes, counted.read_bytes),
        (Series::WriteBytes, counted.write_bytes),
    ] {
        let matrix = matrix(&sampler, &history, series, 256, 480)?;
        println!("{series:?}: {} recorded, {} in the matrix", exact, matrix.total);
        assert_eq!(matrix.total, exact, "conservation");
        assert_eq!(matrix.unattributed, 0);
        assert!(!matrix.saturated);
    }
    let holdings = history.holdings();
    assert!(most_bytes <= HISTORY_BYTES, "the budget held at every step");
    assert_eq!(holdings.forgotten_before_ms, 0, "nothing was forgotten");
    println!(
        "{} columns held; history {:.1} MiB at most, of {:.0}; counters \
         {:.1} MiB at most; {} epochs",
        holdings.columns,
        most_bytes as f64 / MIB,
        HISTORY_BYTES as f64 / MIB,
        most_counters as f64 / MIB,
        sampler.stats().epochs_published,
    );
    let asked = Instant::now();
    let picture = matrix(&sampler, &history, Series::Writes, 256, 480)?;
    println!("{STEPS} steps in {simulated:.1?}, a query of all of it in {:.1?}", asked.elapsed());
    print(&matrix(&sampler, &history, Series::Writes, 32, 96)?);
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(&path, png(&picture)?)?;
    }
    Ok(())
}

fn matrix(
    sampler: &Sampler,
    history: &History,
    series: Series,
    max_rows: usize,
    max_columns: usize,
) -> Result<Matrix, Box<dyn Error>> {
    let now_ms = START_MS + STEPS * STEP_MS;
    let window = Window { from_ms: START_MS, to_ms: now_ms };
    let query = Query { window, range: KeyRange::all(), series, role: None };
    let epoch = sampler.epoch_full();
    let request = PlanRequest {
        routes: epoch.routes(),
        catalog_version: epoch.catalog_version(),
        range: &query.range,
        max_rows,
        max_route_ids: DEFAULT_ROW_ROUTE_IDS,
        boundaries: None,
    };
    let view = history.view(window, sampler.peek());
    let rows = plan(&request, &[view.totals(&query)])?;
    let columns = plan_columns(window, STEP_MS, max_columns, now_ms)?;
    let mine = view.columns(&query, &rows.axis(), &columns);
    let me = NodeStatus { node: Some(NodeId(1)), ok: true, ..NodeStatus::default() };
    Ok(merge(rows, columns, &query, vec![mine], vec![me]))
}

/// 0 to 1, by the logarithm.
fn heat(value: u64, most: u64) -> f64 {
    (value as f64).ln_1p() / (most.max(1) as f64).ln_1p()
}

fn most(matrix: &Matrix) -> u64 {
    matrix.rows.iter().flat_map(|row| &row.values).copied().max().unwrap_or(0)
}

fn print(matrix: &Matrix) {
    let most = most(matrix);
    for row in &matrix.rows {
        let shade =
            |&value: &u64| char::from(b" .:-=+*#%@"[(heat(value, most) * 9.0).round() as usize]);
        let cells: String = row.values.iter().map(shade).collect();
        println!("{:>12} |{cells}|", row.label);
    }
    println!("{:>12}  {} columns of 150 s; a cell: up to {most} writes", "", matrix.columns.len());
}

/// The matrix as a picture, two pixels a cell (PNG, ISO/IEC 15948: 8 bits, RGB, no filter).
fn png(matrix: &Matrix) -> std::io::Result<Vec<u8>> {
    const SCALE: usize = 2;
    let most = most(matrix);
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for row in &matrix.rows {
        let colours = row.values.iter().map(|&value| colour(heat(value, most)));
        let mut line = vec![0];
        line.extend(colours.flat_map(|colour| [colour; SCALE]).flatten());
        (0..SCALE).try_for_each(|_| pixels.write_all(&line))?;
    }
    let size = |cells: usize| ((cells * SCALE) as u32).to_be_bytes();
    let (width, height) = (size(matrix.columns.len()), size(matrix.rows.len()));
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, b"IHDR", &[&width[..], &height, &[8, 2, 0, 0, 0]].concat());
    chunk(&mut png, b"IDAT", &pixels.finish()?);
    chunk(&mut png, b"IEND", &[]);
    Ok(png)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let typed = [kind, data].concat();
    png.extend((data.len() as u32).to_be_bytes());
    png.extend(&typed);
    png.extend(crc32fast::hash(&typed).to_be_bytes());
}

/// From black over violet and orange to pale yellow.
fn colour(heat: f64) -> [u8; 3] {
    const STOPS: [[f64; 3]; 5] =
        [[4., 2., 20.], [87., 16., 110.], [188., 55., 84.], [249., 142., 9.], [252., 255., 190.]];
    let at = heat.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (at as usize).min(STOPS.len() - 2);
    let part = at - below as f64;
    std::array::from_fn(|c| (STOPS[below][c] * (1.0 - part) + STOPS[below + 1][c] * part) as u8)
}
