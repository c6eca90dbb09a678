//! Work that waits for the disk or computes for long, off the runtime's threads.

use tokio::task::JoinError;

/// Runs `work` on a thread that may block. An error: it panicked, or the runtime stops.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(test)]
    if super::simulated::is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
