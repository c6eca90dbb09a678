//! What a node leaves to another is counted once, whoever tells of it and however often.

use std::sync::Arc;

use super::*;
use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::sampler::*;
use crate::*;

const STEP: u64 = 60_000;
const NOW: u64 = 480_000 * 3_600_000;

fn history(node: u64) -> History {
    let config = HistoryConfig { step_ms: STEP, ..HistoryConfig::default() };
    History::new(config, NodeId(node), Incarnation(1), NOW).expect("valid")
}

/// Writes in the term in which the node led group 1.
fn writes(term: u64, count: u64) -> Harvest {
    let slot = Slot {
        range: KeyRange::all(),
        bucket: Bucket::Route(RouteId::FIRST),
        group: GroupId(1),
        lead: Some(Term(term)),
    };
    let layout = Arc::new(Layout { catalog_version: 1, slots: vec![slot] });
    let counts = Counts { writes: count, reads: count, ..Counts::ZERO };
    let segments = vec![Segment { layout, cells: vec![(0, counts)] }];
    Harvest { segments, unattributed: Counts::ZERO, hot_keys: None }
}

fn ask(histories: &[&History], series: Series) -> Matrix {
    let window = Window { from_ms: NOW, to_ms: NOW + 5 * STEP };
    let query = Query { window, range: KeyRange::all(), series, role: None };
    let routes = [RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) }];
    let request = PlanRequest {
        routes: &routes,
        catalog_version: 1,
        range: &query.range,
        max_rows: 0,
        max_route_ids: 1,
        boundaries: None,
    };
    let totals: Vec<NodeTotals> =
        histories.iter().map(|history| history.totals(&query, Harvest::default())).collect();
    let rows = plan(&request, &totals).expect("one route");
    let columns = plan_columns(window, STEP, 2048, window.to_ms).expect("within bounds");
    let mut parts = Vec::new();
    for history in histories {
        let view = history.view(window, Harvest::default());
        parts.push(view.columns(&query, &rows.axis(), &columns));
        parts.extend(view.handed_over(&query, &rows.axis(), &columns));
    }
    let status = |history: &&History| NodeStatus {
        node: Some(history.node()),
        ok: true,
        ..NodeStatus::default()
    };
    merge(rows, columns, &query, parts, histories.iter().map(status).collect())
}

#[test]
fn conservation_and_once_over_a_hand_over_told_by_both_or_twice() {
    let (stays, leaves, third) = (history(1), history(2), history(3));
    for (history, term, counts) in [(&stays, 1, [5, 0]), (&leaves, 2, [7, 11])] {
        for (at, count) in counts.into_iter().enumerate() {
            let _ = history.add(NOW + at as u64 * STEP + 1, writes(term, count));
        }
    }
    for series in [Series::Writes, Series::Reads] {
        assert_eq!(ask(&[&stays, &leaves], series).total, 23);
        assert_eq!(ask(&[&stays], series).total, 5);
    }
    for handoff in leaves.handoffs(Harvest::default()) {
        stays.take_handoff(handoff);
    }
    for series in [Series::Writes, Series::Reads] {
        let alone = ask(&[&stays], series);
        assert_eq!((alone.total, alone.conflicts.len()), (23, 0), "{series:?} after it left");
        assert!(alone.rows.iter().all(|row| row.partial.is_empty()), "nothing is missing");
        let both = ask(&[&stays, &leaves], series);
        assert_eq!((both.total, both.conflicts.len()), (23, 0), "{series:?} told by both");
    }
    // Handed over again, and on to a third with all that was kept.
    for handoff in leaves.handoffs(Harvest::default()) {
        stays.take_handoff(handoff);
    }
    for handoff in stays.handoffs(Harvest::default()) {
        third.take_handoff(handoff);
    }
    for asked in [&[&third][..], &[&stays, &third], &[&third, &leaves]] {
        assert_eq!(ask(asked, Series::Reads).total, 23);
    }
}

#[test]
fn bounds_what_is_kept_for_others_has_its_own_budget() {
    let config = HistoryConfig { step_ms: STEP, bytes: MIN_HISTORY_BYTES, columns: 20_000 };
    let stays = History::new(config, NodeId(1), Incarnation(1), NOW).expect("valid");
    let before = stays.holdings();
    for node in 2..6 {
        let roomy = HistoryConfig { bytes: 1 << 30, ..config };
        let leaves = History::new(roomy, NodeId(node), Incarnation(1), NOW).expect("valid");
        for at in 0..4_000 {
            let _ = leaves.add(NOW + at * STEP, writes(node, at + 1));
        }
        for handoff in leaves.handoffs(Harvest::default()) {
            stays.take_handoff(handoff);
        }
        let all = Window { from_ms: 0, to_ms: u64::MAX };
        let kept: usize =
            stays.handed_over().view(all).iter().map(|(left, _)| left.holdings.bytes).sum();
        assert!(kept <= MIN_HISTORY_BYTES / 4, "{kept} bytes are kept for others");
    }
    assert_eq!(stays.holdings(), before, "its own history is left alone");
}
