//! The services `Cluster` and `ClusterPeer`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use keyviz_catalog_group::CatalogOutcome;
use keyviz_proto as proto;
use keyviz_proto::{join_response, propose_response};
use keyviz_types::{GroupId, NodeId};

use super::cluster::ClusterService;
use super::route_status::change_status;
use crate::audit;
use crate::autopilot::Autopilot;
use crate::peer::checks::{check_cluster, not_leader};
use crate::verify::Updates;
use keyviz_peer::digests::DigestUpdates;

/// The services of this module share their state; tonic requires a type for each.
#[derive(Clone)]
pub(crate) struct SharedCluster(pub(crate) Arc<ClusterService>, pub(crate) Arc<Autopilot>);

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
        let (group, to) = (GroupId(transfer.group_id), NodeId(transfer.to));
        audit::note(format_args!("transfer the leader of group {group} to node {to}"));
        let before = self.0.groups.get(group).and_then(|group| group.leader());
        let term = self.0.transfer(group, to).await?;
        self.1.enter_transfer(group, before, to);
        Ok(Response::new(proto::TransferLeaderResponse { leader: transfer.to, term }))
    }

    async fn get_autopilot(
        &self,
        _request: Request<proto::GetAutopilotRequest>,
    ) -> Result<Response<proto::Autopilot>, Status> {
        self.1.get().await.map(Response::new)
    }

    async fn set_autopilot(
        &self,
        request: Request<proto::SetAutopilotRequest>,
    ) -> Result<Response<proto::Autopilot>, Status> {
        let set = request.into_inner();
        audit::note(format_args!("switch the autopilot to {:?}", set.mode));
        self.1.set(set).await.map(Response::new)
    }

    async fn autopilot_log(
        &self,
        request: Request<proto::AutopilotLogRequest>,
    ) -> Result<Response<proto::Journal>, Status> {
        self.1.log(request.into_inner()).map(Response::new)
    }

    async fn preview_act(
        &self,
        request: Request<proto::ActRequest>,
    ) -> Result<Response<proto::ActPreview>, Status> {
        self.1.preview(request.into_inner()).await.map(Response::new)
    }

    async fn do_act(
        &self,
        request: Request<proto::ActRequest>,
    ) -> Result<Response<proto::JournalEntry>, Status> {
        let ask = request.into_inner();
        audit::note(format_args!("act: {}", Autopilot::named(&ask)));
        self.1.act(ask).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl proto::cluster_peer_server::ClusterPeer for SharedCluster {
    type DigestAtStream = DigestUpdates;

    async fn autopilot(
        &self,
        request: Request<proto::PeerStatusRequest>,
    ) -> Result<Response<proto::Autopilot>, Status> {
        check_cluster(&self.0.directory, &request.into_inner().cluster_id)?;
        Ok(Response::new(self.1.here().await))
    }

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
