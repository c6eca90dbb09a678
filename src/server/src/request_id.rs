//! Each request has an id, by which its traces on all nodes can be found.
//!
//! It is the caller's `x-request-id`, or one made by this node. It comes back in the answer's
//! metadata (HTTP: its headers), also of a refusal, goes along when the request is passed on to a
//! peer, and names the span in which the request is served. Writes travel in batches, so there an
//! id goes with each command. Where spans are exported, the caller's `traceparent` makes the span a
//! part of its trace. Without a subscriber of spans, the cost is one header in and one out.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, Service};
use tracing::Instrument as _;

use keyviz_peer::request_id::{CURRENT, is_plain};
use keyviz_peer::trace;
use keyviz_proto::metadata::REQUEST_ID;

/// The target of the lines that tell what came of requests, which become the status of their spans.
const OUTCOMES: &str = "keyviz::request";

/// The caller's id.
fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|id| is_plain(id.as_bytes())).cloned()
}

/// One that this process has not made before, and no other is likely to make.
fn made() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only distinct, in no order.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:08x}-{number:x}", *PROCESS >> 32);
    HeaderValue::from_str(&id).expect("hexadecimal digits make a header")
}

/// Gives requests their ids.
#[derive(Clone, Copy)]
pub(crate) struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds { inner }
    }
}

/// Services whose requests have ids.
#[derive(Clone)]
pub(crate) struct RequestIds<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RequestIds<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let id = given(request.headers()).unwrap_or_else(made);
        let span = tracing::debug_span!(
            "request",
            id = id.to_str().unwrap_or_default(),
            path = request.uri().path()
        );
        trace::adopt(&span, request.headers());
        // Made in its scope too: the work of a handler before its first wait is part of it.
        let served = CURRENT.sync_scope(id.clone(), || span.in_scope(|| self.inner.call(request)));
        let served = CURRENT.scope(id.clone(), served);
        let answered = |mut response: Response<R>| {
            response.headers_mut().insert(REQUEST_ID, id);
            response
        };
        if span.is_disabled() {
            return served.map(|response| response.map(answered)).boxed();
        }
        let began = Instant::now();
        let told = async move {
            let response = served.await;
            if let Ok(response) = &response {
                let millis = began.elapsed().as_secs_f64() * 1_000.0;
                // Of a gRPC answer that is a stream the outcome comes later, in its trailers.
                match Status::from_header_map(response.headers()) {
                    Some(status) => {
                        let (code, message) = (status.code(), status.message());
                        tracing::debug!(target: OUTCOMES, millis, ?code, "{message}");
                    }
                    None => {
                        let status = response.status().as_u16();
                        tracing::debug!(target: OUTCOMES, millis, status, "answered");
                    }
                }
            }
            response.map(answered)
        };
        told.instrument(span).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use keyviz_peer::request_id::{MAX_BYTES, current};

    use super::*;

    /// A service that answers with the id that it would pass to a peer.
    async fn ask(id: Option<&str>) -> (HeaderValue, String) {
        let inner = tower::service_fn(|_: Request<()>| async {
            let seen = current().expect("a request has an id");
            Ok::<_, Infallible>(Response::new(seen.to_str().expect("it is text").to_owned()))
        });
        let mut request = Request::new(());
        if let Some(id) = id {
            let id = HeaderValue::from_str(id).expect("the test's ids are headers");
            request.headers_mut().insert(REQUEST_ID, id);
        }
        let mut service = RequestIdLayer.layer(inner);
        let response = service.call(request).await.expect("it cannot fail");
        let told = response.headers().get(REQUEST_ID).expect("the answer has it").clone();
        (told, response.into_body())
    }

    #[tokio::test]
    async fn the_callers_id_goes_in_and_comes_back() {
        let (told, seen) = ask(Some("order-17:a/b")).await;
        assert_eq!((told.as_bytes(), seen.as_str()), (&b"order-17:a/b"[..], "order-17:a/b"));
    }

    #[tokio::test]
    async fn a_request_without_a_sound_id_gets_one_of_its_own() {
        let long = "x".repeat(MAX_BYTES + 1);
        let mut made = std::collections::BTreeSet::new();
        for id in [None, None, Some(""), Some("two words"), Some("a\"b"), Some(long.as_str())] {
            let (told, seen) = ask(id).await;
            assert_eq!(told.as_bytes(), seen.as_bytes());
            assert_ne!(Some(seen.as_str()), id);
            assert!(made.insert(seen), "each is given once");
        }
        assert!(current().is_none(), "outside a request there is none");
    }
}
