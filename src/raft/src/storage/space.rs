//! The rows of one group's state machine.
//!
//! One writer, the group's apply; any number of readers. A batch that changes more than one row
//! for one command is written under a lock that readers share, so that nobody sees half of it; a
//! batch of single-row commands is not, since each row changes in one step anyway.
//!
//! The tree is named by group and generation. A snapshot is received into the next generation,
//! and one durable record makes that the current one.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::awaited::AwaitedViews;
use super::engine::Tree;
use super::filling::filling_order;
use super::view::{SnapshotView, Undo};
use super::{redo, value};
use crate::types::{LogPosition, StoredMembership};
use crate::wire;
use keyviz_types::GroupId;

/// Why rows cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The key is below [`RESERVED_PREFIX`](super::RESERVED_PREFIX).
    #[error("the key is reserved")]
    ReservedKey,
    /// The key is longer than [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES).
    #[error("the key has {0} bytes, more than {max}", max = value::MAX_KEY_BYTES)]
    KeyTooLong(usize),
    /// The database failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<SpaceError> for io::Error {
    fn from(error: SpaceError) -> Self {
        match error {
            SpaceError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidInput, other),
        }
    }
}

/// One row.
pub type KeyValue = (Bytes, Bytes);

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
pub struct Space {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    group: GroupId,
    current: RwLock<Current>,
    /// Snapshots being read from the current tree.
    views: Mutex<Vec<Weak<Mutex<Undo>>>>,
    awaited: AwaitedViews,
}

/// The tree that holds the rows.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) tree: Tree,
    pub(crate) generation: u64,
    /// Whether a long value was ever written to it.
    pub(crate) long_rows: bool,
    pub(crate) sequence: u64,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Arc<StoredMembership>,
}

/// Rows of a staged tree that are looked up before they are removed.
const CLEARED_ROWS: usize = 1_024;

pub(super) const MEMBERSHIP_KEY: &[u8] = b"\0raft\0membership";

impl Current {
    /// Opens a tree and finishes the batch that a crash may have cut short.
    pub(crate) fn open(tree: Tree, generation: u64) -> io::Result<Self> {
        let mut parts = tree.range(value::PART_PREFIX..&b"\0raft\0q"[..]);
        let long_rows = parts.next().transpose()?.is_some();
        let mut current = Self {
            tree,
            generation,
            long_rows,
            sequence: 0,
            applied: None,
            membership: Arc::default(),
        };
        if let Some(last) = redo::read(&current.tree)? {
            current.sequence = last.sequence;
            current.applied = last.applied;
            for (key, value) in &last.changes {
                current.change(key, value.as_ref())?;
            }
        }
        if let Some(record) = current.tree.get(MEMBERSHIP_KEY)? {
            let bytes = value::read(&current.tree, MEMBERSHIP_KEY, &record)?;
            current.membership = Arc::new(decode_membership(bytes)?);
        }
        Ok(current)
    }

    /// The rows as they lie there, for reading; a batch that a crash cut short stays as it is.
    pub(crate) fn unopened(tree: Tree, generation: u64, applied: Option<LogPosition>) -> Self {
        let membership = Arc::default();
        Self { tree, generation, long_rows: true, sequence: 0, applied, membership }
    }

    fn change(&mut self, key: &[u8], value: Option<&Bytes>) -> io::Result<()> {
        match value {
            Some(value) => {
                self.long_rows |= value::is_long(value.len());
                value::write(&self.tree, key, value, self.long_rows)
            }
            None => value::remove(&self.tree, key, self.long_rows),
        }
    }

    /// Writes a batch: all of it or, after a crash, none as far as the commands that follow can
    /// tell.
    ///
    /// A batch of commands that may all be applied again ([`Batch::allow_replay`]) may be cut short
    /// by a crash: its rows go first, its position last, and applying it again makes it good. The
    /// changes of any other batch go into the record of the position, which goes first, and so do
    /// long values, whose parts must not be found mixed.
    ///
    /// [`Batch::allow_replay`]: super::Batch::allow_replay
    pub(crate) fn write(&mut self, batch: &Changes) -> io::Result<()> {
        self.sequence += 1;
        let mut values = batch.rows.values().flatten();
        let long = self.long_rows || values.any(|value| value::is_long(value.len()));
        let record_first = batch.once || long;
        if record_first {
            redo::write(&self.tree, self.sequence, batch.applied, batch.rows.iter())?;
        }
        for (key, value) in filling_order(batch.rows.iter()) {
            self.change(key, value.as_ref())?;
        }
        if !record_first {
            redo::write(&self.tree, self.sequence, batch.applied, std::iter::empty())?;
        }
        self.applied = batch.applied;
        if let Some(membership) = &batch.membership {
            self.membership = membership.clone();
        }
        Ok(())
    }

    /// Writes ascending rows of a received snapshot, which is not current yet.
    pub(crate) fn load(&mut self, rows: &[KeyValue]) -> io::Result<()> {
        filling_order(rows.iter()).try_for_each(|(key, value)| self.change(key, Some(value)))
    }

    /// Removes the rows after `from` up to and with `to` of a received snapshot, which is not current
    /// yet. An absent end is open.
    pub(crate) fn clear(&mut self, from: Option<&[u8]>, to: Option<&[u8]>) -> io::Result<()> {
        let to = to.map_or(Bound::Unbounded, Bound::Included);
        let mut from = from.map(Bytes::copy_from_slice);
        loop {
            let after = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.rows(after, to).take(CLEARED_ROWS);
            let keys = rows.map(|row| Ok(row?.0)).collect::<io::Result<Vec<Bytes>>>()?;
            for key in &keys {
                self.change(key, None)?;
            }
            match keys.last() {
                Some(last) if keys.len() == CLEARED_ROWS => from = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self.tree.get(key)? {
            Some(record) => value::read(&self.tree, key, &record).map(Some),
            None => Ok(None),
        }
    }

    /// Rows in order that are not Raft's own.
    pub(crate) fn rows(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = io::Result<KeyValue>> + use<> {
        // The reserved keys are consecutive: read what is before and what is after them.
        let before = (from, lower_end(to, Bound::Excluded(value::RESERVED_PREFIX)));
        let after = (higher_start(from, Bound::Included(AFTER_RESERVED)), to);
        let tree = self.tree.clone();
        let ranges =
            [before, after].map(|(from, to)| ordered(from, to).then(|| tree.range((from, to))));
        ranges.into_iter().flatten().flatten().map(move |row| {
            let (key, record) = row?;
            let value = value::read(&tree, &key, &record)?;
            Ok((Bytes::copy_from_slice(&key), value))
        })
    }
}

/// The first key after all that start with [`RESERVED_PREFIX`](super::RESERVED_PREFIX).
const AFTER_RESERVED: &[u8] = b"\0raft\x01";

fn lower_end<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    match (a, b) {
        (Bound::Unbounded, end) | (end, Bound::Unbounded) => end,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y) | Bound::Excluded(y)) => {
            if x < y { a } else { b }
        }
    }
}

fn higher_start<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    match (a, b) {
        (Bound::Unbounded, start) | (start, Bound::Unbounded) => start,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y) | Bound::Excluded(y)) => {
            if x >= y { a } else { b }
        }
    }
}

/// Whether a range can hold anything; sled panics on one that ends before it starts.
fn ordered(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
    }
}

/// What one batch changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rows: std::collections::BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Option<Arc<StoredMembership>>,
    /// One command changed several rows.
    pub(crate) several: bool,
    /// Some command's changes must not be applied a second time.
    pub(crate) once: bool,
}

impl Changes {
    pub(crate) fn set_membership(&mut self, membership: StoredMembership) {
        let bytes = encode_membership(&membership);
        self.rows.insert(Bytes::from_static(MEMBERSHIP_KEY), Some(bytes));
        self.once = true;
        self.membership = Some(Arc::new(membership));
    }
}

impl Space {
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
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SpaceError> {
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
    ) -> Result<Page, SpaceError> {
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

    /// Views that are waited for.
    pub(super) fn awaited(&self) -> &AwaitedViews {
        &self.inner.awaited
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

pub(crate) fn check_key(key: &[u8]) -> Result<(), SpaceError> {
    if key.len() > value::MAX_KEY_BYTES {
        return Err(SpaceError::KeyTooLong(key.len()));
    }
    if key.starts_with(value::RESERVED_PREFIX) {
        return Err(SpaceError::ReservedKey);
    }
    Ok(())
}

fn encode_membership(membership: &StoredMembership) -> Bytes {
    use prost::Message as _;
    let header = keyviz_proto::RaftSnapshotHeader {
        membership_at: membership.log_id().map(wire::log_id_to_proto),
        membership: Some(wire::membership_to_proto(membership.membership())),
        ..Default::default()
    };
    header.encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: Bytes) -> io::Result<StoredMembership> {
    use prost::Message as _;
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "the membership is corrupt");
    let header = keyviz_proto::RaftSnapshotHeader::decode(bytes).map_err(|_| corrupt())?;
    wire::stored_membership(header.membership_at, header.membership).map_err(|_| corrupt())
}
