//! Learned resolution, tested through the whole sampler: record, harvest and re-plan, column by
//! column.

use std::ops::Range;
use std::slice;
use std::sync::LazyLock;

use bytes::Bytes;

use super::*;
use crate::random::Random;
use crate::sampler::layout::Bucket;
use keyviz_types::{KeyRange, RouteId};

/// 100,000 keys behind a prefix of 40 bytes.
const KEYS: u64 = 100_000;
const OPS_A_COLUMN: u64 = 65_536;

fn key(number: u64) -> &'static [u8] {
    static ALL: LazyLock<Vec<String>> = LazyLock::new(|| {
        let prefix = "tenant/0001/region/eu/table/orders/";
        (0..KEYS).map(|number| format!("{prefix:-<40}{number:08}")).collect()
    });
    ALL[number as usize].as_bytes()
}

fn sampler(route_count: u64, config: SamplerConfig) -> Sampler {
    let sampler = Sampler::new(config).expect("the settings are inside their bounds");
    let start = |n| if n == 0 { Bytes::new() } else { key(n * (KEYS / route_count)).into() };
    let routes: Vec<_> = (0..route_count)
        .map(|n| RouteSpec {
            id: RouteId::new(n + 1).expect("from 1"),
            range: KeyRange { start: start(n), end: (n + 1 < route_count).then(|| start(n + 1)) },
            group: GroupId(n % 16 + 1),
        })
        .collect();
    sampler.publish_routes(1, routes).expect("a table");
    sampler
}

fn record(sampler: &Sampler, number: u64) {
    let key = key(number);
    let epoch = sampler.epoch();
    let located = epoch.locate(key).expect("published");
    epoch.record_write(located, key, 1, 100);
}

/// One column: nine of ten operations on a hot key.
fn column(sampler: &Sampler, stream: &mut Random, hot: &impl Fn(u64) -> u64) -> Harvest {
    for _ in 0..OPS_A_COLUMN {
        let number = match stream.below(10) {
            0 => stream.below(KEYS),
            _ => hot(stream.below(KEYS / 100)),
        };
        record(sampler, number);
    }
    sampler.harvest()
}

/// Rows that hold keys of `hot`, and the largest share, in thousandths, of a row that does not.
fn cover(harvest: &Harvest, hot: &[Range<u64>]) -> (usize, u64) {
    let [segment] = &harvest.segments[..] else { panic!("one epoch a column") };
    let overlaps = |range: &KeyRange| {
        hot.iter().any(|hot| {
            range.start.as_ref() < key(hot.end - 1)
                && range.end.as_ref().is_none_or(|end| end.as_ref() > key(hot.start))
        })
    };
    let rows = segment.layout.slots.iter().filter(|slot| overlaps(&slot.range)).count();
    let total: u64 = segment.cells.iter().map(|(_, counts)| counts.writes).sum();
    assert_eq!(total, OPS_A_COLUMN);
    let outside = segment
        .cells
        .iter()
        .filter(|(slot, _)| !overlaps(&segment.layout.slots[*slot as usize].range))
        .map(|(_, counts)| counts.writes * 1_000 / total);
    (rows, outside.max().unwrap_or(0))
}

#[test]
fn three_columns_teach_where_one_route_is_hot() {
    let sampler = sampler(1, SamplerConfig::default());
    let mut stream = Random(1);
    let hot = |n| 42_000 + n;
    for _ in 0..3 {
        let _ = column(&sampler, &mut stream, &hot);
        sampler.replan();
    }
    let (rows, outside) =
        cover(&column(&sampler, &mut stream, &hot), slice::from_ref(&(42_000..43_000)));
    assert!(rows >= 32 && outside <= 10, "{rows} rows, {outside} thousandths outside");
    let slots = sampler.epoch().layout().slots.clone();
    assert!(slots.iter().all(|slot| matches!(slot.bucket, Bucket::SubRange { .. })));
}

#[test]
fn three_columns_teach_which_of_many_routes_are_hot_and_where() {
    let sampler = sampler(10_000, SamplerConfig::default());
    let mut stream = Random(2);
    // Ten routes of ten keys; within the thousandth that a route has, all keys are hot.
    let hot = |n| (n % 10) * 10_000 + 70 + n / 10 % 10;
    for _ in 0..3 {
        let _ = column(&sampler, &mut stream, &hot);
        sampler.replan();
    }
    let ranges: Vec<_> = (0..10).map(|n| n * 10_000 + 70..n * 10_000 + 80).collect();
    let (rows, outside) = cover(&column(&sampler, &mut stream, &hot), &ranges);
    assert!(rows >= 32 && outside <= 10, "{rows} rows, {outside} thousandths outside");
    assert!(sampler.stats().slots <= 16_384);
}

#[test]
fn hot_routes_among_more_routes_than_rows_come_to_stand_alone() {
    let config = SamplerConfig { max_tracked_routes: 500, ..SamplerConfig::default() };
    let sampler = sampler(10_000, config);
    let mut stream = Random(3);
    let hot = |n| (n % 10) * 10_000 + 70 + n / 10 % 10;
    for _ in 0..5 {
        let _ = column(&sampler, &mut stream, &hot);
        sampler.replan();
    }
    let epoch = sampler.epoch();
    for n in 0..10 {
        let located = epoch.locate(key(n * 10_000 + 75)).expect("published");
        let bucket = &epoch.layout().slots[located.slot() as usize].bucket;
        assert!(!matches!(bucket, Bucket::Aggregate(_)), "{n}: {bucket:?}");
    }
    let ranges: Vec<_> = (0..10).map(|n| n * 10_000 + 70..n * 10_000 + 80).collect();
    let (_, outside) = cover(&column(&sampler, &mut stream, &hot), &ranges);
    assert!(outside <= 10, "{outside} thousandths outside");
}

/// A constant load must not make rows flicker: once it is learned, re-plans change nothing, or next
/// to nothing.
#[test]
fn rows_do_not_flicker_while_the_load_stays_the_same() {
    for (routes, max_tracked_routes) in [(1, 10_000), (10_000, 10_000), (10_000, 500)] {
        let config = SamplerConfig { max_tracked_routes, ..SamplerConfig::default() };
        let sampler = sampler(routes, config);
        let mut stream = Random(4);
        let mut changed = Vec::new();
        for _ in 0..16 {
            let _ = column(&sampler, &mut stream, &|n| 42_000 + n);
            let before = starts(&sampler);
            sampler.replan();
            let after = starts(&sampler);
            changed.push(after.symmetric_difference(&before).count());
            let learned = changed.len() > 8;
            assert!(!learned || before.is_subset(&after), "a border went and nothing asked for it");
        }
        let late: usize = changed[8..].iter().sum();
        assert!(late <= 20, "{routes} routes: rows that changed, a column: {changed:?}");
    }
}

fn starts(sampler: &Sampler) -> std::collections::BTreeSet<Bytes> {
    sampler.epoch().layout().slots.iter().map(|slot| slot.range.start.clone()).collect()
}

#[test]
fn a_hot_spot_that_moves_is_followed_within_the_budget() {
    let config = SamplerConfig { resolution_slots: 600, ..SamplerConfig::default() };
    let sampler = sampler(100, config);
    let mut stream = Random(5);
    for at in (0..10).map(|n| n * 9_000) {
        for _ in 0..3 {
            let _ = column(&sampler, &mut stream, &|n| at + n);
            sampler.replan();
            assert!(sampler.stats().slots <= 600);
        }
        let (rows, _) =
            cover(&column(&sampler, &mut stream, &|n| at + n), slice::from_ref(&(at..at + 1_000)));
        assert!(rows >= 32, "{rows} rows at {at}");
    }
}

#[test]
fn one_key_that_is_hot_by_itself_ends_up_alone() {
    let sampler = sampler(1, SamplerConfig::default());
    let mut stream = Random(6);
    for _ in 0..3 {
        let _ = column(&sampler, &mut stream, &|_| 55_555);
        sampler.replan();
    }
    let harvest = column(&sampler, &mut stream, &|_| 55_555);
    let epoch = sampler.epoch();
    let slot = epoch.locate(key(55_555)).expect("published").slot();
    let range = &epoch.layout().slots[slot as usize].range;
    assert!(!range.contains(key(55_500)) && !range.contains(key(55_600)), "{range:?}");
    assert!(harvest.segments[0].cells.len() > 32);
}

#[test]
fn a_replan_without_load_publishes_nothing() {
    let sampler = sampler(100, SamplerConfig::default());
    for _ in 0..3 {
        let _ = sampler.harvest();
        assert!(!sampler.replan());
    }
    let empty = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
    assert!(!empty.replan());
}

/// A hot range is resolved seconds after it begins, within the column.
#[test]
fn a_range_that_becomes_hot_is_resolved_within_the_column() {
    let sampler = sampler(1, SamplerConfig::default());
    let mut stream = Random(7);
    for _ in 0..3 {
        let _ = column(&sampler, &mut stream, &|n| 42_000 + n);
        sampler.replan();
    }
    let harvest = column(&sampler, &mut stream, &|n| 70_000 + n);
    let (before, _) = cover(&harvest, slice::from_ref(&(70_000..71_000)));
    assert!(sampler.refine(), "there is a new hot range");
    let harvest = column(&sampler, &mut stream, &|n| 70_000 + n);
    let (after, _) = cover(&harvest, slice::from_ref(&(70_000..71_000)));
    assert!(after >= 32 && after > before, "{before} rows before, {after} after");
    // Nothing was forgotten, and nothing moved.
    let first = starts(&sampler);
    for _ in 0..8 {
        let _ = column(&sampler, &mut stream, &|n| 70_000 + n);
        sampler.refine();
    }
    assert!(first.is_subset(&starts(&sampler)), "boundaries stay");
    let _ = column(&sampler, &mut stream, &|n| 70_000 + n);
    assert!(!sampler.refine(), "a load that stays the same makes no more layouts");
}

/// Free slots are used even for a light load: 250 operations a second, at a step of two seconds.
#[test]
fn a_light_load_on_one_route_is_told_apart_in_seconds() {
    let sampler =
        sampler(1, SamplerConfig { resolution_slots: 10_000, ..SamplerConfig::default() });
    let mut stream = Random(8);
    for second in 0..20 {
        for _ in 0..250 {
            record(&sampler, stream.below(KEYS));
        }
        let _ = sampler.harvest();
        if second % 2 == 0 {
            sampler.refine()
        } else {
            sampler.replan()
        };
    }
    let slots = sampler.stats().slots;
    assert!((100..=10_000).contains(&slots), "{slots} slots");
}

#[test]
fn a_refinement_without_load_publishes_nothing() {
    let sampler = sampler(100, SamplerConfig::default());
    let _ = sampler.harvest();
    assert!(!sampler.refine());
}
