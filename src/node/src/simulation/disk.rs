//! A [`Database`] in memory that can lose unsynced writes.
//!
//! What the disk promises is what keyviz-raft's `engine.rs` says of sled: one write is atomic,
//! writes survive a crash as a prefix of their order, and those before the last completed sync
//! survive for certain. How much of the rest survives is the test's choice.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use keyviz_raft::{Database, DatabaseRows, DatabaseTree, Databases};
use parking_lot::Mutex;

use super::world::{Bug, bug, mix};

type Rows = BTreeMap<Bytes, Bytes>;

/// A disk that outlives the processes that use it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    trees: BTreeMap<Vec<u8>, Rows>,
    /// How to undo the writes since the last sync, oldest first.
    unsynced: Vec<Undo>,
    /// Writes ever made.
    written: u64,
    /// Processes that opened it; only the last one's writes count.
    opened: u64,
    syncs_fail: bool,
}

#[derive(Debug)]
enum Undo {
    Row { tree: Vec<u8>, key: Bytes, before: Option<Bytes> },
    Tree { name: Vec<u8>, before: Option<Rows> },
}

impl Disk {
    /// The process that uses it dies: the first `keep` thousandths of the unsynced writes survive.
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

    /// The contents of a copy of the files made now.
    pub(crate) fn copied(&self) -> Copied {
        Copied(self.0.lock().trees.clone())
    }

    /// A copy of the files replaces the current ones. No process may have it open.
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
    fn synced(&self, mark: u64, process: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.syncs_fail || state.opened != process {
            return Err(io::Error::other("the disk is gone"));
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
    /// A record of the node, by name, without its checksum.
    pub(crate) fn node_record(&self, name: &str) -> Option<&[u8]> {
        let key = [b"r/", name.as_bytes()].concat();
        let record = self.0.get(&b"meta"[..])?.get(&key[..])?;
        record.split_last_chunk::<4>().map(|(value, _)| value)
    }
}

/// The disk of a node: its two databases, of whose unsynced writes a crash keeps what it likes of
/// each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    pub(crate) rows: Disk,
    pub(crate) journal: Disk,
}

impl Disks {
    /// What a new process opens. Its syncs take as long as `sync_time` says.
    pub(crate) fn open(&self, sync_time: impl FnMut() -> Duration + Send + 'static) -> Databases {
        let sync_time = SyncTime(Arc::new(Mutex::new(sync_time)));
        let open = |disk: &Disk| Arc::new(Process::on(disk.clone(), bug(), sync_time.clone()));
        Databases {
            name: "/simulated".into(),
            rows: open(&self.rows),
            journal: open(&self.journal),
        }
    }

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

/// The database of one process.
#[derive(Clone, Debug)]
struct Process {
    disk: Disk,
    number: u64,
    bug: Option<Bug>,
    sync_time: SyncTime,
}

impl Process {
    /// Opens a disk for a new process.
    fn on(disk: Disk, bug: Option<Bug>, sync_time: SyncTime) -> Self {
        let number = {
            let mut state = disk.0.lock();
            state.opened += 1;
            if bug == Some(Bug::LostTail) {
                state.lose_tails();
            }
            state.opened
        };
        Process { disk, number, bug, sync_time }
    }
}

impl Database for Process {
    fn open_tree(&self, name: &str) -> io::Result<Arc<dyn DatabaseTree>> {
        let name = name.as_bytes().to_vec();
        let mut state = self.disk.0.lock();
        if !state.trees.contains_key(&name) && state.opened == self.number {
            state.trees.insert(name.clone(), Rows::new());
            state.note(Undo::Tree { name: name.clone(), before: None });
        }
        drop(state);
        Ok(Arc::new(Tree { process: self.clone(), name }))
    }

    fn tree_names(&self) -> Vec<String> {
        let state = self.disk.0.lock();
        state.trees.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn drop_tree(&self, name: &str) -> io::Result<bool> {
        let mut state = self.disk.0.lock();
        if state.opened != self.number {
            return Ok(false);
        }
        let name = name.as_bytes().to_vec();
        let before = state.trees.remove(&name);
        let existed = before.is_some();
        state.note(Undo::Tree { name, before });
        Ok(existed)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.synced(self.disk.written(), self.number)
    }

    /// Covers the writes before it began, and can be cut short by a crash.
    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        let (disk, number, mark) = (self.disk.clone(), self.number, self.disk.written());
        let takes = (self.sync_time.0.lock())();
        let synced = async move {
            tokio::time::sleep(takes).await;
            disk.synced(mark, number)
        };
        if self.bug == Some(Bug::AcknowledgeBeforeSync) {
            tokio::spawn(synced);
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(synced)
    }

    fn bytes(&self) -> u64 {
        let state = self.disk.0.lock();
        let rows = state.trees.values().flatten();
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

/// How long the next sync takes.
#[derive(Clone)]
struct SyncTime(Arc<Mutex<dyn FnMut() -> Duration + Send>>);

impl std::fmt::Debug for SyncTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SyncTime")
    }
}

impl State {
    fn note(&mut self, undo: Undo) {
        self.written += 1;
        self.unsynced.push(undo);
    }

    /// Loses the last block of each group's log, as if it were torn.
    fn lose_tails(&mut self) {
        let Some(log) = self.trees.get(LOG) else { return };
        let blocks = log.keys().filter(|key| key.len() == LOG_KEY_BYTES && key[8] == BLOCK);
        let mut last = BTreeMap::new();
        blocks.for_each(|key| drop(last.insert(key[..8].to_vec(), key[..17].to_vec())));
        let lost = |key: &&Bytes| last.values().any(|block| key.starts_with(block));
        let lost: Vec<Bytes> = log.keys().filter(lost).cloned().collect();
        for key in lost {
            let before = self.trees.get_mut(LOG).and_then(|log| log.remove(&key));
            self.note(Undo::Row { tree: LOG.to_vec(), key, before });
        }
    }
}

/// The tree of the logs, and its keys: group, kind, first entry, part.
const LOG: &[u8] = b"log";
const LOG_KEY_BYTES: usize = 19;
const VOTE: u8 = 0;
const BLOCK: u8 = 2;

/// The row of a group's last batch: version, checksum, sequence number, position.
const LAST_BATCH: &[u8] = b"\0raft\0redo";

/// One ordered map of a database.
#[derive(Debug)]
struct Tree {
    process: Process,
    name: Vec<u8>,
}

impl Tree {
    /// Whether a write is left out, where that is put in as a fault.
    fn forgets(&self, key: &[u8], value: Option<&Bytes>) -> bool {
        match self.process.bug {
            Some(Bug::VoteNotPersisted) => {
                self.name == LOG && key.len() == LOG_KEY_BYTES && key[8] == VOTE
            }
            Some(Bug::DoubleApply) if key == LAST_BATCH => value.is_some_and(|batch| {
                let sequence = u64::from_le_bytes(batch[5..13].try_into().expect("8 bytes"));
                !sequence.is_multiple_of(8)
            }),
            _ => false,
        }
    }
}

impl DatabaseTree for Tree {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let state = self.process.disk.0.lock();
        state.trees.get(&self.name).and_then(|rows| rows.get(key)).cloned()
    }

    fn put(&self, key: &[u8], value: Option<Bytes>) {
        if self.forgets(key, value.as_ref()) {
            return;
        }
        let mut state = self.process.disk.0.lock();
        if state.opened != self.process.number {
            // The process is dead; its remaining tasks write nowhere.
            return;
        }
        let Some(rows) = state.trees.get_mut(&self.name) else { return };
        let key = Bytes::copy_from_slice(key);
        let before = match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(&key),
        };
        state.note(Undo::Row { tree: self.name.clone(), key, before });
    }

    /// Writes survive the process, but not a power loss, which the memory does not distinguish.
    fn flush(&self) -> io::Result<()> {
        Database::flush(&self.process)
    }

    fn range(&self, from: Bound<Bytes>, to: Bound<Bytes>) -> DatabaseRows {
        Box::new(Range { disk: self.process.disk.clone(), name: self.name.clone(), from, to })
    }
}

/// Rows of a tree, from either end. Like sled's, it sees concurrent writes.
struct Range {
    disk: Disk,
    name: Vec<u8>,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
}

/// Whether a range can hold anything; the map panics on one that ends before it starts.
fn ordered(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
    }
}

impl Range {
    fn step(&mut self, from_the_end: bool) -> Option<(Bytes, Bytes)> {
        if !ordered(&self.from, &self.to) {
            return None;
        }
        let state = self.disk.0.lock();
        let rows = state.trees.get(&self.name)?;
        let mut rows = rows.range((self.from.clone(), self.to.clone()));
        let row = if from_the_end { rows.next_back() } else { rows.next() };
        let (key, value) = row.map(|(key, value)| (key.clone(), value.clone()))?;
        let edge = Bound::Excluded(key.clone());
        if from_the_end {
            self.to = edge;
        } else {
            self.from = edge;
        }
        Some((key, value))
    }
}

impl Iterator for Range {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(disk: &Disk) -> Process {
        let sync_time = SyncTime(Arc::new(Mutex::new(|| Duration::ZERO)));
        Process::on(disk.clone(), None, sync_time)
    }

    fn rows(tree: &dyn DatabaseTree) -> Vec<u8> {
        tree.range(Bound::Unbounded, Bound::Unbounded).map(|row| row.0[0]).collect()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        for keep in [0, 500, 1_000] {
            let disk = Disk::default();
            let db = on(&disk);
            let tree = db.open_tree("t").expect("opens");
            let put = |key: &'static [u8]| tree.put(key, Some(Bytes::from_static(b"1")));
            put(b"a");
            db.flush().expect("syncs");
            put(b"b");
            let mark = disk.written();
            put(b"c");
            if keep == 500 {
                disk.synced(mark, db.number).expect("syncs");
                tree.put(b"a", None);
            }
            disk.crash(keep);
            // The dead write nowhere.
            put(b"z");
            let after = rows(&*on(&disk).open_tree("t").expect("opens"));
            let expected: &[u8] = match keep {
                0 => b"a",
                500 => b"abc",
                _ => b"abc",
            };
            assert_eq!(after, expected, "kept {keep} of 1000");
        }
    }
}
