//! Messages between the groups of two nodes over a transport other than gRPC.

use futures::future::BoxFuture;
use tonic::Status;

use super::Service;
use crate::groups::Groups;
use crate::types::RaftNodeId;
use keyviz_proto as proto;

/// What one node sends to another.
#[derive(Clone, Debug)]
pub enum RaftMessage {
    /// Entries, or word of a commit.
    Append(proto::RaftHello, proto::RaftAppend),
    /// Who is there?
    Identify(proto::RaftIdentifyRequest),
    /// A candidate asks for a vote.
    Vote {
        /// What it asks.
        request: proto::RaftVoteRequest,
        /// It only asks whether it would get one.
        pre_vote: bool,
    },
    /// A leader hands over.
    Transfer(proto::RaftTransferRequest),
    /// All chunks of a snapshot.
    Snapshot(Vec<proto::RaftSnapshotChunk>),
}

/// What it is answered.
#[derive(Clone, Debug)]
pub enum RaftReply {
    /// To entries.
    Append(proto::RaftAppended),
    /// Who is there.
    Identify(proto::RaftIdentity),
    /// To a candidate.
    Vote(proto::RaftVoteResponse),
    /// To a leader that hands over.
    Transfer(proto::RaftTransferResponse),
    /// To a snapshot.
    Snapshot(proto::RaftSnapshotResponse),
}

/// The wire of one node. A message that is lost is never answered.
pub trait Wire: Send + Sync {
    /// Sends a message to `to`.
    fn send(
        &self,
        to: RaftNodeId,
        message: RaftMessage,
    ) -> BoxFuture<'static, Result<RaftReply, Status>>;
}

/// Has the groups of a node take a message, as its gRPC service would.
pub async fn receive(groups: Groups, message: RaftMessage) -> Result<RaftReply, Status> {
    let service = Service::new(groups);
    match message {
        RaftMessage::Append(hello, append) => {
            // Without a pause: messages keep the order in which they came.
            service.check_now(&hello)?;
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
