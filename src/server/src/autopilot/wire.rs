//! Acts, forecasts and outcomes as they are decided on, recorded and sent.

use bytes::Bytes;

use keyviz_catalog::{ActForecast, ActOutcome, ActState, JournalEntry, LayoutAct, LoadChange};
use keyviz_core::autopilot::{Outcome, Policy};
use keyviz_core::insight::{Act, Change, Forecast};
use keyviz_proto as proto;

pub(super) fn act_from_stored(act: &LayoutAct) -> Act {
    match act {
        LayoutAct::Split { at } => Act::Split { at: Bytes::copy_from_slice(at) },
        LayoutAct::SplitAndMove { at, range, to } => {
            Act::SplitAndMove { at: Bytes::copy_from_slice(at), range: range.clone(), to: *to }
        }
        LayoutAct::Move { range, to } => Act::Move { range: range.clone(), to: *to },
        LayoutAct::TransferLeader { group, to } => Act::TransferLeader { group: *group, to: *to },
        LayoutAct::Merge { range } => Act::Merge { range: range.clone() },
    }
}

/// `None`: it is no change of the layout.
pub(super) fn act_to_stored(act: &Act) -> Option<LayoutAct> {
    Some(match act {
        Act::Split { at } => LayoutAct::Split { at: at.to_vec() },
        Act::SplitAndMove { at, range, to } => {
            LayoutAct::SplitAndMove { at: at.to_vec(), range: range.clone(), to: *to }
        }
        Act::Move { range, to } => LayoutAct::Move { range: range.clone(), to: *to },
        Act::TransferLeader { group, to } => LayoutAct::TransferLeader { group: *group, to: *to },
        Act::Merge { range } => LayoutAct::Merge { range: range.clone() },
        Act::ReadFromFollowers { .. } => return None,
    })
}

pub(super) fn act_to_wire(act: &Act) -> proto::Act {
    let of = |act: &str| proto::Act { act: act.to_owned(), ..Default::default() };
    match act.clone() {
        Act::Split { at } => proto::Act { at: Some(at), ..of("split") },
        Act::SplitAndMove { at, range, to } => proto::Act {
            at: Some(at),
            start: Some(range.start),
            end: range.end,
            group: Some(to.0),
            ..of("split-and-move")
        },
        Act::Move { range, to } => {
            proto::Act { start: Some(range.start), end: range.end, group: Some(to.0), ..of("move") }
        }
        Act::TransferLeader { group, to } => {
            proto::Act { group: Some(group.0), node: Some(to.0), ..of("transfer-leader") }
        }
        Act::Merge { range } => {
            proto::Act { start: Some(range.start), end: range.end, ..of("merge") }
        }
        Act::ReadFromFollowers { range } => {
            proto::Act { start: Some(range.start), end: range.end, ..of("read-from-followers") }
        }
    }
}

fn milli(value: f64) -> u64 {
    // What is no number, or negative, is 0.
    (value * 1e3).round() as u64
}

fn unit(milli: u64) -> f64 {
    milli as f64 / 1e3
}

fn stored(id: u64, change: &Change) -> LoadChange {
    LoadChange { id, before: milli(change.before), after: milli(change.after) }
}

pub(super) fn forecast_to_stored(forecast: &Forecast) -> ActForecast {
    ActForecast {
        nodes: forecast.nodes.iter().map(|(node, change)| stored(node.0, change)).collect(),
        groups: forecast.groups.iter().map(|(group, change)| stored(group.0, change)).collect(),
        imbalance: stored(0, &forecast.imbalance),
        routes_saved: forecast.routes_saved,
    }
}

/// `alone`: no other act was measured with it.
pub(super) fn outcome_to_stored(outcome: &Outcome, alone: bool) -> ActOutcome {
    let without = milli(outcome.without);
    let replayed = ActOutcome { without, worse: outcome.worse, ..ActOutcome::default() };
    if !alone {
        return replayed;
    }
    ActOutcome {
        nodes: outcome.nodes.iter().map(|(node, change)| stored(node.0, change)).collect(),
        imbalance: stored(0, &outcome.imbalance),
        operations: stored(0, &outcome.operations),
        ..replayed
    }
}

fn change_to_wire(change: &LoadChange) -> proto::LoadChange {
    proto::LoadChange { id: change.id, before: unit(change.before), after: unit(change.after) }
}

/// The largest before and after.
fn hottest(changes: &[LoadChange]) -> (f64, f64) {
    let most = |of: fn(&LoadChange) -> u64| unit(changes.iter().map(of).max().unwrap_or(0));
    (most(|change| change.before), most(|change| change.after))
}

fn stored_forecast_to_wire(forecast: &ActForecast) -> proto::Forecast {
    let (hottest_before, hottest_after) = hottest(&forecast.nodes);
    proto::Forecast {
        nodes: forecast.nodes.iter().map(change_to_wire).collect(),
        groups: forecast.groups.iter().map(change_to_wire).collect(),
        unplaced: 0.0,
        hottest_before,
        hottest_after,
        imbalance_before: unit(forecast.imbalance.before),
        imbalance_after: unit(forecast.imbalance.after),
        routes_saved: forecast.routes_saved,
    }
}

fn outcome_to_wire(outcome: &ActOutcome) -> proto::ActOutcome {
    let (hottest_before, hottest_after) = hottest(&outcome.nodes);
    proto::ActOutcome {
        from_ms: outcome.from_ms,
        to_ms: outcome.to_ms,
        nodes: outcome.nodes.iter().map(change_to_wire).collect(),
        hottest_before,
        hottest_after,
        imbalance_before: unit(outcome.imbalance.before),
        imbalance_after: unit(outcome.imbalance.after),
        imbalance_without: unit(outcome.without),
        rate_before: unit(outcome.operations.before),
        rate_after: unit(outcome.operations.after),
        worse: outcome.worse,
        missing: outcome.missing.clone(),
    }
}

pub(super) fn entry_to_wire(entry: &JournalEntry) -> proto::JournalEntry {
    let act = act_from_stored(&entry.act);
    let (state, failure) = match &entry.state {
        ActState::UnderWay => ("under-way", String::new()),
        ActState::Done => ("done", String::new()),
        ActState::Failed { reason } => ("failed", reason.clone()),
    };
    proto::JournalEntry {
        id: entry.id,
        by: if entry.autopilot { "autopilot" } else { "operator" }.to_owned(),
        words: act.words(),
        act: Some(act_to_wire(&act)),
        why: entry.why.clone(),
        finding: entry.finding.clone(),
        state: state.to_owned(),
        failure,
        started_ms: entry.started_ms,
        ended_ms: entry.ended_ms,
        forecast: entry.forecast.as_ref().map(stored_forecast_to_wire),
        outcome: entry.outcome.as_ref().map(outcome_to_wire),
        undoes: entry.undoes,
        undone_by: entry.undone_by,
        catalog_version: entry.version,
    }
}

pub(super) fn policy_to_wire(policy: &Policy) -> proto::AutopilotPolicy {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    proto::AutopilotPolicy {
        acts_per_minute: policy.acts_per_minute,
        move_bytes: policy.move_bytes,
        moves: policy.moves,
        cool_down_ms: millis(policy.cool_down),
        act_above: policy.act_above,
        until: policy.until,
        least_load: policy.least_load,
        merge_after_ms: millis(policy.merge_after),
        max_routes: policy.max_routes,
        merge: policy.merge.name().to_owned(),
    }
}
