//! What helps. Each act is tried on the last columns, and only one that makes the hottest node
//! cooler, or saves routes, is offered.

use std::collections::BTreeSet;
use std::ops::Range;

use super::draft::Draft;
use super::finding::{Kind, Remedy};
use super::forecast::{Able, Act, forecast};
use super::frame::Frame;
use super::load::within;
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Most remedies of a finding.
const MAX_REMEDIES: usize = 4;
/// Of these, variants of one act.
const MAX_VARIANTS: usize = 2;
/// Cuts of a range that are tried.
const MAX_CUTS: usize = 8;

/// What is offered for a finding that concerns `range`, the best first.
pub(super) fn remedies(
    frame: &Frame<'_>,
    draft: &Draft,
    range: &KeyRange,
    able: Able,
) -> Vec<Remedy> {
    let acts = match draft.kind {
        Kind::OneKey => of_key(frame, draft),
        Kind::HotRange => of_range(frame, draft),
        Kind::UnevenLeaders => draft.node.map_or_else(Vec::new, |node| transfers(frame, node)),
        Kind::UnevenGroups => draft.group.map_or_else(Vec::new, |group| of_group(frame, group)),
        Kind::ReadHeavy | Kind::Scan => vec![Act::ReadFromFollowers { range: range.clone() }],
        Kind::ColdSplits => vec![Act::Merge { range: range.clone() }],
        Kind::SequentialAppend
        | Kind::MovingSpot
        | Kind::LargeValues
        | Kind::Conflicts
        | Kind::PeriodicBurst
        | Kind::SuddenChange => Vec::new(),
    };
    let possible = acts.into_iter().filter(|act| able.offers(act));
    let tried = possible.map(|act| Remedy { forecast: forecast(frame, &act), act });
    let mut offered: Vec<Remedy> = tried.filter(|remedy| remedy.forecast.helps()).collect();
    let hottest = |remedy: &Remedy| remedy.forecast.hottest_node().after;
    offered.sort_by(|a, b| hottest(a).total_cmp(&hottest(b)));
    // Variants of one act must not hide another.
    let mut kept: Vec<Remedy> = Vec::new();
    for remedy in offered {
        let kind = std::mem::discriminant(&remedy.act);
        let same = |other: &&Remedy| std::mem::discriminant(&other.act) == kind;
        if kept.iter().filter(same).count() < MAX_VARIANTS {
            kept.push(remedy);
        }
    }
    kept.truncate(MAX_REMEDIES);
    kept
}

/// A key cannot be divided. Followers can serve what of it is read, and what else its node leads
/// can go elsewhere.
fn of_key(frame: &Frame<'_>, draft: &Draft) -> Vec<Act> {
    let mut acts = vec![Act::ReadFromFollowers { range: frame.keys(&draft.rows) }];
    acts.extend(relieve(frame, draft));
    acts
}

/// Transfers of the groups of some rows, and of the others that their leaders lead.
fn relieve(frame: &Frame<'_>, draft: &Draft) -> Vec<Act> {
    let groups: BTreeSet<GroupId> =
        draft.rows.clone().filter_map(|row| frame.groups[row]).collect();
    let leader = |group| frame.topology.place(group).and_then(|place| place.leader);
    let nodes: BTreeSet<NodeId> = groups.into_iter().filter_map(leader).collect();
    nodes.into_iter().flat_map(|node| transfers(frame, node)).collect()
}

fn of_range(frame: &Frame<'_>, draft: &Draft) -> Vec<Act> {
    let mut acts = vec![Act::ReadFromFollowers { range: frame.keys(&draft.rows) }];
    let groups: BTreeSet<GroupId> =
        draft.rows.clone().filter_map(|row| frame.groups[row]).collect();
    for group in groups {
        let rows: Vec<usize> =
            draft.rows.clone().filter(|&row| frame.groups[row] == Some(group)).collect();
        acts.extend(moves(frame, group, rows[0]..rows[rows.len() - 1] + 1));
    }
    acts.extend(relieve(frame, draft));
    acts
}

/// The whole rows, or a part of them that begins or ends in the middle, to cooler groups.
fn moves(frame: &Frame<'_>, group: GroupId, rows: Range<usize>) -> Vec<Act> {
    let rates: Vec<f64> = rows.clone().map(|row| frame.now(&frame.rates[row])).collect();
    let total: f64 = rates.iter().sum();
    // Cuts near equal parts of the load.
    let mut cuts: BTreeSet<usize> = BTreeSet::new();
    for part in 1..=MAX_CUTS {
        let mut sum = 0.0;
        let past = rates.iter().position(|rate| {
            sum += rate;
            sum >= total * part as f64 / (MAX_CUTS + 1) as f64
        });
        let cut = rows.start + past.unwrap_or(0);
        cuts.extend([cut, cut + 1].into_iter().filter(|cut| rows.contains(cut)));
    }
    cuts.insert(rows.start);
    // A split has two sides, up to the bounds of the route; further routes go as a whole.
    let start = of_route(frame, rows.start).map_or(rows.start, |of| of.start);
    let end = of_route(frame, rows.end - 1).map_or(rows.end, |of| of.end);
    cuts.insert(start);
    let mut acts = Vec::new();
    for to in cooler(frame, group) {
        for &cut in &cuts {
            acts.push(moving(frame, cut..end, to));
            if cut > start {
                acts.push(moving(frame, start..cut, to));
            }
        }
    }
    acts
}

/// The rows of the route that a row lies in.
fn of_route(frame: &Frame<'_>, row: usize) -> Option<Range<usize>> {
    let ranges = &frame.load.rows;
    let route = frame.topology.routes.iter();
    let route = route.map(|route| &route.range).find(|range| within(&ranges[row].range, range))?;
    let start = (0..=row).rev().take_while(|&at| within(&ranges[at].range, route)).last()?;
    let end = (row..ranges.len()).take_while(|&at| within(&ranges[at].range, route)).last()?;
    Some(start..end + 1)
}

/// The act that moves some rows: with a split where their keys are not whole routes.
fn moving(frame: &Frame<'_>, rows: Range<usize>, to: GroupId) -> Act {
    let range = frame.keys(&rows);
    let routes = &frame.topology.routes;
    let begins = routes.iter().any(|route| route.range.start == range.start);
    let ends = routes.iter().any(|route| route.range.end == range.end);
    match (begins, ends, &range.end) {
        (true, true, _) => Act::Move { range, to },
        (true, false, Some(end)) => Act::SplitAndMove { at: end.clone(), range, to },
        _ => Act::SplitAndMove { at: range.start.clone(), range, to },
    }
}

/// Up to two groups that are led by another node, on the nodes with the least load.
fn cooler(frame: &Frame<'_>, group: GroupId) -> Vec<GroupId> {
    let leader = |group| frame.topology.place(group).and_then(|place| place.leader);
    let load = |of: &dyn Fn(GroupId) -> bool| -> f64 {
        let inside = |row: &usize| frame.groups[*row].is_some_and(of);
        (0..frame.rows()).filter(inside).map(|row| frame.now(&frame.rates[row])).sum()
    };
    let mut others: Vec<(f64, f64, GroupId)> = frame
        .topology
        .groups
        .iter()
        .filter(|place| place.leader.is_some() && place.leader != leader(group))
        .map(|place| {
            let node = load(&|group| leader(group) == place.leader);
            (node, load(&|group| group == place.group), place.group)
        })
        .collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    others.into_iter().take(2).map(|(_, _, group)| group).collect()
}

/// Every group of a node to every other node that has a replica of it.
fn transfers(frame: &Frame<'_>, node: NodeId) -> Vec<Act> {
    let mut acts = Vec::new();
    for place in frame.topology.groups.iter().filter(|place| place.leader == Some(node)) {
        let others = place.replicas.iter().filter(|&&other| other != node);
        acts.extend(others.map(|&to| Act::TransferLeader { group: place.group, to }));
    }
    acts
}

/// Parts of a group's longest stretches of keys, its other leaders, and its reads.
fn of_group(frame: &Frame<'_>, group: GroupId) -> Vec<Act> {
    let mut acts: Vec<Act> = Vec::new();
    let routes = frame.topology.routes.iter().filter(|route| route.group == group);
    let mut of_routes: Vec<(f64, Range<usize>)> = routes
        .filter_map(|route| {
            let inside = |row: &usize| within(&frame.load.rows[*row].range, &route.range);
            let start = (0..frame.rows()).find(inside)?;
            let end = (start..frame.rows()).take_while(inside).last()? + 1;
            let rate = frame.now(&frame.sum(&frame.rates, start..end));
            Some((rate, start..end))
        })
        .collect();
    of_routes.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, rows) in of_routes.into_iter().take(3) {
        acts.extend(moves(frame, group, rows));
    }
    if let Some(place) = frame.topology.place(group) {
        let others = place.replicas.iter().filter(|&&node| Some(node) != place.leader);
        acts.extend(others.map(|&to| Act::TransferLeader { group, to }));
    }
    acts
}
