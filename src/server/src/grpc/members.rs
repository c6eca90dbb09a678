//! Nodes that come and go, and the steps that this node does towards the members of its groups.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tonic::{Code, Status};

use keyviz_catalog::{PlaceChange, PlaceError};
use keyviz_catalog_group::PlacementChangeError;
use keyviz_proto as proto;
use keyviz_proto::reshape_response;
use keyviz_raft::{Attempts, ChangeError, Member, ReadError, Reshaped, Shape};
use keyviz_types::{GroupId, NodeId};

use crate::grpc::cluster::{ClusterService, check_address};
use crate::peer::checks::not_leader;
use keyviz_peer::members::{LeaderAnswer, STEP_WITHIN};
use keyviz_peer::snapshot::{ClusterSnapshot, STATUS_DEADLINE};

/// Attempts at a decision on a placement that changes concurrently.
const DECISIONS: usize = 8;

impl ClusterService {
    /// Lets a node leave, if this node leads the catalog group; whether it has gone.
    pub(crate) async fn leave_here(&self, id: NodeId) -> Result<LeaderAnswer<bool>, Status> {
        for _ in 0..DECISIONS {
            match self.catalog.confirm_leading().await {
                Ok(()) => {}
                Err(PlacementChangeError::NotLeader(leader)) => return Ok(Err(leader)),
                Err(error) => return Err(Status::unavailable(error.to_string())),
            }
            let Some(group) = self.catalog.group() else { return Ok(Err(None)) };
            let (placement, status) = (self.catalog.applied().placement(), group.status());
            let member = status.members.contains_key(&id.0);
            if placement.departures().contains_key(&id) {
                return Ok(Ok(placement.is_gone(id) && !member));
            }
            if !member {
                let members: Vec<String> = status.members.keys().map(u64::to_string).collect();
                let members = members.join(", ");
                return Err(Status::not_found(format!(
                    "node {id} is not a member; the members are {members}"
                )));
            }
            let snapshot = self.snapshot().await;
            let view = snapshot.balance(&placement);
            let voters = status.voters.into_iter().map(NodeId).collect();
            view.may_leave(id, &voters)
                .map_err(|error| Status::failed_precondition(error.to_string()))?;
            match self.catalog.place_at(placement.revision(), PlaceChange::Leave(id)).await {
                Ok(()) => return Ok(Ok(false)),
                // The placement changed concurrently: look again.
                Err(PlacementChangeError::Refused(PlaceError::WrongRevision { .. })) => {}
                Err(error) => return Err(placement_status(&error)),
            }
        }
        Err(Status::aborted("the placement keeps changing; try again"))
    }

    /// The same, through the leader.
    pub(crate) async fn leave(&self, id: u64) -> Result<bool, Status> {
        if id == 0 {
            return Err(Status::invalid_argument("node ids start at 1"));
        }
        let leader = match self.leave_here(NodeId(id)).await? {
            Ok(gone) => return Ok(gone),
            Err(leader) => leader.filter(|leader| *leader != self.node),
        };
        let no_leader = || Status::unavailable("the catalog group has no leader; try again");
        let answer = self.peers.leave(leader.ok_or_else(no_leader)?, NodeId(id)).await?;
        answer.map_err(|_| no_leader())
    }

    /// Whether the node may be added: an id is never used again, and one that leaves may stay after
    /// all. Call it on the leader of the catalog group.
    pub(crate) async fn admit(&self, id: NodeId) -> Result<(), Status> {
        for _ in 0..DECISIONS {
            let placement = self.catalog.applied().placement();
            if placement.is_gone(id) {
                return Err(Status::failed_precondition(format!(
                    "node {id} has left this cluster and its id is never used again; start the \
                     node with another --id and an empty --data"
                )));
            }
            if !placement.is_leaving(id) {
                return Ok(());
            }
            match self.catalog.place_at(placement.revision(), PlaceChange::Stay(id)).await {
                Ok(()) => return Ok(()),
                Err(PlacementChangeError::Refused(PlaceError::WrongRevision { .. })) => {}
                Err(error) => return Err(placement_status(&error)),
            }
        }
        Err(Status::aborted("the placement keeps changing; try again"))
    }

    /// What all members say now.
    pub(crate) async fn snapshot(&self) -> ClusterSnapshot {
        ClusterSnapshot::take(self.node, &self.groups, &self.directory, &self.peers).await
    }

    /// Does the next step of a group that this node leads.
    pub(crate) async fn reshape_here(
        &self,
        request: proto::ReshapeRequest,
    ) -> Result<reshape_response::Outcome, Status> {
        use reshape_response::Outcome;

        let id = GroupId(request.group_id);
        if id == GroupId::CATALOG {
            return Err(Status::invalid_argument("the catalog group is changed by its leader"));
        }
        let known = self.catalog.applied().placement().revision();
        if known > request.revision {
            let asked = request.revision;
            return Err(Status::aborted(format!(
                "decided on revision {asked} of the placement, this node knows revision {known}"
            )));
        }
        let mut voters = BTreeMap::new();
        for member in request.voters {
            check_address(&member.address)?;
            voters.insert(member.node_id, Member { addr: member.address, http: member.http });
        }
        let Some(group) = self.groups.get(id) else {
            return Ok(Outcome::NotLeader(not_leader(None)));
        };
        let shape = Shape { voters, learners: BTreeMap::new() };
        match group.reshape(&shape, STEP_WITHIN).await {
            Ok(Reshaped::Done) => Ok(Outcome::Done(true)),
            Ok(Reshaped::CatchingUp { node, matched, last }) => {
                let (node_id, copied_index, last_index) = (node, matched, last);
                Ok(Outcome::CatchingUp(proto::CatchingUp { node_id, copied_index, last_index }))
            }
            Ok(Reshaped::HandedOver { to }) => Ok(Outcome::HandedOver(to)),
            Err(ChangeError::NotLeader { leader }) => {
                Ok(Outcome::NotLeader(not_leader(leader.map(|(leader, _)| NodeId(leader)))))
            }
            Err(error) => Err(change_status(&error)),
        }
    }

    /// Whether a node is a member of a group that this node leads; of the catalog group any node
    /// can say that one has left.
    pub(crate) async fn is_member_here(
        &self,
        group: GroupId,
        node: NodeId,
    ) -> Result<LeaderAnswer<bool>, Status> {
        // The removal is committed and final, so it is known without a leader.
        if group == GroupId::CATALOG && self.catalog.applied().placement().is_gone(node) {
            return Ok(Ok(false));
        }
        let Some(group) = self.groups.get(group) else { return Ok(Err(None)) };
        match group.confirms_member(node.0).await {
            Ok(member) => Ok(Ok(member)),
            Err(ReadError::NotLeader { leader }) => {
                Ok(Err(leader.map(|(leader, _)| NodeId(leader))))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// Transfers the leadership of a group to `to`, through its current leader; the term in which
    /// it does.
    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<u64, Status> {
        let holders = match group {
            GroupId::CATALOG => self.directory.members().keys().copied().collect(),
            group => self.directory.replicas(group),
        };
        if holders.is_empty() {
            return Err(Status::not_found(format!("there is no Raft group {group}")));
        }
        if !holders.contains(&to) {
            let holders: Vec<String> = holders.iter().map(NodeId::to_string).collect();
            return Err(Status::failed_precondition(format!(
                "node {to} has no replica of Raft group {group}; the nodes that have one are {}",
                holders.join(", ")
            )));
        }
        let mut attempts = Attempts::until(Instant::now() + self.timeout);
        let mut hint = self.groups.get(group).and_then(|local| local.leader());
        loop {
            let turn = attempts.made() as usize % holders.len();
            let leader = hint.or_else(|| self.directory.leader_hint(group));
            let leader = leader.unwrap_or(holders[turn]);
            let handed = match leader == self.node {
                true => self.hand_over_here(group, to).await,
                false => self.peers.hand_over(leader, group, to).await,
            };
            // The request is idempotent, so it may be sent to another node.
            let failed = match handed {
                Ok(Ok(())) => return Ok(self.term_of(group, to).await),
                Ok(Err(next)) => {
                    hint = next.filter(|next| *next != leader);
                    Status::unavailable(format!("no leader of Raft group {group} is known"))
                }
                Err(status) if status.code() == Code::Unavailable => {
                    hint = None;
                    status
                }
                Err(status) => return Err(status),
            };
            self.directory.hint_leader(group, hint);
            if !attempts.again().await {
                return Err(failed);
            }
        }
    }

    /// The term of a group that `leader` leads, as that says; 0 where it does not.
    async fn term_of(&self, group: GroupId, leader: NodeId) -> u64 {
        if let Some(local) = self.groups.get(group).filter(|_| leader == self.node) {
            return local.status().term.0;
        }
        let said = self.peers.node_status(leader, STATUS_DEADLINE).await;
        let groups = said.map(|said| said.groups).unwrap_or_default();
        groups.iter().find(|said| said.group_id == group.0).map_or(0, |said| said.term)
    }

    /// Hands a group that this node leads over.
    pub(crate) async fn hand_over_here(
        &self,
        group: GroupId,
        to: NodeId,
    ) -> Result<LeaderAnswer<()>, Status> {
        let Some(group) = self.groups.get(group) else { return Ok(Err(None)) };
        match group.transfer_leader(to.0, STEP_WITHIN).await {
            Ok(()) => Ok(Ok(())),
            Err(ChangeError::NotLeader { leader }) => {
                Ok(Err(leader.map(|(leader, _)| NodeId(leader))))
            }
            Err(error) => Err(change_status(&error)),
        }
    }
}

fn change_status(error: &ChangeError) -> Status {
    match error {
        ChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
        ChangeError::Unknown => Status::unknown(error.to_string()),
        ChangeError::NotLeader { .. } | ChangeError::Stopped(_) => {
            Status::unavailable(error.to_string())
        }
    }
}

fn placement_status(error: &PlacementChangeError) -> Status {
    match error {
        PlacementChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
        PlacementChangeError::NotLeader(_) => Status::unavailable(error.to_string()),
        PlacementChangeError::Unavailable(_) => Status::unknown(error.to_string()),
    }
}
