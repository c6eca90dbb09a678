//! Calls over a wire that is given.

use tonic::{Response, Status};

use super::wire::{RaftMessage, RaftReply, Wire};
use crate::types::RaftNodeId;
use keyviz_proto as proto;

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
    to: RaftNodeId,
    request: proto::RaftVoteRequest,
    pre_vote: bool,
) -> Result<Response<proto::RaftVoteResponse>, Status> {
    expect!(wire, to, RaftMessage::Vote { request, pre_vote }, Vote)
}

pub(super) async fn snapshot(
    wire: &dyn Wire,
    to: RaftNodeId,
    chunks: Vec<proto::RaftSnapshotChunk>,
) -> Result<Response<proto::RaftSnapshotResponse>, Status> {
    expect!(wire, to, RaftMessage::Snapshot(chunks), Snapshot)
}

pub(super) async fn transfer(
    wire: &dyn Wire,
    to: RaftNodeId,
    request: proto::RaftTransferRequest,
) -> Result<Response<proto::RaftTransferResponse>, Status> {
    expect!(wire, to, RaftMessage::Transfer(request), Transfer)
}
