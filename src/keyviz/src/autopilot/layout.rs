//! Where the load would be on a changed layout.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::cost::Present;
use crate::insight::{Act, Change, Forecast, Topology, within};
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Routes, groups and leaders, with the present load on them.
#[derive(Clone)]
pub(super) struct Layout<'a> {
    pub topology: &'a Topology,
    pub present: &'a Present,
    /// In key order.
    pub routes: Vec<(KeyRange, GroupId)>,
    pub leaders: BTreeMap<GroupId, NodeId>,
    /// Of each range of the load that is in some route: its place, group and part. What several
    /// routes share is divided evenly.
    placed: Vec<(usize, GroupId, f64)>,
}

impl<'a> Layout<'a> {
    pub fn new(topology: &'a Topology, present: &'a Present) -> Self {
        let routes = topology.routes.iter();
        let leaders = topology.groups.iter();
        let mut layout = Layout {
            topology,
            present,
            routes: routes.map(|route| (route.range.clone(), route.group)).collect(),
            leaders: leaders.filter_map(|place| Some((place.group, place.leader?))).collect(),
            placed: Vec::new(),
        };
        layout.place();
        layout
    }

    /// Puts the ranges of the load on the routes; both are in key order.
    fn place(&mut self) {
        let before = |end: &Option<Bytes>, key: &Bytes| end.as_ref().is_some_and(|end| end <= key);
        self.placed.clear();
        let mut from = 0;
        for (at, row) in self.present.ranges.iter().enumerate() {
            let passed = |route: &&(KeyRange, GroupId)| before(&route.0.end, &row.range.start);
            from += self.routes[from..].iter().take_while(passed).count();
            let shares = |route: &&(KeyRange, GroupId)| !before(&row.range.end, &route.0.start);
            let routes = &self.routes[from..];
            let count = routes.iter().take_while(shares).count();
            for (_, group) in &routes[..count] {
                self.placed.push((at, *group, 1.0 / count as f64));
            }
        }
    }

    /// The layout after an act.
    pub fn with(&self, act: &Act) -> Self {
        let mut next = self.clone();
        match act {
            Act::Split { at } => next.cut(at),
            Act::SplitAndMove { range, to, .. } | Act::Move { range, to } => next.give(range, *to),
            Act::TransferLeader { group, to } => {
                next.leaders.insert(*group, *to);
            }
            Act::Merge { range } => next.unite(range),
            Act::ReadFromFollowers { .. } => {}
        }
        if !matches!(act, Act::TransferLeader { .. } | Act::ReadFromFollowers { .. }) {
            next.place();
        }
        next
    }

    fn cut(&mut self, at: &Bytes) {
        let inside = |range: &KeyRange| range.start < *at && range.contains(at);
        let Some(route) = self.routes.iter().position(|(range, _)| inside(range)) else { return };
        let (range, group) = self.routes[route].clone();
        let left = KeyRange { start: range.start, end: Some(at.clone()) };
        self.routes[route].0 = left;
        self.routes.insert(route + 1, (KeyRange { start: at.clone(), end: range.end }, group));
    }

    fn give(&mut self, range: &KeyRange, to: GroupId) {
        self.cut(&range.start);
        range.end.iter().for_each(|end| self.cut(end));
        let moved = self.routes.iter_mut().filter(|(route, _)| within(route, range));
        moved.for_each(|(_, group)| *group = to);
    }

    fn unite(&mut self, range: &KeyRange) {
        let mut routes: Vec<(KeyRange, GroupId)> = Vec::with_capacity(self.routes.len());
        for (route, group) in std::mem::take(&mut self.routes) {
            match routes.last_mut() {
                Some((last, of))
                    if *of == group && within(last, range) && within(&route, range) =>
                {
                    last.end = route.end;
                }
                _ => routes.push((route, group)),
            }
        }
        self.routes = routes;
    }

    /// Cost a second by node; those without load too.
    pub fn nodes(&self) -> BTreeMap<NodeId, f64> {
        let mut nodes: BTreeMap<NodeId, f64> =
            self.topology.nodes.iter().map(|node| (*node, 0.0)).collect();
        let mut groups: BTreeMap<GroupId, (f64, f64)> = BTreeMap::new();
        for (at, group, part) in &self.placed {
            let (row, sum) = (&self.present.ranges[*at], groups.entry(*group).or_default());
            *sum = (sum.0 + row.led * part, sum.1 + row.followed * part);
        }
        for (group, (led, followed)) in groups {
            let Some(leader) = self.leaders.get(&group) else { continue };
            let replicas = self.topology.place(group).map_or(&[][..], |place| &place.replicas);
            let others = replicas.iter().filter(|node| *node != leader);
            let count = others.clone().count();
            let own = if count == 0 { led + followed } else { led };
            *nodes.entry(*leader).or_default() += own;
            for node in others {
                *nodes.entry(*node).or_default() += followed / count as f64;
            }
        }
        nodes
    }

    /// Cost a second by group; those without load too.
    pub fn groups(&self) -> BTreeMap<GroupId, f64> {
        let mut groups: BTreeMap<GroupId, f64> =
            self.topology.groups.iter().map(|place| (place.group, 0.0)).collect();
        for (at, group, part) in &self.placed {
            *groups.entry(*group).or_default() += self.present.ranges[*at].cost() * part;
        }
        groups
    }

    /// The hottest node over the mean of all; 0 without load.
    pub fn imbalance(&self) -> f64 {
        imbalance(&self.nodes())
    }

    /// What an act would bring, from this layout.
    pub fn forecast(&self, act: &Act) -> Forecast {
        let after = self.with(act);
        let (nodes, nodes_after) = (self.nodes(), after.nodes());
        let (groups, groups_after) = (self.groups(), after.groups());
        let placed: f64 = nodes.values().sum();
        Forecast {
            imbalance: Change { before: imbalance(&nodes), after: imbalance(&nodes_after) },
            nodes: changes(nodes, &nodes_after),
            groups: changes(groups, &groups_after),
            unplaced: (self.present.cost() - placed).max(0.0),
            routes_saved: self.routes.len().saturating_sub(after.routes.len()) as u64,
        }
    }
}

fn changes<K: Ord>(before: BTreeMap<K, f64>, after: &BTreeMap<K, f64>) -> BTreeMap<K, Change> {
    let change = |(key, before)| {
        let after = after.get(&key).copied().unwrap_or(0.0);
        (key, Change { before, after })
    };
    before.into_iter().map(change).collect()
}

/// The hottest over the mean; 0 without load.
pub fn imbalance(nodes: &BTreeMap<NodeId, f64>) -> f64 {
    let sum: f64 = nodes.values().sum();
    let most = nodes.values().copied().fold(0.0, f64::max);
    if sum > 0.0 { most * nodes.len() as f64 / sum } else { 0.0 }
}
