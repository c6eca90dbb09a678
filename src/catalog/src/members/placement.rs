//! Which nodes hold which data group, as the cluster has agreed, and which nodes are on their way
//! out.
//!
//! Only Raft has the current members of a group. The placement records the intended ones: a move is
//! first recorded, then carried out, then recorded as done. After a crash the next leader confirms
//! its leadership and resumes from the recorded placement. At most one group moves at a time. A
//! node keeps the data of a group while either the settled set or that of the move names it.
//!
//! ```text
//!            Move{g, to}              Settle{g, to}            (or Settle{g, as before})
//!  settled ------------> moving, both ------------> settled
//!                        sets may be
//!                        the members
//!
//!  member --Leave--> leaving --(holds nothing)--> Gone      ids of the gone are never used again
//!            <--Stay--
//! ```
//!
//! The whole is one record, so that a change of it is one write. Each change makes the next
//! revision, and names the one that it was decided on.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use super::cluster::ClusterRecord;
use crate::limits::{MAX_COMMAND_BYTES, MAX_REPLICAS};
use crate::machine::codec::{self, CodecError, Kind};
use keyviz_types::{GroupId, NodeId};

/// Most ids of nodes that left which are remembered; beyond, the smallest are forgotten.
pub const MAX_GONE: usize = 4_096;

/// A node that leaves or has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Departure {
    /// Its replicas move to others.
    Leaving,
    /// It holds no group and is no longer a member.
    Gone,
}

/// A change of replicas under way.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Moving {
    /// The group.
    pub group: GroupId,
    /// The intended holders.
    pub to: Vec<NodeId>,
}

/// The holders of groups, and the nodes that leave.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct Placement {
    revision: u64,
    /// The intended number of replicas of each group, if there are as many nodes.
    replication: u64,
    groups: BTreeMap<GroupId, Vec<NodeId>>,
    moving: Option<Moving>,
    departures: BTreeMap<NodeId, Departure>,
    /// Groups that moved since bootstrap, which must not be formed again.
    moved: BTreeSet<GroupId>,
    /// Replicas were moved and leaders have not been spread since.
    leaders_due: bool,
}

/// A change of the placement.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum PlaceChange {
    /// Starts to move a group to these nodes.
    Move(Moving),
    /// The members of the group are exactly `to`: the set that it moves to, or the one that it had.
    Settle(Moving),
    /// The node shall leave.
    Leave(NodeId),
    /// It shall stay after all.
    Stay(NodeId),
    /// It has left.
    Gone(NodeId),
    /// Leaders are spread as far as they can be.
    LeadersSpread,
}

/// A change, and the revision that it was decided on.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PlaceCommand {
    /// Revision of the placement that the proposer saw.
    pub expected: u64,
    /// The change.
    pub change: PlaceChange,
}

impl PlaceCommand {
    /// Bytes for the log.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] beyond [`MAX_COMMAND_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_COMMAND_BYTES, _>(Kind::Placement, self)
    }

    /// The command in `bytes`; `None` for bytes of another kind of command.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        (bytes.first() == Some(&(Kind::Placement as u8)))
            .then(|| codec::decode::<MAX_COMMAND_BYTES, _>(Kind::Placement, bytes))
    }
}

/// Why a change of the placement was refused. A refusal changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum PlaceError {
    /// There is no cluster yet.
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    /// The placement has changed since the proposer read it.
    #[error("decided on revision {expected} of the placement, the current one is {current}")]
    WrongRevision {
        /// What the proposer saw.
        expected: u64,
        /// What there is.
        current: u64,
    },
    /// No such group.
    #[error("there is no data group {group}")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// Another move is under way.
    #[error("group {group} is being moved; one group moves at a time")]
    Busy {
        /// The group that moves.
        group: GroupId,
    },
    /// The group does not move.
    #[error("group {group} is not being moved")]
    NotMoving {
        /// The group.
        group: GroupId,
    },
    /// Neither the set before the move nor the one after it.
    #[error("group {group} cannot be settled on a set that it neither had nor moves to")]
    OtherSet {
        /// The group.
        group: GroupId,
    },
    /// No replica, too many, one twice, or the same as before.
    #[error(
        "group {group} cannot be moved to these nodes: they are none, too many, repeated or the \
         same"
    )]
    Replicas {
        /// The group.
        group: GroupId,
    },
    /// A replica would move to a node that is leaving.
    #[error("node {node} leaves or has left and takes no replicas")]
    Departing {
        /// The node.
        node: NodeId,
    },
    /// It was not requested to leave.
    #[error("node {node} was not asked to leave")]
    NotLeaving {
        /// The node.
        node: NodeId,
    },
    /// It holds a group.
    #[error("node {node} still holds group {group}")]
    Holds {
        /// The node.
        node: NodeId,
        /// A group that it holds.
        group: GroupId,
    },
}

impl Placement {
    /// As bootstrap placed the groups.
    pub fn of(cluster: &ClusterRecord) -> Self {
        let groups: BTreeMap<GroupId, Vec<NodeId>> =
            cluster.groups.iter().map(|group| (group.group, group.replicas.clone())).collect();
        let replication = groups.values().map(Vec::len).max().unwrap_or(0) as u64;
        Placement { replication, groups, ..Placement::default() }
    }

    /// Grows by one with every change; 0: as bootstrapped.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Replicas that each group shall have, where there are as many nodes.
    pub fn replication(&self) -> usize {
        usize::try_from(self.replication).unwrap_or(usize::MAX)
    }

    /// The settled replicas of each group.
    pub fn groups(&self) -> &BTreeMap<GroupId, Vec<NodeId>> {
        &self.groups
    }

    /// The move under way.
    pub fn moving(&self) -> Option<&Moving> {
        self.moving.as_ref()
    }

    /// Nodes that leave or have left.
    pub fn departures(&self) -> &BTreeMap<NodeId, Departure> {
        &self.departures
    }

    /// Whether leaders have to be spread after moves.
    pub fn leaders_due(&self) -> bool {
        self.leaders_due
    }

    /// Whether `group` was ever moved: its members are then its leader's to name.
    pub fn was_moved(&self, group: GroupId) -> bool {
        self.moved.contains(&group)
    }

    /// Whether `node` is to leave.
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.departures.get(&node) == Some(&Departure::Leaving)
    }

    /// Whether `node` has left.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.departures.get(&node) == Some(&Departure::Gone)
    }

    /// Whether `node` has to keep the data of `group`.
    pub fn holds(&self, node: NodeId, group: GroupId) -> bool {
        let settled = self.groups.get(&group).is_some_and(|nodes| nodes.contains(&node));
        let moving = self.moving.as_ref().filter(|moving| moving.group == group);
        settled || moving.is_some_and(|moving| moving.to.contains(&node))
    }

    /// A group that `node` has to keep.
    pub fn held_by(&self, node: NodeId) -> Option<GroupId> {
        self.groups.keys().copied().find(|group| self.holds(node, *group))
    }

    /// The intended members of `group`: those that it moves to, else the settled ones.
    pub fn wanted(&self, group: GroupId) -> Option<&[NodeId]> {
        let moving = self.moving.as_ref().filter(|moving| moving.group == group);
        moving.map(|moving| moving.to.as_slice()).or(self.groups.get(&group).map(Vec::as_slice))
    }

    /// The placement after a command.
    ///
    /// # Errors
    /// Every reason that it can be refused for.
    pub fn after(&self, command: &PlaceCommand) -> Result<Placement, PlaceError> {
        let (expected, current) = (command.expected, self.revision);
        if expected != current {
            return Err(PlaceError::WrongRevision { expected, current });
        }
        let mut next = self.clone();
        next.revision = current.saturating_add(1);
        match &command.change {
            PlaceChange::Move(to) => next.start(to)?,
            PlaceChange::Settle(to) => next.settle(to)?,
            PlaceChange::Leave(node) => next.leave(*node)?,
            PlaceChange::Stay(node) => {
                if !self.is_leaving(*node) {
                    return Err(PlaceError::NotLeaving { node: *node });
                }
                next.departures.remove(node);
            }
            PlaceChange::Gone(node) => next.gone(*node)?,
            PlaceChange::LeadersSpread => next.leaders_due = false,
        }
        Ok(next)
    }

    fn start(&mut self, move_to: &Moving) -> Result<(), PlaceError> {
        let Moving { group, to } = move_to;
        if let Some(moving) = &self.moving {
            return Err(PlaceError::Busy { group: moving.group });
        }
        let settled = self.groups.get(group).ok_or(PlaceError::UnknownGroup { group: *group })?;
        let distinct: BTreeSet<&NodeId> = to.iter().collect();
        let same = distinct == settled.iter().collect();
        if same || distinct.len() != to.len() || !(1..=MAX_REPLICAS).contains(&to.len()) {
            return Err(PlaceError::Replicas { group: *group });
        }
        let departing =
            |node: &&NodeId| !settled.contains(node) && self.departures.contains_key(node);
        if let Some(node) = to.iter().find(departing) {
            return Err(PlaceError::Departing { node: *node });
        }
        self.moved.insert(*group);
        self.moving = Some(move_to.clone());
        self.leaders_due = true;
        Ok(())
    }

    fn settle(&mut self, on: &Moving) -> Result<(), PlaceError> {
        let Moving { group, to } = on;
        let Some(moving) = self.moving.take().filter(|moving| moving.group == *group) else {
            return Err(PlaceError::NotMoving { group: *group });
        };
        let settled =
            self.groups.get_mut(group).ok_or(PlaceError::UnknownGroup { group: *group })?;
        if *to != moving.to && to != settled {
            return Err(PlaceError::OtherSet { group: *group });
        }
        settled.clone_from(to);
        Ok(())
    }

    fn leave(&mut self, node: NodeId) -> Result<(), PlaceError> {
        if self.is_gone(node) {
            return Err(PlaceError::Departing { node });
        }
        self.departures.insert(node, Departure::Leaving);
        Ok(())
    }

    fn gone(&mut self, node: NodeId) -> Result<(), PlaceError> {
        if !self.is_leaving(node) {
            return Err(PlaceError::NotLeaving { node });
        }
        if let Some(group) = self.held_by(node) {
            return Err(PlaceError::Holds { node, group });
        }
        self.departures.insert(node, Departure::Gone);
        let gone = |(_, departure): &(&NodeId, &Departure)| **departure == Departure::Gone;
        if self.departures.iter().filter(gone).count() > MAX_GONE {
            let oldest = self.departures.iter().find(gone).map(|(node, _)| *node);
            oldest.map(|node| self.departures.remove(&node));
        }
        Ok(())
    }

    /// Whether a stored placement is one of the cluster.
    pub(crate) fn fits(&self, cluster: &ClusterRecord) -> bool {
        let known = |group: &GroupId| self.groups.contains_key(group);
        self.groups.len() == cluster.groups.len()
            && cluster.groups.iter().all(|placed| known(&placed.group))
            && self.groups.values().all(|nodes| !nodes.is_empty())
            && self.moving.as_ref().is_none_or(|moving| known(&moving.group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::cluster::{ClusterId, GroupPlacement};

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn bootstrapped() -> Placement {
        let place =
            |group, ids: &[u64]| GroupPlacement { group: GroupId(group), replicas: nodes(ids) };
        Placement::of(&ClusterRecord {
            cluster_id: ClusterId([7; 16]),
            created_ms: 1,
            groups: vec![place(1, &[1, 2, 3]), place(2, &[2, 3, 1])],
        })
    }

    fn to(group: u64, ids: &[u64]) -> Moving {
        Moving { group: GroupId(group), to: nodes(ids) }
    }

    fn change(placement: &Placement, change: PlaceChange) -> Result<Placement, PlaceError> {
        placement.after(&PlaceCommand { expected: placement.revision(), change })
    }

    #[test]
    fn a_move_is_held_by_both_sets_until_it_is_settled_on_either() {
        let first = bootstrapped();
        let group = GroupId(1);
        let moving = change(&first, PlaceChange::Move(to(1, &[1, 2, 4]))).expect("a sound move");
        assert!((1..=4).all(|node| moving.holds(NodeId(node), group)));
        assert_eq!(moving.wanted(group), Some(nodes(&[1, 2, 4]).as_slice()));
        let done = change(&moving, PlaceChange::Settle(to(1, &[1, 2, 4]))).expect("arrived");
        assert!(!done.holds(NodeId(3), group) && done.holds(NodeId(4), group));
        let back = change(&moving, PlaceChange::Settle(to(1, &[1, 2, 3]))).expect("taken back");
        assert!(back.holds(NodeId(3), group) && !back.holds(NodeId(4), group));
        let other = change(&moving, PlaceChange::Settle(to(1, &[1, 2, 5])));
        assert_eq!(other, Err(PlaceError::OtherSet { group }));
    }

    #[test]
    fn one_group_moves_at_a_time_and_only_from_the_revision_that_was_seen() {
        let first = bootstrapped();
        let moving = change(&first, PlaceChange::Move(to(1, &[1, 2, 4]))).expect("a sound move");
        let second = change(&moving, PlaceChange::Move(to(2, &[1, 2, 4])));
        assert_eq!(second, Err(PlaceError::Busy { group: GroupId(1) }));
        let late = PlaceCommand { expected: 0, change: PlaceChange::Leave(NodeId(1)) };
        let wrong = PlaceError::WrongRevision { expected: 0, current: 1 };
        assert_eq!(moving.after(&late), Err(wrong));
        for bad in [&[][..], &[1, 1, 2], &[3, 2, 1]] {
            let refused = change(&first, PlaceChange::Move(to(1, bad)));
            assert_eq!(refused, Err(PlaceError::Replicas { group: GroupId(1) }), "{bad:?}");
        }
    }

    #[test]
    fn a_node_leaves_only_empty_handed_and_its_id_takes_nothing_again() {
        let node = NodeId(3);
        let first = bootstrapped();
        assert_eq!(change(&first, PlaceChange::Gone(node)), Err(PlaceError::NotLeaving { node }));
        let mut placement = change(&first, PlaceChange::Leave(node)).expect("it may leave");
        let held = PlaceError::Holds { node, group: GroupId(1) };
        assert_eq!(change(&placement, PlaceChange::Gone(node)), Err(held));
        for group in [1, 2] {
            for step in [PlaceChange::Move, PlaceChange::Settle] {
                placement = change(&placement, step(to(group, &[1, 2, 4]))).expect("a sound move");
            }
        }
        let gone = change(&placement, PlaceChange::Gone(node)).expect("it holds nothing");
        assert!(gone.is_gone(node));
        let again = change(&gone, PlaceChange::Move(to(1, &[1, 2, 3])));
        assert_eq!(again, Err(PlaceError::Departing { node }));
        assert_eq!(change(&gone, PlaceChange::Leave(node)), Err(PlaceError::Departing { node }));
    }

    #[test]
    fn a_command_survives_the_log_and_is_told_from_a_change_of_routes() {
        let command = PlaceCommand { expected: 3, change: PlaceChange::Move(to(1, &[1, 4])) };
        let bytes = command.encode().expect("small");
        assert_eq!(PlaceCommand::decode(&bytes), Some(Ok(command)));
        assert!(PlaceCommand::decode(b"C").is_none());
        assert!(crate::CatalogCommand::decode(&bytes).is_err());
        for cut in 1..bytes.len() {
            assert!(PlaceCommand::decode(&bytes[..cut]).is_some_and(|cut| cut.is_err()));
        }
    }
}
