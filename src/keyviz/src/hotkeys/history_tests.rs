//! The hot keys of a sampler and a history through columns, folds, restarts and hand-overs, beside
//! an exact counter by column.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::cases;
use crate::history::HistoryHandoff;
use crate::history::column::Part;
use crate::hotkeys::{HotKeysPart, HotKeysQuery, KeyBounds, merge};
use crate::{
    Archive, GroupId, History, HistoryConfig, Incarnation, KeyRange, Matrix, MatrixSize, NodeId,
    Op, Query, RouteId, RouteSpec, Sampler, SamplerConfig, Series, Term, Window,
};

#[path = "partial_tests.rs"]
mod partial;

const STEP_MS: u64 = 60_000;
const START_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// Calls of keys with this skew, reads or writes.
    Load { keys: u32, calls: u32, skew: u32, seed: u64, op: bool },
    /// Time passes, with a flush at its end.
    Wait { ms: u64 },
    /// A new layout.
    Replan,
    /// A new term.
    Lead,
    /// A write in a term that was not published.
    Late { n: u32 },
    /// A stop in good order, or a kill after a checkpoint.
    Restart { kill: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let load =
        (prop_oneof![1u32..8, 8u32..2_000], 1u32..1_200, 0u32..4, any::<u64>(), any::<bool>());
    let load =
        load.prop_map(|(keys, calls, skew, seed, op)| Step::Load { keys, calls, skew, seed, op });
    let step = prop_oneof![
        6 => load,
        6 => (1_000u64..3 * STEP_MS).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Replan),
        1 => Just(Step::Lead),
        1 => (0u32..9).prop_map(|n| Step::Late { n }),
        1 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
    ];
    prop::collection::vec(step, 1..25)
}

struct Node {
    sampler: Sampler,
    history: History,
    archive: Archive,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    now_ms: u64,
    term: u64,
    /// By time: reads and writes of each key.
    exact: BTreeMap<u64, HashMap<Vec<u8>, [u64; 2]>>,
}

fn sampler() -> Sampler {
    let sampler = Sampler::new(SamplerConfig::default()).expect("valid");
    let route = |id, start: &'static str, end: Option<&'static str>| RouteSpec {
        id: RouteId::new(id).expect("from 1"),
        range: KeyRange { start: start.into(), end: end.map(Bytes::from) },
        group: GroupId(id),
    };
    sampler.publish_routes(1, [route(1, "", Some("k5")), route(2, "k5", None)]).expect("a table");
    sampler
}

fn config() -> HistoryConfig {
    HistoryConfig { step_ms: STEP_MS, columns: 3, ..HistoryConfig::default() }
}

impl Node {
    fn new() -> Self {
        let history = History::new(config(), NodeId(1), Incarnation(1), START_MS).expect("valid");
        Node {
            sampler: sampler(),
            history,
            archive: Archive::default(),
            stored: BTreeMap::new(),
            now_ms: START_MS,
            term: 0,
            exact: BTreeMap::new(),
        }
    }

    fn column(&self) -> u64 {
        self.now_ms - self.now_ms % STEP_MS
    }

    fn count(&mut self, key: &[u8], op: Op) {
        let of = self.exact.entry(self.now_ms).or_default().entry(key.to_vec()).or_default();
        of[usize::from(op == Op::Write)] += 1;
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Load { keys, calls, skew, mut seed, op } => {
                let op = if op { Op::Read } else { Op::Write };
                seed |= 1;
                for _ in 0..calls {
                    let mut n = u32::MAX;
                    for _ in 0..=skew {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        n = n.min((seed >> 16) as u32 % keys);
                    }
                    let key = format!("k{n}");
                    self.sampler.with_epoch(|epoch| {
                        let located = epoch.locate(key.as_bytes()).expect("published");
                        epoch.record(op, located, key.as_bytes(), 1, 10);
                    });
                    self.count(key.as_bytes(), op);
                }
            }
            Step::Wait { ms } => {
                self.flush();
                // Every boundary on the way is flushed, as the flusher does.
                let to_ms = self.now_ms + ms;
                while self.now_ms < to_ms {
                    self.now_ms = to_ms.min(self.column() + STEP_MS);
                    self.flush();
                }
            }
            Step::Replan => {
                self.flush();
                self.sampler.replan();
            }
            Step::Lead => {
                self.term += 1;
                self.sampler.set_leader_terms(&[(GroupId(1), Some(Term(self.term)))]);
            }
            Step::Late { n } => {
                let key = format!("k{n}");
                let epoch = self.sampler.epoch_full();
                let located = epoch.locate(key.as_bytes()).expect("published");
                let (key, term) = (key.as_bytes(), Some(Term(99)));
                self.sampler.record_late(Op::Write, &epoch, located, key, term, 1, 10);
                self.count(key, Op::Write);
            }
            Step::Restart { kill } => self.restart(kill),
        }
    }

    fn flush(&mut self) {
        let flushed = self.history.add(self.now_ms, self.sampler.harvest());
        let open = self.history.checkpoint();
        let columns = flushed.closed.iter().map(|column| &**column).chain([&open]);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.stored.extend(batch.puts);
        batch.deletes.iter().for_each(|key| assert!(self.stored.remove(key).is_some()));
    }

    fn restart(&mut self, kill: bool) {
        if kill {
            self.flush();
        } else {
            let flushed = self.history.close(self.now_ms, self.sampler.harvest());
            let columns = flushed.closed.iter().map(|column| &**column);
            let batch = self.archive.batch(columns, &flushed.removed);
            self.stored.extend(batch.puts);
            batch.deletes.iter().for_each(|key| assert!(self.stored.remove(key).is_some()));
        }
        let incarnation = Incarnation(self.history.incarnation().0 + 1);
        let history = History::new(config(), NodeId(1), incarnation, self.now_ms);
        (self.history, self.sampler) = (history.expect("valid"), sampler());
        let opened = Archive::open(&self.stored);
        assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
        let known = |part: &Part| part.hot_keys.is_some() || part.runs.is_empty();
        assert!(opened.columns.iter().all(|column| column.parts().iter().all(known)));
        self.archive = opened.archive;
        let flushed = self.history.restore(opened.columns);
        let open = self.history.checkpoint();
        let columns = flushed.closed.iter().map(|column| &**column).chain([&open]);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.stored.extend(batch.puts);
        batch.deletes.iter().for_each(|key| drop(self.stored.remove(key)));
    }

    fn query(&self, window: Window, range: KeyRange, series: Series) -> HotKeysPart {
        let view = self.history.view(window, self.sampler.peek());
        let query = HotKeysQuery { window, range, series, points: 4 };
        let mut parts = view.hot_keys(&query, &|| true).expect("it is wanted");
        parts.remove(0)
    }

    /// The columns that are kept, by what they cover.
    fn check(&self) {
        let all = Window { from_ms: 0, to_ms: u64::MAX };
        let now = Window { from_ms: START_MS, to_ms: self.now_ms + 1 };
        let mut windows = vec![now, now.widened(STEP_MS)];
        windows.extend(
            self.history
                .inspect(all)
                .iter()
                .map(|column| Window { from_ms: column.start_ms(), to_ms: column.end_ms() }),
        );
        for window in windows {
            for range in [KeyRange::all(), KeyRange { start: "k2".into(), end: Some("k5".into()) }]
            {
                for series in [Series::Reads, Series::Writes] {
                    self.check_window(window, &range, series);
                }
            }
        }
    }

    /// What happened to each key: reads at 0, writes at 1.
    fn exact(&self, window: Window, range: &KeyRange, index: usize) -> HashMap<&[u8], u64> {
        let mut exact: HashMap<&[u8], u64> = HashMap::new();
        for (_, keys) in self.exact.range(window.from_ms..window.to_ms) {
            for (key, counts) in keys.iter().filter(|(key, _)| range.contains(key)) {
                *exact.entry(key).or_default() += counts[index];
            }
        }
        exact
    }

    fn check_window(&self, window: Window, range: &KeyRange, series: Series) {
        let exact = self.exact(window, range, usize::from(series == Series::Writes));
        let part = self.query(window, range.clone(), series);
        part.check(4).expect("as a peer checks it");
        for key in &part.keys {
            let ops = exact.get(&*key.key).copied().unwrap_or(0);
            assert!(key.lower <= ops && ops <= key.upper, "{key:?} had {ops} in {window:?}");
            assert!(key.points.iter().sum::<u64>() <= ops);
            assert!(range.contains(&key.key));
        }
        for (key, ops) in &exact {
            let listed = part.keys.iter().any(|named| named.key == *key);
            assert!(listed || *ops <= part.threshold, "{ops} > {}", part.threshold);
        }
        // The sum of the lower bounds of a cell never exceeds the cell.
        let lower: u64 = part.keys.iter().map(|key| key.lower).sum();
        assert!(lower <= exact.values().sum(), "conservation");
        assert!(lower <= part.operations);
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn bounds_hold_through_columns_folds_restarts_and_a_hand_over(steps in steps()) {
        let mut node = Node::new();
        for step in &steps {
            node.run(step);
        }
        node.check();
        node.flush();
        node.check();
        // Handed over, the same is answered under the name of the node that counted.
        let all = Window { from_ms: START_MS, to_ms: node.now_ms + 1 }.widened(STEP_MS);
        let own = node.query(all, KeyRange::all(), Series::Writes);
        let handoff = node.history.handoffs(node.sampler.peek()).remove(0);
        let records: Vec<_> = handoff.records().collect();
        let (handoff, damaged) = HistoryHandoff::of_records(NodeId(1), records).expect("whole");
        prop_assert!(damaged.is_empty());
        let keeper = History::new(config(), NodeId(2), Incarnation(1), node.now_ms).expect("valid");
        keeper.take_handoff(handoff);
        let view = keeper.view(all, sampler().peek());
        let query =
            HotKeysQuery { window: all, range: KeyRange::all(), series: Series::Writes, points: 4 };
        let parts = view.hot_keys(&query, &|| true).expect("wanted");
        prop_assert_eq!((parts[1].node, parts[1].held_by), (NodeId(1), NodeId(2)));
        let handed = merge(parts, 1_000);
        let direct = merge(vec![own], 1_000);
        prop_assert_eq!(handed.operations, direct.operations);
        prop_assert!(handed.threshold >= direct.threshold);
        // Kept in other columns, so with other bounds.
        let exact = node.exact(all, &KeyRange::all(), 1);
        for key in &handed.keys {
            let (ops, bounds) = (exact.get(&*key.bounds.key).copied().unwrap_or(0), &key.bounds);
            prop_assert!(bounds.lower <= ops && ops <= bounds.upper, "{bounds:?} had {ops}");
        }
        for (key, ops) in exact {
            let listed = handed.keys.iter().any(|named| named.bounds.key == key);
            prop_assert!(listed || ops <= handed.threshold);
        }
    }
}

/// A window that begins so many steps after the start and has so many, and how much of a step it is
/// moved.
fn windows() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    prop::collection::vec((0u64..30, 1u64..30, prop_oneof![Just(0), 1..STEP_MS]), 1..6)
}

impl Node {
    /// For every cell of the matrix, and for all of them.
    fn check_cells(&self, window: Window, range: &KeyRange, series: Series) {
        let query = Query { window, range: range.clone(), series, role: None };
        let size = MatrixSize::default();
        let matrix = Matrix::local(&self.sampler, &self.history, &query, size, self.now_ms);
        let matrix = matrix.expect("planned");
        let sum_of_lower = |window, range| -> u64 {
            self.query(window, range, series).keys.iter().map(|key| key.lower).sum()
        };
        // What keys of the range and others have together may be of the range; what other times
        // have too says nothing for certain.
        let shared = matrix.blocks.iter().filter(|block| block.straddling && block.reach.is_none());
        let most = matrix.total + shared.map(|block| block.value).sum::<u64>();
        let lower = sum_of_lower(window.widened(STEP_MS), range.clone());
        assert!(lower <= most, "{lower} of {most} in {window:?}");
        for (row, cells) in (0u32..).zip(&matrix.rows) {
            for ((at, column), own) in (0u32..).zip(&matrix.columns).zip(&cells.values) {
                let blocks = matrix.blocks.iter().filter(|block| {
                    let rows = block.first_row..block.first_row + block.row_count;
                    let one = block.column == at && block.column_count == 1;
                    rows.contains(&row) && one && block.reach.is_none()
                });
                let cell = own + blocks.map(|block| block.value).sum::<u64>();
                let window = Window { from_ms: column.start_ms, to_ms: column.end_ms };
                let lower = sum_of_lower(window, cells.range.clone());
                assert!(lower <= cell, "{lower} of {cell} in {window:?}, {:?}", cells.range);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sum_of_lower_bounds_never_exceeds_the_cell(steps in steps(), windows in windows()) {
        let mut node = Node::new();
        for step in &steps {
            node.run(step);
        }
        for (from, length, moved) in windows {
            let from_ms = START_MS + from * STEP_MS + moved;
            let window = Window { from_ms, to_ms: from_ms + length * STEP_MS };
            for range in [KeyRange::all(), KeyRange { start: "k2".into(), end: Some("k5".into()) }]
            {
                for series in [Series::Reads, Series::Writes] {
                    // What happened within the window, and what its cells say.
                    node.check_window(window, &range, series);
                    node.check_cells(window, &range, series);
                }
            }
        }
    }
}

#[test]
fn what_was_counted_for_a_longer_time_is_no_lower_bound() {
    let mut node = Node::new();
    node.run(&Step::Load { keys: 3, calls: 300, skew: 0, seed: 5, op: false });
    node.run(&Step::Wait { ms: STEP_MS });
    let cut = Window { from_ms: START_MS + 1, to_ms: START_MS + STEP_MS };
    for (window, certain) in [(cut, 0), (cut.widened(STEP_MS), 300)] {
        let part = node.query(window, KeyRange::all(), Series::Writes);
        let sum = |bound: fn(&KeyBounds) -> u64| part.keys.iter().map(bound).sum::<u64>();
        assert_eq!(sum(|key| key.lower), certain);
        assert_eq!(sum(|key| key.points.iter().sum()), certain);
        assert_eq!(sum(|key| key.bytes), certain * 10);
        assert_eq!(sum(|key| key.upper), 300, "upper as counted");
    }
}

#[test]
fn bounds_a_checkpoint_of_long_keys_is_small() {
    let mut node = Node::new();
    for n in 0..1_000u32 {
        let key = [&vec![b'w'; 4_090][..], &n.to_be_bytes()].concat();
        for op in [Op::Read, Op::Write] {
            for _ in 0..4 {
                node.sampler.with_epoch(|epoch| {
                    let located = epoch.locate(&key).expect("published");
                    epoch.record(op, located, &key, 1, 10);
                });
                node.count(&key, op);
            }
        }
        if n % 50 == 0 {
            node.flush();
        }
    }
    node.flush();
    let records = node.stored.iter().filter(|(key, _)| crate::history::archive::is_hot_keys(key));
    let bytes: Vec<usize> = records.map(|(_, record)| record.len()).collect();
    assert!(bytes.len() == 1 && bytes[0] <= 192 << 10, "{bytes:?}");
    node.run(&Step::Restart { kill: true });
    node.check();
}

#[test]
fn hot_keys_of_a_cell_are_part_of_the_cell() {
    let mut node = Node::new();
    let load = |keys, seed| Step::Load { keys, calls: 900, skew: 2, seed, op: false };
    node.run(&load(2_000, 5));
    node.run(&Step::Wait { ms: 2 * STEP_MS });
    node.run(&load(50, 6));
    let window = Window { from_ms: START_MS, to_ms: node.now_ms + 1 }.widened(STEP_MS);
    let query = Query { window, range: KeyRange::all(), series: Series::Writes, role: None };
    let size = MatrixSize::default();
    let matrix = Matrix::local(&node.sampler, &node.history, &query, size, node.now_ms);
    let matrix = matrix.expect("planned");
    assert!(matrix.total > 1_700);
    for (index, row) in (0u32..).zip(&matrix.rows) {
        let own: u64 = row.values.iter().sum();
        // What was counted for keys of this row and of others together.
        let shares = |first: u32, count: u32| (first..first + count).contains(&index);
        let shared = matrix.blocks.iter().filter(|b| shares(b.first_row, b.row_count));
        let cell = own + shared.map(|block| block.value).sum::<u64>();
        let part = node.query(window, row.range.clone(), Series::Writes);
        let lower: u64 = part.keys.iter().map(|key| key.lower).sum();
        assert!(lower <= cell, "{lower} of {cell} in {:?}", row.range);
        assert_eq!(part.operations, cell);
    }
}

#[test]
fn bounds_the_oldest_columns_list_fewer_keys_over_the_budget() {
    let config = HistoryConfig { bytes: 4 << 20, step_ms: 1_000, ..HistoryConfig::default() };
    let sampler = sampler();
    let history = History::new(config, NodeId(1), Incarnation(1), START_MS).expect("valid");
    for column in 1..=60u64 {
        for n in 0..900u64 {
            let key = format!("some/quite/long/name/of/a/key/{:07}", column * 900 + n);
            sampler.with_epoch(|epoch| {
                let located = epoch.locate(key.as_bytes()).expect("published");
                epoch.record_write(located, key.as_bytes(), 1, 10);
            });
        }
        let _ = history.add(START_MS + column * 1_000, sampler.harvest());
    }
    let held = history.holdings().hot_key_bytes;
    assert!(held <= 512 << 10 && held > 256 << 10, "{held}");
    let listed = |from: u64| {
        let window = Window { from_ms: START_MS + from, to_ms: START_MS + from + 1_000 };
        let query =
            HotKeysQuery { window, range: KeyRange::all(), series: Series::Writes, points: 0 };
        let view = history.view(window, sampler.peek());
        let part = view.hot_keys(&query, &|| true).expect("wanted").remove(0);
        (part.keys.len(), part.threshold)
    };
    assert_eq!(listed(59_000), (900, 0), "the newest lists all");
    let (keys, threshold) = listed(0);
    assert!(keys < 900 && threshold == 1, "{keys}");
}
