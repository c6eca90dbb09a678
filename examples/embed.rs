//! A small store that shows where its keys are hot:
//! `cargo run --release -p keyviz-core --example embed`.
//!
//! The store is a `BTreeMap` in one process. It records every operation that it serves, and adds
//! the counts to the history once a second. The clock is simulated, so that a minute takes no time.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use keyviz_core::hotkeys::{self, HotKey, HotKeysQuery};
use keyviz_core::{
    GroupId, History, HistoryConfig, Incarnation, KeyRange, Matrix, MatrixSize, NodeId, Op, Query,
    RouteId, RouteSpec, Sampler, SamplerConfig, Series, Term, Window,
};

const STEP_MS: u64 = 1_000;

struct Store {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    sampler: Sampler,
    history: History,
}

impl Store {
    fn open(now_ms: u64) -> Result<Store, Box<dyn Error>> {
        let sampler = Sampler::new(SamplerConfig::default())?;
        // A store with shards publishes each as a route; this one has a single route and leads it.
        let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
        sampler.publish_routes(1, vec![route])?;
        sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
        let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(1), Incarnation(now_ms), now_ms)?;
        Ok(Store { map: Mutex::default(), sampler, history })
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.count(Op::Write, key, key.len() + value.len());
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(key.to_vec(), value.to_vec());
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        self.count(Op::Read, key, value.as_ref().map_or(0, Vec::len));
        value
    }

    /// The hot path: no lock, no allocation, some nanoseconds.
    fn count(&self, op: Op, key: &[u8], bytes: usize) {
        self.sampler.with_epoch(|epoch| {
            let located = epoch.locate(key).expect("a route was published at opening");
            epoch.record(op, located, key, 1, bytes as u64);
        });
    }

    /// Call it once a second or more often, on a thread that does not record.
    fn tick(&self, now_ms: u64) {
        let flushed = self.history.add(now_ms, self.sampler.harvest());
        if !flushed.closed.is_empty() {
            self.sampler.replan(); // A column has ended: look closer where it was hot.
        }
    }

    fn matrix(&self, window: Window, now_ms: u64) -> Result<Matrix, Box<dyn Error>> {
        let query = Query { window, range: KeyRange::all(), series: Series::Writes, role: None };
        let size = MatrixSize { rows: 24, columns: 60 };
        Ok(Matrix::local(&self.sampler, &self.history, &query, size, now_ms)?)
    }

    /// The names of the hottest keys, with bounds that always hold.
    fn print_hot_keys(&self, window: Window) {
        let (range, series) = (KeyRange::all(), Series::Writes);
        let query = HotKeysQuery { window, range, series, points: 0 };
        let view = self.history.view(window, self.sampler.peek());
        let parts = view.hot_keys(&query, &|| true).expect("nobody gives it up");
        let hot = hotkeys::merge(parts, 5);
        for HotKey { bounds, share, .. } in &hot.keys {
            let (name, share) = (String::from_utf8_lossy(&bounds.key), share * 100.0);
            println!("{name:>20}  {} to {} writes, {share:.1} %", bounds.lower, bounds.upper);
        }
        println!("{:>20}  every key with more than {} is named", "", hot.threshold);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let start_ms = 1_800_000_000_000;
    let store = Arc::new(Store::open(start_ms)?);
    let (mut now_ms, mut puts) = (start_ms, 0);
    for second in 0..60 {
        for n in 0..2_000u64 {
            // Nine of ten writes go to a hundred users, and another hundred every twenty seconds.
            let user = match n % 10 {
                0 => n * 7_919 % 100_000,
                _ => second / 20 * 30_000 + 20_000 + n % 100,
            };
            let key = format!("user/{user:05}");
            store.put(key.as_bytes(), b"a value of some bytes");
            puts += 1;
        }
        assert!(store.get(b"user/20001").is_some());
        now_ms += STEP_MS;
        store.tick(now_ms);
    }
    let matrix = store.matrix(Window { from_ms: start_ms, to_ms: now_ms }, now_ms)?;
    print(&matrix);
    store.print_hot_keys(Window { from_ms: start_ms, to_ms: now_ms });
    assert_eq!(matrix.total, puts, "every write is in exactly one cell");
    Ok(())
}

fn print(matrix: &Matrix) {
    let values = matrix.rows.iter().flat_map(|row| &row.values);
    let most = values.copied().max().unwrap_or(0).max(1) as f64;
    for row in &matrix.rows {
        let cell = |&value: &u64| {
            let shade = (value as f64).ln_1p() / most.ln_1p() * 9.0;
            char::from(b" .:-=+*#%@"[shade.ceil() as usize])
        };
        let cells: String = row.values.iter().map(cell).collect();
        println!("{:>20} |{cells}| {:>7}", row.label, row.values.iter().sum::<u64>());
    }
    let seconds = matrix.columns.len();
    println!("{:>20}  {seconds} columns of a second, {} writes", "", matrix.total);
}
