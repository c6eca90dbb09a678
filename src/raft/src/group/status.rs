//! The status of a group, in the terms of this layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::pulse::Pulse;
use crate::error::KnownLeader;
use crate::log::GroupLog;
use crate::loops::{Loops, RaftLoop};
use crate::machine::apply::Applier;
use crate::transport::SnapshotProgress;
use crate::types::{LogPosition, Member, RaftNodeId, StoredMembership, Types, Vote};
use keyviz_types::{GroupId, Term};

/// The role of this node in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, does not vote.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Is shutting down.
    Stopping,
}

/// The leader of a group, as known to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The latest term known.
    pub term: Term,
    /// The leader in it, once known.
    pub leader: KnownLeader,
    /// The term in which this node leads, given by a quorum and on this node's disk; `None`: it
    /// does not.
    pub leading: Option<Term>,
}

/// A group's state on this node, at one moment.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Why it has stopped on this node; `None`: it runs.
    pub stopped: Option<String>,
    /// What this node is in it.
    pub role: Role,
    /// The latest term known.
    pub term: Term,
    /// The leader, once known.
    pub leader: KnownLeader,
    /// Index of the last entry in the log.
    pub last_log: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<LogPosition>,
    /// The last entry applied.
    pub applied: Option<LogPosition>,
    /// The last entry up to which the rows are durable, so that the log may go.
    pub snapshot: Option<LogPosition>,
    /// The last entry that was purged from the log.
    pub purged: Option<LogPosition>,
    /// The voters; during a change, those of both sets.
    pub voters: BTreeSet<RaftNodeId>,
    /// Voters and learners.
    pub members: BTreeMap<RaftNodeId, Member>,
    /// On the leader: the last entry that each member is known to have. A member that is not here
    /// or has `None` was not reached yet.
    pub matched: BTreeMap<RaftNodeId, Option<u64>>,
    /// How far the snapshot is that this node receives; `None`: it receives none.
    pub receiving: Option<SnapshotProgress>,
}

fn known_leader(leader: Option<RaftNodeId>, membership: &StoredMembership) -> KnownLeader {
    let leader = leader?;
    Some((leader, membership.get_node(&leader).cloned().unwrap_or_default()))
}

pub(crate) fn status(group: GroupId, raft: &openraft::Raft<Types, Applier>) -> GroupStatus {
    let receiver = raft.metrics();
    let metrics = receiver.borrow_watched();
    let membership = &metrics.membership_config;
    GroupStatus {
        group,
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        role: match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopping,
        },
        term: Term(metrics.current_term),
        leader: known_leader(metrics.current_leader, membership),
        last_log: metrics.last_log_index,
        committed: metrics.local_committed.map(LogPosition::from),
        applied: metrics.last_applied.map(LogPosition::from),
        snapshot: metrics.snapshot.map(LogPosition::from),
        purged: metrics.purged.map(LogPosition::from),
        voters: membership.voter_ids().collect(),
        members: membership.nodes().map(|(node, member)| (*node, member.clone())).collect(),
        matched: metrics
            .replication
            .iter()
            .flatten()
            .map(|(node, matched)| (*node, matched.map(|matched| matched.index)))
            .collect(),
        receiving: None,
    }
}

/// openraft's metrics show a vote before it is on disk, and no event follows: so it is looked for.
const VOTE_POLL: Duration = Duration::from_millis(2);

/// Follows openraft's metrics and publishes changes of leadership.
pub(crate) fn watch_leadership(
    raft: &openraft::Raft<Types, Applier>,
    log: GroupLog,
    pulse: Arc<Pulse>,
    loops: &Loops,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let (sender, receiver) = watch::channel(leadership(&metrics.borrow_watched(), log.vote()));
    loops.spawn(RaftLoop::Leadership, async move {
        let mut seen: Option<(RaftNodeId, Term)> = None;
        loop {
            let now = leadership(&metrics.borrow_watched(), log.vote());
            let waits_for_disk =
                now.leading.is_none() && metrics.borrow_watched().state.is_leader();
            let led = now.leader.as_ref().map(|(leader, _)| (*leader, now.term));
            if led.is_some() && led != seen {
                if seen.is_some() {
                    pulse.note_leader_change();
                }
                seen = led;
            }
            sender.send_if_modified(|last| {
                let changed = *last != now;
                *last = now;
                changed
            });
            if waits_for_disk {
                tokio::select! {
                    biased;
                    changed = metrics.changed() => if changed.is_err() { break },
                    () = tokio::time::sleep(VOTE_POLL) => (),
                }
            } else if metrics.changed().await.is_err() {
                break;
            }
        }
        // The group has stopped: it no longer leads.
        sender.send_if_modified(|last| last.leading.take().is_some());
    });
    receiver
}

fn leadership(
    metrics: &openraft::metrics::RaftServerMetrics<Types>,
    stored: Option<Vote>,
) -> Leadership {
    let term = Term(metrics.vote.leader_id.term);
    let given = metrics.state.is_leader() && metrics.vote.is_committed() && term > Term(0);
    let on_disk = stored.is_some_and(|stored| stored.leader_id == metrics.vote.leader_id);
    Leadership {
        term,
        leader: known_leader(metrics.current_leader, &metrics.membership_config),
        leading: (given && on_disk).then_some(term),
    }
}
