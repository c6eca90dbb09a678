//! Bounds requests on both ports before any service reads them: the bytes of each message, the
//! bytes of all incomplete messages, the open calls, the time in which a message must arrive, and
//! the time in which an answer must be read.
//!
//! ```text
//!   connection --> Intake: a place among the open calls  --> gate, services
//!                          Incoming: a body that counts          |
//!              <-- Outgoing: an answer that tells its connection <
//! ```
//!
//! | call | bytes of a message |
//! |---|---|
//! | `Kv.Put` | a value and a key of the largest size |
//! | `Kv.CompareAndSwap` | two values and a key |
//! | `Kv.Batch` | the largest batch |
//! | `KeyViz` | 5 MiB |
//! | between nodes | [`MAX_MESSAGE_BYTES`] |
//! | `/api/v1/matrix` of HTTP | 16 MiB |
//! | all others, and HTTP | 64 KiB |
//!
//! Calls of clients, calls between nodes and HTTP have separate budgets: a flood of one does not
//! affect the others, nor health checks.

mod budget;
mod incoming;
mod outgoing;
mod port;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use keyviz_kv::{Admitted, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use keyviz_raft::MAX_MESSAGE_BYTES;
use keyviz_security::{Caller, Protocol};

use super::calls::{self, Need};
use budget::Budget;
use incoming::Incoming;
use outgoing::Outgoing;
use port::Port;

/// Calls of clients that may be open, again calls between nodes, and again requests of HTTP. Each
/// takes its headers, 8 KiB at most, and a task.
const OPEN_CALLS: usize = 8_192;

/// Bytes of messages of clients that are not whole yet.
const CLIENT_BYTES: usize = 64 << 20;

/// Bytes of messages between nodes that are not whole yet.
const NODE_BYTES: usize = 256 << 20;

/// Bytes of a request of HTTP, and of the messages of calls that carry little.
const SMALL_BYTES: usize = 64 << 10;

/// The path of HTTP under which the keys of rows are sent, and the bytes of such a request: each
/// byte of a key may take three.
const MATRIX_PATH: &str = "/api/v1/matrix";
const MATRIX_BYTES: usize = 16 << 20;

/// Framing of a message, and fields beside key and value.
const AROUND: usize = 16 << 10;

/// Framing of each operation of a batch, for as many as there can be, and [`AROUND`].
const AROUND_BATCH: usize = 64 << 10;

/// Most bytes of one message of the call at `path`.
fn most_bytes(path: &str) -> usize {
    let around = MAX_KEY_BYTES + AROUND;
    match path.strip_prefix("/keyviz.v1.") {
        Some("Kv/Put") => MAX_VALUE_BYTES + around,
        Some("Kv/CompareAndSwap") => 2 * MAX_VALUE_BYTES + around,
        Some("Kv/Batch") => MAX_BATCH_BYTES + AROUND_BATCH,
        Some(keyviz) if keyviz.starts_with("KeyViz/") => 5 << 20,
        _ if calls::of_grpc(path).need == Need::Node => MAX_MESSAGE_BYTES,
        _ => SMALL_BYTES,
    }
}

/// The budgets of a port.
#[derive(Clone, Debug)]
pub(super) struct IntakeLayer {
    port: Protocol,
    clients: Arc<Budget>,
    nodes: Arc<Budget>,
}

impl IntakeLayer {
    pub(super) fn of(port: Protocol) -> Self {
        let clients = Budget::new(OPEN_CALLS, CLIENT_BYTES);
        IntakeLayer { port, clients, nodes: Budget::new(OPEN_CALLS, NODE_BYTES) }
    }
}

impl<S> Layer<S> for IntakeLayer {
    type Service = Intake<S>;

    fn layer(&self, inner: S) -> Intake<S> {
        Intake { inner, budgets: self.clone() }
    }
}

/// Services whose calls are bounded.
#[derive(Clone, Debug)]
pub(super) struct Intake<S> {
    inner: S,
    budgets: IntakeLayer,
}

impl<S, B: Port> Service<Request<B>> for Intake<S>
where
    S: Service<Request<B>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let IntakeLayer { port, clients, nodes } = &self.budgets;
        let path = request.uri().path();
        let framed = *port == Protocol::Grpc;
        let between_nodes = framed && calls::of_grpc(path).need == Need::Node;
        let budget = if between_nodes { nodes } else { clients };
        let under_way = caller_of(&request).map(|caller| caller.connection.begin());
        let place = match budget.begin() {
            Ok(place) => place,
            Err(status) => return futures::future::ready(Ok(B::refuse(&status))).boxed(),
        };
        let incoming = Incoming::new(Arc::clone(budget));
        let incoming = match (framed, between_nodes) {
            (false, _) if path == MATRIX_PATH => incoming.unframed(MATRIX_BYTES),
            (false, _) => incoming.unframed(SMALL_BYTES),
            (true, false) => incoming.framed(most_bytes(path), true),
            // Between nodes there are streams, which may be silent.
            (true, true) => incoming.framed(most_bytes(path), false),
        };
        let request = request.map(|body| B::of(incoming.of(body)));
        let served = self.inner.call(request);
        async move {
            let mut response = served.await?;
            let admitted = response.extensions_mut().remove::<Arc<Admitted>>();
            Ok(response.map(|body| B::of(Outgoing::new(body, place, admitted, under_way))))
        }
        .boxed()
    }
}

/// The caller of a request on either port.
fn caller_of<B>(request: &Request<B>) -> Option<&Caller> {
    let extensions = request.extensions();
    extensions.get().or_else(|| Some(&extensions.get::<ConnectInfo<Caller>>()?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_a_message_has_room_for_what_its_call_may_carry() {
        assert!(most_bytes("/keyviz.v1.Kv/Put") > MAX_VALUE_BYTES + MAX_KEY_BYTES);
        assert!(most_bytes("/keyviz.v1.Kv/Put") < MAX_VALUE_BYTES + (32 << 10));
        assert!(most_bytes("/keyviz.v1.Kv/Batch") > MAX_BATCH_BYTES + 1_024 * 16);
        assert_eq!(most_bytes("/keyviz.v1.Kv/Get"), 64 << 10);
        assert_eq!(most_bytes("/keyviz.v1.RaftTransport/Append"), MAX_MESSAGE_BYTES);
    }
}
