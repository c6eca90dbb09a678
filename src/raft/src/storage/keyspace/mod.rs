//! The rows of one group's state machine.
//!
//! There is one writer, the group's apply, and any number of readers. A batch with a command that
//! changes several rows is written under a lock that readers share, so that they never see half of
//! it; a batch of single-row commands is not, because each row changes atomically.
//!
//! The tree is named by group and generation. A snapshot is received into the next generation,
//! and one durable record makes that the current one.

pub(in crate::storage) mod awaited;
pub(crate) mod current;
mod leaf_order;
pub(crate) mod redo;
pub(in crate::storage) mod value;
pub(in crate::storage) mod view;

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::types::{LogPosition, StoredMembership};
use awaited::{AwaitedView, AwaitedViews, NoView};
use current::{Changes, Current, KeyValue};
use keyviz_types::GroupId;
use view::{SnapshotView, Undo};

/// Why rows cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyspaceError {
    /// The key is below [`RESERVED_PREFIX`](super::RESERVED_PREFIX).
    #[error("the key is reserved")]
    ReservedKey,
    /// The key is longer than [`MAX_STORED_KEY_BYTES`](super::MAX_STORED_KEY_BYTES).
    #[error("the key has {0} bytes, more than {max}", max = value::MAX_STORED_KEY_BYTES)]
    KeyTooLong(usize),
    /// The database failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<KeyspaceError> for io::Error {
    fn from(error: KeyspaceError) -> Self {
        match error {
            KeyspaceError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidInput, other),
        }
    }
}

/// Where a scan stops: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// The most rows.
    pub rows: usize,
    /// The most bytes of keys and values; one row is given even if it is larger.
    pub bytes: usize,
}

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Rows in key order.
    pub rows: Vec<KeyValue>,
    /// The limit was reached: more rows may follow the last one.
    pub more: bool,
}

/// The rows of one group's state machine, for reading. Clones share it.
#[derive(Clone, Debug)]
pub struct Keyspace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    group: GroupId,
    current: RwLock<Current>,
    /// Snapshots being read from the current tree.
    views: Mutex<Vec<Weak<Mutex<Undo>>>>,
    awaited: Arc<AwaitedViews>,
}

impl Keyspace {
    pub(crate) fn new(group: GroupId, current: Current) -> Self {
        let (views, awaited) = Default::default();
        let inner = Inner { group, current: RwLock::new(current), views, awaited };
        Self { inner: Arc::new(inner) }
    }

    /// The group whose rows these are.
    pub fn group(&self) -> GroupId {
        self.inner.group
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyspaceError> {
        check_key(key)?;
        Ok(self.inner.current.read().get(key)?)
    }

    /// Rows between two bounds, in key order, up to a limit. What one command changed is seen
    /// together or not at all; commands that are applied during the scan may be seen or not.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: PageLimit,
    ) -> Result<Page, KeyspaceError> {
        let current = self.inner.current.read();
        let mut page = Page::default();
        let mut bytes = 0;
        for row in current.rows(from, to) {
            let (key, value) = row?;
            bytes += key.len() + value.len();
            if page.rows.len() >= limit.rows || (bytes > limit.bytes && !page.rows.is_empty()) {
                page.more = true;
                break;
            }
            page.rows.push((key, value));
        }
        Ok(page)
    }

    /// The last entry whose effects the rows contain.
    pub fn applied(&self) -> Option<LogPosition> {
        self.inner.current.read().applied
    }

    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        self.inner.current.read().membership.clone()
    }

    pub(crate) fn current(&self) -> parking_lot::RwLockReadGuard<'_, Current> {
        self.inner.current.read()
    }

    /// A view of the rows when exactly the entry at `index` is the last applied one. To be called
    /// before that.
    pub(crate) fn await_view(&self, index: u64) -> Result<AwaitedView, NoView> {
        let view = AwaitedViews::wait(&self.inner.awaited, index)?;
        // The applying task updates the position under a lock that this takes, and checks for
        // waiters after that. So either this sees that the entry is applied, or the applying task
        // sees this waiter.
        match self.applied() {
            Some(at) if at.index >= index => Err(NoView::Missed { applied: at.index }),
            _ => Ok(view),
        }
    }

    /// The entry that a batch must end with, if it comes to it: a view of it is waited for.
    pub(crate) fn batch_end(&self) -> u64 {
        self.inner.awaited.next()
    }

    /// Writes a batch. Only the group's apply calls this.
    pub(crate) fn write(&self, changes: &Changes) -> io::Result<()> {
        self.write_changes(changes)?;
        self.answer_awaited(changes.applied);
        Ok(())
    }

    fn answer_awaited(&self, applied: Option<LogPosition>) {
        if let Some(at) = applied.filter(|at| at.index >= self.batch_end()) {
            self.inner.awaited.answer(at.index, || self.view());
        }
    }

    fn write_changes(&self, changes: &Changes) -> io::Result<()> {
        // Held over the writes: a snapshot reads either side of the batch, never its middle.
        let views: Vec<Arc<Mutex<Undo>>> = self.live_views();
        let mut undos: Vec<_> = views.iter().map(|view| view.lock()).collect();
        if !undos.is_empty() {
            let current = self.inner.current.read();
            for key in changes.rows.keys() {
                for undo in &mut undos {
                    undo.keep(key, || current.get(key))?;
                }
            }
        }
        let long = changes.rows.values().flatten().any(|value| value::is_long(value.len()));
        let exclusive = changes.several || long || self.inner.current.read().long_rows;
        if exclusive {
            return self.inner.current.write().write(changes);
        }
        // Each row changes in one step, so readers need not wait. Work on a copy of the handle and
        // publish its position at the end.
        let mut current = self.inner.current.read().clone();
        current.write(changes)?;
        *self.inner.current.write() = current;
        Ok(())
    }

    fn live_views(&self) -> Vec<Arc<Mutex<Undo>>> {
        let mut views = self.inner.views.lock();
        if views.is_empty() {
            return Vec::new();
        }
        views.retain(|view| view.strong_count() > 0);
        views.iter().filter_map(Weak::upgrade).collect()
    }

    /// A view of the rows as they are now, that later batches do not change. Only the group's
    /// apply calls this, so no batch is half written.
    pub(crate) fn view(&self) -> SnapshotView {
        let undo = Arc::new(Mutex::new(Undo::default()));
        self.inner.views.lock().push(Arc::downgrade(&undo));
        SnapshotView::new(self.inner.current.read().clone(), undo)
    }

    /// Makes `next` the rows and returns what was.
    pub(crate) fn replace(&self, next: Current) -> Current {
        // The old tree is about to go, and what a view still wants of it goes too.
        for view in self.live_views() {
            view.lock().abandon();
        }
        self.inner.views.lock().clear();
        let applied = next.applied;
        let old = std::mem::replace(&mut *self.inner.current.write(), next);
        self.answer_awaited(applied);
        old
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), KeyspaceError> {
    if key.len() > value::MAX_STORED_KEY_BYTES {
        return Err(KeyspaceError::KeyTooLong(key.len()));
    }
    if key.starts_with(value::RESERVED_PREFIX) {
        return Err(KeyspaceError::ReservedKey);
    }
    Ok(())
}
