//! The JSON that the page asks for, at its largest: 1,024 rows of 1,440 columns, packed. Each
//! figure beside its bound. Times are those of one thread, the least of ten.
//! `cargo bench --bench page`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use keyviz_json::{MatrixJson, PackedJson};
use keyviz_proto as proto;

const ROWS: u64 = 1_024;
const COLUMNS: u64 = 1_440;
const BOUND: Duration = Duration::from_millis(50);
const BOUND_BYTES: usize = 4 << 20;

/// SplitMix64 (Steele, Lea, Flood, 2014): the same numbers in every run.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn key(at: u64) -> String {
    format!("tenant/{:02}/user/{:010}", at / 100, at)
}

/// Every row has a value of `cell`, and every third column a member missing.
fn matrix(cell: impl Fn(u64, u64) -> u64) -> proto::Matrix {
    let column = |at| proto::Column {
        start_ms: 1_767_182_400_000 + 60_000 * at,
        end_ms: 1_767_182_460_000 + 60_000 * at,
        open: at + 1 == COLUMNS,
    };
    let row = |at| {
        let values: Vec<u64> = (0..COLUMNS).map(|column| cell(at, column)).collect();
        proto::Row {
            bucket_id: format!("virtual:{}-{:016x}", 10 * at + 1, mixed(at)),
            start: key(at).into(),
            end: (at + 1 < ROWS).then(|| key(at + 1).into()),
            label: key(at),
            aggregate: true,
            route_ids: (10 * at + 1..10 * at + 11).collect(),
            route_count: 10,
            roles: Some(proto::RoleTotals {
                leader_write: values.iter().sum(),
                ..Default::default()
            }),
            partial: (0..COLUMNS as u32).step_by(3).collect(),
            values,
            ..Default::default()
        }
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    proto::Matrix {
        columns: (0..COLUMNS).map(column).collect(),
        total: rows.iter().flat_map(|row| &row.values).sum(),
        rows,
        responded: 3,
        expected: 3,
        ..Default::default()
    }
}

fn least(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let started = Instant::now();
        run();
        started.elapsed()
    };
    (0..10).map(time).min().unwrap_or_default()
}

fn gzipped(body: &[u8]) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, body).expect("memory takes everything");
    gzip.finish().expect("memory takes everything").len()
}

fn main() {
    println!("the page's JSON, {ROWS} x {COLUMNS} cells");
    let kinds: [(&str, proto::Matrix); 3] = [
        (
            "one cell in fifty counted",
            matrix(|row, column| {
                let number = mixed(row << 32 | column);
                if number.is_multiple_of(50) { number >> 48 } else { 0 }
            }),
        ),
        ("all counted, below 10,000", matrix(|row, column| mixed(row << 32 | column) % 10_000)),
        ("all counted, up to 2^40", matrix(|row, column| mixed(row << 32 | column) >> 24)),
    ];
    for (name, matrix) in &kinds {
        let packed = serde_json::to_vec(&PackedJson::from(matrix)).expect("it serializes");
        let plain = serde_json::to_vec(&MatrixJson::from(matrix)).expect("it serializes");
        let spent = least(|| {
            black_box(
                serde_json::to_vec(&PackedJson::from(black_box(matrix))).expect("it serializes"),
            );
        });
        println!(
            "  {name}: {:.2} MiB (bound {:.2}), plain {:.2}; {:.2} on the wire; \
             built in {:.1} ms (bound {})",
            packed.len() as f64 / (1 << 20) as f64,
            BOUND_BYTES as f64 / (1 << 20) as f64,
            plain.len() as f64 / (1 << 20) as f64,
            gzipped(&packed) as f64 / (1 << 20) as f64,
            spent.as_secs_f64() * 1e3,
            BOUND.as_millis(),
        );
    }
}
