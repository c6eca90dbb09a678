//! State shared by all clients of a workload.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ledger::Ledger;
use super::progress::Progress;
use super::report::Stats;
use keyviz_client::{Leaders, Pool};

/// What all clients share.
pub(super) struct Shared {
    pub(super) pool: Arc<Pool>,
    pub(super) leaders: Leaders,
    pub(super) progress: Arc<Progress>,
    pub(super) stats: Mutex<Stats>,
    /// Present if writes are verified.
    pub(super) ledger: Option<Mutex<Ledger>>,
    pub(super) seed: u64,
    pub(super) timeout: Duration,
    /// Time at which the last operations are given up; `None`: a run without a duration waits for
    /// all.
    pub(super) cutoff: Option<Instant>,
}

impl Shared {
    /// Whether it is too late to begin an operation.
    pub(super) fn is_over(&self) -> bool {
        self.cutoff.is_some_and(|cutoff| Instant::now() >= cutoff)
    }
}
