//! The received part of an interrupted snapshot, so that the next one need not resend it.
//!
//! The next snapshot is another one: it is taken later, perhaps by another leader, and rows have
//! changed. The receiver reports which key ranges it holds, each with a digest of its rows; the
//! sender digests the same ranges of its own rows and sends only those that differ.
//!
//! One snapshot of a group is received at a time. A new one ends the one before, whose connection
//! may be dead without anybody having noticed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::machine::apply::Staged;

/// How long the received part is kept for a leader that returns.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// How long a snapshot that is being received may take to end when another comes.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Consecutive rows that are held: all up to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeldRange {
    /// The last key of the range, inclusive. It begins after the range before.
    pub(crate) to: Bytes,
    pub(crate) rows: u64,
    /// Of the rows as they travel.
    pub(crate) digest: u128,
}

/// The digest of rows as they travel.
pub(crate) fn digest(rows: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(rows)
}

/// A part of a snapshot, staged.
pub(crate) struct Partial {
    pub(crate) id: u64,
    pub(crate) staged: Staged,
    pub(crate) ranges: VecDeque<HeldRange>,
}

/// The snapshot that a group receives, and the part that it holds.
#[derive(Default)]
pub(crate) struct Incoming {
    state: Mutex<State>,
    // For the status; Relaxed, because they are only shown.
    rows: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    partial: Option<Partial>,
    receiving: Option<CancellationToken>,
}

/// How far a snapshot that is being received is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotProgress {
    /// Rows so far, including those held before.
    pub rows: u64,
    /// Bytes of them that travelled.
    pub bytes: u64,
}

/// A snapshot is being received while this lives.
pub(crate) struct Reception {
    incoming: Arc<Incoming>,
    stop: CancellationToken,
}

impl Incoming {
    /// Ends the reception and returns the ranges held.
    pub(crate) async fn held(&self) -> Option<(u64, Vec<HeldRange>)> {
        let running = self.state.lock().receiving.clone();
        if let Some(running) = running {
            running.cancel();
            let ended = async {
                while self.state.lock().receiving.is_some() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            // If it does not end, nothing is held and the snapshot starts over.
            let _ = tokio::time::timeout(END_WITHIN, ended).await;
        }
        let state = self.state.lock();
        state.partial.as_ref().map(|held| (held.id, held.ranges.iter().cloned().collect()))
    }

    /// Begins to receive a snapshot, on top of what is held under `name`, or from the beginning if
    /// it is 0. `None`: nothing is held under that name any more.
    pub(crate) fn begin(self: &Arc<Self>, name: u64) -> Option<(Reception, Option<Partial>)> {
        let mut state = self.state.lock();
        let partial = match (name, state.partial.take()) {
            (0, _) => None,
            (name, Some(partial)) if partial.id == name => Some(partial),
            _ => return None,
        };
        if let Some(before) = state.receiving.take() {
            before.cancel();
        }
        let stop = CancellationToken::new();
        state.receiving = Some(stop.clone());
        self.rows.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        Some((Reception { incoming: self.clone(), stop }, partial))
    }

    /// How far the snapshot that is being received is; `None`: none is.
    pub(crate) fn progress(&self) -> Option<SnapshotProgress> {
        self.state.lock().receiving.as_ref()?;
        let (rows, bytes) = (&self.rows, &self.bytes);
        let (rows, bytes) = (rows.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        Some(SnapshotProgress { rows, bytes })
    }
}

impl Reception {
    /// Another snapshot comes, and this one has to end.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(crate) fn note(&self, rows: u64, bytes: usize) {
        self.incoming.rows.store(rows, Ordering::Relaxed);
        self.incoming.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Keeps what was received for the next snapshot, for a while.
    pub(crate) fn keep(&self, staged: Staged, ranges: VecDeque<HeldRange>) {
        let id = rand::random::<u64>().max(1);
        self.incoming.state.lock().partial = Some(Partial { id, staged, ranges });
        let incoming = Arc::downgrade(&self.incoming);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            if let Some(incoming) = incoming.upgrade() {
                incoming.state.lock().partial.take_if(|partial| partial.id == id);
            }
        });
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let mut state = self.incoming.state.lock();
        // A later one may have taken its place. Each is ended by its own token alone.
        if state.receiving.is_some() && !self.stop.is_cancelled() {
            state.receiving = None;
        } else if self.stop.is_cancelled() {
            state.receiving.take_if(|running| running.is_cancelled());
        }
    }
}
