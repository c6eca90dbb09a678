//! Copies of other nodes' histories, which answer in the name of a node that does not.
//!
//! A node that counts ([`Outbox`]) sends its closed columns, and the open one every second or so,
//! to the members that [`holders`] names. A holder ([`Copies`]) keeps them as records in a store of
//! its own, one copy a node, and an index of them in memory; columns are read from the store when
//! somebody asks, through a cache of [`CACHE_BYTES`].
//!
//! ```text
//! node:    columns held ──compare──> what the holder has      at the start, and after a fault
//!          columns closed, folded ─> push ─> Copies::take     one at a time, each as a whole
//!          open column, flush time ─> push: "complete to"
//! query:   Copies::view(node, window) ─> totals, columns, hot keys in the name of the node
//! ```
//!
//! # Complete to
//!
//! With each push the node says up to when the holder has everything, if it has. Columns that end
//! later are answered as incomplete: they may lack counts. Once a node is no member any more, what
//! begins after it left is complete again.
//!
//! # Counted once
//!
//! A copy is the same columns under the same (node, incarnation, column), so the merge counts one
//! of them, whoever answers. A column that comes again takes the place of the one before; a life
//! that it lacks, or of which it has less, stays as it was (`Column::keep_more_of`), so that a node
//! that lost its own history takes nothing from its copies.
//!
//! # Locking
//!
//! Each copy has a lock, which a push holds while it is stored. Nothing that counts or serves
//! requests takes it.

mod copy;
mod messages;
mod outbox;
mod placement;
mod summary;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::history::archive::Archive;
use crate::history::codec::RecordError;
use crate::history::column::{Column, ColumnId};
use crate::history::open::AxisInterner;
use crate::history::window::Window;
use copy::{Copy, prefix, split_key};
use keyviz_types::NodeId;
use view::Cache;

pub use copy::fingerprint;
pub use messages::{CopyError, CopyPush, CopyRecord, CopyStore, HeldCopy, Inventory, Taken};
pub use outbox::{Outbox, Parcel};
pub use placement::holders;
pub use view::CopyView;

/// Copies of each node's history when no number is configured, the node's own among them.
pub const DEFAULT_COPIES: usize = 3;
/// Most copies that can be configured.
pub const MAX_COPIES: usize = 16;
/// Bytes of records of all copies when no number is configured.
pub const DEFAULT_COPIES_BYTES: usize = 1 << 30;
/// Fewest bytes that can be configured.
pub const MIN_COPIES_BYTES: usize = 4 << 20;
/// Columns that are read from the store are kept in memory up to these bytes.
pub const CACHE_BYTES: usize = 64 << 20;
/// Most bytes of records in one push.
pub const MAX_PUSH_BYTES: usize = 12 << 20;
/// Most nodes whose copies are kept.
pub const MAX_NODES: usize = 1_024;

const CLOSED: &str = "its disk is short of room, or they are being opened";

/// The copies that one node keeps.
pub struct Copies {
    node: NodeId,
    step_ms: u64,
    bytes: usize,
    interner: Arc<AxisInterner>,
    shelf: RwLock<Option<Shelf>>,
    cache: Cache,
    /// Tells generations of different openings apart.
    openings: AtomicU64,
    damaged: AtomicU64,
}

#[derive(Clone)]
struct Shelf {
    store: Arc<dyn CopyStore>,
    copies: Arc<Mutex<BTreeMap<NodeId, Arc<Mutex<Copy>>>>>,
}

impl std::fmt::Debug for Copies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copies").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Copies {
    /// No copies, and none accepted before [`Copies::open`]. `nonce` differs from start to start.
    pub fn new(node: NodeId, step_ms: u64, bytes: usize, nonce: u64) -> Self {
        Copies {
            node,
            step_ms,
            bytes,
            interner: Arc::new(AxisInterner::new()),
            shelf: RwLock::new(None),
            cache: Cache::new(CACHE_BYTES),
            openings: AtomicU64::new(nonce),
            damaged: AtomicU64::new(0),
        }
    }

    /// Finds what is stored, and accepts copies from now on. Records that cannot be read are
    /// counted and left out; they come again from the node that counted.
    pub fn open(&self, store: Arc<dyn CopyStore>) -> io::Result<u64> {
        self.openings.fetch_add(1 << 32, Ordering::Relaxed);
        let generation = self.openings.load(Ordering::Relaxed);
        let mut copies: BTreeMap<NodeId, Copy> = BTreeMap::new();
        let mut damaged = 0;
        store.scan(&mut |key, value| match split_key(key) {
            Some((node, rest)) if node != self.node => {
                let copy = copies.entry(node).or_insert_with(|| Copy::new(node, generation));
                damaged += u64::from(copy.load(rest, value).is_err());
            }
            _ => damaged += 1,
        })?;
        self.damaged.fetch_add(damaged, Ordering::Relaxed);
        let shared = copies.into_iter().map(|(node, copy)| (node, Arc::new(Mutex::new(copy))));
        let copies = Arc::new(Mutex::new(shared.collect()));
        *self.shelf.write() = Some(Shelf { store, copies });
        Ok(damaged)
    }

    /// Gives the store up: nothing is held any more.
    pub fn close(&self) {
        *self.shelf.write() = None;
        self.cache.clear();
    }

    /// Whether copies are accepted.
    pub fn is_open(&self) -> bool {
        self.shelf.read().is_some()
    }

    /// The step of the columns.
    pub fn step_ms(&self) -> u64 {
        self.step_ms
    }

    /// Records that could not be read so far.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    fn shelf(&self) -> Result<Shelf, CopyError> {
        self.shelf.read().clone().ok_or(CopyError::Closed { reason: CLOSED })
    }

    fn copy(&self, node: NodeId) -> Option<(Shelf, Arc<Mutex<Copy>>)> {
        let shelf = self.shelf.read().clone()?;
        let copy = shelf.copies.lock().get(&node).cloned()?;
        Some((shelf, copy))
    }

    /// Stores what a node or another holder sent.
    ///
    /// # Errors
    /// The push is not sound, or the store failed; nothing of it is stored then.
    pub fn take(&self, push: CopyPush, now_ms: u64) -> Result<Taken, CopyError> {
        let node = push.node;
        if node == self.node {
            return Err(CopyError::Own(node));
        }
        if push.step_ms != self.step_ms {
            let (theirs_ms, ours_ms) = (push.step_ms, self.step_ms);
            return Err(CopyError::Step { theirs_ms, ours_ms });
        }
        let (bytes, limit) = (push.bytes(), MAX_PUSH_BYTES);
        if bytes > limit {
            return Err(CopyError::TooLarge { bytes, limit });
        }
        let shelf = self.shelf()?;
        let copy = {
            let mut copies = shelf.copies.lock();
            if copies.len() >= MAX_NODES && !copies.contains_key(&node) {
                return Err(CopyError::TooManyNodes { limit: MAX_NODES });
            }
            let generation = self.openings.load(Ordering::Relaxed);
            let fresh = || Arc::new(Mutex::new(Copy::new(node, generation)));
            Arc::clone(copies.entry(node).or_insert_with(fresh))
        };
        let ids: Vec<ColumnId> =
            push.records.iter().filter_map(|(key, _)| column_id(key)).collect();
        let removed = push.removed.clone();
        let (taken, lost) = {
            let mut copy = copy.lock();
            let before = copy.lost.len();
            let taken = copy.take(push, self.step_ms, now_ms, &*shelf.store, &self.interner);
            (taken, copy.lost.len().saturating_sub(before))
        };
        self.damaged.fetch_add(lost as u64, Ordering::Relaxed);
        self.cache.forget(node, ids.iter().chain(&removed));
        let taken = self.or_close(taken)?;
        let shrunk = self.shrink(&shelf).map_err(CopyError::Store);
        self.or_close(shrunk)?;
        Ok(taken)
    }

    /// After a fault of the store nothing of it is used until it is opened again.
    fn or_close<T>(&self, result: Result<T, CopyError>) -> Result<T, CopyError> {
        if let Err(CopyError::Store(_)) = &result {
            self.close();
        }
        result
    }

    /// Drops the oldest columns of the largest copies while all have more bytes than they may.
    fn shrink(&self, shelf: &Shelf) -> io::Result<()> {
        loop {
            let copies: Vec<Arc<Mutex<Copy>>> = shelf.copies.lock().values().cloned().collect();
            let sizes: Vec<usize> = copies.iter().map(|copy| copy.lock().bytes).collect();
            let over = sizes.iter().sum::<usize>().saturating_sub(self.bytes);
            let largest = copies.iter().zip(&sizes).max_by_key(|(_, bytes)| **bytes);
            let Some((largest, _)) = largest.filter(|_| over > 0) else { return Ok(()) };
            let mut largest = largest.lock();
            let before = largest.bytes;
            largest.drop_oldest(over.min(self.bytes / 64), &*shelf.store)?;
            if largest.bytes >= before {
                return Ok(());
            }
        }
    }

    /// Bytes of records of all copies.
    pub fn bytes_held(&self) -> usize {
        let Some(shelf) = self.shelf.read().clone() else { return 0 };
        let copies: Vec<Arc<Mutex<Copy>>> = shelf.copies.lock().values().cloned().collect();
        copies.iter().map(|copy| copy.lock().bytes).sum()
    }

    /// What is held, by node.
    pub fn held(&self) -> Vec<HeldCopy> {
        let Some(shelf) = self.shelf.read().clone() else { return Vec::new() };
        let copies: Vec<Arc<Mutex<Copy>>> = shelf.copies.lock().values().cloned().collect();
        let held = copies.iter().map(|copy| copy.lock().held());
        held.filter(|held| held.columns > 0).collect()
    }

    /// What is there of a node, for whoever sends the rest.
    pub fn inventory(&self, node: NodeId) -> Result<Inventory, CopyError> {
        self.shelf()?;
        let Some((_, copy)) = self.copy(node) else {
            let generation = self.openings.load(Ordering::Relaxed);
            return Ok(Inventory { generation, ..Inventory::default() });
        };
        let inventory = copy.lock().inventory();
        Ok(inventory)
    }

    /// Takes note of who is a member at this time. Of the others, copies are complete from the time
    /// on at which they were first known to have left.
    pub fn know_members(&self, members: &BTreeSet<NodeId>, now_ms: u64) -> Result<(), CopyError> {
        let shelf = self.shelf()?;
        let copies: Vec<Arc<Mutex<Copy>>> = shelf.copies.lock().values().cloned().collect();
        for copy in copies {
            let mut copy = copy.lock();
            if !members.contains(&copy.node) && copy.summary.left_ms.is_none() {
                let noted = copy.leave(now_ms, &*shelf.store).map_err(CopyError::Store);
                drop(copy);
                self.or_close(noted)?;
            }
        }
        Ok(())
    }

    /// Drops the copy of a node, which others have.
    pub fn remove(&self, node: NodeId) -> Result<(), CopyError> {
        let Some((shelf, copy)) = self.copy(node) else { return Ok(()) };
        let ids = {
            let copy = copy.lock();
            let removed = shelf.store.apply(Vec::new(), copy.keys(), true);
            self.or_close(removed.map_err(CopyError::Store))?;
            copy.ids_in(Window { from_ms: 0, to_ms: u64::MAX })
        };
        shelf.copies.lock().remove(&node);
        self.cache.forget(node, ids.iter());
        Ok(())
    }

    /// The records of some columns of a copy, newest first, for another holder.
    pub fn records(&self, node: NodeId, ids: &[ColumnId]) -> Result<Vec<CopyRecord>, CopyError> {
        let Some((shelf, copy)) = self.copy(node) else { return Ok(Vec::new()) };
        let (mut archive, mut records) = (Archive::default(), Vec::new());
        let mut chunks = HashMap::new();
        for id in ids {
            let read = copy.lock().read_column(*id, &mut chunks, &*shelf.store, &self.interner);
            if let Some(column) = self.or_close(read.map_err(CopyError::Store))? {
                records.extend(archive.batch([&*column], &[]).puts);
            }
        }
        Ok(records)
    }

    /// Everything of a copy as records of a history, with the summary of a handed-over one: for a
    /// backup.
    pub fn export(&self, node: NodeId) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, CopyError> {
        let Some((shelf, copy)) = self.copy(node) else { return Ok(BTreeMap::new()) };
        let prefix = prefix(node);
        let mut records = BTreeMap::new();
        let copy = copy.lock();
        for key in copy.keys() {
            let rest = key[prefix.len()..].to_vec();
            let is_summary = rest == summary::Summary::KEY;
            let value = shelf.store.get(&key).map_err(CopyError::Store)?;
            if let Some(value) = value.filter(|_| !is_summary) {
                records.insert(rest, value);
            }
        }
        let summary = crate::history::HistoryHandoff::summary(
            copy.summary.incarnation,
            copy.summary.forgotten_before_ms,
        );
        records.extend([summary]);
        Ok(records)
    }

    /// The columns of a node in a window, to answer from in its name; `None` if there is no copy.
    ///
    /// # Errors
    /// The store failed.
    pub fn view(&self, node: NodeId, window: Window) -> Result<Option<CopyView>, CopyError> {
        let Some((shelf, copy)) = self.copy(node) else { return Ok(None) };
        let ids = copy.lock().ids_in(window);
        let mut columns: Vec<Arc<Column>> = Vec::with_capacity(ids.len());
        let mut chunks = HashMap::new();
        let mut lost = 0;
        for id in ids {
            if let Some(column) = self.cache.get(node, id) {
                columns.push(column);
                continue;
            }
            // Locked for one column at a time, so that pushes do not wait for a long window.
            let read = copy.lock().read_column(id, &mut chunks, &*shelf.store, &self.interner);
            match self.or_close(read.map_err(CopyError::Store))? {
                Some(column) => {
                    // The newest changes every second.
                    if column.closed() {
                        self.cache.put(node, &column);
                    }
                    columns.push(column);
                }
                None => lost += 1,
            }
        }
        self.damaged.fetch_add(lost, Ordering::Relaxed);
        let copy = copy.lock();
        Ok(Some(CopyView::new(self.node, copy.answering(), copy.summary, &copy.lost, columns)))
    }
}

/// The records of a store that cannot be read, for a check of a stopped node.
pub fn damaged_records<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    records: impl IntoIterator<Item = (K, V)>,
) -> Vec<(Vec<u8>, RecordError)> {
    let mut copies: BTreeMap<NodeId, Copy> = BTreeMap::new();
    let mut damaged = Vec::new();
    for (key, value) in records {
        let (key, value) = (key.as_ref(), value.as_ref());
        let loaded = match split_key(key) {
            Some((node, rest)) => {
                copies.entry(node).or_insert_with(|| Copy::new(node, 0)).load(rest, value)
            }
            None => Err(RecordError::Malformed),
        };
        damaged.extend(loaded.err().map(|error| (key.to_vec(), error)));
    }
    damaged
}

fn column_id(key: &[u8]) -> Option<ColumnId> {
    crate::history::archive::column_of(key)
}

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod tests;
