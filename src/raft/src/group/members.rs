//! Changes of the leader and of the members of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, Fatal, RaftError};

use super::proposals::WriteError;
use super::{Group, known_leader};
use crate::error::ChangeError;
use crate::types::{Member, RaftNodeId, Types};

impl Group {
    /// Asks `to` to take over and waits until it leads, or `limit` has passed.
    pub fn transfer_leader(
        &self,
        to: RaftNodeId,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(), ChangeError>> {
        async move {
            if !self.raft().voter_ids().any(|voter| voter == to) {
                return Err(ChangeError::Refused(format!("node {to} is not a voter of the group")));
            }
            let mut leadership = self.leadership();
            {
                let now = leadership.borrow_and_update();
                if now.leader.as_ref().is_some_and(|(leader, _)| *leader == to) {
                    return Ok(());
                }
                if now.leading.is_none() {
                    return Err(ChangeError::NotLeader { leader: now.leader.clone() });
                }
            }
            let fatal = |fatal: Fatal<Types>| ChangeError::Stopped(fatal.to_string());
            self.raft().trigger().transfer_leader(to).await.map_err(fatal)?;
            let took_over = leadership
                .wait_for(|now| now.leader.as_ref().is_some_and(|(leader, _)| *leader == to));
            match tokio::time::timeout(limit, took_over).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(ChangeError::Stopped("it is shutting down".into())),
                Err(_) => Err(ChangeError::Unknown),
            }
        }
        .boxed()
    }

    /// Adds a node that receives the log but does not vote; waits until it has caught up.
    pub fn add_learner(
        &self,
        node: RaftNodeId,
        member: Member,
    ) -> BoxFuture<'_, Result<(), ChangeError>> {
        async move { changed(self.raft().add_learner(node, member, true).await) }.boxed()
    }

    /// Makes `voters` the voters; each must be a member already. Former voters are removed unless
    /// `keep_as_learners`.
    pub fn change_membership(
        &self,
        voters: impl IntoIterator<Item = RaftNodeId>,
        keep_as_learners: bool,
    ) -> BoxFuture<'_, Result<(), ChangeError>> {
        self.replace_voters(voters.into_iter().collect(), keep_as_learners).boxed()
    }

    async fn replace_voters(
        &self,
        voters: BTreeSet<RaftNodeId>,
        keep_as_learners: bool,
    ) -> Result<(), ChangeError> {
        let voters = ChangeMembers::ReplaceAllVoters(voters);
        changed(self.raft().change_membership(voters, keep_as_learners).await)
    }

    /// Changes where members are reached.
    pub fn set_addresses(
        &self,
        members: BTreeMap<RaftNodeId, Member>,
    ) -> BoxFuture<'_, Result<(), ChangeError>> {
        async move {
            changed(self.raft().change_membership(ChangeMembers::SetNodes(members), true).await)
        }
        .boxed()
    }

    /// Compacts the log now rather than when it is due.
    pub fn compact(&self) -> BoxFuture<'_, Result<(), ChangeError>> {
        async move {
            let fatal = |fatal: Fatal<Types>| ChangeError::Stopped(fatal.to_string());
            self.raft().trigger().snapshot().await.map_err(fatal)
        }
        .boxed()
    }
}

pub(crate) fn changed<T>(result: Result<T, WriteError>) -> Result<(), ChangeError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::Fatal(fatal)) => Err(ChangeError::Stopped(fatal.to_string())),
        Err(RaftError::APIError(error)) => Err(match error {
            ClientWriteError::ForwardToLeader(forward) => {
                ChangeError::NotLeader { leader: known_leader(forward) }
            }
            ClientWriteError::LogEntryDiscarded(_) => ChangeError::Unknown,
            ClientWriteError::ChangeMembershipError(error) => {
                ChangeError::Refused(error.to_string())
            }
            ClientWriteError::PreconditionFailed(error) => ChangeError::Refused(error.to_string()),
        }),
    }
}
