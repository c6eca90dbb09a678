//! Calls to other nodes about membership and placement.

use std::time::Duration;

use tonic::{Request, Status};

use keyviz_proto as proto;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_proto::{hand_over_response, is_member_response, leave_response, reshape_response};
use keyviz_raft::{Reshaped, Shape};
use keyviz_security::AuthChannel;
use keyviz_types::{GroupId, NodeId};

use super::answers::passed_on;
use super::client::PeerClient;
use super::error::CallError;

/// Time limit of one step of a group towards its members.
pub const STEP_WITHIN: Duration = Duration::from_secs(4);

/// Time limit for telling a member of alerts.
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// Time limit for sending and storing a whole history.
const HANDOFF_WITHIN: Duration = Duration::from_secs(300);

/// The result of a node, or the leader as far as it knows.
pub type LeaderAnswer<T> = Result<T, Option<NodeId>>;

impl PeerClient {
    fn members(&self, to: NodeId) -> Result<ClusterPeerClient<AuthChannel>, Status> {
        let channel = self.channel(to).map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(ClusterPeerClient::new(channel))
    }

    /// Tells a member what was judged and told of alerts. One of an earlier version does not know
    /// the call.
    pub async fn note_alerts(
        &self,
        to: NodeId,
        note: proto::NoteAlertsRequest,
    ) -> Result<(), Status> {
        let mut request = Request::new(note);
        request.set_timeout(NOTE_WITHIN);
        self.members(to)?.note_alerts(request).await?;
        Ok(())
    }

    /// Asks the leader of the catalog group to remove a node; returns whether it is removed.
    pub async fn leave(&self, to: NodeId, id: NodeId) -> Result<LeaderAnswer<bool>, Status> {
        let leave = proto::LeaveRequest { cluster_id: self.cluster_id(), id: id.0 };
        let response = self.members(to)?.leave(self.request(leave)).await;
        match response.map_err(|status| passed_on(to, status))?.into_inner().outcome {
            Some(leave_response::Outcome::Gone(gone)) => Ok(Ok(gone)),
            Some(leave_response::Outcome::NotLeader(hint)) => Ok(Err(leader_of(&hint))),
            None => Err(Status::internal("an answer without an outcome")),
        }
    }

    /// Asks the leader of a group to perform the next step towards its members.
    pub async fn reshape(
        &self,
        to: NodeId,
        group: GroupId,
        revision: u64,
        shape: &Shape,
    ) -> Result<LeaderAnswer<Reshaped>, CallError> {
        let member = |(node_id, member): (&u64, &keyviz_raft::Member)| proto::ReshapeMember {
            node_id: *node_id,
            address: member.addr.clone(),
            http: member.http.clone(),
        };
        let mut request = Request::new(proto::ReshapeRequest {
            cluster_id: self.cluster_id(),
            group_id: group.0,
            revision,
            voters: shape.voters.iter().map(member).collect(),
        });
        request.set_timeout(STEP_WITHIN * 4);
        let answer = self.members(to)?.reshape(request).await?;
        Ok(match answer.into_inner().outcome {
            Some(reshape_response::Outcome::Done(_)) => Ok(Reshaped::Done),
            Some(reshape_response::Outcome::CatchingUp(far)) => Ok(Reshaped::CatchingUp {
                node: far.node_id,
                matched: far.copied_index,
                last: far.last_index,
            }),
            Some(reshape_response::Outcome::HandedOver(to)) => Ok(Reshaped::HandedOver { to }),
            Some(reshape_response::Outcome::NotLeader(hint)) => Err(leader_of(&hint)),
            None => return Err(CallError::NoOutcome),
        })
    }

    /// Asks `to`, which should lead the group, whether a node is a member of it.
    pub async fn is_member(
        &self,
        to: NodeId,
        group: GroupId,
        node: NodeId,
    ) -> Result<LeaderAnswer<bool>, CallError> {
        let cluster_id = self.cluster_id();
        let ask = proto::IsMemberRequest { cluster_id, group_id: group.0, node_id: node.0 };
        let answer = self.members(to)?.is_member(self.request(ask)).await?;
        match answer.into_inner().outcome {
            Some(is_member_response::Outcome::Member(member)) => Ok(Ok(member)),
            Some(is_member_response::Outcome::NotLeader(hint)) => Ok(Err(leader_of(&hint))),
            None => Err(CallError::NoOutcome),
        }
    }

    /// Asks `to`, which is leaving, to hand its columns to another node; returns the number of
    /// records.
    pub async fn hand_off_history(&self, to: NodeId, heir: NodeId) -> Result<u64, CallError> {
        let ask = proto::BequeathRequest { cluster_id: self.cluster_id(), heir: heir.0 };
        let mut request = Request::new(ask);
        request.set_timeout(HANDOFF_WITHIN);
        let answer = self.members(to)?.bequeath(request).await?;
        Ok(answer.into_inner().records)
    }

    /// Asks the leader of a group to transfer its leadership.
    pub async fn hand_over(
        &self,
        to: NodeId,
        group: GroupId,
        heir: NodeId,
    ) -> Result<LeaderAnswer<()>, Status> {
        let cluster_id = self.cluster_id();
        let ask = proto::HandOverRequest { cluster_id, group_id: group.0, to: heir.0 };
        let answer = self.members(to)?.hand_over(self.request(ask)).await;
        match answer.map_err(|status| passed_on(to, status))?.into_inner().outcome {
            Some(hand_over_response::Outcome::Done(_)) => Ok(Ok(())),
            Some(hand_over_response::Outcome::NotLeader(hint)) => Ok(Err(leader_of(&hint))),
            None => Err(Status::internal("an answer without an outcome")),
        }
    }
}

fn leader_of(hint: &proto::NotLeader) -> Option<NodeId> {
    (hint.leader != 0).then_some(NodeId(hint.leader))
}
