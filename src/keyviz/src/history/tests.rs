//! A history by itself: time, budgets, restarts and bad bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::sampler::*;
use crate::*;

const STEP: u64 = 60_000;
const HOUR: u64 = 3_600_000;
const YEAR: u64 = 365 * 24 * HOUR;
const NOW: u64 = 480_000 * HOUR;

fn config() -> HistoryConfig {
    HistoryConfig { step_ms: STEP, ..HistoryConfig::default() }
}

fn history(config: HistoryConfig, incarnation: u64, now_ms: u64) -> History {
    History::new(config, NodeId(1), Incarnation(incarnation), now_ms).expect("valid")
}

/// Routes of two groups in turn, of which the first is led.
fn layout(routes: u64) -> Arc<Layout> {
    let key = |index: u64| Bytes::from(format!("key/{index:06}"));
    let slot = |index: u64| Slot {
        range: KeyRange {
            start: if index == 0 { Bytes::new() } else { key(index) },
            end: (index + 1 < routes).then(|| key(index + 1)),
        },
        bucket: Bucket::Route(RouteId::new(index + 1).expect("above 0")),
        group: GroupId(index % 2 + 1),
        lead: index.is_multiple_of(2).then_some(Term(3)),
    };
    Arc::new(Layout { catalog_version: 1, slots: (0..routes).map(slot).collect() })
}

fn writes(count: u64) -> Counts {
    Counts { writes: count, write_bytes: 100 * count, ..Counts::ZERO }
}

fn harvest(layout: &Arc<Layout>, cells: Vec<(u32, Counts)>) -> Harvest {
    let segments = vec![Segment { layout: Arc::clone(layout), cells }];
    Harvest { segments, unattributed: Counts::ZERO, hot_keys: None }
}

fn one(layout: &Arc<Layout>, count: u64) -> Harvest {
    harvest(layout, vec![(0, writes(count))])
}

fn query(from_ms: u64, to_ms: u64) -> Query {
    let window = Window { from_ms, to_ms };
    Query { window, range: KeyRange::all(), series: Series::Writes, role: None }
}

/// Writes by column start, as a matrix shows them.
fn shown(history: &History, from_ms: u64, to_ms: u64) -> Vec<(u64, u64)> {
    let matrix = asked(history, from_ms, to_ms);
    let column = |(index, span): (usize, &ColumnSpan)| (span.start_ms, matrix.column_total(index));
    matrix.columns.iter().enumerate().map(column).filter(|(_, total)| *total > 0).collect()
}

fn asked(history: &History, from_ms: u64, to_ms: u64) -> Matrix {
    let query = query(from_ms, to_ms);
    let routes = [RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) }];
    let request = PlanRequest {
        routes: &routes,
        catalog_version: 1,
        range: &query.range,
        max_rows: 0,
        max_route_ids: 1,
        boundaries: None,
    };
    let totals = history.totals(&query, Harvest::default());
    let rows = plan(&request, &[totals]).expect("one route");
    let columns = plan_columns(query.window, STEP, 2048, to_ms).expect("within bounds");
    let mine = history.columns(&query, &rows.axis(), &columns, Harvest::default());
    let status = NodeStatus { node: Some(history.node()), ok: true, ..NodeStatus::default() };
    merge(rows, columns, &query, vec![mine], vec![status])
}

#[test]
fn a_configuration_outside_its_bounds_is_refused() {
    use HistoryConfigError::{Bytes, Columns, Step};
    let with = |change: fn(&mut HistoryConfig)| {
        let mut config = HistoryConfig::default();
        change(&mut config);
        config.validate()
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|c| c.step_ms = 999), Err(Step { step_ms: 999 }));
    assert_eq!(with(|c| c.step_ms = HOUR + 1), Err(Step { step_ms: HOUR + 1 }));
    assert_eq!(with(|c| c.columns = 0), Err(Columns { columns: 0 }));
    assert_eq!(with(|c| c.columns = usize::MAX), Err(Columns { columns: usize::MAX }));
    assert_eq!(with(|c| c.bytes = 1 << 20), Err(Bytes { bytes: 1 << 20 }));
}

#[test]
fn aligned_time_counts_harvested_at_a_boundary_belong_to_the_column_that_ends() {
    let (history, layout) = (history(config(), 1, NOW + 1), layout(4));
    assert!(history.add(NOW + STEP - 1, one(&layout, 1)).closed.is_empty());
    let flushed = history.add(NOW + STEP, one(&layout, 2));
    let ids: Vec<_> = flushed.closed.iter().map(|column| column.id()).collect();
    assert_eq!(ids, [ColumnId { start_ms: NOW, end_ms: NOW + STEP }]);
    assert_eq!(flushed.closed[0].total(), writes(3));
    let _ = history.add(NOW + STEP + 1, one(&layout, 4));
    assert_eq!(shown(&history, NOW, NOW + 2 * STEP), [(NOW, 3), (NOW + STEP, 4)]);
}

#[test]
fn aligned_time_a_clock_that_jumps_loses_nothing_and_keeps_the_order() {
    let (history, layout) = (history(config(), 1, NOW), layout(4));
    for (minute, count) in [(1, 1), (2, 2)] {
        let _ = history.add(NOW + minute * STEP, one(&layout, count));
    }
    // A year ahead, and an hour back from there: the column of that time is added to.
    let _ = history.add(NOW + YEAR, one(&layout, 4));
    let _ = history.add(NOW + YEAR + STEP, one(&layout, 8));
    let _ = history.add(NOW, one(&layout, 16));
    let flushed = history.add(NOW + STEP, one(&layout, 32));
    assert_eq!(flushed.closed[0].total(), writes(1 + 32), "reopened, closed again with more");
    let _ = history.add(NOW + STEP, one(&layout, 64));
    let early = [(NOW, 33), (NOW + STEP, 2 + 64), (NOW + 2 * STEP, 4)];
    assert_eq!(shown(&history, NOW, NOW + HOUR), early);
    let late = [(NOW + YEAR, 8), (NOW + YEAR + STEP, 16)];
    assert_eq!(shown(&history, NOW + YEAR, NOW + YEAR + HOUR), late);
    // Both ends of time.
    let _ = history.add(0, one(&layout, 128));
    let _ = history.add(u64::MAX, one(&layout, 256));
    let _ = history.add(NOW, one(&layout, 512));
    assert_eq!(shown(&history, 0, STEP), [(0, 256)]);
}

#[test]
fn aligned_time_a_stall_leaves_known_empty_columns_and_a_jump_none() {
    let (history, layout) = (history(config(), 1, NOW), layout(4));
    let flushed = history.add(NOW + 5 * STEP, one(&layout, 1));
    assert_eq!(flushed.closed.len(), 5);
    assert_eq!(history.holdings().columns, 6);
    assert!(flushed.closed[1..].iter().all(|column| column.total() == Counts::ZERO));
    assert_eq!(history.add(NOW + YEAR, Harvest::default()).closed.len(), 1);
    assert_eq!(history.holdings().columns, 7);
    let query = query(NOW, NOW + HOUR);
    let columns = plan_columns(query.window, STEP, 0, NOW + YEAR).expect("within bounds");
    let rows = RowAxis::new(vec![Bytes::new()], None, vec![0]).expect("one row");
    let mine = history.columns(&query, &rows, &columns, Harvest::default());
    assert_eq!(
        mine.held,
        ColumnSet::of(0..6),
        "held, though empty, is not the same as never there"
    );
}

#[test]
fn bounds_of_columns_fold_the_oldest_without_losing_a_count() {
    let history = history(HistoryConfig { columns: 7, ..config() }, 1, NOW);
    let mut total = 0;
    for minute in 1..=600 {
        // Layouts change all the time.
        let layout = layout(20 + minute % 3);
        let cells = (0..20).map(|slot| (slot, writes(minute + u64::from(slot)))).collect();
        total += 20 * minute + 190;
        let _ = history.add(NOW + minute * STEP, harvest(&layout, cells));
        let holdings = history.holdings();
        assert!(holdings.columns <= 7 + minute / 5 + 2, "{holdings:?}");
    }
    assert_eq!(history.holdings().forgotten_before_ms, 0);
    assert_eq!(asked(&history, NOW, NOW + 601 * STEP).total, total);
    let lengths = |from, to| {
        let columns = history.inspect(Window { from_ms: from, to_ms: to });
        columns.iter().map(|column| column.end_ms() - column.start_ms()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(NOW, NOW + 20 * STEP), [300_000; 4]);
    assert_eq!(lengths(NOW + 593 * STEP, NOW + 601 * STEP).last(), Some(&STEP));
}

#[test]
fn bounds_of_bytes_are_kept_by_folding_then_forgetting_and_both_are_shown() {
    let bytes = MIN_HISTORY_BYTES;
    let history = history(HistoryConfig { bytes, ..config() }, 1, NOW);
    let layout = layout(10_000);
    let mut model = BTreeMap::new();
    let minutes = 420;
    for minute in 0..minutes {
        // Forty bits a number, which no packing makes less of.
        let mixed = |slot: u32, series: u64| {
            let number = u64::from(slot) << 20 | minute << 8 | series;
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24
        };
        let counts = |slot| Counts {
            reads: mixed(slot, 1),
            writes: mixed(slot, 2),
            read_bytes: mixed(slot, 3),
            write_bytes: mixed(slot, 4),
        };
        let cells: Vec<_> = (0..10_000).map(|slot| (slot, counts(slot))).collect();
        let sum: u64 = cells.iter().map(|(_, counts)| counts.writes).sum();
        model.insert(NOW + minute * STEP, sum);
        let _ = history.add(NOW + (minute + 1) * STEP, harvest(&layout, cells));
        assert!(history.holdings().bytes <= bytes, "{:?}", history.holdings());
    }
    let holdings = history.holdings();
    let kept: u64 = model.range(holdings.forgotten_before_ms..).map(|(_, sum)| sum).sum();
    assert!(holdings.forgotten_before_ms > NOW && kept > 0, "{holdings:?}");
    assert_eq!(holdings.oldest_ms, holdings.forgotten_before_ms);
    let matrix = asked(&history, NOW, NOW + minutes * STEP);
    assert_eq!(matrix.total, kept);
    // What is forgotten is shown as missing, what is folded as blocks of several columns.
    for (index, span) in (0..).zip(&matrix.columns) {
        let forgotten = span.start_ms < holdings.forgotten_before_ms;
        assert_eq!(matrix.rows[0].partial.contains(index), forgotten, "{span:?}");
    }
    assert!(matrix.blocks.iter().any(|block| block.column_count > 1 && !block.straddling));
    let mut blocks: BTreeMap<_, u64> = BTreeMap::new();
    for block in &matrix.blocks {
        assert_eq!(block.row_count, 1, "a slot lies inside its row");
        *blocks.entry((block.column, block.column_count)).or_default() += block.value;
    }
    for ((column, columns), value) in blocks {
        let spans = &matrix.columns[column as usize..][..columns as usize];
        let window = spans[0].start_ms..spans[spans.len() - 1].end_ms;
        let exact: u64 = model.range(window.clone()).map(|(_, sum)| sum).sum();
        // The newest hour takes in its minutes one after the other; the others are cells so far.
        let held = history.inspect(Window { from_ms: window.start, to_ms: window.end });
        let minutes = held.iter().filter(|column| column.end_ms() - column.start_ms() == STEP);
        let unfolded: u64 = minutes.map(|column| model[&column.start_ms()]).sum();
        assert_eq!(value + unfolded, exact, "{columns} columns from {column} on");
    }
    assert!(matrix.rows[0].apportioned.is_empty());
}

#[test]
fn honest_partiality_a_death_marks_what_was_checkpointed_and_a_stop_does_not() {
    let layout = layout(4);
    let before = history(config(), 1, NOW);
    let _ = before.add(NOW + STEP, one(&layout, 1));
    let _ = before.add(NOW + STEP + 1, one(&layout, 2));
    let checkpoint = before.checkpoint();
    assert!(!checkpoint.closed());
    let restored = |column: Column| {
        let after = history(config(), 2, NOW + STEP + 2);
        let _ = after.restore([column]);
        let _ = after.add(NOW + STEP + 3, one(&layout, 4));
        asked(&after, NOW + STEP, NOW + 2 * STEP)
    };
    let died = restored(checkpoint);
    assert_eq!((died.total, died.rows[0].partial.len()), (2 + 4, 1));
    let flushed = before.close(NOW + STEP + 2, one(&layout, 8));
    let stopped = restored(Column::clone(&flushed.closed[0]));
    assert_eq!((stopped.total, stopped.rows[0].partial.len()), (2 + 8 + 4, 0));
}

#[test]
fn no_harm_a_view_neither_delays_nor_sees_what_is_added_later() {
    let (history, layout) = (history(config(), 1, NOW), layout(4));
    let _ = history.add(NOW + 1, one(&layout, 1));
    let query = query(NOW, NOW + HOUR);
    let view = history.view(query.window, one(&layout, 2));
    let _ = history.add(NOW + 2, one(&layout, 4));
    let _ = history.add(NOW + 3 * STEP, Harvest::default());
    let totals = view.totals(&query);
    assert_eq!(totals.ranges.iter().map(|range| range.total).sum::<u64>(), 3);
    assert_eq!(totals.catalog_version, 1);
}

#[test]
fn bounds_of_an_open_column_hold_when_leaders_change_all_the_time() {
    let history = history(config(), 1, NOW);
    for change in 1..500 {
        let _ = history.add(NOW + change, one(&layout(1_000), 1));
    }
    assert!(history.holdings().bytes < 1 << 20, "{:?}", history.holdings());
    assert_eq!(asked(&history, NOW, NOW + STEP).total, 499);
}

/// An archive of some columns, as a store has it.
fn stored() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let history = history(HistoryConfig { columns: 3, ..config() }, 1, NOW);
    let mut archive = Archive::default();
    let mut store = BTreeMap::new();
    for minute in 1..=13 {
        let layout = layout(300 + minute % 2);
        let cells = (0..300).map(|slot| (slot, writes(minute + u64::from(slot)))).collect();
        let flushed = history.add(NOW + minute * STEP, harvest(&layout, cells));
        let checkpoint = history.checkpoint();
        let columns = flushed.closed.iter().map(|column| &**column).chain([&checkpoint]);
        let batch = archive.batch(columns, &flushed.removed);
        store.extend(batch.puts);
        batch.deletes.iter().for_each(|key| drop(store.remove(key)));
    }
    store
}

fn total(columns: &[Column]) -> u64 {
    columns.iter().map(|column| column.total().writes).sum()
}

#[test]
fn conservation_of_what_is_archived_and_no_chunk_is_left_behind() {
    let store = stored();
    let opened = Archive::open(&store);
    assert!(opened.damaged.is_empty());
    assert_eq!(opened.garbage, Batch::default());
    let sum: u64 = (1..=13u64).map(|minute| 300 * minute + 299 * 300 / 2).sum();
    assert_eq!(total(&opened.columns), sum);
    // The keys are written once, whatever the number of columns.
    let chunks = store.iter().filter(|(key, _)| key[0] == b'a').map(|(_, value)| value.len());
    assert!(chunks.sum::<usize>() < 2 * 300 * 8);
}

#[test]
fn honest_partiality_every_damaged_byte_is_found_and_the_rest_is_read() {
    let store = stored();
    let whole = Archive::open(&store).columns.len();
    for (key, record) in &store {
        for at in (0..record.len()).step_by(7).chain([record.len() - 1]) {
            let mut store = store.clone();
            store.get_mut(key).expect("a stored record")[at] ^= 0x20;
            let opened = Archive::open(&store);
            assert_eq!(opened.damaged[0].key, *key);
            assert_eq!(opened.damaged[0].error, RecordError::Checksum);
            let needless = opened.columns.len() + opened.damaged.len() - 1;
            match key[0] {
                // All columns of a lost chunk are lost with it, and named.
                b'a' => assert_eq!(needless, whole),
                _ => assert_eq!((opened.columns.len(), opened.damaged.len()), (whole - 1, 1)),
            }
        }
    }
}

#[test]
fn records_of_another_version_kind_or_length_are_named_as_such() {
    let store = stored();
    let (key, record) = store.last_key_value().expect("a column");
    let sealed = |mut record: Vec<u8>| {
        let at = record.len() - 4;
        let checksum = crc32fast::hash(&record[..at]);
        record[at..].copy_from_slice(&checksum.to_le_bytes());
        record
    };
    let error = |record: Vec<u8>| Archive::open([(key, record)]).damaged[0].error;
    assert_eq!(error(vec![1, 2, 3]), RecordError::Short { bytes: 3 });
    let mut later = record.clone();
    later[3] = RECORD_VERSION + 1;
    assert_eq!(error(sealed(later)), RecordError::Version { version: RECORD_VERSION + 1 });
    let mut other = record.clone();
    other[2] = b'a';
    assert_eq!(error(sealed(other)), RecordError::Kind { kind: 'c' });
    let longer = [&record[..record.len() - 4], &[0; 5]].concat();
    assert_eq!(error(sealed(longer)), RecordError::Malformed);
    for length in 8..record.len() {
        let error = error(sealed(record[..length].to_vec()));
        assert!(matches!(error, RecordError::Malformed | RecordError::MissingChunk { .. }));
    }
}

proptest! {
    /// Bad bodies under good checksums: what a fuzzer would find behind the checksum.
    #[test]
    fn bounds_any_record_is_read_or_refused_without_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        victim: prop::sample::Index,
    ) {
        let mut store = stored();
        let key = store.keys().nth(victim.index(store.len())).expect("inside").clone();
        let record = store.get_mut(&key).expect("a stored record");
        let mut content = record[..record.len() - 4].to_vec();
        for (at, value) in flips {
            let at = 4 + at.index(content.len() - 4);
            content[at] = value;
        }
        if let Some(cut) = cut {
            content.truncate(4 + cut.index(content.len() - 3));
        }
        content.extend(crc32fast::hash(&content).to_le_bytes());
        *record = content;
        let opened = Archive::open(&store);
        // Whatever was read can be asked.
        let history = history(config(), 2, NOW + HOUR);
        let _ = history.restore(opened.columns);
        let matrix = asked(&history, NOW, NOW + HOUR);
        prop_assert!(matrix.columns.len() == 61 || matrix.columns.len() == 60);
    }
}

#[test]
fn honest_partiality_the_time_in_which_a_node_did_not_count_is_partial() {
    let layout = layout(2);
    let first = history(config(), 1, NOW);
    let stored = first.close(NOW + STEP / 2, one(&layout, 7)).closed;
    // Switched off for three minutes, in which the clock also stalls and is set back once.
    let off = history(config(), 2, NOW + STEP / 2).counting(false);
    let _ = off.restore(stored.iter().map(|column| Column::clone(column)));
    let mut kept: BTreeMap<u64, Column> = BTreeMap::new();
    for now_ms in [NOW + STEP, NOW + 3 * STEP, NOW + 2 * STEP, NOW + 3 * STEP + 1] {
        let closed = off.add(now_ms, Harvest::default()).closed;
        kept.extend(closed.iter().map(|column| (column.start_ms(), Column::clone(column))));
    }
    let closed = off.close(NOW + 3 * STEP + 2, Harvest::default()).closed;
    kept.extend(closed.iter().map(|column| (column.start_ms(), Column::clone(column))));
    let on = history(config(), 3, NOW + 4 * STEP);
    let _ = on.restore(kept.into_values());
    let _ = on.add(NOW + 5 * STEP, one(&layout, 5));
    let matrix = asked(&on, NOW, NOW + 6 * STEP);
    let partial: Vec<u32> = matrix.rows[0].partial.iter().collect();
    assert_eq!(partial, [0, 1, 2, 3], "and what was counted afterwards is whole");
    assert_eq!(matrix.total, 12);
}
