//! Whether a group can be served, as this node knows it.
//!
//! A leader is only useful while a quorum follows it, and followers remember a leader long after it
//! is gone. So each append carries the time since a quorum last confirmed its leader, and a group
//! counts as served here while that age, measured on this node's clock, is at most
//! [`SERVED_WITHIN`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::{Instant as _, WatchReceiver as _};
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::proposals::Raft;
use crate::types::{RaftNodeId, Types};

/// A quorum has confirmed the leader this recently. Twelve heartbeats, and longer than an election
/// takes to begin, so that a leader that is alive is never doubted and one that is dead soon is.
pub const SERVED_WITHIN: Duration = Duration::from_secs(3);

/// On the wire: no quorum has confirmed the leader yet.
const NEVER_MS: u32 = u32::MAX;

type Metrics = WatchReceiverOf<Types, RaftMetrics<Types>>;

/// The state of the quorum of one group's leader.
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

/// What a leader reported.
#[derive(Clone, Copy, Debug)]
struct Heard {
    leader: RaftNodeId,
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
    pub(crate) fn own_age(&self) -> Option<Duration> {
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

    /// Received with an accepted append. A leader of an earlier version sends nothing, and is
    /// assumed to have a quorum.
    pub(crate) fn heard(&self, leader: RaftNodeId, age_ms: Option<u32>) {
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

    pub(crate) fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Another leader is known than before.
    pub(crate) fn note_leader_change(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How long ago a quorum confirmed `leader`, as it reported.
    pub(crate) fn age_of(&self, leader: RaftNodeId) -> Option<Duration> {
        let heard = (*self.heard.lock()).filter(|heard| heard.leader == leader)?;
        Some(Instant::now().saturating_duration_since(heard.confirmed))
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
