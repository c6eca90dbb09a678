//! Connections to one node.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::access::Access;
use super::address::Address;
use crate::text;
use keyviz_security::{self as security, AuthChannel};

/// Longest wait for a connection, unless the timeout of the call is shorter.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection on which nothing arrived for this long is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest answer that is read: a matrix of 1,024 x 2,048 cells of 10 bytes, and its keys.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Nodes and the credentials for them.
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

/// Connects to `address`.
///
/// # Errors
/// A status that means [`crate::Meaning::NotSent`].
pub fn connect<'a>(
    address: &'a Address,
    access: &'a Access,
    timeout: Duration,
) -> BoxFuture<'a, Result<AuthChannel, Status>> {
    async move {
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
    .boxed()
}

/// The settings of a connection.
///
/// # Errors
/// Where the address is no URI authority, which [`Address`] rules out.
pub fn endpoint(address: &Address, timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
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

/// Whether a status was made by [`local_timeout`].
pub(crate) fn is_local_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded && std::error::Error::source(status).is_some()
}
