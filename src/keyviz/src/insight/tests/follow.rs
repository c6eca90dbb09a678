//! Findings of rows that follow the load, of little data, of clusters that cannot move, and of the
//! past.

use bytes::Bytes;

use super::labelled::{COLUMNS, START_MS, STEP_MS, labelled};
use super::{columns, hot_rows, look, steady, topology};
use crate::insight::*;
use crate::query::ColumnSet;
use crate::random::Random;
use keyviz_types::KeyRange;

const NOW_MS: u64 = START_MS + COLUMNS as u64 * STEP_MS;

fn kinds(findings: &[Finding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

/// Rows between these keys, each with these writes a column.
fn between(bounds: &[String], value: impl Fn(usize, usize) -> u64, count: usize) -> Load {
    let key = |at: usize| Bytes::from(bounds[at].clone());
    let row = |at: usize| {
        let mut row = LoadRow::new(KeyRange { start: key(at), end: Some(key(at + 1)) });
        row.writes = (0..count).map(|column| value(at, column)).collect();
        row
    };
    let rows = (0..bounds.len() - 1).map(row).collect();
    Load { columns: columns(count), partial: ColumnSet::new(), rows }
}

/// One hundred keys of ten thousand have nine of ten writes, and so most of the rows.
fn narrow_rows() -> Vec<String> {
    let mut bounds: Vec<String> = (0..6).map(|at| format!("user/{at}")).collect();
    bounds.extend((0..100).map(|at| format!("user/60{at:02}")));
    bounds.extend((61..100).step_by(4).map(|at| format!("user/{at}")));
    bounds
}

#[test]
fn a_hot_range_is_found_although_its_rows_are_most_and_as_hot_as_the_others() {
    let bounds = narrow_rows();
    let load = between(&bounds, |_, _| 6_000, 20);
    let findings = look(&load, &Topology::default());
    let hot = findings.iter().find(|found| found.kind == Kind::HotRange).expect("found");
    assert_eq!(hot.range.start, "user/6000");
    assert_eq!(hot.range.end.as_deref(), Some(&b"user/61"[..]));
    assert!((0.8..0.95).contains(&hot.share), "{}", hot.share);
}

#[test]
fn bounds_of_chance_a_few_counts_a_cell_are_a_hot_range_and_nothing_else() {
    let bounds = narrow_rows();
    for seed in 0..40 {
        // Nine of ten operations in a hundred rows from column 12 on, some 120 a column in all.
        let mut random = Random(seed);
        let mut column = |hot: bool| -> Vec<u64> {
            let mut counts = vec![0; bounds.len() - 1];
            for _ in 0..120 {
                let row = match hot && random.chance(0.9) {
                    true => random.whole(6, 106),
                    false => match random.whole(0, 100) {
                        at @ 0..60 => at / 10,
                        60 => random.whole(6, 106),
                        at => (106 + (at - 61) / 4).min(bounds.len() - 2),
                    },
                };
                counts[row] += 1;
            }
            counts
        };
        let grid: Vec<Vec<u64>> = (0..26).map(|at| column(at >= 12)).collect();
        let load = between(&bounds, |row, at| grid[at][row], 26);
        let findings = look(&load, &Topology::default());
        assert_eq!(kinds(&findings), [Kind::HotRange], "{seed}: {findings:#?}");
        let hot = &findings[0];
        assert!((0.7..0.95).contains(&hot.share), "{seed}: {hot:#?}");
        assert!(hot.since.at_ms.abs_diff(START_MS + 12 * STEP_MS) <= 2 * STEP_MS, "{hot:#?}");
        let even = between(&bounds, |row, at| grid[at % 12][row], 26);
        assert_eq!(look(&even, &Topology::default()), [], "{seed}");
    }
}

#[test]
fn a_row_of_one_key_is_found_as_one_key_with_its_name() {
    let bounds: Vec<String> =
        ["a", "c", "e", "k", "k\0", "p", "s", "x"].map(str::to_owned).to_vec();
    let load = between(&bounds, |row, _| if row == 3 { 60_000 } else { 6_000 }, 20);
    let findings = look(&load, &topology(8, 2));
    assert_eq!(kinds(&findings)[0], Kind::OneKey);
    assert_eq!(findings[0].key.as_deref(), Some(&b"k"[..]));
    assert!(findings[0].advice.starts_with("A split cannot divide one key"));
}

#[test]
fn bad_input_one_column_has_no_movement_no_period_and_little_confidence() {
    let values: Vec<u64> = (0..40).map(|row| if row < 4 { 120_000 } else { 6_000 }).collect();
    let findings = look(&steady(&values, 1), &topology(40, 4));
    let said = [Kind::HotRange, Kind::UnevenGroups, Kind::UnevenLeaders];
    assert!(kinds(&findings).iter().all(|kind| said.contains(kind)), "{findings:?}");
    assert!(findings.iter().all(|found| found.confidence <= 0.2), "{findings:?}");
    assert!(findings.iter().all(|found| found.since.earliest_ms.is_none()));
}

#[test]
fn bounds_of_chance_a_key_with_a_few_operations_is_no_finding() {
    let load = steady(&[0, 3, 0, 2, 0, 1], 6);
    let key = |at: usize| {
        let (key, values) = (super::labelled::key(at), vec![3; 6]);
        NamedKey { key, series: crate::sampler::Series::Writes, lower: 18, upper: 18, values }
    };
    let (hot_keys, topology) = ([key(1), key(3)], Topology::default());
    let (before, able) = (None, Able::ALL);
    let hot_keys = &hot_keys;
    let input = Input { load: &load, before, hot_keys, topology: &topology, able, now_ms: NOW_MS };
    assert_eq!(analyze(&input), Ok(Vec::new()));
}

#[test]
fn honest_partiality_a_fall_in_columns_that_miss_counts_is_no_finding() {
    let mut load = steady(&[6_000; 30], 20);
    for row in &mut load.rows[..15] {
        row.writes[12..].fill(0);
    }
    load.partial.insert(12..20);
    assert_eq!(look(&load, &topology(30, 3)), []);
    // Where most columns are partial they count, and what is found is less certain.
    let mut hot = hot_rows(40, 4..8, 120_000);
    let sure = look(&hot, &topology(40, 4))[0].confidence;
    hot.partial.insert(0..20);
    let unsure = look(&hot, &topology(40, 4))[0].confidence;
    assert!(unsure <= sure / 2.0 + 1e-9, "{unsure} of {sure}");
}

#[test]
fn acts_that_the_cluster_cannot_do_are_not_offered_and_the_words_say_why() {
    let (load, topology) = (hot_rows(40, 4..8, 120_000), topology(40, 4));
    let no_moves = Able { moves: false, ..Able::ALL };
    let input = |able| Input {
        load: &load,
        before: None,
        hot_keys: &[],
        topology: &topology,
        able,
        now_ms: NOW_MS,
    };
    let hot = |able| {
        let found = analyze(&input(able)).expect("sound");
        found.into_iter().find(|found| found.kind == Kind::HotRange).expect("found")
    };
    let moved = |act: &Act| matches!(act, Act::Move { .. } | Act::SplitAndMove { .. });
    assert!(hot(Able::ALL).remedies.iter().any(|remedy| moved(&remedy.act)));
    let without = hot(no_moves);
    assert!(!without.remedies.iter().any(|remedy| moved(&remedy.act)));
    assert!(without.advice.contains("does not move a route"), "{}", without.advice);
    let nothing = Able { split: false, merge: false, transfer: false, moves: false };
    for seed in 0..30 {
        let world = labelled(seed);
        let input = Input { load: &world.load, topology: &world.topology, ..input(nothing) };
        for remedy in analyze(&input).expect("sound").iter().flat_map(|found| &found.remedies) {
            assert!(matches!(remedy.act, Act::ReadFromFollowers { .. }), "{remedy:?}");
        }
    }
}

#[test]
fn a_finding_that_falls_apart_and_is_found_as_one_again_keeps_its_id_and_leaves_no_part() {
    let found = look(&hot_rows(40, 4..10, 120_000), &topology(40, 4));
    let hot = found.into_iter().find(|found| found.kind == Kind::HotRange).expect("found");
    let part = |from: &'static str, to: &'static str, id| {
        let range = KeyRange { start: from.into(), end: Some(to.into()) };
        Finding { id: FindingId(id), range, ..hot.clone() }
    };
    let mut tracker = Tracker::new();
    tracker.observe(vec![part("key/00004", "key/00010", 5)], 1_000, 10_000);
    let parts = [part("key/00004", "key/00006", 6), part("key/00007", "key/00010", 7)];
    tracker.observe(parts.into(), 2_000, 10_000);
    assert_eq!(tracker.open().len(), 2);
    tracker.observe(vec![part("key/00004", "key/00010", 8)], 3_000, 10_000);
    assert_eq!(tracker.current(), tracker.open());
    let open: Vec<FindingId> = tracker.open().iter().map(|found| found.id).collect();
    assert_eq!((open, tracker.resolved().count()), (vec![FindingId(5)], 0));
    tracker.observe(Vec::new(), 4_000, 10_000);
    assert_eq!((tracker.current().len(), tracker.open().len()), (0, 1), "it lingers");
}

#[test]
fn whoever_looks_late_is_told_what_has_ended_and_the_ids_of_those_who_looked_before() {
    let bounds: Vec<String> = (0..40).map(|at| format!("key/{at:02}")).collect();
    let value = |row: usize, column: usize| {
        let ended = (4..8).contains(&row) && (10..30).contains(&column);
        let going = (20..23).contains(&row) && column >= 35;
        if ended || going { 120_000 } else { 6_000 }
    };
    let (load, topology) = (between(&bounds, value, COLUMNS), topology(40, 4));
    let input = |load| Input {
        load,
        before: None,
        hot_keys: &[],
        topology: &topology,
        able: Able::ALL,
        now_ms: NOW_MS,
    };
    let mut late = Tracker::new();
    follow(&mut late, &input(&load)).expect("sound");
    let hot = |tracker: &Tracker| -> Vec<Finding> {
        tracker.open().into_iter().filter(|found| found.kind == Kind::HotRange).collect()
    };
    let open = hot(&late);
    assert_eq!((open.len(), &open[0].range.start[..]), (1, &b"key/20"[..]), "{open:?}");
    let ended: Vec<&Finding> =
        late.resolved().filter(|found| found.kind == Kind::HotRange).collect();
    assert_eq!((ended.len(), &ended[0].range.start[..]), (1, &b"key/04"[..]), "{ended:?}");
    // Within the time between two looks of the 30th column.
    let end_ms = START_MS + 30 * STEP_MS;
    let resolved_ms = ended[0].resolved_ms.expect("it ended");
    assert!(resolved_ms.abs_diff(end_ms) <= 9 * STEP_MS, "{resolved_ms} and not {end_ms}");
    assert_eq!(ended[0].since.at_ms, START_MS + 10 * STEP_MS);

    // Looking again changes no id.
    let known: Vec<FindingId> = late.open().iter().map(|found| found.id).collect();
    follow(&mut late, &input(&load)).expect("sound");
    assert_eq!(late.open().iter().map(|found| found.id).collect::<Vec<_>>(), known);
    let mut other = Tracker::new();
    follow(&mut other, &input(&load)).expect("sound");
    assert_eq!(hot(&other)[0].id, open[0].id);
}
