//! Messages between the groups of two nodes over a transport other than gRPC.

use futures::future::BoxFuture;
use tonic::Status;

use crate::types::RaftNodeId;
use keyviz_proto as proto;

/// A message from one node to another.
#[derive(Clone, Debug)]
pub enum RaftMessage {
    /// Entries, or a commit update.
    Append(proto::RaftHello, proto::RaftAppend),
    /// A request to identify itself.
    Identify(proto::RaftIdentifyRequest),
    /// A candidate's request for a vote.
    Vote {
        /// The request.
        request: proto::RaftVoteRequest,
        /// Only whether the vote would be granted.
        pre_vote: bool,
    },
    /// A leader hands over.
    Transfer(proto::RaftTransferRequest),
    /// All chunks of a snapshot.
    Snapshot(Vec<proto::RaftSnapshotChunk>),
}

/// The answer to a message.
#[derive(Clone, Debug)]
pub enum RaftReply {
    /// To entries.
    Append(proto::RaftAppended),
    /// The identity.
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
