//! Moves counts into the history, and the history to disk, at every column boundary and once a
//! second in between; and has the sampler resolve newly hot ranges finer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use keyviz_core::sampler::REFINE_EVERY;
use keyviz_fanout::LocalMatrix;

use crate::folder::archive::HistoryArchive;

/// Interval of flushes between boundaries. A node that is killed loses at most the counts of this
/// time.
const EVERY_MS: u64 = 1_000;

/// Flushes one node's sampler.
pub(crate) struct Flusher {
    local: Arc<LocalMatrix>,
    /// Only one flush runs at a time. `None`: the stored history could not be used, so nothing is
    /// stored.
    archive: Mutex<Option<HistoryArchive>>,
    /// When the sampler last re-planned its resolution, by the node's clock.
    planned_ms: AtomicU64,
}

impl Flusher {
    pub(crate) fn new(local: Arc<LocalMatrix>, archive: Option<HistoryArchive>) -> Self {
        Flusher { local, archive: Mutex::new(archive), planned_ms: AtomicU64::new(0) }
    }

    /// Flushes until stopped, on blocking threads; then closes the column in progress.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let step_ms = self.local.history().config().step_ms;
        loop {
            let wait = until_next(self.local.clock().now_ms(), step_ms);
            let stopped = tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => false,
                () = stop.cancelled() => true,
            };
            let flusher = Arc::clone(&self);
            let flushed = keyviz_raft::blocking(move || {
                if stopped {
                    flusher.finish();
                } else {
                    flusher.flush();
                }
            });
            match flushed.await {
                Ok(()) if !stopped => {}
                Ok(()) => return,
                Err(error) => {
                    // The supervisor restarts this loop; the store continues.
                    tracing::error!(%error, "a flush of the sampler failed");
                    return;
                }
            }
        }
    }

    fn flush(&self) {
        let flushed = self.local.flush();
        self.plan(!flushed.closed.is_empty());
        if let Some(archive) = &mut *self.archive.lock()
            && let Err(error) = archive.store(&flushed, self.local.history())
        {
            tracing::error!(%error, "the history was not stored");
        }
    }

    /// Re-plans the resolution of the sampler at the end of a column, and within one at most every
    /// few seconds.
    fn plan(&self, column_ended: bool) {
        let now_ms = self.local.clock().now_ms();
        // Relaxed: only one flush runs at a time. A clock that was set back waits no longer.
        let since_ms = self.planned_ms.load(Ordering::Relaxed).abs_diff(now_ms);
        if column_ended {
            self.local.sampler().replan();
        } else if u128::from(since_ms) >= REFINE_EVERY.as_millis() {
            self.local.sampler().refine();
        } else {
            return;
        }
        self.planned_ms.store(now_ms, Ordering::Relaxed);
    }

    fn finish(&self) {
        let flushed = self.local.close();
        if let Some(archive) = &mut *self.archive.lock()
            && let Err(error) = archive.finish(&flushed, self.local.history())
        {
            tracing::error!(%error, "the column in progress was not stored");
        }
    }
}

/// Time to the next column boundary or whole second, whichever is sooner.
fn until_next(now_ms: u64, step_ms: u64) -> Duration {
    let to = |width: u64| width - now_ms % width;
    Duration::from_millis(to(step_ms).min(to(EVERY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_time_every_boundary_is_met() {
        assert_eq!(until_next(59_999, 60_000), Duration::from_millis(1));
        assert_eq!(until_next(60_000, 60_000), Duration::from_millis(1_000));
        assert_eq!(until_next(1_499, 1_500), Duration::from_millis(1));
        assert_eq!(until_next(1_700, 1_500), Duration::from_millis(300));
    }
}
