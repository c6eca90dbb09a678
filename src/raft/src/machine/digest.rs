//! Digests of a replica's rows as of one applied entry, to compare replicas while they serve.
//!
//! ```text
//!   digest_at(X) ---> armed ---> entry X is applied ---> a view of the rows ---> digest
//!                       |              |                                           |
//!                       |              +-- a snapshot went past it: missed         +-- overtaken
//!                       +-- X was applied before: missed; time is up: not reached
//! ```
//!
//! The digest is XXH3-128 over the rows in key order, each as the length of its key (u32,
//! little-endian), the key, the length of its value and the value. Rows of the group's own
//! bookkeeping (members, applied position) are not part of it, so replicas that agree have the same
//! digest however they came to their rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use super::apply::RUN_BYTES;
use crate::group::Group;
use crate::storage::{AwaitedView, Keyspace, NoView, SnapshotView};

/// Old values that are kept for a view take memory, and at eight times this size the view is lost.
/// From this size on it is read without pauses.
const HURRY_BYTES: usize = 8 * 1024 * 1024;

/// A pause is interrupted this often to check whether it should end.
const PAUSE: Duration = Duration::from_millis(50);

/// The niceness of the reader: next to a thread of the store on the same core it gets a quarter of
/// the time.
const NICE: i32 = 5;

/// The digest of a replica's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowsDigest {
    /// The last entry that they contain.
    pub index: u64,
    /// XXH3-128 of them.
    pub digest: u128,
    /// How many there are.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Why there is no digest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DigestError {
    /// The rows contain later entries: the entry was applied before, or a snapshot went past it.
    #[error("the replica is past the entry, at entry {applied}")]
    Missed {
        /// The last applied entry.
        applied: u64,
    },
    /// Too many digests of the group are under way here.
    #[error("the replica has as many digests under way as it takes on; try again later")]
    Busy,
    /// The entry was not applied in time.
    #[error("the replica did not come to the entry in time; it is at entry {applied}")]
    NotReached {
        /// The last applied entry.
        applied: u64,
    },
    /// More was written during the reading than old values can be kept, or a snapshot replaced the
    /// rows.
    #[error("more was written than is kept while the rows were read; try again")]
    Overtaken,
    /// The rows could not be read.
    #[error("the rows cannot be read: {0}")]
    Unreadable(String),
}

/// The progress of a digest, shared with those who display it.
#[derive(Debug, Default)]
pub struct DigestProgress {
    // Relaxed, because they are only shown.
    taken: AtomicBool,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl DigestProgress {
    /// Whether the entry was applied, so that the rows are being read.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Rows so far, and bytes of them.
    pub fn read(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// A digest that is taken when its entry is applied. Dropping it cancels the digest.
#[derive(Debug)]
pub struct ArmedDigest {
    keyspace: Keyspace,
    index: u64,
    view: AwaitedView,
}

impl Group {
    /// Has a digest of the rows taken when exactly the entry at `index` is the last applied one. It
    /// must not be applied yet. A few digests of a group may be under way at a time.
    ///
    /// # Errors
    /// [`DigestError::Missed`] and [`DigestError::Busy`], at once.
    pub fn digest_at(&self, index: u64) -> Result<ArmedDigest, DigestError> {
        ArmedDigest::new(self.keyspace(), index)
    }
}

impl ArmedDigest {
    pub(crate) fn new(keyspace: &Keyspace, index: u64) -> Result<Self, DigestError> {
        let view = keyspace.await_view(index).map_err(|none| none_of(keyspace, none))?;
        Ok(Self { keyspace: keyspace.clone(), index, view })
    }

    /// Waits for the entry, for `limit` at most, and reads the rows on a thread of low priority, at
    /// `bytes_per_s` at most (0: no limit), or faster if many writes arrive meanwhile. Batches that
    /// follow are not held up. Dropping the future ends the reading.
    ///
    /// # Errors
    /// See [`DigestError`].
    pub fn compute(
        self,
        limit: Duration,
        bytes_per_s: u64,
        progress: Arc<DigestProgress>,
    ) -> BoxFuture<'static, Result<RowsDigest, DigestError>> {
        async move {
            let taken =
                self.view.taken(limit).await.map_err(|none| none_of(&self.keyspace, none))?;
            progress.taken.store(true, Ordering::Relaxed);
            let unwanted = Unwanted(Arc::default());
            let flag = Arc::clone(&unwanted.0);
            let (done, digest) = oneshot::channel();
            let index = self.index;
            let read = move || {
                give_way();
                let mut taken = taken;
                let wanted = || !flag.load(Ordering::Relaxed);
                let digest = read_rows(&mut taken.view, index, bytes_per_s, &progress, wanted);
                // Released before the result is published.
                drop(taken);
                // The caller may have gone away.
                let _ = done.send(digest);
            };
            let thread = std::thread::Builder::new().name("digest".to_owned()).spawn(read);
            thread.map_err(|error| DigestError::Unreadable(error.to_string()))?;
            let panicked =
                || DigestError::Unreadable("the thread that read them panicked".to_owned());
            digest.await.unwrap_or_else(|_| Err(panicked()))
        }
        .boxed()
    }
}

fn none_of(keyspace: &Keyspace, none: NoView) -> DigestError {
    match none {
        NoView::Busy => DigestError::Busy,
        NoView::Missed { applied } => DigestError::Missed { applied },
        NoView::NotReached => {
            DigestError::NotReached { applied: keyspace.applied().map_or(0, |at| at.index) }
        }
    }
}

fn read_rows(
    view: &mut SnapshotView,
    index: u64,
    bytes_per_s: u64,
    progress: &DigestProgress,
    wanted: impl Fn() -> bool,
) -> Result<RowsDigest, DigestError> {
    let started = Instant::now();
    let mut hash = Xxh3::new();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let run = view.next_run(RUN_BYTES).map_err(|error| match view.is_overtaken() {
            true => DigestError::Overtaken,
            false => DigestError::Unreadable(error.to_string()),
        })?;
        if run.is_empty() {
            return Ok(RowsDigest { index, digest: hash.digest128(), rows, bytes });
        }
        for part in run.iter().flat_map(|(key, value)| [key, value]) {
            let length = u32::try_from(part.len()).expect("keys and values are far below 4 GiB");
            hash.update(&length.to_le_bytes());
            hash.update(part);
            bytes += part.len() as u64;
        }
        rows += run.len() as u64;
        progress.rows.store(rows, Ordering::Relaxed);
        progress.bytes.store(bytes, Ordering::Relaxed);
        let due = match bytes_per_s {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        while wanted() && !view.is_urgent(HURRY_BYTES) {
            let Some(left) = due.checked_sub(started.elapsed()).filter(|left| !left.is_zero())
            else {
                break;
            };
            std::thread::sleep(left.min(PAUSE));
        }
        if !wanted() {
            return Err(DigestError::Unreadable("nobody wants to know".to_owned()));
        }
    }
}

#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux each thread has its own priority. If it may not be lowered, it stays.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a digest is taken at the priority of the store");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {
    let _ = NICE;
}

/// Sets a flag when dropped.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
