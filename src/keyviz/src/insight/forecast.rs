//! What a change of the layout would do: the last columns, served by the changed layout.
//!
//! A row is the smallest thing that was counted, so a change moves whole rows: a forecast never
//! guesses how the load lies inside of one. The sum over all nodes, and over all groups, is the
//! same before and after.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::frame::Frame;
use super::load::within;
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Something that can be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Split at a key. By itself it moves no load, so it is a remedy for nothing.
    Split {
        /// The key.
        at: Bytes,
    },
    /// Split at a key and move the keys of `range`, on one side of it, to another group.
    SplitAndMove {
        /// The key to split at.
        at: Bytes,
        /// What moves.
        range: KeyRange,
        /// Where to.
        to: GroupId,
    },
    /// Move whole routes to another group.
    Move {
        /// What moves.
        range: KeyRange,
        /// Where to.
        to: GroupId,
    },
    /// Let another replica lead a group.
    TransferLeader {
        /// The group.
        group: GroupId,
        /// The new leader.
        to: NodeId,
    },
    /// Read with consistency `stale`, or through any replica, so that followers serve.
    ReadFromFollowers {
        /// Whose reads.
        range: KeyRange,
    },
    /// Merge the routes of a range.
    Merge {
        /// The range.
        range: KeyRange,
    },
}

/// What the cluster can do. What it cannot is not offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Able {
    /// Divide a route.
    pub split: bool,
    /// Unite routes.
    pub merge: bool,
    /// Let another replica lead.
    pub transfer: bool,
    /// Give a route to another group.
    pub moves: bool,
}

impl Able {
    /// Everything.
    pub const ALL: Able = Able { split: true, merge: true, transfer: true, moves: true };

    /// Whether an act can be done. Where reads go is up to the programs that read.
    pub fn offers(self, act: &Act) -> bool {
        match act {
            Act::Split { .. } => self.split,
            Act::SplitAndMove { .. } => self.split && self.moves,
            Act::Move { .. } => self.moves,
            Act::TransferLeader { .. } => self.transfer,
            Act::Merge { .. } => self.merge,
            Act::ReadFromFollowers { .. } => true,
        }
    }
}

/// Operations a second before and after.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Change {
    /// As measured.
    pub before: f64,
    /// As replayed.
    pub after: f64,
}

/// What an act would bring.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Forecast {
    /// By node; those without load too.
    pub nodes: BTreeMap<NodeId, Change>,
    /// By group; those without load too.
    pub groups: BTreeMap<GroupId, Change>,
    /// What no group or leader is known for, and stays as it is.
    pub unplaced: f64,
    /// The hottest node over the mean of all nodes.
    pub imbalance: Change,
    /// Routes fewer than now.
    pub routes_saved: u64,
}

impl Forecast {
    /// The load of the hottest node.
    pub fn hottest_node(&self) -> Change {
        hottest(self.nodes.values())
    }

    /// Whether it makes the hottest node cooler by a twentieth or more, or saves routes.
    pub fn helps(&self) -> bool {
        let node = self.hottest_node();
        node.after <= node.before * 0.95 && node.before > 0.0 || self.routes_saved > 0
    }
}

fn hottest<'a>(changes: impl Iterator<Item = &'a Change>) -> Change {
    changes.fold(Change::default(), |hottest, change| Change {
        before: hottest.before.max(change.before),
        after: hottest.after.max(change.after),
    })
}

/// Replays the last columns as if `act` had been done.
pub(super) fn forecast(frame: &Frame<'_>, act: &Act) -> Forecast {
    let mut forecast = Forecast::default();
    let topology = frame.topology;
    forecast.nodes.extend(topology.nodes.iter().map(|&node| (node, Change::default())));
    let groups = topology.groups.iter().map(|place| (place.group, Change::default()));
    forecast.groups.extend(groups);
    for row in 0..frame.rows() {
        let load = &frame.load.rows[row];
        let rate = frame.now(&frame.rates[row]);
        let Some(group) = frame.groups[row] else {
            forecast.unplaced += rate;
            continue;
        };
        // What the leader serves and what followers serve.
        let followers = frame.now(&frame.count([row], |row| &frame.load.rows[row].follower_reads));
        let followers = followers.min(frame.now(&frame.reads[row]));
        let reads = frame.now(&frame.reads[row]) - followers;
        let moved_to = match act {
            Act::SplitAndMove { range, to, .. } | Act::Move { range, to } => {
                within(&load.range, range).then_some(*to)
            }
            _ => None,
        };
        let after = moved_to.unwrap_or(group);
        forecast.groups.entry(group).or_default().before += rate;
        forecast.groups.entry(after).or_default().after += rate;
        let leads = |group| topology.place(group).and_then(|place| place.leader);
        let led_after = match act {
            Act::TransferLeader { group, to } if *group == after => Some(*to),
            _ => leads(after),
        };
        let (Some(led), Some(led_after)) = (leads(group), led_after) else {
            forecast.unplaced += rate;
            continue;
        };
        forecast.nodes.entry(led).or_default().before += rate - followers;
        let spread = matches!(act, Act::ReadFromFollowers { range } if within(&load.range, range));
        let own = if spread { rate - followers - reads } else { rate - followers };
        forecast.nodes.entry(led_after).or_default().after += own;
        // Followers that have served reads share them evenly, as far as is known.
        serve(&mut forecast, frame, (group, led), followers, true);
        serve(&mut forecast, frame, (after, led_after), followers, false);
        if spread {
            let replicas = topology.place(after).map_or(&[][..], |place| &place.replicas);
            share(&mut forecast, replicas, led_after, reads, false);
        }
    }
    if let Act::Merge { range } = act {
        let merged = topology.routes.iter().filter(|route| within(&route.range, range)).count();
        forecast.routes_saved = merged.saturating_sub(1) as u64;
    }
    let nodes = forecast.nodes.len() as f64;
    let sum = forecast.nodes.values().fold(Change::default(), |sum, change| Change {
        before: sum.before + change.before,
        after: sum.after + change.after,
    });
    let node = forecast.hottest_node();
    let over_mean = |node: f64, sum: f64| if sum > 0.0 { node * nodes / sum } else { 0.0 };
    forecast.imbalance = Change {
        before: over_mean(node.before, sum.before),
        after: over_mean(node.after, sum.after),
    };
    forecast
}

/// Adds the reads that followers of a group serve.
fn serve(
    forecast: &mut Forecast,
    frame: &Frame<'_>,
    (group, leader): (GroupId, NodeId),
    reads: f64,
    before: bool,
) {
    let replicas = frame.topology.place(group).map_or(&[][..], |place| &place.replicas);
    let followers: Vec<NodeId> = replicas.iter().copied().filter(|&node| node != leader).collect();
    share(forecast, &followers, leader, reads, before);
}

/// Divides reads evenly over nodes; over none, they are the leader's.
fn share(forecast: &mut Forecast, nodes: &[NodeId], leader: NodeId, reads: f64, before: bool) {
    let nodes = if nodes.is_empty() { &[leader][..] } else { nodes };
    for node in nodes {
        let change = forecast.nodes.entry(*node).or_default();
        let part = reads / nodes.len() as f64;
        match before {
            true => change.before += part,
            false => change.after += part,
        }
    }
}
