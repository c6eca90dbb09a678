//! Routes that have long been without load, and what merges them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Input;
use super::cost::Present;
use super::journal::{By, Cooling, State};
use super::policy::Merge;
use crate::insight::{Act, Topology, overlap};
use keyviz_types::{KeyRange, RouteId, RouteSpec};

/// Of the mean node's load, below which a route is cold.
const COLD: f64 = 0.05;

/// Steps that are tried.
const STEPS: usize = 16;

/// Since when routes have been without load. It starts empty, so that a new leader of the catalog
/// group merges nothing before it has looked for long enough itself.
#[derive(Clone, Default, Debug)]
pub struct Cold {
    /// `None`: it is not.
    routes: BTreeMap<RouteId, (KeyRange, Option<u64>)>,
}

impl Cold {
    /// Takes a look at the present. A route that came from others is as cold as the warmest of
    /// them.
    pub fn observe(&mut self, present: &Present, topology: &Topology, now_ms: u64) {
        let level = COLD * present.cost() / topology.nodes.len().max(1) as f64;
        let known = std::mem::take(&mut self.routes);
        let mut loads = vec![0.0; topology.routes.len()];
        for row in &present.ranges {
            let from = topology.routes.partition_point(|route| {
                route.range.end.as_ref().is_some_and(|end| *end <= row.range.start)
            });
            let rest = &topology.routes[from..];
            let count = rest.iter().take_while(|route| overlap(&route.range, &row.range)).count();
            for load in &mut loads[from..from + count] {
                *load += row.cost() / count as f64;
            }
        }
        for (route, load) in topology.routes.iter().zip(loads) {
            let since = (load <= level).then(|| match known.get(&route.id) {
                Some((_, since)) => since.unwrap_or(now_ms),
                None => {
                    let before = known.values().filter(|(range, _)| overlap(range, &route.range));
                    before.map(|(_, since)| since.unwrap_or(now_ms)).max().unwrap_or(now_ms)
                }
            });
            self.routes.insert(route.id, (route.range.clone(), since));
        }
    }

    fn since(&self, route: RouteId) -> Option<u64> {
        self.routes.get(&route)?.1
    }
}

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
