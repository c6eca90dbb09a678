//! The id of the request that a task serves: passing it to peers, and the span of a request that a
//! peer passed on.

use tonic::Request;
use tonic::codegen::http::HeaderValue;
use tonic::metadata::{Ascii, MetadataValue};
use tracing::Span;

use super::trace::{self, TRACEPARENT};
use keyviz_proto::metadata::REQUEST_ID;

/// An id that a caller gives is taken if it is no longer than this.
pub const MAX_BYTES: usize = 64;

tokio::task_local! {
    /// The id of the request that this task serves.
    pub static CURRENT: HeaderValue;
}

/// The id of the request that this task serves, as sent to a peer.
pub fn current() -> Option<MetadataValue<Ascii>> {
    CURRENT.try_with(|id| MetadataValue::try_from(id.as_bytes()).ok()).ok().flatten()
}

/// A message for a peer, with the id and the trace of the request that this task serves.
pub fn carrying<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(id) = current() {
        request.metadata_mut().insert(REQUEST_ID, id);
    }
    if let Some(parent) = trace::current().and_then(|parent| parent.parse().ok()) {
        request.metadata_mut().insert(TRACEPARENT, parent);
    }
    request
}

/// The same as text, for one command of a batch; empty outside a request.
pub(crate) fn current_text() -> String {
    let text = |id: &HeaderValue| id.to_str().unwrap_or_default().to_owned();
    CURRENT.try_with(text).unwrap_or_default()
}

/// Whether an id is one that a log can show as it is.
pub fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(plain)
}

/// The span of a command that a peer passed on for the request `id`, a child of that request's span
/// `parent` where the peer exports its spans. Nobody listens to it if there is no such id, as from
/// a peer of before request ids.
pub fn passed_on(id: &str, parent: &str) -> Span {
    if !is_plain(id.as_bytes()) {
        return Span::none();
    }
    let span = tracing::debug_span!("passed_on", id);
    trace::adopt_text(&span, parent);
    span
}
