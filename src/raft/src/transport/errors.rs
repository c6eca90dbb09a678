//! Maps errors of peers to those of openraft.

use openraft::errors::{NetworkError, RPCError, Unreachable};

use crate::types::Types;

pub(super) type RpcError = RPCError<Types>;

pub(super) fn unreachable(error: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

pub(super) fn network(error: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(error))
}

/// An error of the peer or of the network, for openraft.
pub(super) fn call_failed(status: tonic::Status) -> RpcError {
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
