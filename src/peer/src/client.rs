//! Calls to other nodes, over the connections of Raft.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::{Request, Status};

use keyviz_directory::Directory;
use keyviz_kv::{
    Consistency, MoveChunk, MoveRead, Page, PeerError, PeerKv, PeerOutcome, PeerRead,
    PeerReadReply, Row,
};
use keyviz_proto as proto;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_proto::kv_peer_client::KvPeerClient;
use keyviz_proto::peer_read_request::Read;
use keyviz_proto::{peer_read_response, read_index_response};
use keyviz_raft::{MAX_MESSAGE_BYTES, Peers};
use keyviz_security::AuthChannel;
use keyviz_types::{GroupId, NodeId};

use super::answers::{not_leader, passed_on, read_error, undecodable};
use super::error::CallError;
use super::forward::{Forwards, Way};
use super::moves;
use super::request_id;

/// The other nodes, by id. Each call looks up the address in the directory, so a member with a new
/// address is found.
pub struct PeerClient {
    peers: Peers,
    directory: Arc<Directory>,
    timeout: Duration,
    forwards: Forwards,
}

impl PeerClient {
    /// A client whose calls take at most `timeout`.
    pub fn new(peers: Peers, directory: Arc<Directory>, timeout: Duration) -> Arc<Self> {
        let forwards = Forwards::default();
        Arc::new(PeerClient { peers, directory, timeout, forwards })
    }

    /// The connection to a member.
    pub fn channel(&self, to: NodeId) -> Result<AuthChannel, PeerError> {
        let not_sent = |reason: String| PeerError::NotSent { node: to, reason };
        let member = self
            .directory
            .address(to)
            .ok_or_else(|| not_sent("it is not a member of the cluster".to_owned()))?;
        self.peers.channel(to.0, &member.address).map_err(|error| not_sent(error.to_string()))
    }

    pub(crate) fn kv(&self, to: NodeId) -> Result<KvPeerClient<AuthChannel>, PeerError> {
        let client = KvPeerClient::new(self.channel(to)?);
        Ok(client
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The cluster id of this node in messages; empty before there is one.
    pub fn cluster_id(&self) -> String {
        self.directory.cluster_id().as_str().to_owned()
    }

    /// A message with the deadline of this client, and the request id and the trace of this task.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = request_id::carrying(message);
        request.set_timeout(self.timeout);
        request
    }

    /// The status that `to` reports.
    pub async fn node_status(
        &self,
        to: NodeId,
        timeout: Duration,
    ) -> Result<proto::PeerStatusResponse, CallError> {
        let channel = self.channel(to)?;
        let mut request = Request::new(proto::PeerStatusRequest { cluster_id: self.cluster_id() });
        request.set_timeout(timeout);
        let call = async { ClusterPeerClient::new(channel).node_status(request).await };
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => {
                let said = response.into_inner();
                match said.node_id == to.0 {
                    true => Ok(said),
                    false => Err(CallError::OtherNode(NodeId(said.node_id))),
                }
            }
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// What the autopilot does, as `to` says, which should lead the catalog group.
    pub async fn autopilot(&self, to: NodeId) -> Result<proto::Autopilot, Status> {
        let channel = self.channel(to).map_err(|error| Status::unavailable(error.to_string()))?;
        let request = self.request(proto::PeerStatusRequest { cluster_id: self.cluster_id() });
        let response = ClusterPeerClient::new(channel).autopilot(request).await;
        Ok(response.map_err(|status| passed_on(to, status))?.into_inner())
    }

    /// Asks `to`, which should lead the catalog group, to make a node a learner.
    pub async fn join(
        &self,
        to: NodeId,
        join: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Status> {
        let channel = self.channel(to).map_err(|error| Status::unavailable(error.to_string()))?;
        let response = ClusterPeerClient::new(channel).join(self.request(join)).await;
        Ok(response.map_err(|status| passed_on(to, status))?.into_inner())
    }
}

impl PeerKv for PeerClient {
    fn propose(
        &self,
        to: NodeId,
        group: GroupId,
        command: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>> {
        let client = match self.kv(to) {
            Ok(client) => client,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let (cluster_id, timeout) = (self.cluster_id(), self.timeout);
        let way = Way { to, group, cluster_id, client, timeout };
        Box::pin(self.forwards.propose(way, command))
    }

    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
    ) -> BoxFuture<'static, Result<PeerOutcome<u64>, PeerError>> {
        let request = self
            .request(proto::ReadIndexRequest { cluster_id: self.cluster_id(), group_id: group.0 });
        let client = self.kv(to);
        Box::pin(async move {
            let response =
                client?.read_index(request).await.map_err(|status| read_error(to, &status))?;
            match response.into_inner().outcome {
                Some(read_index_response::Outcome::Index(index)) => Ok(PeerOutcome::Done(index)),
                Some(read_index_response::Outcome::NotLeader(hint)) => Ok(not_leader(hint)),
                None => Err(undecodable("a read index without an outcome")),
            }
        })
    }

    fn read(
        &self,
        to: NodeId,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<PeerReadReply>, PeerError>> {
        let request = self.request(proto::PeerReadRequest {
            cluster_id: self.cluster_id(),
            group_id: group.0,
            consistency: match consistency {
                Consistency::Linearizable => 0,
                Consistency::Lease => 1,
                Consistency::Stale => 2,
            },
            read: Some(match read {
                PeerRead::Get(key) => Read::Get(key),
                PeerRead::Page(range) => Read::Page(proto::PageRequest {
                    start: range.start,
                    end: range.end,
                    max_rows: range.max_rows,
                    max_bytes: range.max_bytes,
                    keys_only: range.keys_only,
                    continued: range.continued,
                    uncounted: range.uncounted,
                }),
            }),
        });
        let client = self.kv(to);
        Box::pin(async move {
            let response = client?.read(request).await.map_err(|status| read_error(to, &status))?;
            match response.into_inner().outcome {
                Some(peer_read_response::Outcome::Value(value)) => {
                    Ok(PeerOutcome::Done(PeerReadReply::Value(value.value)))
                }
                Some(peer_read_response::Outcome::Page(page)) => {
                    Ok(PeerOutcome::Done(PeerReadReply::Page(from_page(page))))
                }
                Some(peer_read_response::Outcome::NotLeader(hint)) => Ok(not_leader(hint)),
                None => Err(undecodable("a read without an outcome")),
            }
        })
    }

    fn move_step(
        &self,
        to: NodeId,
        group: GroupId,
        step: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>> {
        Box::pin(moves::step(self.kv(to), self.request(()), self.cluster_id(), (to, group), step))
    }

    fn move_read(
        &self,
        to: NodeId,
        group: GroupId,
        read: MoveRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<MoveChunk>, PeerError>> {
        Box::pin(moves::read(self.kv(to), self.request(()), self.cluster_id(), (to, group), read))
    }
}

fn from_page(page: proto::PeerPage) -> Page {
    let rows = page.rows.into_iter().map(|row| Row { key: row.key, value: row.value }).collect();
    Page { rows, next: page.next }
}
