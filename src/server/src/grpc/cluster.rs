//! The `Cluster` service, and the status of this node.

mod capabilities;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use keyviz_catalog::DiskError;
use keyviz_catalog_group::{CatalogGroup, CatalogOutcome, DiskChangeError};
use keyviz_directory::{Directory, MembershipState};
use keyviz_kv::{Coordinator, KvError};
use keyviz_proto as proto;
use keyviz_proto::{join_response, propose_response};
use keyviz_raft::{Fault, Group, Groups, Member, NotServed, Storage};
use keyviz_security::Security;
use keyviz_types::{DiskId, GroupId, NodeId};

use crate::alerts::AlertService;
use crate::audit;
use crate::grpc::route_status::change_status;
use crate::loops::LoopHealth;
use crate::peer::checks::{check_cluster, not_leader};
use crate::peer::handoff::Handoffs;
use crate::verify::{Updates, Verification};
use keyviz_peer::client::PeerClient;
use keyviz_peer::digests::DigestUpdates;

pub(crate) struct ClusterService {
    pub(crate) node: NodeId,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<PeerClient>,
    pub(crate) handoffs: Handoffs,
    pub(crate) storage: Storage,
    pub(crate) security: Security,
    pub(crate) verification: Arc<Verification>,
    /// HTTP address of this node; empty: none.
    pub(crate) http: String,
    pub(crate) started: Instant,
    pub(crate) timeout: Duration,
    pub(crate) loops: Arc<LoopHealth>,
    pub(crate) alerts: Arc<AlertService>,
}

/// Why a node cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// A control loop ended.
    #[error("{0}")]
    Loop(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] Fault),
    /// The node is no longer a member.
    #[error("{0}")]
    Removed(String),
    /// The node has just started.
    #[error("this node has not applied a route catalog yet")]
    NoRoutes,
    /// A replica was closed because it contradicts its leader.
    #[error("Raft group {group} is closed on this node: {reason}")]
    Closed { group: GroupId, reason: String },
    /// Groups without a leader or quorum.
    #[error("{}", unserved_words(.0))]
    Unserved(Vec<(GroupId, NotServed)>),
}

impl ClusterService {
    /// Checks whether this node can serve.
    pub(crate) fn readiness(&self) -> Result<(), NotReady> {
        if let Some(failure) = self.loops.failure() {
            return Err(NotReady::Loop(failure.to_owned()));
        }
        if let Some(fault) = self.storage.fault() {
            return Err(NotReady::Storage(fault));
        }
        if let Some(reason) = self.removed() {
            return Err(NotReady::Removed(reason));
        }
        if !self.coordinator.has_routes() {
            return Err(NotReady::NoRoutes);
        }
        if let Some((group, reason)) = self.groups.closed().into_iter().next() {
            return Err(NotReady::Closed { group, reason });
        }
        let placement = self.directory.placement();
        let placed = |group: &GroupId| {
            let replicas = placement.get(group);
            replicas.is_none_or(|replicas| replicas.contains(&self.node))
        };
        // A replica that is added or removed does not serve.
        let groups = self.groups.list().into_iter().filter(|group| placed(&group.id()));
        let unserved: Vec<_> =
            groups.filter_map(|group| Some((group.id(), group.served_by().err()?))).collect();
        if unserved.is_empty() { Ok(()) } else { Err(NotReady::Unserved(unserved)) }
    }

    /// Why this node no longer serves; `None`: it is a member.
    pub(crate) fn removed(&self) -> Option<String> {
        match self.directory.membership_state() {
            MembershipState::Member | MembershipState::Asking => None,
            MembershipState::Removed => Some(KvError::Removed { node: self.node }.to_string()),
            MembershipState::Refused => Some(self.directory.refusal().as_str().to_owned()),
        }
    }

    /// Why this node is excluded; empty: it is not.
    pub(crate) fn refused(&self) -> String {
        let refused = self.directory.membership_state() == MembershipState::Refused;
        if refused { self.directory.refusal().as_str().to_owned() } else { String::new() }
    }

    /// Why this node accepts no writes; `None`: it does.
    pub(crate) fn read_only(&self) -> Option<String> {
        self.storage.check_space().err().map(|full| full.to_string())
    }

    /// Makes a node a learner of the catalog group. `Err(hint)`: this node does not lead it.
    async fn add_learner(
        &self,
        id: u64,
        address: String,
        http: String,
        disk: &[u8],
    ) -> Result<Result<(), Option<NodeId>>, Status> {
        if id == 0 {
            return Err(Status::invalid_argument("node ids start at 1"));
        }
        check_address(&address)?;
        let members = self.directory.members();
        if let Some((other, _)) =
            members.iter().find(|(other, member)| other.0 != id && member.address == address)
        {
            return Err(Status::failed_precondition(format!(
                "{address} is the address of node {other} already"
            )));
        }
        let Some(group) = self.catalog.group() else { return Ok(Err(None)) };
        if group.leader() != Some(self.node) {
            return Ok(Err(group.leader()));
        }
        self.admit(NodeId(id)).await?;
        if !disk.is_empty() {
            let disk = DiskId::from_bytes(disk)
                .ok_or_else(|| Status::invalid_argument("a disk id has 16 bytes"))?;
            self.admit_disk(&group, NodeId(id), disk).await?;
        }
        let member = Member { addr: address, http };
        if let Some(known) = group.status().members.get(&id) {
            return self.move_member(&group, NodeId(id), known, member).await.map(Ok);
        }
        let added = tokio::time::timeout(self.timeout, group.add_learner(id, member)).await;
        match added {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded(
                "the catalog group did not take the node in time; try again",
            )),
        }
    }

    /// Checks that a joining node may have this id: no other node has it or had it.
    async fn admit_disk(&self, group: &Group, id: NodeId, disk: DiskId) -> Result<(), Status> {
        let in_use = || {
            Status::failed_precondition(format!(
                "node {id} is a member of this cluster with another disk, and ids are never used \
                 again. If node {id} lost its disk, start this one with a new --id, then run \
                 `keyviz cluster replace-node {id} --with NEW_ID`"
            ))
        };
        let roster = self.groups.peers().roster();
        let known = roster.and_then(|roster| roster.known_disk(id));
        let status = group.status();
        match known {
            Some(known) if known == disk => return Ok(()),
            Some(_) => return Err(in_use()),
            // It was a member before its disk was recorded, and must still have the entries that
            // were sent to it.
            None if status.members.contains_key(&id.0)
                && status.matched.get(&id.0).copied().flatten().is_some() =>
            {
                return Err(in_use());
            }
            None => {}
        }
        if self.catalog.applied().disks().is_empty() {
            return Ok(());
        }
        self.catalog.record_disk(id, disk).await.map_err(|error| match error {
            DiskChangeError::Refused(DiskError::InUse { .. }) => in_use(),
            DiskChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
            DiskChangeError::Unavailable(_) => Status::unavailable(error.to_string()),
        })
    }

    /// The same, through the leader.
    async fn add_node(&self, add: proto::AddNodeRequest) -> Result<(), Status> {
        let added =
            self.add_learner(add.id, add.address.clone(), add.http.clone(), &add.disk).await?;
        let leader = match added {
            Ok(()) => return Ok(()),
            Err(leader) => leader.filter(|leader| *leader != self.node),
        };
        let no_leader = || Status::unavailable("the catalog group has no leader; try again");
        let join = proto::JoinRequest {
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            id: add.id,
            address: add.address,
            http: add.http,
            disk: add.disk,
        };
        match self.peers.join(leader.ok_or_else(no_leader)?, join).await?.outcome {
            Some(join_response::Outcome::ClusterId(_)) => Ok(()),
            _ => Err(no_leader()),
        }
    }
}

/// Most groups that are named one by one.
const MOST_NAMED: usize = 8;

fn unserved_words(unserved: &[(GroupId, NotServed)]) -> String {
    let named = unserved.iter().take(MOST_NAMED);
    let named = named.map(|(group, why)| format!("Raft group {group}: {why}"));
    let mut words = format!("{} of the Raft groups here cannot be served: ", unserved.len());
    words += &named.collect::<Vec<_>>().join("; ");
    match unserved.len().saturating_sub(MOST_NAMED) {
        0 => words,
        more => format!("{words}; and {more} more"),
    }
}

/// `host:port`, as a member is reached.
pub(crate) fn check_address(address: &str) -> Result<(), Status> {
    let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if sound {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("address {address:?} is not host:port")))
}

/// One gRPC service over shared state.
#[derive(Clone)]
pub(crate) struct SharedCluster(pub(crate) Arc<ClusterService>);

#[tonic::async_trait]
impl proto::cluster_server::Cluster for SharedCluster {
    type VerifyStream = Updates;

    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<Updates>, Status> {
        self.0.verification.stream(request.into_inner()).map(Response::new)
    }

    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::ClusterStatus>, Status> {
        self.0.status().await.map(Response::new)
    }

    async fn get_capabilities(
        &self,
        _request: Request<proto::GetCapabilitiesRequest>,
    ) -> Result<Response<proto::Capabilities>, Status> {
        Ok(Response::new(self.0.capabilities().await))
    }

    async fn add_node(
        &self,
        request: Request<proto::AddNodeRequest>,
    ) -> Result<Response<proto::AddNodeResponse>, Status> {
        let add = request.into_inner();
        audit::note(format_args!("add node {} at {:?}", add.id, add.address));
        self.0.add_node(add).await?;
        let cluster_id = self.0.directory.cluster_id().as_str().to_owned();
        Ok(Response::new(proto::AddNodeResponse { cluster_id }))
    }

    async fn remove_node(
        &self,
        request: Request<proto::RemoveNodeRequest>,
    ) -> Result<Response<proto::RemoveNodeResponse>, Status> {
        let id = request.into_inner().id;
        audit::note(format_args!("remove node {id}"));
        let gone = self.0.leave(id).await?;
        Ok(Response::new(proto::RemoveNodeResponse { gone }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let transfer = request.into_inner();
        let (group, to) = (transfer.group_id, transfer.to);
        audit::note(format_args!("transfer the leader of group {group} to node {to}"));
        let term = self.0.transfer(GroupId(transfer.group_id), NodeId(transfer.to)).await?;
        Ok(Response::new(proto::TransferLeaderResponse { leader: transfer.to, term }))
    }
}

#[tonic::async_trait]
impl proto::cluster_peer_server::ClusterPeer for SharedCluster {
    type DigestAtStream = DigestUpdates;

    async fn digest_at(
        &self,
        request: Request<proto::DigestAtRequest>,
    ) -> Result<Response<DigestUpdates>, Status> {
        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let group = GroupId(ask.group_id);
        let updates = self.0.verification.digest_at(group, ask.index, ask.bytes_per_s)?;
        Ok(Response::new(updates))
    }

    async fn advance(
        &self,
        request: Request<proto::AdvanceRequest>,
    ) -> Result<Response<proto::AdvanceResponse>, Status> {
        use proto::advance_response::Outcome;

        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let group = GroupId(ask.group_id);
        let outcome = match self.0.verification.advance_here(group, ask.index).await? {
            Ok(()) => Outcome::Done(true),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::AdvanceResponse { outcome: Some(outcome) }))
    }

    async fn note_alerts(
        &self,
        request: Request<proto::NoteAlertsRequest>,
    ) -> Result<Response<proto::NoteAlertsResponse>, Status> {
        let note = request.into_inner();
        check_cluster(&self.0.directory, &note.cluster_id)?;
        self.0.alerts.note(note);
        Ok(Response::new(proto::NoteAlertsResponse {}))
    }

    async fn node_status(
        &self,
        request: Request<proto::PeerStatusRequest>,
    ) -> Result<Response<proto::PeerStatusResponse>, Status> {
        check_cluster(&self.0.directory, &request.into_inner().cluster_id)?;
        Ok(Response::new(self.0.node_status()))
    }

    async fn propose_catalog(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let propose = request.into_inner();
        check_cluster(&self.0.directory, &propose.cluster_id)?;
        let outcome = self.0.catalog.propose_here(&propose.command).await.map_err(change_status)?;
        let outcome = match outcome {
            CatalogOutcome::Done(reply) => propose_response::Outcome::Reply(reply),
            CatalogOutcome::NotLeader(leader) => {
                propose_response::Outcome::NotLeader(not_leader(leader))
            }
            CatalogOutcome::NotSent(reason) => return Err(Status::unavailable(reason)),
            CatalogOutcome::DiskFull(reason) => {
                let full = keyviz_catalog_group::CatalogChangeError::DiskFull { reason };
                return Err(change_status(full));
            }
            CatalogOutcome::Unknown(reason) => return Err(Status::unknown(reason)),
        };
        Ok(Response::new(proto::ProposeResponse { outcome: Some(outcome) }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let join = request.into_inner();
        check_cluster(&self.0.directory, &join.cluster_id)?;
        let outcome = match self.0.add_learner(join.id, join.address, join.http, &join.disk).await?
        {
            Ok(()) => {
                let cluster_id = self.0.directory.cluster_id();
                join_response::Outcome::ClusterId(cluster_id.as_str().to_owned())
            }
            Err(leader) => join_response::Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::JoinResponse { outcome: Some(outcome) }))
    }

    async fn leave(
        &self,
        request: Request<proto::LeaveRequest>,
    ) -> Result<Response<proto::LeaveResponse>, Status> {
        use proto::leave_response::Outcome;

        let leave = request.into_inner();
        check_cluster(&self.0.directory, &leave.cluster_id)?;
        let outcome = match self.0.leave_here(NodeId(leave.id)).await? {
            Ok(gone) => Outcome::Gone(gone),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::LeaveResponse { outcome: Some(outcome) }))
    }

    async fn reshape(
        &self,
        request: Request<proto::ReshapeRequest>,
    ) -> Result<Response<proto::ReshapeResponse>, Status> {
        let reshape = request.into_inner();
        check_cluster(&self.0.directory, &reshape.cluster_id)?;
        let outcome = self.0.reshape_here(reshape).await?;
        Ok(Response::new(proto::ReshapeResponse { outcome: Some(outcome) }))
    }

    async fn is_member(
        &self,
        request: Request<proto::IsMemberRequest>,
    ) -> Result<Response<proto::IsMemberResponse>, Status> {
        use proto::is_member_response::Outcome;

        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let outcome = self.0.is_member_here(GroupId(ask.group_id), NodeId(ask.node_id)).await?;
        let outcome = match outcome {
            Ok(member) => Outcome::Member(member),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::IsMemberResponse { outcome: Some(outcome) }))
    }

    async fn hand_over(
        &self,
        request: Request<proto::HandOverRequest>,
    ) -> Result<Response<proto::HandOverResponse>, Status> {
        use proto::hand_over_response::Outcome;

        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let outcome = match self.0.hand_over_here(GroupId(ask.group_id), NodeId(ask.to)).await? {
            Ok(()) => Outcome::Done(true),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::HandOverResponse { outcome: Some(outcome) }))
    }

    async fn bequeath(
        &self,
        request: Request<proto::BequeathRequest>,
    ) -> Result<Response<proto::BequeathResponse>, Status> {
        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let records = self.0.handoffs.send(NodeId(ask.heir), &self.0.peers).await?;
        Ok(Response::new(proto::BequeathResponse { records }))
    }

    async fn inherit(
        &self,
        request: Request<tonic::Streaming<proto::InheritChunk>>,
    ) -> Result<Response<proto::InheritResponse>, Status> {
        let records = self.0.handoffs.receive(request.into_inner()).await?;
        Ok(Response::new(proto::InheritResponse { records }))
    }
}
