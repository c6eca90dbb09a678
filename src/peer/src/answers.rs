//! The meaning of a peer's answer.

use bytes::Bytes;
use tonic::{Code, Status, TimeoutExpired};

use keyviz_kv::{KvError, PeerError, PeerOutcome};
use keyviz_proto as proto;
use keyviz_proto::failure::{causes, describe};
use keyviz_proto::propose_response;
use keyviz_types::{GroupId, NodeId};

use super::status::peer_refusal;

pub(crate) fn propose_outcome(
    response: proto::ProposeResponse,
) -> Result<PeerOutcome<Bytes>, PeerError> {
    match response.outcome {
        Some(propose_response::Outcome::Reply(reply)) => Ok(PeerOutcome::Done(reply)),
        Some(propose_response::Outcome::NotLeader(hint)) => Ok(not_leader(hint)),
        None => Err(undecodable("a proposal without an outcome")),
    }
}

pub(crate) fn not_leader<T>(hint: proto::NotLeader) -> PeerOutcome<T> {
    PeerOutcome::NotLeader((hint.leader != 0).then_some(NodeId(hint.leader)))
}

pub(crate) fn undecodable(reason: &str) -> PeerError {
    PeerError::Refused(KvError::Undecodable { reason: reason.to_owned() })
}

/// A write that came back with a status: it did not leave, was refused, or nobody knows.
pub(crate) fn write_error(node: NodeId, group: GroupId, status: &Status) -> PeerError {
    if was_not_sent(status) {
        return PeerError::NotSent { node, reason: describe(status) };
    }
    match peer_refusal(group, status) {
        // Somebody else may do it: the peer says that it did not.
        KvError::NoLeader { .. } => PeerError::NotSent { node, reason: describe(status) },
        KvError::UnknownOutcome { reason, .. } => PeerError::Lost { node, reason },
        refusal => PeerError::Refused(refusal),
    }
}

/// Reads change nothing, so only whether to repeat them matters.
pub(crate) fn read_error(node: NodeId, status: &Status) -> PeerError {
    PeerError::NotSent { node, reason: describe(status) }
}

/// The connection was never made, so the request never left.
fn was_not_sent(status: &Status) -> bool {
    is_caused_by::<tonic::ConnectError>(status)
}

fn is_caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    causes(status).any(|error| error.is::<E>())
}

/// The outcome of a call to a member, for the caller of this node. A status that the member gave is
/// theirs too. One that was made of a connection that broke, or of a time that ran out on either
/// side, is not: they would take it for their own connection's.
pub fn passed_on(to: NodeId, status: Status) -> Status {
    let broke = std::error::Error::source(&status).is_some();
    let ran_out = !broke || is_caused_by::<TimeoutExpired>(&status);
    let reason = || format!("node {to} was asked: {}; try again", describe(&status));
    match status.code() {
        Code::Cancelled if ran_out => Status::deadline_exceeded(reason()),
        _ if broke => Status::unavailable(reason()),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a channel hands out what went wrong within it.
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] TimeoutExpired);

    #[test]
    fn what_is_passed_on_says_whose_connection_broke_and_may_be_asked_again() {
        let broken = std::io::Error::other("reset");
        let expired = Status::from_error(Box::new(Transport(TimeoutExpired(()))));
        assert_eq!(expired.code(), Code::Cancelled, "tonic's own code for it");
        let cases = [
            (Status::from_error(Box::new(broken)), Code::Unavailable),
            (expired, Code::DeadlineExceeded),
            // The same from the member's side.
            (Status::cancelled("Timeout expired"), Code::DeadlineExceeded),
        ];
        for (status, code) in cases {
            let passed = passed_on(NodeId(7), status);
            assert_eq!(passed.code(), code, "{passed}");
            assert!(passed.message().contains("node 7"), "{passed}");
        }
        let refused = passed_on(NodeId(7), Status::failed_precondition("it has left"));
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "it has left"));
    }
}
