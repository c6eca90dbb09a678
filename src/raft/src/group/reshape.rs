//! Brings a group to its intended members, one safe step per call.
//!
//! A new member receives the log as a learner until it is near its end. Then the set of voters is
//! replaced through joint consensus, and learners without a place are dropped. A leader that is to
//! be removed transfers its leadership first. Each call inspects the current state and takes the
//! next step, so it does not matter which caller came before, how far it got, or whether it crashed
//! midway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;

use super::Group;
use super::members::changed;
use crate::error::{ChangeError, ReadError};
use crate::types::{Member, RaftNodeId};

/// A learner that lags by at most this many entries may become a voter: it has the rest within a
/// moment.
const CAUGHT_UP: u64 = 1_000;

/// The intended members of a group.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Shape {
    /// The intended voters; at least one.
    pub voters: BTreeMap<RaftNodeId, Member>,
    /// Members that only receive the log.
    pub learners: BTreeMap<RaftNodeId, Member>,
}

impl Shape {
    fn contains(&self, node: RaftNodeId) -> bool {
        self.voters.contains_key(&node) || self.learners.contains_key(&node)
    }
}

/// How far a group is from its shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reshaped {
    /// The change is committed.
    Done,
    /// A node receives the log.
    CatchingUp {
        /// The node.
        node: RaftNodeId,
        /// The last entry that it is known to have.
        matched: Option<u64>,
        /// The last entry of the log.
        last: u64,
    },
    /// The leader goes and has handed over; the next step is its successor's.
    HandedOver {
        /// The successor.
        to: RaftNodeId,
    },
}

impl Group {
    /// Does the next step towards `shape`. Only the leader can; a step takes at most about `limit`.
    pub fn reshape<'a>(
        &'a self,
        shape: &'a Shape,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Reshaped, ChangeError>> {
        async move {
            if shape.voters.is_empty() {
                return Err(ChangeError::Refused("a group needs a voter".into()));
            }
            let status = self.status();
            if !self.is_leader() {
                return Err(ChangeError::NotLeader { leader: status.leader });
            }
            for (node, member) in shape.voters.iter().chain(&shape.learners) {
                if !status.members.contains_key(node) {
                    let added = self.raft().add_learner(*node, member.clone(), false);
                    within(limit, async { changed(added.await) }).await?;
                }
            }
            let last = status.last_log.unwrap_or(0);
            for node in shape.voters.keys().filter(|node| !status.voters.contains(node)) {
                let matched = status.matched.get(node).copied().flatten();
                if matched.is_none_or(|matched| matched.saturating_add(CAUGHT_UP) < last) {
                    return Ok(Reshaped::CatchingUp { node: *node, matched, last });
                }
            }
            let goes = !shape.voters.contains_key(&self.node());
            let mut voters: BTreeSet<RaftNodeId> = shape.voters.keys().copied().collect();
            if goes {
                let heirs = status.voters.iter().filter(|voter| voters.contains(voter));
                let heir = heirs.max_by_key(|voter| status.matched.get(voter).copied().flatten());
                match heir {
                    Some(heir) => {
                        self.transfer_leader(*heir, limit).await?;
                        return Ok(Reshaped::HandedOver { to: *heir });
                    }
                    // None of them votes yet: they do for one step beside the leader.
                    None => drop(voters.insert(self.node())),
                }
            }
            if !self.has_settled_on(&voters) {
                let replace = ChangeMembers::ReplaceAllVoters(voters);
                let changing = self.raft().change_membership(replace, !shape.learners.is_empty());
                within(limit, async { changed(changing.await) }).await?;
            }
            let members = self.status().members;
            let stray: BTreeSet<RaftNodeId> =
                members.into_keys().filter(|node| !shape.contains(*node)).collect();
            if !stray.is_empty() && !goes {
                let removing =
                    self.raft().change_membership(ChangeMembers::RemoveNodes(stray), false);
                within(limit, async { changed(removing.await) }).await?;
            }
            if goes { self.hand_over_to(shape, limit).await } else { Ok(Reshaped::Done) }
        }
        .boxed()
    }

    async fn hand_over_to(&self, shape: &Shape, limit: Duration) -> Result<Reshaped, ChangeError> {
        let heir = shape.voters.keys().next().copied();
        let heir = heir.ok_or_else(|| ChangeError::Refused("a group needs a voter".into()))?;
        self.transfer_leader(heir, limit).await?;
        Ok(Reshaped::HandedOver { to: heir })
    }

    /// Whether exactly these vote, and a majority has agreed to that.
    fn has_settled_on(&self, voters: &BTreeSet<RaftNodeId>) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let (now, agreed) = (&metrics.membership_config, &metrics.committed_membership_config);
        let configs = now.membership().get_joint_config();
        now.log_id() == agreed.log_id() && matches!(configs.as_slice(), [one] if one == voters)
    }

    /// Whether `node` is a member, confirmed by a majority after the call. Only the leader can
    /// tell.
    pub fn confirms_member(
        self: &Arc<Self>,
        node: RaftNodeId,
    ) -> BoxFuture<'_, Result<bool, ReadError>> {
        async move {
            self.read_index().await?;
            Ok(self.status().members.contains_key(&node))
        }
        .boxed()
    }
}

/// A change that takes longer may still take effect.
async fn within(
    limit: Duration,
    change: impl Future<Output = Result<(), ChangeError>>,
) -> Result<(), ChangeError> {
    tokio::time::timeout(limit, change).await.unwrap_or(Err(ChangeError::Unknown))
}
