//! One group's way to one peer: requests, their answers and their limits of time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{RPCError, Timeout};
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::errors::{RpcError, call_failed, network, unreachable};
use super::held::HeldRange;
use super::in_flight::{InFlight, end_of};
use super::link::Waiter;
use super::pace::Pace;
use super::peers::Peers;
use super::wire::{RaftMessage, Wire};
use super::{MAX_MESSAGE_BYTES, overheard};
use crate::group::pulse::Pulse;
use crate::types::{LogId, Member, RaftNodeId, Types};
use crate::wire;
use keyviz_proto as proto;
use keyviz_proto::raft_transport_client::RaftTransportClient;
use keyviz_security::AuthChannel;
use keyviz_types::GroupId;

/// Time limit for the peer to report the ranges that it holds.
pub(super) const HELD_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) type Client = RaftTransportClient<AuthChannel>;

/// Makes the networks of one group.
#[derive(Clone, Debug)]
pub(crate) struct GroupNetwork {
    pub(crate) peers: Peers,
    pub(crate) group: GroupId,
    pub(crate) pace: Arc<Pace>,
    /// How long a commit update is held for an append to carry it.
    pub(crate) hold: Duration,
    /// The age of the quorum that this node reports.
    pub(crate) pulse: Arc<Pulse>,
}

impl RaftNetworkFactory<Types> for GroupNetwork {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: RaftNodeId, node: &Member) -> PeerNetwork {
        let (peers, group, pace) = (self.peers.clone(), self.group, self.pace.clone());
        let (addr, hold, acknowledged) = (node.addr.clone(), self.hold, Mutex::default());
        let pulse = self.pulse.clone();
        PeerNetwork { peers, group, target, addr, pace, hold, pulse, acknowledged }
    }
}

/// One group's way to one peer.
pub(crate) struct PeerNetwork {
    pub(super) peers: Peers,
    pub(super) group: GroupId,
    pub(super) target: RaftNodeId,
    /// As the group has it.
    addr: String,
    /// Shared by all groups of the node.
    pub(super) pace: Arc<Pace>,
    pub(super) hold: Duration,
    pulse: Arc<Pulse>,
    /// The last term in which this node led, and the last entry that the peer acknowledged in it
    /// through this network. A replica that comes back after it was given up has another one.
    acknowledged: Mutex<Option<(u64, LogId)>>,
}

impl PeerNetwork {
    /// Where the peer is: as the catalog group has it, which hears first of a member that moves.
    fn addr(&self) -> String {
        let roster = self.peers.roster();
        let moved = roster.and_then(|roster| roster.address(keyviz_types::NodeId(self.target)));
        moved.unwrap_or_else(|| self.addr.clone())
    }

    pub(super) fn client(&self) -> Result<Client, RpcError> {
        let channel = self.peers.channel(self.target, &self.addr()).map_err(unreachable)?;
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    pub(super) fn timeout(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        let (id, target) = (self.peers.node(), self.target);
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }

    pub(super) async fn within<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.peers.forget_identity(self.target);
                Err(call_failed(status))
            }
            Err(_) => Err(self.timeout(action, limit)),
        }
    }

    /// The greeting of a message to the peer, which has been identified.
    pub(super) async fn hello(
        &self,
        action: RPCTypes,
        limit: Duration,
    ) -> Result<proto::RaftHello, RpcError> {
        let addr = self.addr();
        match tokio::time::timeout(limit, self.peers.identified(self.target, &addr)).await {
            Ok(Ok(())) => Ok(self.peers.hello(self.target)),
            Ok(Err(status)) => Err(call_failed(status)),
            Err(_) => Err(self.timeout(action, limit)),
        }
    }

    /// The ranges that the peer holds of an earlier snapshot, and its name; empty if it reports
    /// none.
    pub(super) async fn held(&self, client: &mut Client) -> (u64, Vec<HeldRange>) {
        let hello = Some(self.peers.hello(self.target));
        let request = proto::RaftSnapshotHeldRequest { hello, group: self.group.0 };
        let asked =
            async {
                let mut answers = client.snapshot_held(request).await?.into_inner();
                let (mut name, mut held) = (0, Vec::new());
                while let Some(range) = answers.message().await? {
                    name = range.partial;
                    held.push(HeldRange {
                        digest: u128::from_le_bytes(range.digest[..].try_into().map_err(|_| {
                            tonic::Status::invalid_argument("a digest has 16 bytes")
                        })?),
                        to: range.to,
                        rows: range.rows,
                    });
                }
                Ok::<_, tonic::Status>((name, held))
            };
        match tokio::time::timeout(HELD_TIMEOUT, asked).await {
            Ok(Ok(held)) => held,
            // A peer of an earlier version does not know the question.
            Ok(Err(_)) | Err(_) => (0, Vec::new()),
        }
    }

    pub(super) fn send(&self, append: AppendEntriesRequest<Types>) -> Result<InFlight, RpcError> {
        let (previous, last) = (append.prev_log_id, end_of(&append));
        let term = append.vote.leader_id.term;
        let acknowledged = *self.acknowledged.lock();
        // Of an earlier term of this node another leader may have had the peer take entries back.
        let acknowledged = acknowledged.filter(|(of, _)| *of == term).map(|(_, last)| last);
        let empty = append.entries.is_empty();
        let mut request = wire::append_to_proto(0, self.group.0, append);
        request.quorum_age_ms = Some(self.pulse.age_to_tell());
        // Each time: the link may have been opened before this node was refused.
        self.peers.may_take_part().map_err(unreachable)?;
        if let Some(wire) = self.peers.wire() {
            let identified = self
                .peers
                .roster()
                .is_none_or(|roster| roster.is_identified(keyviz_types::NodeId(self.target)));
            if !identified {
                let (peers, target, addr) = (self.peers.clone(), self.target, self.addr());
                tokio::spawn(async move { peers.identified(target, &addr).await });
                return Err(unreachable("the peer is being identified"));
            }
            let waiter = self.over(wire.as_ref(), request);
            return Ok(InFlight {
                previous,
                last,
                acknowledged,
                term,
                empty,
                sent: Instant::now(),
                waiter,
            });
        }
        let link = self.peers.link(self.target, &self.addr()).map_err(unreachable)?;
        let waiter = link.send(request).map_err(unreachable)?;
        Ok(InFlight { previous, last, acknowledged, term, empty, sent: Instant::now(), waiter })
    }

    /// Sends a request over a wire that is given.
    fn over(&self, wire: &dyn Wire, request: proto::RaftAppend) -> Waiter {
        let hello = self.peers.hello(self.target);
        let sent = wire.send(self.target, RaftMessage::Append(hello, request));
        let (peers, target) = (self.peers.clone(), self.target);
        Waiter::over(target, sent, move || peers.forget_identity(target))
    }

    /// Takes an answer to a request of this network.
    pub(super) fn outcome(
        &self,
        request: &InFlight,
        answer: proto::RaftAppended,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        self.peers.note_space(self.target, answer.disk_full);
        let outcome = request.outcome(answer)?;
        match &outcome {
            Ok(None) => {}
            Ok(Some(last)) => {
                let mut acknowledged = self.acknowledged.lock();
                *acknowledged = (*acknowledged).max(Some((request.term, *last)));
            }
            Err(StreamAppendError::Conflict(at)) if Some(*at) <= request.acknowledged => {
                let what = format!(
                    "node {} acknowledged entry {} of group {} and lacks entry {} now: its disk \
                     may \
                     have gone back. Run `keyviz cluster verify`, and replace the node",
                    self.target,
                    request.acknowledged.map_or(0, |last| last.index),
                    self.group,
                    at.index
                );
                if let Some(roster) = self.peers.roster() {
                    roster.note_loss(keyviz_types::NodeId(self.target), &what);
                }
                return Err(unreachable(what));
            }
            Err(_) => {}
        }
        Ok(outcome)
    }

    pub(super) async fn ask_transfer(
        &self,
        message: proto::RaftTransferRequest,
        option: RPCOption,
    ) -> Result<proto::RaftTransferResponse, RpcError> {
        let limit = option.soft_ttl();
        if let Some(wire) = self.peers.wire() {
            let call = overheard::transfer(wire.as_ref(), self.target, message);
            return self.within(RPCTypes::TransferLeader, limit, call).await;
        }
        let mut client = self.client()?;
        self.within(RPCTypes::TransferLeader, limit, client.transfer_leader(message)).await
    }

    pub(super) async fn ask_vote(
        &self,
        request: VoteRequest<Types>,
        option: RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let hello = self.hello(RPCTypes::Vote, option.soft_ttl()).await?;
        let message = wire::vote_request_to_proto(hello, self.group.0, &request);
        if let Some(wire) = self.peers.wire() {
            let call = overheard::vote(wire.as_ref(), self.target, message, pre_vote);
            let response = self.within(RPCTypes::Vote, option.soft_ttl(), call).await?;
            return wire::vote_response_from_proto(response).map_err(network);
        }
        let mut client = self.client()?;
        let call = async {
            if pre_vote { client.pre_vote(message).await } else { client.vote(message).await }
        };
        let response = self.within(RPCTypes::Vote, option.soft_ttl(), call).await?;
        wire::vote_response_from_proto(response).map_err(network)
    }
}
