//! Blocking work, off the threads of the runtime.

use tokio::task::JoinError;

use super::runtime::is_reproducible;

/// Runs `work` on a thread that may block. An error: it panicked, or the runtime stops.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_reproducible() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
