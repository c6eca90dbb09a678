//! Takes load from the hottest node until none is much hotter than the mean.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::input::{Allowance, Decision, Input, Planned};
use super::journal::{By, Cooling, State};
use super::layout::{Layout, imbalance};
use super::reason::Reason;
use crate::insight::{Act, Forecast, is_one_key, label_of, within};
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Of the mean: an act must make the hotter of two nodes so much cooler.
pub(super) const LEAST_GAIN: f64 = 0.05;
/// What an act may be worse than a cheaper one, of the mean: a transfer copies nothing, a move
/// copies rows, a split with a move makes a route too.
const PRICE_OF_MOVE: f64 = 0.03;
const PRICE_OF_SPLIT: f64 = 0.06;
/// Routes of a node that are looked at: the hottest.
const ROUTES: usize = 8;
/// Nodes that load is given to: the coolest.
const TARGETS: usize = 3;
/// Begun so lately, the lower level holds.
const GOES_ON_MS: u64 = 60_000;

/// Plans acts, as many as are allowed, each on the layout that the ones before would leave.
pub(super) fn balance(
    input: &Input<'_>,
    mut layout: Layout<'_>,
    cooling: &mut Cooling<'_>,
    allowance: &mut Allowance,
    decision: &mut Decision,
) {
    if input.topology.nodes.len() < 2 {
        decision.reasons.push(Reason::OneNode);
        return;
    }
    let mut level = level(input);
    let mut pinned: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let mut nodes = layout.nodes();
        let of_all = nodes.values().sum::<f64>() / nodes.len().max(1) as f64;
        nodes.retain(|node, _| !pinned.contains(node));
        let mean = nodes.values().sum::<f64>() / nodes.len().max(1) as f64;
        let uneven = imbalance(&nodes);
        let hottest = nodes.iter().max_by(|a, b| a.1.total_cmp(b.1));
        // Beside a node that nothing helps, the others may be uneven without being hot.
        let is_hot = |load: f64| uneven > level && load > level * of_all;
        let Some((&hot, &load)) = hottest.filter(|(_, load)| is_hot(**load)) else {
            if pinned.is_empty() && decision.acts.is_empty() {
                decision.reasons.push(Reason::Even { imbalance: uneven, level });
            }
            return;
        };
        if let Some(reason) = indivisible(input, &layout, hot, mean) {
            decision.reasons.push(reason);
            pinned.insert(hot);
            continue;
        }
        let candidates = candidates(&layout, hot, (load, mean), &pinned);
        let best = candidates
            .into_iter()
            .filter(|act| allowed(input, &layout, act))
            .filter(|act| cooling.allows(act))
            .filter_map(|act| judged(input, &layout, act, hot, (load, mean), &pinned))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, act, forecast)) = best else {
            decision.reasons.push(Reason::Nothing { node: hot, times: load / mean });
            return;
        };
        if !allowance.permits(&act) {
            decision.reasons.push(match allowance.acts {
                0 => Reason::ActsSpent { per_minute: input.policy.acts_per_minute },
                _ => Reason::MovesSpent { most: input.policy.moves },
            });
            return;
        }
        allowance.take(&act);
        cooling.add(&act);
        layout = layout.with(&act);
        let why = format!("Node {hot} has {:.2} times the mean load.", load / mean);
        decision.acts.push(Planned { act, why, forecast, undoes: None });
        level = input.policy.until;
    }
}

/// The imbalance from which on something is done: the lower one once it has begun.
fn level(input: &Input<'_>) -> f64 {
    let begun = |past: &super::Past| {
        let ended_ms = past.ended_ms.unwrap_or(input.now_ms);
        let lately = ended_ms.saturating_add(GOES_ON_MS) > input.now_ms;
        past.by == By::Autopilot && past.state != State::Failed && lately
    };
    match input.journal.iter().any(begun) {
        true => input.policy.until,
        false => input.policy.act_above,
    }
}

/// Why no act can cool a node: one range that cannot be divided is too much by itself.
fn indivisible(input: &Input<'_>, layout: &Layout<'_>, hot: NodeId, mean: f64) -> Option<Reason> {
    let leads = |range: &KeyRange| {
        let group = layout.group_of(range);
        group.is_some_and(|group| layout.leaders.get(&group) == Some(&hot))
    };
    let own = layout.present.ranges.iter().filter(|row| leads(&row.range));
    let most = own.max_by(|a, b| a.led.total_cmp(&b.led))?;
    if most.led <= mean * input.policy.act_above {
        return None;
    }
    let share = most.led / layout.present.cost().max(1e-9);
    let keys = label_of(&most.range);
    Some(match is_one_key(&most.range) {
        true => Reason::OneKey { node: hot, key: keys, share },
        false => Reason::Coarse { node: hot, keys, share },
    })
}

/// What could be done about a node.
fn candidates(
    layout: &Layout<'_>,
    hot: NodeId,
    (load, mean): (f64, f64),
    pinned: &BTreeSet<NodeId>,
) -> Vec<Act> {
    let mut acts = Vec::new();
    for place in &layout.topology.groups {
        if layout.leaders.get(&place.group) == Some(&hot) {
            let serves = |node: &&NodeId| layout.topology.nodes.contains(node);
            let others = place.replicas.iter().filter(serves);
            let others = others.filter(|node| **node != hot && !pinned.contains(node));
            let transfer = |&to: &NodeId| Act::TransferLeader { group: place.group, to };
            acts.extend(others.map(transfer));
        }
    }
    let targets = targets(layout, hot, pinned);
    for (range, group) in hottest_routes(layout, hot) {
        for &(to, cool) in &targets {
            let wanted = (load - mean).min(mean - cool).max(0.0);
            acts.extend(parts(layout, &range, wanted).into_iter().map(|part| match part {
                Part::Whole => Act::Move { range: range.clone(), to },
                Part::Side { at, range } => Act::SplitAndMove { at, range, to },
            }));
            debug_assert_ne!(to, group, "another node leads it");
        }
    }
    acts
}

/// The coolest nodes with the group that has the least of those that each leads.
fn targets(layout: &Layout<'_>, hot: NodeId, pinned: &BTreeSet<NodeId>) -> Vec<(GroupId, f64)> {
    let (nodes, groups) = (layout.nodes(), layout.groups());
    let mut cool: Vec<(NodeId, f64)> = nodes.into_iter().collect();
    cool.retain(|(node, _)| *node != hot && !pinned.contains(node));
    cool.sort_by(|a, b| a.1.total_cmp(&b.1));
    let least = |node: NodeId| {
        let led = layout.leaders.iter().filter(move |(_, leader)| **leader == node);
        let led = led.map(|(group, _)| (groups.get(group).copied().unwrap_or(0.0), *group));
        led.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    };
    let with_group = cool.into_iter().filter_map(|(node, load)| Some((least(node)?.1, load)));
    with_group.take(TARGETS).collect()
}

fn hottest_routes(layout: &Layout<'_>, hot: NodeId) -> Vec<(KeyRange, GroupId)> {
    let led = layout.routes.iter().filter(|(_, group)| layout.leaders.get(group) == Some(&hot));
    let mut routes: Vec<(f64, &(KeyRange, GroupId))> =
        led.map(|route| (rows_of(layout, &route.0).map(|row| row.1).sum(), route)).collect();
    routes.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.0.start.cmp(&b.1.0.start)));
    let some = routes.into_iter().filter(|(load, _)| *load > 0.0).take(ROUTES);
    some.map(|(_, route)| route.clone()).collect()
}

/// The ranges that lie in a route, and what its leader has to do for each.
fn rows_of<'a>(
    layout: &'a Layout<'_>,
    route: &'a KeyRange,
) -> impl Iterator<Item = (&'a KeyRange, f64)> {
    let ranges = &layout.present.ranges;
    let from =
        ranges.partition_point(|row| row.range.end.as_ref().is_some_and(|end| *end <= route.start));
    let inside = ranges[from..].iter().take_while(|row| within(&row.range, route));
    inside.map(|row| (&row.range, row.led))
}

enum Part {
    Whole,
    Side { at: Bytes, range: KeyRange },
}

/// The whole route, and the sides of it whose load is nearest to what is wanted.
fn parts(layout: &Layout<'_>, route: &KeyRange, wanted: f64) -> Vec<Part> {
    let rows: Vec<(&KeyRange, f64)> = rows_of(layout, route).collect();
    let all: f64 = rows.iter().map(|row| row.1).sum();
    let mut parts = vec![Part::Whole];
    let mut best: [Option<(f64, &Bytes)>; 2] = [None, None];
    let mut below = 0.0;
    for pair in rows.windows(2) {
        below += pair[0].1;
        let at = &pair[1].0.start;
        for (side, load) in [below, all - below].into_iter().enumerate() {
            let off = (load - wanted).abs();
            if load > 0.0 && best[side].is_none_or(|(least, _)| off < least) {
                best[side] = Some((off, at));
            }
        }
    }
    let [left, right] = best.map(|best| best.map(|(_, at)| at.clone()));
    parts.extend(left.map(|at| Part::Side {
        range: KeyRange { start: route.start.clone(), end: Some(at.clone()) },
        at,
    }));
    parts.extend(right.map(|at| Part::Side {
        range: KeyRange { start: at.clone(), end: route.end.clone() },
        at,
    }));
    parts
}

fn allowed(input: &Input<'_>, layout: &Layout<'_>, act: &Act) -> bool {
    let splits = matches!(act, Act::Split { .. } | Act::SplitAndMove { .. });
    !splits || (layout.routes.len() as u64) < input.policy.max_routes
}

/// An act with what it leaves, price included; `None` where it does not help. What it makes hotter
/// must stay below the level: keys that were moved cannot move on before they have cooled down.
fn judged(
    input: &Input<'_>,
    layout: &Layout<'_>,
    act: Act,
    hot: NodeId,
    (load, mean): (f64, f64),
    pinned: &BTreeSet<NodeId>,
) -> Option<(f64, Act, Forecast)> {
    let forecast = layout.forecast(&act);
    let warmer = forecast.nodes.iter().filter(|(node, change)| {
        **node == hot || change.after > change.before && !pinned.contains(node)
    });
    let left = warmer.map(|(_, change)| change.after).fold(0.0, f64::max);
    let mut others = forecast.nodes.iter().filter(|(node, _)| **node != hot);
    let makes_hot =
        others.any(|(_, change)| change.after > change.before.max(input.policy.act_above * mean));
    if makes_hot || left > load - LEAST_GAIN * mean {
        return None;
    }
    let price = match act {
        Act::TransferLeader { .. } => 0.0,
        Act::SplitAndMove { .. } => PRICE_OF_SPLIT,
        _ => PRICE_OF_MOVE,
    };
    Some((left.max(mean) + price * mean, act, forecast))
}

impl Layout<'_> {
    /// The group of a range that lies in one route.
    fn group_of(&self, range: &KeyRange) -> Option<GroupId> {
        let at = self.routes.partition_point(|(route, _)| route.start <= range.start);
        let (route, group) = self.routes.get(at.checked_sub(1)?)?;
        within(range, route).then_some(*group)
    }
}
