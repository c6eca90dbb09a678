//! The progress of a run, and how to stop it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::terminal::text::{self, thousands};

/// The progress of a run, and how to stop it early. Counts are only displayed, so relaxed order is
/// enough.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    errors: AtomicU64,
    planned: AtomicU64,
    verifying: AtomicU64,
    checked: AtomicU64,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Progress {
    /// Operations that succeeded.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Operations that failed.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Total number of operations; 0 while unknown.
    pub fn planned(&self) -> u64 {
        self.planned.load(Ordering::Relaxed)
    }

    /// Keys that are read back at the end; 0 before that.
    pub fn verifying(&self) -> u64 {
        self.verifying.load(Ordering::Relaxed)
    }

    /// Keys that were read back.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Ends the workload: operations in flight finish, and writes are still verified.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the workload and the verification.
    pub fn abort(&self) {
        self.stop.cancel();
        self.abort.cancel();
    }

    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    pub(super) fn aborted(&self) -> &CancellationToken {
        &self.abort
    }

    pub(super) fn plan(&self, operations: u64) {
        self.planned.store(operations, Ordering::Relaxed);
    }

    pub(super) fn plan_verification(&self, keys: u64) {
        self.verifying.store(keys, Ordering::Relaxed);
    }

    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_checked(&self) {
        self.checked.fetch_add(1, Ordering::Relaxed);
    }
}

/// One line about a run in progress.
pub fn progress_line(progress: &Progress, elapsed: Duration) -> String {
    let per_s = progress.done() as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} operations, {}/s, {} errors",
        thousands(progress.done()),
        text::short_count(per_s as u64),
        thousands(progress.errors())
    )
}
