//! The id of the request that a task serves: passing it to peers, and the span of a request that a
//! peer passed on.

use tonic::codegen::http::HeaderValue;
use tonic::metadata::{Ascii, MetadataValue};
use tracing::Span;

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

/// The span of a command that a peer passed on for the request `id`. Nobody listens to it if there
/// is no such id, as from a peer of before request ids.
pub fn passed_on(id: &str) -> Span {
    if is_plain(id.as_bytes()) { tracing::debug_span!("passed_on", id) } else { Span::none() }
}
