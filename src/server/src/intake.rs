//! Input is bounded before any handler sees it: the bytes of each message, the bytes of all
//! incomplete messages, the open calls, and the time in which a message arrives.
//!
//! ```text
//!   connection --> Intake: a place among the open calls; a body that counts --> gate, services
//! ```
//!
//! | call | bytes of a message |
//! |---|---|
//! | `Kv.Put` | a value and a key of the largest size |
//! | `Kv.CompareAndSwap` | two values and a key |
//! | `Kv.Batch` | the largest batch |
//! | `KeyViz` | 5 MiB |
//! | between nodes | [`MAX_MESSAGE_BYTES`] |
//! | all others | 64 KiB |
//!
//! Calls of clients and calls between nodes have budgets of their own: a flood of the former keeps
//! no node out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::MetadataValue;
use tower::{Layer, Service};

use keyviz_kv::{Admitted, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use keyviz_proto::metadata::NOT_APPLIED_METADATA;
use keyviz_raft::MAX_MESSAGE_BYTES;

use super::gate::Need;

/// Calls of clients that may be open, and again calls between nodes. Each takes its headers, 8 KiB
/// at most, and a task.
pub(super) const OPEN_CALLS: usize = 8_192;

/// Bytes of incomplete messages of clients.
pub(super) const CLIENT_BYTES: usize = 64 << 20;

/// Bytes of incomplete messages between nodes.
pub(super) const NODE_BYTES: usize = 256 << 20;

/// A message must be complete within this time; one of a client within it after its call began.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// Framing of a message, and fields beside key and value.
const AROUND: usize = 16 << 10;

/// Framing of each operation of a batch, for as many as there can be, and [`AROUND`].
const AROUND_BATCH: usize = 64 << 10;

/// The prefix of a gRPC message: a flag and its length.
const PREFIX: usize = 5;

/// Most bytes of one message of the call at `path`.
fn most_bytes(path: &str) -> usize {
    let around = MAX_KEY_BYTES + AROUND;
    match path.strip_prefix("/keyviz.v1.") {
        Some("Kv/Put") => MAX_VALUE_BYTES + around,
        Some("Kv/CompareAndSwap") => 2 * MAX_VALUE_BYTES + around,
        Some("Kv/Batch") => MAX_BATCH_BYTES + AROUND_BATCH,
        Some(keyviz) if keyviz.starts_with("KeyViz/") => 5 << 20,
        _ if Need::of(path) == Need::Node => MAX_MESSAGE_BYTES,
        _ => 64 << 10,
    }
}

/// What one side may hold.
#[derive(Debug)]
struct Budget {
    most_calls: usize,
    most_bytes: usize,
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    fn new(most_calls: usize, most_bytes: usize) -> Arc<Self> {
        let (calls, bytes) = Default::default();
        Arc::new(Budget { most_calls, most_bytes, calls, bytes })
    }

    // Relaxed throughout: each number is read by itself.
    fn begin(self: &Arc<Self>) -> Result<Place, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.most_calls {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(refused(Status::resource_exhausted(format!(
                "this node has {} calls open, the most that it takes; slow down and try again",
                self.most_calls
            ))));
        }
        Ok(Place(Arc::clone(self)))
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.most_bytes {
            self.give_back(bytes);
            return Err(refused(Status::resource_exhausted(format!(
                "this node is receiving {} MiB of messages, the most that it takes at once; slow \
                 down and try again",
                self.most_bytes >> 20
            ))));
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Nothing was done for it.
fn refused(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

/// A place among the open calls.
#[derive(Debug)]
struct Place(Arc<Budget>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both sides' budgets.
#[derive(Clone, Debug)]
pub(super) struct IntakeLayer {
    clients: Arc<Budget>,
    nodes: Arc<Budget>,
}

impl IntakeLayer {
    pub(super) fn new() -> Self {
        let clients = Budget::new(OPEN_CALLS, CLIENT_BYTES);
        IntakeLayer { clients, nodes: Budget::new(OPEN_CALLS, NODE_BYTES) }
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

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let between_nodes = Need::of(path) == Need::Node;
        let budgets = &self.budgets;
        let budget = if between_nodes { &budgets.nodes } else { &budgets.clients };
        let place = match budget.begin() {
            Ok(place) => place,
            Err(status) => return futures::future::ready(Ok(status.into_http())).boxed(),
        };
        let most = most_bytes(path);
        let budget = Arc::clone(budget);
        let request = request.map(|body| {
            let framing = Framing::default();
            // Between nodes there are streams, which may be silent.
            let due = !between_nodes;
            Body::new(Incoming { body, most, budget, framing, due, whole_by: None })
        });
        let served = self.inner.call(request);
        async move {
            let mut response = served.await?;
            let admitted = response.extensions_mut().remove::<Arc<Admitted>>();
            Ok(response
                .map(|body| Body::new(Outgoing { body, _place: place, _admitted: admitted })))
        }
        .boxed()
    }
}

/// The position of a body within its messages.
#[derive(Default, Debug)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix so far.
    prefixed: usize,
    /// Bytes that the message still lacks, once its prefix is there.
    lacks: usize,
    /// Bytes held of it, and of those before it that came with it.
    held: usize,
}

impl Framing {
    /// Goes through bytes; whether a message ended in them. Fails if a message is too long.
    fn go(&mut self, mut bytes: &[u8], most: usize) -> Result<bool, Status> {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.prefixed < PREFIX {
                let take = bytes.len().min(PREFIX - self.prefixed);
                let (head, rest) = bytes.split_at(take);
                self.prefix[self.prefixed..self.prefixed + take].copy_from_slice(head);
                self.prefixed += take;
                bytes = rest;
                if self.prefixed < PREFIX {
                    return Ok(ended);
                }
                let length = (&self.prefix[1..]).get_u32() as usize;
                if length > most {
                    return Err(refused(Status::invalid_argument(format!(
                        "the message has {length} bytes; this call takes at most {most}"
                    ))));
                }
                self.lacks = length;
            } else {
                let take = bytes.len().min(self.lacks);
                self.lacks -= take;
                bytes = &bytes[take..];
            }
            if self.prefixed == PREFIX && self.lacks == 0 {
                (self.prefixed, ended) = (0, true);
            }
        }
        Ok(ended)
    }

    fn is_between(&self) -> bool {
        self.prefixed == 0
    }
}

/// A body that counts.
struct Incoming {
    body: Body,
    most: usize,
    budget: Arc<Budget>,
    framing: Framing,
    /// A message has begun, or must begin.
    due: bool,
    /// When it must be complete; set by the first wait.
    whole_by: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    fn take(&mut self, bytes: &Bytes) -> Result<(), Status> {
        self.budget.take(bytes.len())?;
        self.framing.held += bytes.len();
        let ended = self.framing.go(bytes, self.most)?;
        if ended {
            // The reader holds it from here on. What follows of the next message is small.
            self.budget.give_back(std::mem::take(&mut self.framing.held));
            (self.due, self.whole_by) = (false, None);
        }
        self.due |= !self.framing.is_between();
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.budget.give_back(self.framing.held);
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    let counted = frame.data_ref().map_or(Ok(()), |bytes| self.take(bytes));
                    Some(counted.map(|()| frame))
                }
                Some(Err(status)) => Some(Err(status)),
                None => None,
            });
        }
        if self.due {
            let whole_by = self.whole_by.get_or_insert_with(|| Box::pin(sleep(WHOLE_WITHIN)));
            ready!(whole_by.as_mut().poll(context));
            let seconds = WHOLE_WITHIN.as_secs();
            let late = format!("the message was not whole within {seconds} s");
            return Poll::Ready(Some(Err(refused(Status::deadline_exceeded(late)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that holds the resources of its call until it has been sent.
struct Outgoing {
    body: Body,
    _place: Place,
    _admitted: Option<Arc<Admitted>>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: usize) -> Vec<u8> {
        let length = u32::try_from(message).expect("a test's message is short");
        [&[0][..], &length.to_be_bytes(), &vec![7; message]].concat()
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let bytes = [framed(0), framed(300), framed(1), framed(70)].concat();
        for cut in 1..12 {
            let mut framing = Framing::default();
            let mut ends = 0;
            for piece in bytes.chunks(cut) {
                let ended = framing.go(piece, 300).expect("all are short enough");
                ends += u32::from(ended);
            }
            assert!(framing.is_between() && (3..=4).contains(&ends), "cut {cut}: {ends}");
        }
        let refused = Framing::default().go(&framed(301), 300).expect_err("it is too long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("301") && refused.message().contains("300"));
    }

    #[test]
    fn bounds_a_message_has_room_for_what_its_call_may_carry() {
        assert!(most_bytes("/keyviz.v1.Kv/Put") > MAX_VALUE_BYTES + MAX_KEY_BYTES);
        assert!(most_bytes("/keyviz.v1.Kv/Put") < MAX_VALUE_BYTES + (32 << 10));
        assert!(most_bytes("/keyviz.v1.Kv/Batch") > MAX_BATCH_BYTES + 1_024 * 16);
        assert_eq!(most_bytes("/keyviz.v1.Kv/Get"), 64 << 10);
        assert_eq!(most_bytes("/keyviz.v1.RaftTransport/Append"), MAX_MESSAGE_BYTES);
    }

    #[test]
    fn bounds_what_is_not_whole_yet_is_counted_over_all_and_given_back() {
        let budget = Budget::new(1, 1_000);
        let incoming = || Incoming {
            body: Body::empty(),
            most: 900,
            budget: Arc::clone(&budget),
            framing: Framing::default(),
            due: true,
            whole_by: None,
        };
        let half = Bytes::from(framed(900)[..500].to_vec());
        let (mut first, mut second, mut third) = (incoming(), incoming(), incoming());
        first.take(&half).expect("there is room");
        assert!(first.due, "the rest has to come in time");
        second.take(&half).expect("there is room");
        let full = third.take(&Bytes::from_static(&[0])).expect_err("there is none");
        assert_eq!(full.code(), tonic::Code::ResourceExhausted);
        drop(second);
        first.take(&Bytes::from(vec![7; 405])).expect("there is room");
        assert!(!first.due);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0, "whole messages are others'");

        let place = budget.begin().expect("one call may be open");
        assert!(budget.begin().is_err());
        drop(place);
        assert!(budget.begin().is_ok());
    }
}
