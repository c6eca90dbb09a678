//! Views of a group's rows as of exactly one applied entry, for which a caller waits.
//!
//! The applying task compares one number per batch. It ends a batch at an entry that a caller waits
//! for, and the view is taken after that batch is written and before the next one begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::view::SnapshotView;

/// Views of one group that are waited for or read at the same time.
pub(crate) const MOST_AWAITED: usize = 4;

/// No entry is waited for.
const NONE: u64 = u64::MAX;

/// Why there is no view of the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoView {
    /// All places are taken.
    Busy,
    /// The rows contain later entries: the entry was applied before, or a snapshot went past it.
    Missed {
        /// The last applied entry.
        applied: u64,
    },
    /// The entry was not applied in time.
    NotReached,
}

type Taken = Result<SnapshotView, NoView>;

#[derive(Debug)]
pub(crate) struct AwaitedViews {
    /// The first index that is waited for, or [`NONE`].
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    views: Vec<Wait>,
}

#[derive(Debug)]
struct Wait {
    id: u64,
    index: u64,
    taken: oneshot::Sender<Taken>,
}

impl Default for AwaitedViews {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(NONE),
            waiting: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST_AWAITED)),
        }
    }
}

impl AwaitedViews {
    /// The first index that is waited for; one that no entry has where none is.
    pub(in crate::storage) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Waits for the entry at `index`, whether or not it is applied already.
    pub(in crate::storage) fn wait(awaited: &Arc<Self>, index: u64) -> Result<AwaitedView, NoView> {
        let place = Arc::clone(&awaited.places).try_acquire_owned().map_err(|_| NoView::Busy)?;
        let (id, taken) = awaited.add(index);
        Ok(AwaitedView { awaited: Arc::clone(awaited), id, taken, place: Some(place) })
    }

    fn add(&self, index: u64) -> (u64, oneshot::Receiver<Taken>) {
        let (taken, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.views.push(Wait { id, index, taken });
        self.publish(&waiting);
        (id, receiver)
    }

    fn remove(&self, id: u64) {
        let mut waiting = self.waiting.lock();
        waiting.views.retain(|wait| wait.id != id);
        self.publish(&waiting);
    }

    /// Answers all callers that wait for an entry up to `applied`. `view` takes one of the rows as
    /// they are.
    pub(in crate::storage) fn answer(&self, applied: u64, view: impl Fn() -> SnapshotView) {
        let mut waiting = self.waiting.lock();
        for wait in waiting.views.extract_if(.., |wait| wait.index <= applied) {
            let exact = wait.index == applied;
            let taken = if exact { Ok(view()) } else { Err(NoView::Missed { applied }) };
            // The caller may have gone away.
            let _ = wait.taken.send(taken);
        }
        self.publish(&waiting);
    }

    fn publish(&self, waiting: &Waiting) {
        let next = waiting.views.iter().map(|wait| wait.index).min();
        self.next.store(next.unwrap_or(NONE), Ordering::Release);
    }
}

/// A view that is waited for. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub(crate) struct AwaitedView {
    awaited: Arc<AwaitedViews>,
    id: u64,
    taken: oneshot::Receiver<Taken>,
    place: Option<OwnedSemaphorePermit>,
}

/// A view and its place among those of the group, which is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct TakenView {
    pub(crate) view: SnapshotView,
    _place: Option<OwnedSemaphorePermit>,
}

impl AwaitedView {
    /// Waits for the entry, but not for longer than `limit`.
    pub(crate) async fn taken(mut self, limit: Duration) -> Result<TakenView, NoView> {
        let taken = tokio::time::timeout(limit, &mut self.taken).await;
        // The sender is dropped only where this one was removed, which is when it is dropped.
        let view = taken.ok().and_then(Result::ok).ok_or(NoView::NotReached)??;
        Ok(TakenView { view, _place: self.place.take() })
    }
}

impl Drop for AwaitedView {
    fn drop(&mut self) {
        self.awaited.remove(self.id);
    }
}
