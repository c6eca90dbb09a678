//! What brings routes together that have long been without load.

use bytes::Bytes;

use super::input::Input;
use super::journal::{By, Cooling, State};
use super::policy::Merge;
use crate::insight::Act;
use keyviz_types::{KeyRange, RouteSpec};

/// Steps that are tried.
const STEPS: usize = 16;

/// Steps towards fewer routes, the best first: merges of two cold neighbours, and moves that bring
/// some into one group.
pub(super) fn merges(input: &Input<'_>, cooling: &Cooling<'_>, moves: bool) -> Vec<Act> {
    if input.policy.merge == Merge::None {
        return Vec::new();
    }
    let routes = &input.topology.routes;
    let cold = |route: &RouteSpec| {
        let since = input.cold.since(route.id);
        since.is_some_and(|since| {
            since.saturating_add(input.policy.merge_after_ms()) <= input.now_ms
        })
    };
    let pairs = routes
        .windows(2)
        .filter(|pair| cold(&pair[0]) && cold(&pair[1]) && may_go(input, &pair[1].range.start));
    let (mut merges, mut brings) = (Vec::new(), Vec::new());
    for pair in pairs {
        let [left, right] = pair else { continue };
        if left.group == right.group {
            let range = KeyRange { start: left.range.start.clone(), end: right.range.end.clone() };
            merges.push(Act::Merge { range });
            continue;
        }
        if moves && cooling.free(&right.range) {
            brings.push(Act::Move { range: right.range.clone(), to: left.group });
        }
        if moves && cooling.free(&left.range) {
            brings.push(Act::Move { range: left.range.clone(), to: right.group });
        }
    }
    merges.truncate(STEPS);
    brings.truncate(STEPS);
    merges.into_iter().chain(brings).collect()
}

/// Whether the boundary at a key may be removed: it is one that the autopilot made, unless all may.
fn may_go(input: &Input<'_>, key: &Bytes) -> bool {
    let splits_here = |act: &Act| match act {
        Act::Split { at } | Act::SplitAndMove { at, .. } => at == key,
        _ => false,
    };
    let mut splits = input.journal.iter().rev().filter(|past| splits_here(&past.act));
    let newest = splits.find(|past| past.state != State::Failed);
    match newest {
        Some(past) => past.by == By::Autopilot || input.policy.merge == Merge::All,
        None => input.policy.merge == Merge::All,
    }
}
