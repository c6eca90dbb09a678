//! Messages between the groups of two nodes, for a wire that a test decides about.

use futures::future::BoxFuture;
use tonic::Status;

use crate::proto;
use crate::raft::groups::Groups;
use crate::raft::transport::Service;
use crate::raft::types::NodeId;

/// What one node sends to another.
#[derive(Clone, Debug)]
pub(crate) enum RaftMessage {
    Append(proto::RaftHello, proto::RaftAppend),
    Identify(proto::RaftIdentifyRequest),
    Vote {
        request: proto::RaftVoteRequest,
        pre_vote: bool,
    },
    Transfer(proto::RaftTransferRequest),
    /// All chunks of a snapshot.
    Snapshot(Vec<proto::RaftSnapshotChunk>),
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(crate) enum RaftReply {
    Append(proto::RaftAppended),
    Identify(proto::RaftIdentity),
    Vote(proto::RaftVoteResponse),
    Transfer(proto::RaftTransferResponse),
    Snapshot(proto::RaftSnapshotResponse),
}

/// The wire of one node. A message that is lost is never answered.
pub(crate) trait Wire: Send + Sync {
    /// Sends a message to `to`.
    fn send(
        &self,
        to: NodeId,
        message: RaftMessage,
    ) -> BoxFuture<'static, Result<RaftReply, Status>>;
}

/// Has the groups of a node take a message, as its gRPC service would.
pub(crate) async fn receive(groups: Groups, message: RaftMessage) -> Result<RaftReply, Status> {
    let service = Service::new(groups);
    match message {
        RaftMessage::Append(hello, append) => {
            service.check(Some(&hello)).await?;
            Ok(RaftReply::Append(service.start(append).await.0))
        }
        RaftMessage::Identify(request) => {
            service.answer_identify(request).await.map(RaftReply::Identify)
        }
        RaftMessage::Vote { request, pre_vote } => {
            let answer = service.answer_vote(request, pre_vote).await?;
            Ok(RaftReply::Vote(answer.into_inner()))
        }
        RaftMessage::Transfer(request) => service.take_over(request).await.map(RaftReply::Transfer),
        RaftMessage::Snapshot(chunks) => {
            let chunks = futures::stream::iter(chunks.into_iter().map(Ok));
            service.install(chunks).await.map(RaftReply::Snapshot)
        }
    }
}
