//! sled's interface as the engine uses it, over sled or over a [`Disk`] in memory.
//!
//! What the disk promises is what `engine.rs` says of sled: one write is atomic, writes survive a
//! crash as a prefix of their order, and those before the last completed sync survive for certain.
//! How much of the rest survives is the test's choice.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use parking_lot::Mutex;
use sled::IVec;

use super::mix;

type Rows = BTreeMap<IVec, IVec>;

/// A disk that outlives the processes that use it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    trees: BTreeMap<Vec<u8>, Rows>,
    /// How to take back what was written since the last sync, oldest first.
    unsynced: Vec<Undo>,
    /// Writes ever made.
    written: u64,
    /// Processes that opened it; only the last one's writes count.
    opened: u64,
    syncs_fail: bool,
}

#[derive(Debug)]
enum Undo {
    Row { tree: Vec<u8>, key: IVec, before: Option<IVec> },
    Tree { name: Vec<u8>, before: Option<Rows> },
}

impl Disk {
    /// The process that uses it dies: of what was not synced, the first `keep` of a thousand parts
    /// survive.
    pub(crate) fn crash(&self, keep: u64) {
        let mut state = self.0.lock();
        state.opened += 1;
        state.syncs_fail = false;
        let survive = state.unsynced.len() as u64 * keep.min(1_000) / 1_000;
        while state.unsynced.len() as u64 > survive {
            match state.unsynced.pop().expect("more than none") {
                Undo::Row { tree, key, before } => {
                    let rows = state.trees.entry(tree).or_default();
                    match before {
                        Some(before) => rows.insert(key, before),
                        None => rows.remove(&key),
                    };
                }
                Undo::Tree { name, before } => match before {
                    Some(before) => drop(state.trees.insert(name, before)),
                    None => drop(state.trees.remove(&name)),
                },
            }
        }
        state.unsynced.clear();
    }

    /// What was written reaches the system by itself, as the database does every so often: a killed
    /// process does not lose it any more.
    pub(crate) fn flush_in_the_background(&self) {
        let mut state = self.0.lock();
        if !state.syncs_fail {
            state.unsynced.clear();
        }
    }

    /// Makes syncs fail until the process dies.
    pub(crate) fn fail_syncs(&self) {
        self.0.lock().syncs_fail = true;
    }

    /// What a copy of the files has that is made now.
    pub(crate) fn copied(&self) -> Copied {
        Copied(self.0.lock().trees.clone())
    }

    /// A copy of the files takes the place of what is there. No process may have it open.
    pub(crate) fn put_back(&self, copied: &Copied) {
        let mut state = self.0.lock();
        state.trees = copied.0.clone();
        state.unsynced.clear();
        state.opened += 1;
    }

    /// A mark before a sync: what is written by now.
    pub(crate) fn written(&self) -> u64 {
        self.0.lock().written
    }

    /// Writes ever made, and how many of them a crash may take back.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.written, state.unsynced.len() as u64)
    }

    /// Everything before the mark is on the disk.
    fn synced(&self, mark: u64, process: u64) -> sled::Result<()> {
        let mut state = self.0.lock();
        if state.syncs_fail || state.opened != process {
            return Err(sled::Error::Io(std::io::Error::other("the disk is gone")));
        }
        let since = (state.written - mark) as usize;
        let covered = state.unsynced.len().saturating_sub(since);
        state.unsynced.drain(..covered);
        Ok(())
    }
}

/// The files of a database, copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copied(BTreeMap<Vec<u8>, Rows>);

impl Copied {
    /// One record of one tree.
    pub(crate) fn get(&self, tree: &str, key: &[u8]) -> Option<&[u8]> {
        self.0.get(tree.as_bytes())?.get(key).map(AsRef::as_ref)
    }
}

/// The disk of a node: its two databases, of whose unsynced writes a crash keeps what it likes of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    pub(crate) rows: Disk,
    pub(crate) journal: Disk,
}

impl Disks {
    /// As [`Disk::crash`].
    pub(crate) fn crash(&self, keep: u64) {
        self.journal.crash(keep);
        self.rows.crash(mix(keep + 1) % 1_001);
    }

    /// As [`Disk::flush_in_the_background`].
    pub(crate) fn flush_in_the_background(&self) {
        self.rows.flush_in_the_background();
        self.journal.flush_in_the_background();
    }

    /// As [`Disk::fail_syncs`].
    pub(crate) fn fail_syncs(&self) {
        self.rows.fail_syncs();
        self.journal.fail_syncs();
    }

    /// As [`Disk::extent`], of both.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let (rows, journal) = (self.rows.extent(), self.journal.extent());
        (rows.0 + journal.0, rows.1 + journal.1)
    }
}

/// A database.
#[derive(Clone, Debug)]
pub(crate) enum Db {
    Sled(sled::Db),
    Memory { disk: Disk, process: u64 },
}

impl Db {
    /// Opens a disk for a new process.
    pub(crate) fn on(disk: Disk) -> Self {
        let process = {
            let mut state = disk.0.lock();
            state.opened += 1;
            state.opened
        };
        Db::Memory { disk, process }
    }

    pub(crate) fn open_tree(&self, name: &str) -> sled::Result<DbTree> {
        match self {
            Db::Sled(db) => db.open_tree(name).map(DbTree::Sled),
            Db::Memory { disk, process } => {
                let name = name.as_bytes().to_vec();
                let mut state = disk.0.lock();
                if !state.trees.contains_key(&name) && state.opened == *process {
                    state.trees.insert(name.clone(), Rows::new());
                    state.note(Undo::Tree { name: name.clone(), before: None });
                }
                drop(state);
                Ok(DbTree::Memory { disk: disk.clone(), process: *process, name })
            }
        }
    }

    pub(crate) fn tree_names(&self) -> Vec<IVec> {
        match self {
            Db::Sled(db) => db.tree_names(),
            Db::Memory { disk, .. } => {
                disk.0.lock().trees.keys().map(|name| IVec::from(name.as_slice())).collect()
            }
        }
    }

    pub(crate) fn drop_tree(&self, name: &str) -> sled::Result<bool> {
        match self {
            Db::Sled(db) => db.drop_tree(name),
            Db::Memory { disk, process } => {
                let mut state = disk.0.lock();
                if state.opened != *process {
                    return Ok(false);
                }
                let name = name.as_bytes().to_vec();
                let before = state.trees.remove(&name);
                let existed = before.is_some();
                state.note(Undo::Tree { name, before });
                Ok(existed)
            }
        }
    }

    /// What was written before the call is durable when it returns, but only with the `fdatasync`
    /// that the engine makes after it; in memory the two are one.
    pub(crate) fn flush(&self) -> sled::Result<usize> {
        match self {
            Db::Sled(db) => db.flush(),
            Db::Memory { disk, process } => disk.synced(disk.written(), *process).map(|()| 0),
        }
    }

    /// Like [`Db::flush`], up to a mark that was taken when the sync began.
    pub(crate) fn flush_to(&self, mark: u64) -> sled::Result<()> {
        match self {
            Db::Sled(db) => db.flush().map(drop),
            Db::Memory { disk, process } => disk.synced(mark, *process),
        }
    }

    pub(crate) fn size_on_disk(&self) -> sled::Result<u64> {
        match self {
            Db::Sled(db) => db.size_on_disk(),
            Db::Memory { disk, .. } => {
                let state = disk.0.lock();
                let rows = state.trees.values().flatten();
                Ok(rows.map(|(key, value)| (key.len() + value.len()) as u64).sum())
            }
        }
    }

    /// The mark of a sync that begins now.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Db::Sled(_) => 0,
            Db::Memory { disk, .. } => disk.written(),
        }
    }
}

impl State {
    fn note(&mut self, undo: Undo) {
        self.written += 1;
        self.unsynced.push(undo);
    }
}

/// One ordered map of a database.
#[derive(Clone, Debug)]
pub(crate) enum DbTree {
    Sled(sled::Tree),
    Memory { disk: Disk, process: u64, name: Vec<u8> },
}

impl DbTree {
    pub(crate) fn get(&self, key: &[u8]) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.get(key),
            DbTree::Memory { disk, name, .. } => {
                let state = disk.0.lock();
                Ok(state.trees.get(name).and_then(|rows| rows.get(key)).cloned())
            }
        }
    }

    pub(crate) fn insert(&self, key: &[u8], value: impl Into<IVec>) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.insert(key, value),
            DbTree::Memory { .. } => Ok(self.change(key, Some(value.into()))),
        }
    }

    pub(crate) fn remove(&self, key: &[u8]) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.remove(key),
            DbTree::Memory { .. } => Ok(self.change(key, None)),
        }
    }

    fn change(&self, key: &[u8], value: Option<IVec>) -> Option<IVec> {
        let DbTree::Memory { disk, process, name } = self else {
            unreachable!("only called for one in memory");
        };
        let mut state = disk.0.lock();
        if state.opened != *process {
            // The process is dead; what still runs of it writes nowhere.
            return None;
        }
        let rows = state.trees.get_mut(name)?;
        let key = IVec::from(key);
        let before = match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(&key),
        };
        state.note(Undo::Row { tree: name.clone(), key, before: before.clone() });
        before
    }

    /// What was written survives the process, though not a power loss, which the memory does not tell
    /// apart.
    pub(crate) fn flush(&self) -> sled::Result<usize> {
        match self {
            DbTree::Sled(tree) => tree.flush(),
            DbTree::Memory { disk, process, .. } => {
                disk.synced(disk.written(), *process).map(|()| 0)
            }
        }
    }

    pub(crate) fn range<'a>(&self, range: impl RangeBounds<&'a [u8]>) -> DbIter {
        match self {
            DbTree::Sled(tree) => DbIter::Sled(tree.range(range)),
            DbTree::Memory { disk, name, .. } => {
                let own = |bound: Bound<&&[u8]>| bound.map(|key| IVec::from(*key));
                let (from, to) = (own(range.start_bound()), own(range.end_bound()));
                DbIter::Memory { disk: disk.clone(), name: name.clone(), from, to }
            }
        }
    }
}

/// Rows of a tree, from either end. Like sled's, it sees what is written meanwhile.
pub(crate) enum DbIter {
    Sled(sled::Iter),
    Memory { disk: Disk, name: Vec<u8>, from: Bound<IVec>, to: Bound<IVec> },
}

/// Whether a range can hold anything; the map panics on one that ends before it starts.
fn ordered(from: &Bound<IVec>, to: &Bound<IVec>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
    }
}

impl DbIter {
    fn step(&mut self, from_the_end: bool) -> Option<sled::Result<(IVec, IVec)>> {
        match self {
            DbIter::Sled(rows) => {
                if from_the_end {
                    rows.next_back()
                } else {
                    rows.next()
                }
            }
            DbIter::Memory { disk, name, from, to } => {
                if !ordered(from, to) {
                    return None;
                }
                let state = disk.0.lock();
                let mut rows = state.trees.get(name)?.range((from.clone(), to.clone()));
                let row = if from_the_end { rows.next_back() } else { rows.next() };
                let (key, value) = row.map(|(key, value)| (key.clone(), value.clone()))?;
                let edge = Bound::Excluded(key.clone());
                if from_the_end {
                    *to = edge;
                } else {
                    *from = edge;
                }
                Some(Ok((key, value)))
            }
        }
    }
}

impl Iterator for DbIter {
    type Item = sled::Result<(IVec, IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for DbIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tree: &DbTree) -> Vec<u8> {
        tree.range(..).map(|row| row.expect("memory does not fail").0[0]).collect()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        for keep in [0, 500, 1_000] {
            let disk = Disk::default();
            let db = Db::on(disk.clone());
            let tree = db.open_tree("t").expect("opens");
            tree.insert(b"a", b"1").expect("writes");
            db.flush().expect("syncs");
            tree.insert(b"b", b"1").expect("writes");
            let mark = db.written();
            tree.insert(b"c", b"1").expect("writes");
            if keep == 500 {
                db.flush_to(mark).expect("syncs");
                tree.remove(b"a").expect("writes");
            }
            disk.crash(keep);
            tree.insert(b"z", b"the dead write nowhere").expect("quietly");
            let after = rows(&Db::on(disk).open_tree("t").expect("opens"));
            let expected: &[u8] = match keep {
                0 => b"a",
                500 => b"abc",
                _ => b"abc",
            };
            assert_eq!(after, expected, "kept {keep} of 1000");
        }
    }
}
