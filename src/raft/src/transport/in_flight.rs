//! An append in flight to a peer, and the meaning of its answer.

use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::time::Instant;

use super::errors::{RpcError, network, unreachable};
use super::link::Waiter;
use crate::types::{LogId, Types};
use crate::wire;
use keyviz_proto as proto;
use keyviz_proto::raft_appended::Outcome;

/// An append that has no answer yet.
pub(super) struct InFlight {
    pub(super) previous: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// The last entry that the peer had acknowledged in this term when this was sent.
    pub(super) acknowledged: Option<LogId>,
    pub(super) term: u64,
    pub(super) empty: bool,
    pub(super) sent: Instant,
    pub(super) waiter: Waiter,
}

impl InFlight {
    pub(super) fn outcome(
        &self,
        answer: proto::RaftAppended,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        match answer.outcome() {
            Outcome::Appended => Ok(Ok(self.last)),
            Outcome::Conflict => match self.previous {
                Some(previous) => Ok(Err(StreamAppendError::Conflict(previous))),
                None => Err(network("the peer found a conflict before the first entry")),
            },
            Outcome::HigherVote => {
                let vote = wire::required_vote(answer.vote).map_err(network)?;
                Ok(Err(StreamAppendError::HigherVote(vote)))
            }
            Outcome::NoGroup => Err(unreachable("the peer does not hold the group")),
            // Waiting helps: the peer accepts entries again once its disk has space.
            Outcome::Stopped | Outcome::NoRoom | Outcome::Unspecified => {
                Err(unreachable(answer.message))
            }
            Outcome::Invalid => Err(network(answer.message)),
        }
    }
}

/// The last entry that a request leaves its receiver with.
pub(super) fn end_of(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}
