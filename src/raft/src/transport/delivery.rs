//! Delivers messages to the groups of a node without gRPC.

use futures::future::{BoxFuture, FutureExt as _};
use tonic::Status;

use super::service::Service;
use super::wire::{RaftMessage, RaftReply};
use crate::groups::Groups;

/// Delivers a message to the groups of a node, as its gRPC service would.
pub fn receive(
    groups: Groups,
    message: RaftMessage,
) -> BoxFuture<'static, Result<RaftReply, Status>> {
    async move {
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
            RaftMessage::Transfer(request) => {
                service.take_over(request).await.map(RaftReply::Transfer)
            }
            RaftMessage::Snapshot(chunks) => {
                let chunks = futures::stream::iter(chunks.into_iter().map(Ok));
                service.install(chunks).await.map(RaftReply::Snapshot)
            }
        }
    }
    .boxed()
}
