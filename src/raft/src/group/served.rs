//! What a group is worth to those who ask this node for it: whether it can be served, and what it
//! was asked for.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::Group;
use super::admission::GroupLoad;
use super::pulse::SERVED_WITHIN;
use crate::types::RaftNodeId;

/// Why a group cannot be served here, as far as this node knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotServed {
    /// It has stopped on this node.
    #[error("it has stopped on this node: {0}")]
    Stopped(String),
    /// It has no members yet, or this node has not heard of them.
    #[error("it has no members yet")]
    NoMembers,
    /// Nobody is known to lead it.
    #[error("it has no leader")]
    NoLeader,
    /// This node leads it, and no quorum says so.
    #[error("no quorum has confirmed this node as its leader for {} s", .0.as_secs())]
    NoQuorum(Duration),
    /// Another node leads it, and that node or its quorum has not been heard of.
    #[error("its leader, node {0}, was not heard to have a quorum for {after} s",
        after = .1.as_secs())]
    LeaderSilent(RaftNodeId, Duration),
    /// The same since this node started.
    #[error("nothing was heard of its leader, node {0}, yet")]
    LeaderUnheard(RaftNodeId),
}

impl Group {
    /// The leader of the group, which a quorum confirmed within [`SERVED_WITHIN`] as far as this
    /// node knows; else why nobody may count on the group here.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub fn served_by(&self) -> Result<RaftNodeId, NotServed> {
        let metrics = self.raft().metrics();
        let (leader, leads) = {
            // Nothing is copied: this is asked for every group several times a second.
            let metrics = metrics.borrow_watched();
            if let Err(reason) = &metrics.running_state {
                return Err(NotServed::Stopped(reason.to_string()));
            }
            if metrics.membership_config.nodes().next().is_none() {
                return Err(NotServed::NoMembers);
            }
            let leader = metrics.current_leader.ok_or(NotServed::NoLeader)?;
            (leader, metrics.state.is_leader())
        };
        if leads {
            return match self.pulse().own_age() {
                Some(age) if age <= SERVED_WITHIN => Ok(leader),
                Some(age) => Err(NotServed::NoQuorum(age)),
                None => Err(NotServed::NoLeader),
            };
        }
        match self.pulse().age_of(leader) {
            Some(age) if age <= SERVED_WITHIN => Ok(leader),
            Some(age) => Err(NotServed::LeaderSilent(leader, age)),
            None => Err(NotServed::LeaderUnheard(leader)),
        }
    }

    /// How often this node has seen another leader or another term of one since it opened the
    /// group.
    pub fn leader_changes(&self) -> u64 {
        self.pulse().leader_changes()
    }

    /// How long ago a quorum confirmed the leader that this node knows; `None`: not since it is
    /// known.
    pub fn quorum_age(&self) -> Option<Duration> {
        if self.is_leader() {
            return self.pulse().own_age();
        }
        self.pulse().age_of(self.leader()?.0)
    }

    /// What the group was asked for here.
    pub fn load(&self) -> GroupLoad {
        self.queue.load()
    }

    /// A read is served from the replica here.
    pub fn count_read(&self) {
        self.queue.count_read();
    }
}
