//! The receiving side of the transport.

use std::sync::Arc;

use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::MAX_MESSAGE_BYTES;
use super::held::{Partial, Reception};
use super::link::append_bytes;
use super::receive::{self, Receiving};
use crate::group::Group;
use crate::group::contradiction::Contradiction;
use crate::groups::Groups;
use crate::handshake::{Doubt, identity_to_proto};
use crate::machine::apply::{Staged, Transfer};
use crate::storage::{DiskFull, DiskSpace, NoSpace, Storage};
use crate::types::{Entry, Payload, Types};
use crate::wire;
use keyviz_proto as proto;
use keyviz_proto::raft_appended::Outcome;
use keyviz_proto::raft_identity::Verdict;
use keyviz_proto::raft_snapshot_chunk::Part;
use keyviz_proto::raft_transport_server::{RaftTransport, RaftTransportServer};
use keyviz_types::{self as ids, GroupId};

/// Appends of one peer that are being worked on; beyond, or beyond the node's queue bytes, its
/// stream is not read.
const IN_WORK: usize = 4096;

/// Answers that leave in one frame.
const FRAME_RESPONSES: usize = 256;

/// Frames that wait for the peer to read them.
const FRAMES_QUEUED: usize = 16;

/// How long a snapshot waits until what was accepted before it is on the disk.
const WAIT_FOR_SPACE: std::time::Duration = std::time::Duration::from_millis(100);

/// The gRPC service that receives messages from peers for the groups of this node.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(super) groups: Groups,
}

impl Groups {
    /// The gRPC service to put into the node's server. It finds groups that are created later.
    pub fn service(&self) -> RaftTransportServer<impl RaftTransport> {
        RaftTransportServer::new(Service::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl Service {
    pub(crate) fn new(groups: Groups) -> Self {
        Self { groups }
    }

    fn group(&self, group: u64) -> Result<Arc<Group>, Status> {
        self.groups
            .get(GroupId(group))
            .ok_or_else(|| Status::not_found(format!("this node does not hold group {group}")))
    }

    /// A full disk accepts no commands, only entries without one, which a leader needs to lead.
    fn check_space(&self, entries: &[Entry]) -> Result<(), DiskFull> {
        let bytes = |entry: &Entry| match &entry.payload {
            Payload::Normal(command) => Some(command.0.len() as u64),
            _ => None,
        };
        let commands = entries.iter().filter_map(bytes).reduce(|a, b| a + b);
        commands.map_or(Ok(()), |bytes| self.groups.storage().accept_to_follow(bytes))
    }

    /// Checks an append before the group receives it; otherwise returns the answer to it.
    fn check_to_append(
        &self,
        group: &Group,
        seq: u64,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), proto::RaftAppended> {
        if let Err(implausible) = group.check_term(request.vote.leader_id.term) {
            return Err(answer(seq, Outcome::Invalid, implausible.message().to_owned()));
        }
        let room = self.check_space(&request.entries);
        room.map_err(|full| answer(seq, Outcome::NoRoom, full.to_string()))?;
        let agrees = group.check_append(request);
        agrees.map_err(|contradiction| self.close(group, seq, &contradiction))
    }

    /// Closes a group whose leader contradicts what it has committed here.
    fn close(&self, group: &Group, seq: u64, why: &Contradiction) -> proto::RaftAppended {
        let (groups, id, reason) = (self.groups.clone(), group.id(), why.to_string());
        let stopped = answer(seq, Outcome::Stopped, reason.clone());
        // By itself: this runs on the way of the group's own messages.
        tokio::spawn(async move { groups.close(id, reason).await });
        stopped
    }

    pub(crate) async fn answer_vote(
        &self,
        request: proto::RaftVoteRequest,
        pre_vote: bool,
    ) -> Result<Response<proto::RaftVoteResponse>, Status> {
        self.check(request.hello.as_ref()).await?;
        let group = self.group(request.group)?;
        let request = wire::vote_request_from_proto(request)?;
        group.check_term(request.vote.leader_id.term)?;
        let response = group.answer_vote(request, pre_vote).await?;
        Ok(Response::new(wire::vote_response_to_proto(response)))
    }

    /// Starts one append: it is in the group's queue when this returns, unless that is full.
    pub(crate) fn start(&self, append: proto::RaftAppend) -> InWork {
        let (seq, quorum_age) = (append.seq, append.quorum_age_ms);
        let leader = append.vote.as_ref().map(|vote| vote.node);
        let bytes = append_bytes(&append);
        let work = match self.groups.get(GroupId(append.group)) {
            None => Err(answer(seq, Outcome::NoGroup, String::new())),
            Some(group) => match wire::append_from_proto(append) {
                Ok(request) => {
                    self.check_to_append(&group, seq, &request).map(|()| (group, request))
                }
                Err(invalid) => Err(answer(seq, Outcome::Invalid, invalid.to_string())),
            },
        };
        let storage = self.groups.storage().clone();
        let work = async move {
            let (group, request) = match work {
                Ok(work) => work,
                Err(refused) => return refused,
            };
            match group.raft().append_entries(request).await {
                Ok(AppendEntriesResponse::HigherVote(vote)) => proto::RaftAppended {
                    vote: Some(wire::vote_to_proto(&vote)),
                    ..answer(seq, Outcome::HigherVote, String::new())
                },
                Ok(taken) => {
                    if let Some(leader) = leader {
                        group.pulse().heard(leader, quorum_age);
                    }
                    let outcome = match taken {
                        AppendEntriesResponse::Conflict => Outcome::Conflict,
                        _ => Outcome::Appended,
                    };
                    answer(seq, outcome, String::new())
                }
                Err(error) => answer(seq, Outcome::Stopped, error.to_string()),
            }
        };
        let mut work = work
            .map(move |answered| {
                let disk_full = storage.disk_space() == DiskSpace::Full;
                proto::RaftAppended { disk_full, ..answered }
            })
            .boxed();
        // The first poll hands the request to the group, so requests arrive there in the order of
        // the stream. Unconstrained: running out of budget here would reorder them.
        match tokio::task::unconstrained(&mut work).now_or_never() {
            Some(answered) => futures::future::ready((answered, bytes)).boxed(),
            None => work.map(move |answered| (answered, bytes)).boxed(),
        }
    }

    /// Identifies this node, and answers with its verdict on the caller.
    pub(crate) async fn answer_identify(
        &self,
        request: proto::RaftIdentifyRequest,
    ) -> Result<proto::RaftIdentity, Status> {
        let hello = request.hello.ok_or(wire::Invalid("it does not say who sends it"))?;
        let (peers, node) = (self.groups.peers(), self.groups.node());
        let cluster = peers.cluster_id();
        let Some(roster) = peers.roster() else {
            return Ok(identity_to_proto(&cluster, node, None));
        };
        let mut answer = roster.answer(&hello, &request.history, &cluster);
        let from = ids::NodeId(hello.from);
        if answer.verdict() == Verdict::Refused {
            roster.note_doubt(from, answer.reason.clone());
            return Ok(answer);
        }
        if answer.verdict() == Verdict::OtherCluster {
            return Ok(answer);
        }
        let known = hello.start.as_ref().is_some_and(|start| start.nonce == roster.nonce_of(from));
        if !request.identify_me || known || cluster.is_empty() {
            return Ok(answer);
        }
        let Some(address) = roster.address(from) else { return Ok(answer) };
        let identified = peers.identify(from, &address, true, false).await;
        let here = hello.start.as_ref().is_some_and(|start| start.nonce == roster.nonce_of(from));
        if identified.is_ok() && !here {
            answer.set_verdict(Verdict::Elsewhere);
            answer.reason = Doubt::Elsewhere { node: from, address }.to_string();
        }
        Ok(answer)
    }

    /// Takes the lead of a group over, if this node has all of the leader's entries.
    pub(crate) async fn take_over(
        &self,
        request: proto::RaftTransferRequest,
    ) -> Result<proto::RaftTransferResponse, Status> {
        self.check(request.hello.as_ref()).await?;
        let group = self.group(request.group)?;
        let from = wire::required_vote(request.from_leader)?;
        group.check_term(from.leader_id.term)?;
        let last = request.last.map(wire::log_id_from_proto);
        let transfer = TransferLeaderRequest::new(from, request.to, last);
        let outcome = group
            .raft()
            .handle_transfer_leader(transfer)
            .await
            .map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        Ok(match outcome {
            Ok(()) => proto::RaftTransferResponse { accepted: true, ..Default::default() },
            Err(error) => {
                let reason = error.to_string();
                let (vote, last) = match error {
                    TransferLeaderError::VoteChanged { actual, .. } => {
                        (Some(wire::vote_to_proto(&actual)), None)
                    }
                    TransferLeaderError::LogNotFlushed { actual, .. } => {
                        (None, actual.map(wire::log_id_to_proto))
                    }
                };
                proto::RaftTransferResponse { accepted: false, reason, vote, last }
            }
        })
    }

    /// Receives and installs a snapshot.
    pub(crate) async fn install(
        &self,
        mut chunks: impl Stream<Item = Result<proto::RaftSnapshotChunk, Status>>
        + Send
        + Unpin
        + 'static,
    ) -> Result<proto::RaftSnapshotResponse, Status> {
        let Some(Part::Header(header)) = next_part(&mut chunks).await? else {
            return Err(wire::Invalid("a snapshot starts with its header").into());
        };
        self.check(header.hello.as_ref()).await?;
        let group = self.group(header.group)?;
        let full = |full: DiskFull| Status::unavailable(full.to_string());
        self.groups.storage().check_space().map_err(full)?;
        let vote = wire::required_vote(header.vote)?;
        group.check_term(vote.leader_id.term)?;
        let meta = receive::meta(&header)?;
        if let Err(contradiction) = group.check_snapshot(&vote, &meta)? {
            let refused = Status::failed_precondition(contradiction.to_string());
            self.close(&group, 0, &contradiction);
            return Err(refused);
        }

        let gone = || Status::aborted("nothing is held under this name; start afresh");
        let (reception, partial) = group.incoming().begin(header.partial).ok_or_else(gone)?;
        let storage = self.groups.storage().clone();
        // On a task of its own: when the connection breaks, this call is dropped, but what was
        // received must be kept.
        let received =
            tokio::spawn(receive_snapshot(storage, group.clone(), reception, partial, chunks));
        let staged = received
            .await
            .unwrap_or_else(|_| Err(Status::internal("receiving the snapshot panicked")))?;
        let snapshot = openraft::Snapshot { meta, snapshot: Transfer::Staged(staged) };
        let response = group
            .raft()
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        let vote = Some(wire::vote_to_proto(&response.vote));
        Ok(proto::RaftSnapshotResponse { vote })
    }

    async fn serve_appends(
        self,
        mut frames: Streaming<proto::RaftAppendFrame>,
        answers: mpsc::Sender<Result<proto::RaftAppendedFrame, Status>>,
    ) {
        let mut in_work: FuturesUnordered<InWork> = FuturesUnordered::new();
        let (mut bytes, most_bytes) = (0, self.groups.peer_bytes());
        let stopping = self.groups.stopping().clone();
        let stopped = stopping.cancelled();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                Some((first, done)) = in_work.next() => {
                    bytes -= done;
                    // Groups that are ready to answer do so first.
                    tokio::task::yield_now().await;
                    let mut responses = vec![first];
                    while responses.len() < FRAME_RESPONSES
                        && let Some(Some((next, done))) = in_work.next().now_or_never()
                    {
                        bytes -= done;
                        responses.push(next);
                    }
                    if answers.send(Ok(proto::RaftAppendedFrame { responses })).await.is_err() {
                        return;
                    }
                }
                frame = frames.message(), if in_work.len() < IN_WORK && bytes < most_bytes => {
                    let frame = match frame {
                        Ok(Some(frame)) => frame,
                        // The peer closed its side or broke off: it no longer waits for answers.
                        Ok(None) | Err(_) => return,
                    };
                    if let Err(refused) = self.check(frame.hello.as_ref()).await {
                        let _ = answers.send(Err(refused)).await;
                        return;
                    }
                    bytes += frame.requests.iter().map(append_bytes).sum::<usize>();
                    in_work.extend(frame.requests.into_iter().map(|append| self.start(append)));
                }
            }
        }
    }
}

/// The answer, and the queue bytes that it releases.
type InWork = futures::future::BoxFuture<'static, (proto::RaftAppended, usize)>;

fn answer(seq: u64, outcome: Outcome, message: String) -> proto::RaftAppended {
    proto::RaftAppended { seq, outcome: outcome.into(), message, ..Default::default() }
}

#[tonic::async_trait]
impl RaftTransport for Service {
    type SnapshotHeldStream = BoxStream<'static, Result<proto::RaftSnapshotRange, Status>>;
    type AppendStream = BoxStream<'static, Result<proto::RaftAppendedFrame, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::RaftAppendFrame>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, stream) = mpsc::channel(FRAMES_QUEUED);
        tokio::spawn(self.clone().serve_appends(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn vote(
        &self,
        request: Request<proto::RaftVoteRequest>,
    ) -> Result<Response<proto::RaftVoteResponse>, Status> {
        self.answer_vote(request.into_inner(), false).await
    }

    async fn identify(
        &self,
        request: Request<proto::RaftIdentifyRequest>,
    ) -> Result<Response<proto::RaftIdentity>, Status> {
        self.answer_identify(request.into_inner()).await.map(Response::new)
    }

    async fn pre_vote(
        &self,
        request: Request<proto::RaftVoteRequest>,
    ) -> Result<Response<proto::RaftVoteResponse>, Status> {
        self.answer_vote(request.into_inner(), true).await
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::RaftTransferRequest>,
    ) -> Result<Response<proto::RaftTransferResponse>, Status> {
        self.take_over(request.into_inner()).await.map(Response::new)
    }

    async fn snapshot_held(
        &self,
        request: Request<proto::RaftSnapshotHeldRequest>,
    ) -> Result<Response<Self::SnapshotHeldStream>, Status> {
        let request = request.into_inner();
        self.check(request.hello.as_ref()).await?;
        let group = self.group(request.group)?;
        let (partial, ranges) = group.incoming().held().await.unwrap_or_default();
        let ranges = ranges.into_iter().map(move |range| {
            Ok(proto::RaftSnapshotRange {
                partial,
                to: range.to,
                rows: range.rows,
                digest: range.digest.to_le_bytes().to_vec().into(),
            })
        });
        Ok(Response::new(futures::stream::iter(ranges).boxed()))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::RaftSnapshotChunk>>,
    ) -> Result<Response<proto::RaftSnapshotResponse>, Status> {
        self.install(request.into_inner()).await.map(Response::new)
    }
}

/// Waits until so many bytes of a snapshot fit on the disk beside what was accepted before them.
async fn space_for(storage: &Storage, bytes: u64) -> Result<(), Status> {
    loop {
        match storage.accept(bytes, 0) {
            Ok(()) => return Ok(()),
            Err(NoSpace::Full(full)) => return Err(Status::unavailable(full.to_string())),
            Err(NoSpace::Busy) => tokio::time::sleep(WAIT_FOR_SPACE).await,
        }
    }
}

/// Stages the chunks after the header. If the stream breaks, the staged rows are kept for the next
/// snapshot.
async fn receive_snapshot(
    storage: Storage,
    group: Arc<Group>,
    reception: Reception,
    partial: Option<Partial>,
    mut chunks: impl Stream<Item = Result<proto::RaftSnapshotChunk, Status>> + Send + Unpin,
) -> Result<Staged, Status> {
    let keyspace = group.keyspace().clone();
    let space = storage.clone();
    let mut receiving = blocking(move || {
        if let Some(partial) = partial {
            return Ok(Receiving::resume(partial));
        }
        let staged = Staged::new(storage, keyspace);
        staged.map(Receiving::new).map_err(|error| Status::internal(error.to_string()))
    })
    .await?;
    let stop = reception.stop();
    let trailer = loop {
        let part = tokio::select! {
            () = stop.cancelled() => Err(Status::aborted("another snapshot comes")),
            part = next_part(&mut chunks) => part,
        };
        let part = match part {
            Ok(Some(Part::Rows(rows))) => {
                let room = space_for(&space, rows.rows.len() as u64).await;
                room.map(|()| Some(Part::Rows(rows)))
            }
            other => other,
        };
        match part {
            Ok(Some(Part::Rows(rows))) => {
                let bytes = rows.rows.len();
                group.count_received(bytes);
                receiving = blocking(move || {
                    receiving.rows(rows)?;
                    Ok(receiving)
                })
                .await?;
                reception.note(receiving.received(), bytes);
            }
            Ok(Some(Part::Keep(keep))) => {
                receiving.keep(keep)?;
                reception.note(receiving.received(), 0);
            }
            Ok(Some(Part::Trailer(trailer))) => break trailer,
            cut => {
                if let Some((staged, ranges)) = receiving.into_partial() {
                    reception.keep(staged, ranges);
                }
                let ended = wire::Invalid("the snapshot ends before its trailer");
                return Err(cut.err().unwrap_or_else(|| ended.into()));
            }
        }
    };
    blocking(move || receiving.finish(trailer)).await
}

async fn next_part(
    chunks: &mut (impl Stream<Item = Result<proto::RaftSnapshotChunk, Status>> + Unpin),
) -> Result<Option<Part>, Status> {
    Ok(chunks.next().await.transpose()?.and_then(|chunk| chunk.part))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    crate::blocking(work)
        .await
        .unwrap_or_else(|_| Err(Status::internal("receiving the snapshot panicked")))
}
