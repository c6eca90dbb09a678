//! The meaning of a failed call. Retryable failures, refusals and unknown outcomes stay distinct up
//! to the exit code.

use std::error::Error;

use tonic::{Code, ConnectError, Status};

use keyviz_proto::failure::causes;

pub use keyviz_proto::metadata::NOT_APPLIED_METADATA as NOT_APPLIED;

/// The meaning of a failed call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// There was no connection, so nothing was sent. Safe to repeat at any node.
    NotSent,
    /// The server states that it did nothing. Safe to repeat.
    NotApplied,
    /// The server refuses the request. Repeating it has the same result.
    Refused,
    /// It may or may not have happened. A read may be repeated, a write must not.
    Unknown,
}

impl Meaning {
    /// The meaning of a status.
    pub fn of(status: &Status) -> Self {
        if causes(status).any(|error| error.is::<ConnectError>()) {
            return Meaning::NotSent;
        }
        if needs_tls(status) {
            return Meaning::NotSent;
        }
        if status.source().is_some() {
            return Meaning::Unknown;
        }
        if answers_http(status).is_some_and(|code| code.starts_with('4')) {
            return Meaning::Refused;
        }
        let says_not_applied =
            status.metadata().get(NOT_APPLIED).is_some_and(|value| value == "true");
        match status.code() {
            Code::Unavailable | Code::Aborted | Code::ResourceExhausted if says_not_applied => {
                Meaning::NotApplied
            }
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Meaning::Refused,
            _ => Meaning::Unknown,
        }
    }

    /// Whether a read may be repeated.
    pub fn read_again(self, status: &Status) -> bool {
        match self {
            Meaning::NotSent | Meaning::NotApplied => true,
            Meaning::Refused => false,
            Meaning::Unknown => status.source().is_some() || status.code() == Code::Unavailable,
        }
    }

    /// Whether a write may be repeated.
    pub fn write_again(self) -> bool {
        matches!(self, Meaning::NotSent | Meaning::NotApplied)
    }
}

/// Whether a TLS port refused this side's plain text, with HTTP/2's INADEQUATE_SECURITY, before it
/// read anything.
fn needs_tls(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.source().is_some()
}

/// Whether the other side of a TLS handshake does not use TLS.
fn speaks_no_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// The HTTP status code of an answer that is not of gRPC, as of a node's HTTP port or of a proxy.
fn answers_http(status: &Status) -> Option<&str> {
    // The words of tonic, which gives nothing else to tell it by.
    status.message().strip_prefix("grpc-status header missing, mapped from HTTP status code ")
}

/// The reason in a status: the message of the server, or the innermost error of the connection.
pub fn reason(status: &Status) -> String {
    if needs_tls(status) {
        return "it speaks TLS only; give the CA's certificate with --tls-ca".to_owned();
    }
    if let Some(code) = answers_http(status) {
        return format!(
            "it does not speak gRPC (HTTP status {code}); give the address of --listen, not of \
             --http"
        );
    }
    match causes(status).last() {
        Some(innermost) if speaks_no_tls(innermost) => {
            "it does not speak TLS, and this side was given --tls-ca".to_owned()
        }
        Some(innermost) => innermost.to_string(),
        None if status.message().is_empty() => code_name(status.code()).to_owned(),
        None => status.message().to_owned(),
    }
}

/// The name of a status code on the wire.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;

    fn not_applied(code: Code) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(NOT_APPLIED, "true".parse().expect("it is ASCII"));
        Status::with_metadata(code, "no leader", metadata)
    }

    #[test]
    fn no_harm_a_write_is_sent_again_only_where_it_certainly_did_not_happen() {
        assert!(Meaning::of(&not_applied(Code::Unavailable)).write_again());
        assert!(Meaning::of(&not_applied(Code::Aborted)).write_again());
        assert!(Meaning::of(&not_applied(Code::ResourceExhausted)).write_again());
        for code in 1..=16 {
            let status = Status::new(Code::from(code), "no");
            assert!(!Meaning::of(&status).write_again(), "{status}");
        }
        assert!(!Meaning::of(&not_applied(Code::Unknown)).write_again());
        assert!(!Meaning::of(&not_applied(Code::DeadlineExceeded)).write_again());
    }

    #[test]
    fn a_read_is_sent_again_where_another_node_may_answer() {
        let again = |status: &Status| Meaning::of(status).read_again(status);
        assert!(again(&Status::unavailable("no quorum")));
        assert!(again(&not_applied(Code::Aborted)));
        assert!(!again(&Status::invalid_argument("key")));
        assert!(!again(&Status::internal("bug")));
    }
}
