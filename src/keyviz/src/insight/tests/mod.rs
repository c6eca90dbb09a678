//! Bad input, forecasts, and findings over time.

mod follow;
mod labelled;
mod measure;
mod trace;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::query::{ColumnSet, ColumnSpan};
use crate::sampler::Series;
use keyviz_types::{KeyRange, RouteId, RouteSpec};
use labelled::{COLUMNS, START_MS, STEP_MS, key, labelled};

const NOW_MS: u64 = START_MS + COLUMNS as u64 * STEP_MS;

pub(super) fn look(load: &Load, topology: &Topology) -> Vec<Finding> {
    let input =
        Input { load, before: None, hot_keys: &[], topology, able: Able::ALL, now_ms: NOW_MS };
    analyze(&input).expect("a sound load")
}

pub(super) fn columns(count: usize) -> Vec<ColumnSpan> {
    let span = |at: u64| ColumnSpan {
        start_ms: START_MS + at * STEP_MS,
        end_ms: START_MS + (at + 1) * STEP_MS,
        open: false,
    };
    (0..count as u64).map(span).collect()
}

/// One row a value: the same in each column.
pub(super) fn steady(values: &[u64], count: usize) -> Load {
    let row = |(at, &value): (usize, &u64)| {
        let end = (at + 1 < values.len()).then(|| key(at + 1));
        let mut row = LoadRow::new(KeyRange { start: key(at), end });
        (row.writes, row.reads) = (vec![value; count], vec![0; count]);
        row
    };
    Load {
        columns: columns(count),
        partial: ColumnSet::new(),
        rows: values.iter().enumerate().map(row).collect(),
    }
}

/// Each row a route; groups by turns, each led by a node of its own.
pub(super) fn topology(rows: usize, groups: usize) -> Topology {
    let node = |at: usize| NodeId((at % groups) as u64 + 1);
    let route = |at: usize| RouteSpec {
        id: RouteId::new(at as u64 + 1).expect("not 0"),
        range: KeyRange { start: key(at), end: (at + 1 < rows).then(|| key(at + 1)) },
        group: GroupId((at * groups / rows) as u64 + 1),
    };
    let place = |at: usize| GroupPlace {
        group: GroupId(at as u64 + 1),
        leader: Some(node(at)),
        replicas: vec![node(at), node(at + 1)],
    };
    Topology {
        nodes: (0..groups).map(node).collect(),
        groups: (0..groups).map(place).collect(),
        routes: (0..rows).map(route).collect(),
    }
}

pub(super) fn hot_rows(rows: usize, hot: std::ops::Range<usize>, value: u64) -> Load {
    let values: Vec<u64> =
        (0..rows).map(|row| if hot.contains(&row) { value } else { 6_000 }).collect();
    steady(&values, 20)
}

#[test]
fn bad_input_without_counts_nothing_is_found() {
    let nothing = Topology::default();
    assert_eq!(look(&Load::default(), &nothing), []);
    assert_eq!(look(&steady(&[0; 30], 20), &topology(30, 3)), []);
    let rows_alone = Load { columns: Vec::new(), ..steady(&[0; 3], 0) };
    assert_eq!(look(&rows_alone, &nothing), []);
    let columns_alone = Load { rows: Vec::new(), ..steady(&[], 20) };
    assert_eq!(look(&columns_alone, &nothing), []);
}

#[test]
fn bad_input_even_loads_without_routes_or_groups_have_no_finding() {
    assert_eq!(look(&steady(&[6_000; 30], 20), &Topology::default()), []);
    assert_eq!(look(&steady(&[6_000; 30], 20), &topology(30, 3)), []);
}

#[test]
fn bad_input_that_is_not_as_described_is_refused_with_the_place() {
    let refused = |load: &Load| {
        let topology = Topology::default();
        let input = Input {
            load,
            before: None,
            hot_keys: &[],
            topology: &topology,
            able: Able::ALL,
            now_ms: 0,
        };
        analyze(&input).expect_err("it is not sound")
    };
    let sound = steady(&[1, 2, 3], 4);
    let mut load = sound.clone();
    load.columns.swap(1, 2);
    assert_eq!(refused(&load), LoadError::Column { index: 2 });
    let mut load = sound.clone();
    load.rows.swap(0, 1);
    assert_eq!(refused(&load), LoadError::Row { index: 1 });
    let mut load = sound;
    load.rows[2].reads.pop();
    assert_eq!(refused(&load), LoadError::Values { index: 2 });
    let large = steady(&[1; MAX_LOAD_ROWS + 1], 1);
    let error = LoadError::TooLarge { rows: MAX_LOAD_ROWS + 1, columns: 1 };
    assert_eq!(refused(&large), error);
}

#[test]
fn a_hot_range_is_split_and_moved_and_the_forecast_says_to_what() {
    let findings = look(&hot_rows(40, 4..8, 120_000), &topology(40, 4));
    let hot = findings.iter().find(|finding| finding.kind == Kind::HotRange).expect("found");
    assert_eq!((hot.range.start.clone(), hot.range.end.clone()), (key(4), Some(key(8))));
    let remedy = &hot.remedies[0];
    let node = remedy.forecast.hottest_node();
    assert!(matches!(remedy.act, Act::Move { .. } | Act::SplitAndMove { .. }));
    assert!(node.after < 0.7 * node.before, "{node:?}");
    assert!(hot.advice.contains("the hottest node falls"), "{}", hot.advice);
}

#[test]
fn a_remedy_that_changes_nothing_is_not_offered_where_one_node_serves_all() {
    let mut topology = topology(40, 4);
    topology.nodes.truncate(1);
    for place in &mut topology.groups {
        (place.leader, place.replicas) = (Some(NodeId(1)), vec![NodeId(1)]);
    }
    let findings = look(&hot_rows(40, 4..8, 120_000), &topology);
    let hot = findings.iter().find(|finding| finding.kind == Kind::HotRange).expect("found");
    assert_eq!(hot.remedies, []);
    assert!(hot.advice.starts_with("No split, move or transfer"), "{}", hot.advice);
}

#[test]
fn one_key_is_not_split_and_the_words_say_why() {
    let load = hot_rows(40, 4..5, 300_000);
    let name = Bytes::from("key/00004/it");
    let lower = 290_000 * 20;
    let values = vec![290_000; 20];
    let named = NamedKey { key: name.clone(), series: Series::Writes, lower, upper: lower, values };
    let topology = topology(40, 4);
    let hot_keys = [named];
    let input = Input {
        load: &load,
        before: None,
        hot_keys: &hot_keys,
        topology: &topology,
        able: Able::ALL,
        now_ms: NOW_MS,
    };
    let findings = analyze(&input).expect("sound");
    assert_eq!(findings[0].kind, Kind::OneKey);
    assert_eq!(findings[0].key, Some(name));
    assert_eq!(findings[0].remedies, []);
    assert!(findings[0].advice.starts_with("A split cannot divide one key"));
    assert!(findings.iter().all(|finding| finding.kind != Kind::HotRange), "{findings:?}");
}

#[test]
fn a_finding_that_goes_on_keeps_its_id_and_its_beginning_and_ends_with_a_time() {
    let topology = topology(40, 4);
    let first = look(&hot_rows(40, 4..8, 120_000), &topology);
    let hot = |findings: &[Finding]| {
        findings.iter().find(|found| found.kind == Kind::HotRange).expect("found").clone()
    };
    let mut tracker = Tracker::new();
    tracker.observe(first, NOW_MS, 120_000);
    let before = hot(&tracker.open());
    // The range drifts by a row, and the beginning has left the window.
    let mut drifted = look(&hot_rows(40, 5..9, 120_000), &topology);
    drifted.iter_mut().for_each(|finding| finding.since.at_ms += STEP_MS);
    tracker.observe(drifted, NOW_MS + 60_000, 120_000);
    let after = hot(&tracker.open());
    assert_eq!((after.id, after.since), (before.id, before.since));
    assert_ne!(after.range, before.range);
    tracker.observe(Vec::new(), NOW_MS + 120_000, 120_000);
    assert_eq!(hot(&tracker.open()).id, before.id);
    tracker.observe(Vec::new(), NOW_MS + 180_000, 120_000);
    assert_eq!(tracker.open(), []);
    let ended = tracker.resolved().find(|ended| ended.id == before.id).expect("kept");
    assert_eq!(ended.resolved_ms, Some(NOW_MS + 60_000));
}

#[test]
fn bounds_of_ten_thousand_findings_those_that_rank_highest_are_kept() {
    let found = look(&hot_rows(40, 4..8, 120_000), &topology(40, 4));
    let one = found.into_iter().find(|finding| finding.kind == Kind::HotRange).expect("found");
    let many = |from: usize| -> Vec<Finding> {
        let at = |at: usize| {
            let range = KeyRange { start: key(at), end: Some(key(at + 1)) };
            let (id, share) = (FindingId(at as u64), (at - from) as f64 / 1e4);
            Finding { id, share, range, ..one.clone() }
        };
        (from..from + 10_000).map(at).collect()
    };
    let mut tracker = Tracker::new();
    tracker.observe(many(1), NOW_MS, 0);
    let open = tracker.open();
    assert_eq!(open.len(), MAX_FINDINGS);
    assert!(open.iter().all(|finding| finding.share >= (10_000 - MAX_FINDINGS) as f64 / 1e4));
    for round in 1..7 {
        tracker.observe(many(1 + round * 10_000), NOW_MS + round as u64, 0);
    }
    assert_eq!(tracker.open().len(), MAX_FINDINGS);
    assert_eq!(tracker.resolved().count(), MAX_RESOLVED);
}

/// Sums before and after, of nodes and of groups.
fn sums(forecast: &Forecast) -> [f64; 4] {
    let nodes = forecast.nodes.values();
    let groups = forecast.groups.values();
    [
        nodes.clone().map(|change| change.before).sum(),
        nodes.map(|change| change.after).sum(),
        groups.clone().map(|change| change.before).sum(),
        groups.map(|change| change.after).sum(),
    ]
}

#[test]
fn law_1_conservation_forecasts_move_load_and_neither_make_nor_lose_any() {
    let mut forecasts = 0;
    for seed in 0..60 {
        let world = labelled(seed);
        let input = Input {
            load: &world.load,
            before: world.before.as_ref(),
            hot_keys: &world.hot_keys,
            topology: &world.topology,
            able: Able::ALL,
            now_ms: NOW_MS,
        };
        for remedy in analyze(&input).expect("sound").iter().flat_map(|found| &found.remedies) {
            let [nodes, nodes_after, groups, groups_after] = sums(&remedy.forecast);
            let equal = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.max(b);
            assert!(equal(nodes, nodes_after) && equal(groups, groups_after), "{remedy:?}");
            assert!(equal(nodes, groups), "every group has a leader: {remedy:?}");
            assert!(remedy.forecast.helps());
            forecasts += 1;
        }
    }
    assert!(forecasts > 50, "{forecasts} forecasts");
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..1_000u64, Just(u64::MAX), any::<u64>()]
}

prop_compose! {
    fn any_load()(rows in 0..24usize, count in 0..30usize)(
        cells in prop::collection::vec(value(), rows * count * 3),
        ends in prop::collection::vec(1..5u64, count),
        partial in prop::collection::vec(any::<bool>(), count),
        known in prop::collection::vec(any::<[bool; 3]>(), rows),
        grouped in prop::collection::vec(prop::option::of(0..5u64), rows),
    ) -> Load {
        let count = ends.len();
        let rows = (0..known.len()).map(|at| {
            let end = (at + 1 < known.len()).then(|| key(at + 1));
            let mut row = LoadRow::new(KeyRange { start: key(at), end });
            let list = |which: usize| match known[at][which] {
                true => cells[(at * 3 + which) * count..][..count].to_vec(),
                false => Vec::new(),
            };
            (row.reads, row.writes, row.write_bytes) = (list(0), list(1), list(2));
            (row.conflicts, row.follower_reads) = (list(0), list(2));
            row.group = grouped[at].map(GroupId);
            row
        });
        let rows = rows.collect();
        let spans = ends.iter().enumerate().map(|(at, length)| ColumnSpan {
            start_ms: at as u64 * 5_000,
            end_ms: at as u64 * 5_000 + length * 1_000,
            open: at + 1 == ends.len(),
        });
        let columns = spans.collect();
        let holes = partial.iter().enumerate().filter(|(_, hole)| **hole);
        let partial = holes.map(|(at, _)| at as u32).collect();
        Load { columns, partial, rows }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn bad_input_of_any_kind_gives_an_answer_with_sound_numbers(
        load in any_load(),
        before in prop::option::of(any_load()),
        groups in 1..5usize,
        named in prop::collection::vec((0..30usize, value(), value()), 0..5),
        now_ms in prop_oneof![Just(0), 0..200_000u64, Just(u64::MAX)],
    ) {
        let hot_key = |&(at, lower, upper): &(usize, u64, u64)| NamedKey {
            key: key(at), series: Series::Reads, lower, upper, values: vec![lower; at],
        };
        let hot_keys: Vec<NamedKey> = named.iter().map(hot_key).collect();
        let topology = topology(load.rows.len().max(1), groups);
        let before = before.as_ref();
        let input = Input {
            load: &load,
            before,
            hot_keys: &hot_keys,
            topology: &topology,
            able: Able::ALL,
            now_ms,
        };
        let findings = analyze(&input).expect("sound");
        let mut tracker = Tracker::new();
        tracker.observe(findings.clone(), now_ms, 0);
        for finding in findings {
            prop_assert!((0.0..=1.0).contains(&finding.share), "{finding:?}");
            prop_assert!((0.0..=1.0).contains(&finding.confidence), "{finding:?}");
            prop_assert!(finding.rate.is_finite() && finding.rate >= 0.0, "{finding:?}");
            prop_assert!(!finding.range.is_empty() && !finding.summary.is_empty());
            prop_assert!(finding.facts.iter().all(|fact| !fact.value.is_nan()), "{finding:?}");
            prop_assert!(finding.since.at_ms < finding.since.latest_ms);
            for remedy in &finding.remedies {
                let [nodes, nodes_after, groups, groups_after] = sums(&remedy.forecast);
                let equal = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.max(b);
                prop_assert!(equal(nodes, nodes_after) && equal(groups, groups_after));
                prop_assert!(remedy.forecast.helps());
            }
        }
    }
}
