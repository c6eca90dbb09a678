//! Why a call to another node gave no answer.

use std::time::Duration;

use tonic::Status;

use keyviz_kv::PeerError;
use keyviz_proto::failure::describe;
use keyviz_types::NodeId;

/// Why a call to another node gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The node could not be reached.
    #[error(transparent)]
    Unreachable(#[from] PeerError),
    /// The call failed, or the node refused it.
    #[error("{}", describe(.0))]
    Failed(Box<Status>),
    /// No answer within the time limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Another node answers at its address.
    #[error("node {0} answers at its address")]
    OtherNode(NodeId),
    /// The answer lacks a field that every version sends.
    #[error("an answer without an outcome")]
    NoOutcome,
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        CallError::Failed(Box::new(status))
    }
}
