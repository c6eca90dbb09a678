//! openraft's network of one group to one peer.

use std::future::Future;
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, StorageError};

use super::errors::{RpcError, call_failed, network, unreachable};
use super::network::{HELD_TIMEOUT, PeerNetwork};
use super::pipeline::Pipeline;
use super::{overheard, receive, send};
use crate::machine::apply::Transfer;
use crate::types::{Types, Vote};
use crate::wire;
use keyviz_proto as proto;

/// How long the peer may take to answer a chunk of a snapshot or to install it.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

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
                        let timeout = self.timeout(RPCTypes::InstallSnapshot, SNAPSHOT_TIMEOUT);
                        return Err(timeout.into());
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
