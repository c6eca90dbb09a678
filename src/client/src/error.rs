//! Why an operation failed.

use keyviz_security::SecurityError;
use tonic::{Code, Status};

use super::failure;
use super::nodes::address::{Address, AddressError};
use super::text::inert;

/// Why an operation failed. The variants say what may have happened in the cluster:
///
/// | variant | a write | what to do |
/// |---|---|---|
/// | [`Error::Address`], [`Error::NoAddress`] | was not sent | correct the addresses |
/// | [`Error::Credentials`] | was not sent | correct the files |
/// | [`Error::NoNode`] | did not happen | try again later |
/// | [`Error::Refused`] | did not happen | see [`Error::code`] |
/// | [`Error::Unknown`] | may have happened | read the key, then decide |
/// | [`Error::Malformed`] | | report a bug |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address is not `HOST:PORT`.
    #[error("{address:?}: {source}")]
    Address {
        /// The text given.
        address: String,
        /// What is wrong with it.
        source: AddressError,
    },
    /// A client needs the address of at least one node.
    #[error("no address of a node was given")]
    NoAddress,
    /// A certificate or token of this client cannot be used.
    #[error(transparent)]
    Credentials(#[from] SecurityError),
    /// No node answered. The reasons are in the order of the attempts.
    #[error("no node answered: {}", reasons(.0))]
    NoNode(Vec<(Address, String)>),
    /// A node refused the request. Nothing was changed.
    #[error(
        "{address} answers {}: {}",
        failure::code_name(status.code()),
        inert(&failure::reason(status))
    )]
    Refused {
        /// The node.
        address: Address,
        /// Its answer.
        status: Box<Status>,
    },
    /// The outcome of a write is unknown: it may or may not have happened.
    #[error(
        "outcome unknown, the change may or may not have happened: {address}: {}",
        inert(reason)
    )]
    Unknown {
        /// The node that the write was sent to.
        address: Address,
        /// What was received instead of an answer.
        reason: String,
    },
    /// An answer breaks the protocol.
    #[error("{address} sent an answer that breaks the protocol: {reason}")]
    Malformed {
        /// The node.
        address: Address,
        /// What is wrong with the answer.
        reason: &'static str,
    },
}

fn reasons(tried: &[(Address, String)]) -> String {
    let each = tried.iter().map(|(address, reason)| format!("{address}: {}", inert(reason)));
    each.collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The gRPC status code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the operation failed for want of a node or a quorum, so that it may succeed later. A
    /// write that failed in this way did not happen.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::NoNode(_))
            || matches!(self.code(), Some(Code::Unavailable | Code::ResourceExhausted))
    }

    /// The current catalog version, where a change of routes was refused because it was decided on
    /// another one.
    pub fn current_catalog_version(&self) -> Option<u64> {
        match self {
            Error::Refused { status, .. } if status.code() == Code::Aborted => {
                status.metadata().get("keyviz-catalog-version")?.to_str().ok()?.parse().ok()
            }
            _ => None,
        }
    }
}
