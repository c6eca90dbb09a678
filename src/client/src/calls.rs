//! Calls to a cluster through whichever of the given nodes answers.
//!
//! One pass over the addresses: an address that does not answer is passed over for the next one.
//! A write goes to the next address only where the failed call certainly did nothing
//! ([`Meaning::write_again`]), so that no write is ever made twice.

use std::future::Future;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::access::Access;
use super::address::Address;
use super::failure::{self, Meaning};
use super::text::{self, inert};
use keyviz_security::{self as security, AuthChannel, SecurityError};

/// Longest wait for a connection, where the timeout is not shorter.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer that is read: a matrix of 1,024 x 2,048 cells of 10 bytes, and its keys.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// No node did what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A certificate or token of this side cannot be used.
    #[error(transparent)]
    Credentials(#[from] SecurityError),
    /// No address answered. The reasons are in the order of the addresses.
    #[error("no node answered: {}", reasons(.0))]
    NoNode(Vec<(Address, String)>),
    /// A node answered that it will not.
    #[error("{address} answers {}: {}", failure::code_name(status.code()), inert(&failure::reason(status)))]
    Refused {
        /// The node.
        address: Address,
        /// Its answer.
        status: Box<Status>,
    },
    /// A write may or may not have happened.
    #[error(
        "outcome unknown, the change may or may not have happened: {address}: {}",
        inert(reason)
    )]
    Unknown {
        /// The node that it was sent to.
        address: Address,
        /// What came instead of an answer.
        reason: String,
    },
}

fn reasons(tried: &[(Address, String)]) -> String {
    let each = tried.iter().map(|(address, reason)| format!("{address}: {}", inert(reason)));
    each.collect::<Vec<_>>().join("; ")
}

/// Whether a call changes anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It does not: it may be asked again.
    Read,
    /// It does: it may not, unless it certainly did not happen.
    Write,
    /// It does, and the server knows a request that it has seen: it may be asked again.
    Repeatable,
}

/// Calls to a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    nodes: Vec<Address>,
    timeout: Duration,
    /// Where it cannot be had, each call says so.
    access: Result<Access, SecurityError>,
}

impl Client {
    /// Asks `nodes` in this order, each for at most `timeout`.
    pub fn new(nodes: Vec<Address>, timeout: Duration) -> Self {
        Client { nodes, timeout, access: Ok(Access::default()) }
    }

    /// The same, and shows them who calls. Where that cannot be shown, each call says so.
    pub fn with_access(self, access: Result<Access, SecurityError>) -> Self {
        Client { access, ..self }
    }

    /// The same, at this node alone.
    pub fn at(&self, address: Address) -> Self {
        Client { nodes: vec![address], ..self.clone() }
    }

    /// The same, at these nodes.
    pub fn at_all(&self, nodes: Vec<Address>) -> Self {
        Client { nodes, ..self.clone() }
    }

    /// The wait for one answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes a call at the first node that answers.
    ///
    /// # Errors
    /// Where no node answers, one refuses, or the outcome of a write is unknown.
    pub async fn call<T, F, Fut>(&self, effect: Effect, call: F) -> Result<T, CallError>
    where
        F: Fn(AuthChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        self.call_where(effect, call).await.map(|(_, answer)| answer)
    }

    /// As [`Client::call`]; also says which node answered.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_where<T, F, Fut>(
        &self,
        effect: Effect,
        call: F,
    ) -> Result<(&Address, T), CallError>
    where
        F: Fn(AuthChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let access = self.access.as_ref().map_err(Clone::clone)?;
        let mut tried = Vec::new();
        let mut refused = None;
        for address in &self.nodes {
            let status = match self.attempt(address, access, &call).await {
                Ok(answer) => return Ok((address, answer)),
                Err(status) => status,
            };
            let meaning = Meaning::of(&status);
            let from_server = std::error::Error::source(&status).is_none()
                && meaning != Meaning::NotSent
                && !is_local_timeout(&status);
            let again = match effect {
                Effect::Read | Effect::Repeatable => {
                    meaning.read_again(&status) || is_local_timeout(&status)
                }
                Effect::Write => meaning.write_again(),
            };
            if !again {
                let address = address.clone();
                return Err(match (effect, meaning) {
                    // Of the changes to routes: decided on another catalog version, so refused.
                    (Effect::Repeatable, _) if from_server && status.code() == Code::Aborted => {
                        CallError::Refused { address, status: Box::new(status) }
                    }
                    (Effect::Write | Effect::Repeatable, Meaning::Unknown) => {
                        CallError::Unknown { address, reason: failure::reason(&status) }
                    }
                    _ => CallError::Refused { address, status: Box::new(status) },
                });
            }
            if from_server {
                refused =
                    Some(CallError::Refused { address: address.clone(), status: Box::new(status) });
            } else {
                tried.push((address.clone(), failure::reason(&status)));
            }
        }
        Err(refused.unwrap_or(CallError::NoNode(tried)))
    }

    async fn attempt<T, F, Fut>(
        &self,
        address: &Address,
        access: &Access,
        call: &F,
    ) -> Result<T, Status>
    where
        F: Fn(AuthChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let channel = connect(address, access, self.timeout).await?;
        match tokio::time::timeout(self.timeout, call(channel)).await {
            Ok(result) => result,
            Err(_) => Err(local_timeout(self.timeout)),
        }
    }
}

/// Nodes, and how to show them who calls.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// Their gRPC addresses.
    pub addresses: Vec<Address>,
    /// What they are shown.
    pub access: Access,
}

impl From<Vec<Address>> for Nodes {
    fn from(addresses: Vec<Address>) -> Self {
        Nodes { addresses, access: Access::default() }
    }
}

/// A connection to `address`.
///
/// # Errors
/// A status that means [`Meaning::NotSent`].
pub async fn connect(
    address: &Address,
    access: &Access,
    timeout: Duration,
) -> Result<AuthChannel, Status> {
    let timeout = timeout.min(CONNECT_TIMEOUT);
    let connected = match endpoint(address, timeout) {
        Ok(endpoint) => {
            let connecting = security::connect(endpoint, access.tls.as_ref());
            tokio::time::timeout(timeout, connecting).await
        }
        Err(error) => Ok(Err(error)),
    };
    match connected {
        Ok(Ok(channel)) => Ok(AuthChannel::new(channel, access.credentials.clone())),
        Ok(Err(error)) => Err(not_sent(error)),
        Err(_) => Err(not_sent(ConnectTimeout(timeout))),
    }
}

/// Where and how to connect.
///
/// # Errors
/// Where the address is no URI authority, which [`Address`] rules out.
pub fn endpoint(address: &Address, timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20))
}

#[derive(Debug, thiserror::Error)]
#[error("no connection within {}", text::duration(*.0))]
struct ConnectTimeout(Duration);

/// A status for a call that was never sent.
fn not_sent(error: impl std::error::Error + Send + Sync + 'static) -> Status {
    Status::from_error(Box::new(tonic::ConnectError(Box::new(error))))
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {}", text::duration(*.0))]
struct AnswerTimeout(Duration);

/// A status for a call that was not answered in time; its outcome is unknown.
pub fn local_timeout(timeout: Duration) -> Status {
    let mut status =
        Status::deadline_exceeded(format!("no answer within {}", text::duration(timeout)));
    status.set_source(std::sync::Arc::new(AnswerTimeout(timeout)));
    status
}

fn is_local_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded && std::error::Error::source(status).is_some()
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
