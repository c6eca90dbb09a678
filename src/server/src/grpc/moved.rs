//! A member that is reached elsewhere from now on.
//!
//! The member is the one that has its disk, wherever it is. So the leader of the catalog group
//! identifies the node at the new address, and changes the address in the group's membership only
//! if that node runs on the member's disk in a state known to the cluster, and no process answers
//! as the member at the old address. Each node takes addresses from that membership; the leaders of
//! the other groups follow.

use std::time::Duration;

use tonic::{Code, Status};

use keyviz_peer::CallError;
use keyviz_proto as proto;
use keyviz_raft::{Group, Member};
use keyviz_types::NodeId;

use crate::grpc::cluster::ClusterService;

/// Time limit of an identification at the new address.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The same at the old address, where no node should answer.
const OLD_ANSWER_WITHIN: Duration = Duration::from_secs(1);

impl ClusterService {
    /// Changes the address of a member, if it differs. Call it on the leader of `group`, the
    /// catalog group.
    pub(crate) async fn move_member(
        &self,
        group: &Group,
        id: NodeId,
        known: &Member,
        mut next: Member,
    ) -> Result<(), Status> {
        if next.http.is_empty() {
            // The caller does not know it; the node itself reports it.
            next.http.clone_from(&known.http);
        }
        if *known == next {
            return Ok(());
        }
        self.check_moved(id, known, &next).await?;
        let (from, to) = (known.addr.clone(), next.addr.clone());
        let changed = group.set_addresses([(id.0, next)].into());
        match tokio::time::timeout(self.timeout, changed).await {
            Ok(Ok(())) => {
                match to == from {
                    true => tracing::info!("node {id}, at {to}, serves HTTP elsewhere now"),
                    false => tracing::info!("node {id} is at {to} now, and was at {from}"),
                }
                Ok(())
            }
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded(
                "the catalog group did not take the new address in time; try again",
            )),
        }
    }

    async fn check_moved(&self, id: NodeId, known: &Member, next: &Member) -> Result<(), Status> {
        let (old, new) = (&known.addr, &next.addr);
        let kept = |code: Code, why: &str| {
            Status::new(code, format!("the address of node {id} stays {old}: at {new} {why}"))
        };
        let answer = self.who_answers(id, new, ANSWER_WITHIN).await.map_err(|error| {
            let why = format!("node {id} does not answer ({error}); start it there first");
            kept(Code::Unavailable, &why)
        })?;
        let Some(roster) = self.groups.peers().roster() else { return Ok(()) };
        roster.vouch(id, &self.directory.cluster_id(), &answer).map_err(|why| {
            kept(Code::FailedPrecondition, &format!("is not this member on its disk: {why}"))
        })?;
        let nonce = |answer: &proto::RaftIdentity| answer.start.as_ref().map(|start| start.nonce);
        match self.who_answers(id, old, OLD_ANSWER_WITHIN).await {
            // One process under two names is no other one.
            Ok(other) if other.node == id.0 && nonce(&other) != nonce(&answer) => Err(kept(
                Code::FailedPrecondition,
                &format!("another process answers as node {id} than at {old}; stop that one first"),
            )),
            _ => Ok(()),
        }
    }

    async fn who_answers(
        &self,
        id: NodeId,
        address: &str,
        limit: Duration,
    ) -> Result<proto::RaftIdentity, CallError> {
        match tokio::time::timeout(limit, self.groups.peers().ask_elsewhere(id, address)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(CallError::Timeout(limit)),
        }
    }
}
