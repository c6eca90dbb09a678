//! What was done before, as far as it matters for what is done next.

use std::collections::BTreeSet;

use super::policy::Policy;
use crate::insight::{Act, Topology, overlap};
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Who acted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The autopilot.
    Autopilot,
    /// A person or program that asked for it.
    Operator,
}

/// Where an act stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has begun.
    UnderWay,
    /// It was done.
    Done,
    /// It was not done, or taken back before it was.
    Failed,
}

/// An act of the past, or under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Past {
    /// Its number in the journal.
    pub id: u64,
    /// Who acted.
    pub by: By,
    /// What was done.
    pub act: Act,
    /// The group that had the keys.
    pub from_group: Option<GroupId>,
    /// The node that led.
    pub from_node: Option<NodeId>,
    /// Where it stands.
    pub state: State,
    /// Unix time in milliseconds.
    pub started_ms: u64,
    /// The same; `None`: it has not ended.
    pub ended_ms: Option<u64>,
    /// It was measured, and is worse than nothing.
    pub worse: bool,
    /// It was taken back.
    pub undone: bool,
}

/// What did nothing keeps keys from being acted on for so long.
const AFTER_FAILURE_MS: u64 = 10_000;

impl Past {
    /// What takes it back; `None`: nothing does.
    pub fn reverse(&self) -> Option<Act> {
        match &self.act {
            Act::SplitAndMove { range, .. } | Act::Move { range, .. } => {
                Some(Act::Move { range: range.clone(), to: self.from_group? })
            }
            Act::TransferLeader { group, .. } => {
                Some(Act::TransferLeader { group: *group, to: self.from_node? })
            }
            Act::Split { .. } | Act::Merge { .. } | Act::ReadFromFollowers { .. } => None,
        }
    }

    /// Whether its keys must be left alone still.
    fn cools(&self, policy: &Policy, now_ms: u64) -> bool {
        let Some(ended_ms) = self.ended_ms else { return true };
        let for_ms = match self.state {
            State::Failed => policy.cool_down_ms().min(AFTER_FAILURE_MS),
            State::Done | State::UnderWay => policy.cool_down_ms(),
        };
        now_ms < ended_ms.saturating_add(for_ms)
    }
}

/// Keys and groups that must be left alone.
pub(super) struct Cooling<'a> {
    topology: &'a Topology,
    ranges: Vec<KeyRange>,
    /// Groups that keys are moving to: the routes do not say so yet.
    receiving: BTreeSet<GroupId>,
    /// Groups whose leader is changing.
    changing: BTreeSet<GroupId>,
}

impl<'a> Cooling<'a> {
    pub fn new(
        journal: &[Past],
        topology: &'a Topology,
        policy: &Policy,
        now_ms: u64,
    ) -> Cooling<'a> {
        let mut cooling = Cooling {
            topology,
            ranges: Vec::new(),
            receiving: BTreeSet::new(),
            changing: BTreeSet::new(),
        };
        for past in journal.iter().filter(|past| past.cools(policy, now_ms)) {
            match past.state {
                State::UnderWay => cooling.add(&past.act),
                State::Done | State::Failed => cooling.leave_alone(&past.act),
            }
        }
        cooling
    }

    /// The keys of an act are going elsewhere.
    pub fn add(&mut self, act: &Act) {
        match act {
            Act::SplitAndMove { to, .. } | Act::Move { to, .. } => {
                self.receiving.insert(*to);
            }
            Act::TransferLeader { group, .. } => {
                self.changing.insert(*group);
            }
            Act::Split { .. } | Act::Merge { .. } | Act::ReadFromFollowers { .. } => {}
        }
        self.leave_alone(act);
    }

    fn leave_alone(&mut self, act: &Act) {
        match act {
            Act::SplitAndMove { range, .. } | Act::Move { range, .. } => {
                self.ranges.push(range.clone());
            }
            Act::TransferLeader { group, .. } => {
                let routes = self.topology.routes.iter().filter(|route| route.group == *group);
                self.ranges.extend(routes.map(|route| route.range.clone()));
            }
            Act::Split { .. } | Act::Merge { .. } | Act::ReadFromFollowers { .. } => {}
        }
    }

    /// Whether keys may be acted on.
    pub fn free(&self, range: &KeyRange) -> bool {
        !self.ranges.iter().any(|cooling| overlap(cooling, range))
    }

    /// Whether what an act concerns may be acted on.
    pub fn allows(&self, act: &Act) -> bool {
        match act {
            Act::SplitAndMove { range, to, .. } | Act::Move { range, to } => {
                !self.changing.contains(to) && self.free(range)
            }
            Act::TransferLeader { group, .. } => {
                let mut routes = self.topology.routes.iter().filter(|route| route.group == *group);
                !self.receiving.contains(group) && routes.all(|route| self.free(&route.range))
            }
            Act::Split { .. } | Act::Merge { .. } | Act::ReadFromFollowers { .. } => true,
        }
    }
}
