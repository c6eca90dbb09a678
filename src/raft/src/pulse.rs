//! Whether a group can be served, as this node knows it.
//!
//! A leader is one only while a quorum follows it, and who leads is remembered long after the leader is
//! gone. So a leader tells with each append how long ago a quorum last confirmed it, and a group counts
//! as served here while that is no longer ago than [`SERVED_WITHIN`], counted on this node's clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::{Instant as _, WatchReceiver as _};
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::group::{Group, Raft};
use super::types::{NodeId, Types};

/// A quorum has confirmed the leader this recently. Twelve heartbeats, and longer than an election
/// takes to begin, so that a leader that is alive is never doubted and one that is dead soon is.
pub const SERVED_WITHIN: Duration = Duration::from_secs(3);

/// On the wire: no quorum has confirmed the leader yet.
const NEVER_MS: u32 = u32::MAX;

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
    #[error("its leader, node {0}, was not heard to have a quorum for {secs} s", secs = .1.as_secs())]
    LeaderSilent(NodeId, Duration),
    /// The same since this node started.
    #[error("nothing was heard of its leader, node {0}, yet")]
    LeaderUnheard(NodeId),
}

type Metrics = WatchReceiverOf<Types, RaftMetrics<Types>>;

/// What is known of the quorum of one group's leader.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Not the group's Raft, which holds this.
    metrics: OnceLock<Metrics>,
    heard: Mutex<Option<Heard>>,
    leader_changes: AtomicU64,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pulse").field(&*self.heard.lock()).finish()
    }
}

/// What a leader told.
#[derive(Clone, Copy, Debug)]
struct Heard {
    leader: NodeId,
    /// When a quorum confirmed it, not later.
    confirmed: Instant,
}

impl Pulse {
    /// The group is open.
    pub(crate) fn attach(&self, raft: &Raft) {
        // A group is opened once.
        let _ = self.metrics.set(raft.metrics());
    }

    /// How long ago a quorum confirmed that this node leads; `None`: none has in this term.
    fn own_age(&self) -> Option<Duration> {
        let metrics = self.metrics.get()?;
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.voter_ids();
        if metrics.state.is_leader() && voters.all(|voter| voter == metrics.id) {
            // The only voter is a quorum at any time.
            return Some(Duration::ZERO);
        }
        let acked = metrics.last_quorum_acked?;
        Some(acked.elapsed())
    }

    /// The same for an append, in milliseconds.
    pub(crate) fn age_to_tell(&self) -> u32 {
        self.own_age().map_or(NEVER_MS, |age| {
            u32::try_from(age.as_millis()).unwrap_or(NEVER_MS).min(NEVER_MS - 1)
        })
    }

    /// A leader whose append was taken told this. One of an earlier version tells nothing, and is
    /// taken for one that has a quorum.
    pub(crate) fn heard(&self, leader: NodeId, age_ms: Option<u32>) {
        let age_ms = age_ms.unwrap_or(0);
        if age_ms == NEVER_MS {
            return;
        }
        let age = Duration::from_millis(age_ms.into());
        let now = Instant::now();
        let Some(confirmed) = now.checked_sub(age) else { return };
        let mut heard = self.heard.lock();
        // Appends overtake each other.
        let newer = |known: &Heard| known.leader != leader || known.confirmed < confirmed;
        if heard.as_ref().is_none_or(newer) {
            *heard = Some(Heard { leader, confirmed });
        }
    }

    /// Another leader is known than before.
    pub(crate) fn note_leader_change(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How long ago a quorum confirmed `leader`, by what it told.
    fn age_of(&self, leader: NodeId) -> Option<Duration> {
        let heard = (*self.heard.lock()).filter(|heard| heard.leader == leader)?;
        Some(Instant::now().saturating_duration_since(heard.confirmed))
    }
}

impl Group {
    /// The leader of the group, which a quorum confirmed within [`SERVED_WITHIN`] as far as this node
    /// knows; else why nobody may count on the group here.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub fn served_by(&self) -> Result<NodeId, NotServed> {
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

    /// How often this node has seen another leader or another term of one since it opened the group.
    pub fn leader_changes(&self) -> u64 {
        self.pulse().leader_changes.load(Ordering::Relaxed)
    }

    /// How long ago a quorum confirmed the leader that this node knows; `None`: not since it is known.
    pub fn quorum_age(&self) -> Option<Duration> {
        if self.is_leader() {
            return self.pulse().own_age();
        }
        self.pulse().age_of(self.leader()?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_known_to_have_a_quorum_as_long_ago_as_it_tells_and_no_later() {
        let pulse = Pulse::default();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pulse.age_of(1), None);
        assert_eq!(pulse.age_to_tell(), NEVER_MS, "it leads nothing");
        pulse.heard(1, Some(NEVER_MS));
        assert_eq!(pulse.age_of(1), None, "it has no quorum yet");
        pulse.heard(1, Some(200));
        assert_eq!(pulse.age_of(1), Some(Duration::from_millis(200)));
        assert_eq!(pulse.age_of(2), None, "of another leader nothing was heard");
        tokio::time::advance(Duration::from_secs(2)).await;
        pulse.heard(1, Some(9_000));
        assert_eq!(pulse.age_of(1), Some(Duration::from_millis(2_200)), "it overtook nothing");
        // A leader that reaches this node and no quorum ages all the same.
        tokio::time::advance(Duration::from_secs(1)).await;
        pulse.heard(1, Some(3_200));
        assert!(pulse.age_of(1).is_some_and(|age| age > SERVED_WITHIN));
        pulse.heard(2, None);
        assert_eq!(pulse.age_of(2), Some(Duration::ZERO), "an earlier version tells nothing");
        assert_eq!(pulse.age_of(1), None);
    }
}
