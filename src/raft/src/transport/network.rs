//! openraft's network of one group to one peer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::future::Either;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, StorageError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::held::HeldRange;
use super::link::Waiter;
use super::pace::Pace;
use super::peers::Peers;
use super::pipeline::{InFlight, Pipeline, end_of};
use super::{MAX_MESSAGE_BYTES, receive, send};
use crate::apply::Transfer;
use crate::pulse::Pulse;
use crate::types::{LogId, Member, NodeId, Types, Vote};
use crate::wire;
use keyviz_proto as proto;
use keyviz_proto::raft_transport_client::RaftTransportClient;
use keyviz_security::AuthChannel;
use keyviz_types::GroupId;

/// How long the peer may take to answer a chunk of a snapshot or to install it.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the peer may take to say what it holds of a snapshot.
const HELD_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) type RpcError = RPCError<Types>;
type Client = RaftTransportClient<AuthChannel>;

/// Makes the networks of one group.
#[derive(Clone, Debug)]
pub(crate) struct GroupNetwork {
    pub(crate) peers: Peers,
    pub(crate) group: GroupId,
    pub(crate) pace: Arc<Pace>,
    /// How long word of a commit waits for entries to travel with.
    pub(crate) hold: Duration,
    /// What this node tells of its quorum.
    pub(crate) pulse: Arc<Pulse>,
}

impl RaftNetworkFactory<Types> for GroupNetwork {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> PeerNetwork {
        let (peers, group, pace) = (self.peers.clone(), self.group, self.pace.clone());
        let (addr, hold, acknowledged) = (node.addr.clone(), self.hold, Mutex::default());
        let pulse = self.pulse.clone();
        PeerNetwork { peers, group, target, addr, pace, hold, pulse, acknowledged }
    }
}

/// One group's way to one peer.
pub(crate) struct PeerNetwork {
    peers: Peers,
    group: GroupId,
    target: NodeId,
    /// As the group has it.
    addr: String,
    /// Shared by all groups of the node.
    pace: Arc<Pace>,
    hold: Duration,
    pulse: Arc<Pulse>,
    /// The term in which this node led last, and the last entry that the peer said to have stored in it,
    /// in answers to this network. A replica that comes back after it was given up has another one.
    acknowledged: Mutex<Option<(u64, LogId)>>,
}

pub(super) fn unreachable(error: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

pub(super) fn network(error: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(error))
}

/// What the peer or the way to it did wrong, as openraft wants to know it.
fn call_failed(status: tonic::Status) -> RpcError {
    use tonic::Code;
    match status.code() {
        // Waiting helps: the peer is down, is another one, or does not have the group (yet).
        Code::Unavailable
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::NotFound
        | Code::Unauthenticated => unreachable(status),
        _ => network(status),
    }
}

impl PeerNetwork {
    /// Where the peer is: as the catalog group has it, which hears first of a member that moves.
    fn addr(&self) -> String {
        let roster = self.peers.roster();
        let moved = roster.and_then(|roster| roster.address(keyviz_types::NodeId(self.target)));
        moved.unwrap_or_else(|| self.addr.clone())
    }

    fn client(&self) -> Result<Client, RpcError> {
        let channel = self.peers.channel(self.target, &self.addr()).map_err(unreachable)?;
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    pub(super) fn timeout(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        let (id, target) = (self.peers.node(), self.target);
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }

    async fn within<T>(
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
    async fn hello(&self, action: RPCTypes, limit: Duration) -> Result<proto::RaftHello, RpcError> {
        let addr = self.addr();
        match tokio::time::timeout(limit, self.peers.identified(self.target, &addr)).await {
            Ok(Ok(())) => Ok(self.peers.hello(self.target)),
            Ok(Err(status)) => Err(call_failed(status)),
            Err(_) => Err(self.timeout(action, limit)),
        }
    }

    /// What the peer holds of an earlier snapshot, and its name; nothing where it does not say.
    async fn held(&self, client: &mut Client) -> (u64, Vec<HeldRange>) {
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
        if let Some(wire) = self.peers.wire() {
            self.peers.may_take_part().map_err(unreachable)?;
            let identified = self
                .peers
                .roster()
                .is_none_or(|roster| roster.is_identified(keyviz_types::NodeId(self.target)));
            if !identified {
                let (peers, target, addr) = (self.peers.clone(), self.target, self.addr());
                tokio::spawn(async move { peers.identified(target, &addr).await });
                return Err(unreachable("the peer is being identified"));
            }
            let waiter = Waiter::over(&self.peers, wire.as_ref(), self.target, request);
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

    /// Takes an answer to a request of this network.
    pub(super) fn outcome(
        &self,
        request: &InFlight,
        answer: proto::RaftAppended,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        self.peers.note_room(self.target, answer.disk_full);
        let outcome = request.outcome(answer)?;
        match &outcome {
            Ok(None) => {}
            Ok(Some(last)) => {
                let mut acknowledged = self.acknowledged.lock();
                *acknowledged = (*acknowledged).max(Some((request.term, *last)));
            }
            Err(StreamAppendError::Conflict(at)) if Some(*at) <= request.acknowledged => {
                let what = format!(
                    "node {} acknowledged entry {} of group {} and lacks entry {} now: its disk may \
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

    async fn ask_transfer(
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

    async fn ask_vote(
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

impl RaftNetworkV2<Types> for PeerNetwork {
    type SnapshotData = Transfer;

    async fn append_entries(
        &mut self,
        append: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let limit = option.soft_ttl();
        let mut sent = self.send(append)?;
        match tokio::time::timeout(limit, &mut sent.waiter).await {
            Ok(Ok(answer)) => self.outcome(&sent, answer).map(AppendEntriesResponse::from),
            Ok(Err(broken)) => Err(unreachable(broken)),
            Err(_) => Err(self.timeout(RPCTypes::AppendEntries, limit)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline::new(self, input, option.hard_ttl(), self.hold);
        let answers = futures::stream::unfold(pipeline, |mut pipeline| async move {
            let answer = pipeline.next().await?;
            Some((answer, pipeline))
        });
        Box::pin(async move { Ok(answers.boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(request, option, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(request, option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Transfer>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Transfer::View(view) = snapshot.snapshot else {
            let error = std::io::Error::other("a received snapshot cannot be sent on");
            return Err(StreamingError::StorageError(StorageError::from_io_error(
                openraft::ErrorSubject::Snapshot(None),
                openraft::ErrorVerb::Read,
                error,
            )));
        };
        let hello = self.hello(RPCTypes::InstallSnapshot, HELD_TIMEOUT).await?;
        if let Some(wire) = self.peers.wire() {
            let header = receive::header(hello, self.group, vote, &snapshot.meta, 0);
            let (chunks, _) = send::chunks(header, *view, Vec::new(), self.pace.clone());
            let call = overheard::snapshot(wire.as_ref(), self.target, chunks.collect().await);
            let sent = self.within(RPCTypes::InstallSnapshot, SNAPSHOT_TIMEOUT, call);
            tokio::pin!(sent, cancel);
            return match futures::future::select(sent, cancel).await {
                Either::Left((response, _)) => {
                    let vote = wire::required_vote(response?.vote).map_err(network)?;
                    Ok(SnapshotResponse::new(vote))
                }
                Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
            };
        }
        let mut client = self.client()?;
        let (partial, held) = self.held(&mut client).await;
        let header = receive::header(hello, self.group, vote, &snapshot.meta, partial);
        let (chunks, progress) = send::chunks(header, *view, held, self.pace.clone());
        let call = client.snapshot(chunks);
        tokio::pin!(call, cancel);
        loop {
            let last_progress = *progress.borrow();
            tokio::select! {
                biased;
                closed = &mut cancel => return Err(StreamingError::Closed(closed)),
                answer = &mut call => {
                    let response = answer.map_err(call_failed)?.into_inner();
                    let vote = wire::required_vote(response.vote).map_err(network)?;
                    return Ok(SnapshotResponse::new(vote));
                }
                () = tokio::time::sleep_until(last_progress + SNAPSHOT_TIMEOUT) => {
                    if *progress.borrow() == last_progress {
                        return Err(self.timeout(RPCTypes::InstallSnapshot, SNAPSHOT_TIMEOUT).into());
                    }
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let hello = self.hello(RPCTypes::TransferLeader, option.soft_ttl()).await?;
        let message = proto::RaftTransferRequest {
            hello: Some(hello),
            group: self.group.0,
            from_leader: Some(wire::vote_to_proto(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(wire::log_id_to_proto),
        };
        let response = self.ask_transfer(message, option).await?;
        if response.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(match response.vote {
            Some(vote) => TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: wire::vote_from_proto(vote),
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: response.last.map(wire::log_id_from_proto),
            },
        }))
    }
}

/// Calls over a wire that is given.
mod overheard {
    use tonic::{Response, Status};

    use super::super::wire::{RaftMessage, RaftReply, Wire};
    use super::{NodeId, proto};

    macro_rules! expect {
        ($wire:expr, $to:expr, $message:expr, $reply:ident) => {
            match $wire.send($to, $message).await? {
                RaftReply::$reply(reply) => Ok(Response::new(reply)),
                other => Err(Status::internal(format!("another message's answer: {other:?}"))),
            }
        };
    }

    pub(super) async fn vote(
        wire: &dyn Wire,
        to: NodeId,
        request: proto::RaftVoteRequest,
        pre_vote: bool,
    ) -> Result<Response<proto::RaftVoteResponse>, Status> {
        expect!(wire, to, RaftMessage::Vote { request, pre_vote }, Vote)
    }

    pub(super) async fn snapshot(
        wire: &dyn Wire,
        to: NodeId,
        chunks: Vec<proto::RaftSnapshotChunk>,
    ) -> Result<Response<proto::RaftSnapshotResponse>, Status> {
        expect!(wire, to, RaftMessage::Snapshot(chunks), Snapshot)
    }

    pub(super) async fn transfer(
        wire: &dyn Wire,
        to: NodeId,
        request: proto::RaftTransferRequest,
    ) -> Result<Response<proto::RaftTransferResponse>, Status> {
        expect!(wire, to, RaftMessage::Transfer(request), Transfer)
    }
}
