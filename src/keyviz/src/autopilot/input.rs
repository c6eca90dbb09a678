//! What is decided on, and what comes of it.

use std::collections::BTreeMap;

use super::cold::Cold;
use super::cost::{Present, present};
use super::journal::{By, Past, State};
use super::policy::Policy;
use super::reason::Reason;
use crate::insight::{Act, Forecast, Load, Topology};
use keyviz_types::{GroupId, NodeId};

/// What may keep the autopilot from acting.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Health {
    /// Members that do not answer, or are not ready.
    pub missing: Vec<NodeId>,
    /// Groups without a leader.
    pub leaderless: Vec<GroupId>,
    /// Groups of which a replica is behind.
    pub lagging: Vec<GroupId>,
    /// Members with little space on their disk.
    pub scarce: Vec<NodeId>,
    /// Replicas are being moved, or leaders spread after that.
    pub replicas_move: bool,
    /// A member did not answer for the load.
    pub partial: bool,
    /// Moves of routes under way that are not in the journal.
    pub other_moves: u32,
}

/// What is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Counts of some columns.
    pub load: &'a Load,
    /// Members, groups, leaders and routes.
    pub topology: &'a Topology,
    /// What may keep it from acting.
    pub health: &'a Health,
    /// Oldest first.
    pub journal: &'a [Past],
    /// Routes without load.
    pub cold: &'a Cold,
    /// The limits.
    pub policy: &'a Policy,
    /// The present.
    pub now_ms: u64,
}

/// An act and what it would bring.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// What to do.
    pub act: Act,
    /// Why, in a sentence.
    pub why: String,
    /// Cost a second by node and group, replayed.
    pub forecast: Forecast,
    /// The entry of the journal that it takes back.
    pub undoes: Option<u64>,
}

/// What to do.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Decision {
    /// In this order.
    pub acts: Vec<Planned>,
    /// Why nothing (more) is done.
    pub reasons: Vec<Reason>,
    /// Cost a second by node, with the acts under way done.
    pub nodes: BTreeMap<NodeId, f64>,
    /// The hottest of them over the mean.
    pub imbalance: f64,
}

impl Input<'_> {
    /// The present of the load.
    pub(super) fn present(&self) -> Present {
        present(self.load, self.now_ms)
    }
}

/// What may be begun still.
pub(super) struct Allowance {
    pub acts: u32,
    pub moves: u32,
}

impl Allowance {
    pub fn new(input: &Input<'_>) -> Self {
        let own = || input.journal.iter().filter(|past| past.by == By::Autopilot);
        let recent = own().filter(|past| past.started_ms.saturating_add(60_000) > input.now_ms);
        let moving =
            input.journal.iter().filter(|past| past.state == State::UnderWay && moves(&past.act));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let under_way = count(moving.count()).saturating_add(input.health.other_moves);
        Allowance {
            acts: input.policy.acts_per_minute.saturating_sub(count(recent.count())),
            moves: input.policy.moves.saturating_sub(under_way),
        }
    }

    pub fn permits(&self, act: &Act) -> bool {
        self.acts > 0 && (self.moves > 0 || !moves(act))
    }

    pub fn take(&mut self, act: &Act) {
        self.acts = self.acts.saturating_sub(1);
        self.moves = self.moves.saturating_sub(u32::from(moves(act)));
    }
}

pub(super) fn moves(act: &Act) -> bool {
    matches!(act, Act::SplitAndMove { .. } | Act::Move { .. })
}
