//! The edge to sled: everything above sees [`Engine`], [`Tree`] and `io::Error`.
//!
//! What sled promises and what is added here:
//!
//! * One insert is atomic; inserts of one thread survive a crash as a prefix of their order.
//!   Nothing here relies on `apply_batch`, which rolls sled's write buffer to disk twice a call.
//! * `flush` of sled 0.34 ends in `sync_file_range`, which does not make a write survive a power
//!   loss. [`Engine::sync`] follows it with an `fdatasync` of the database file through a second
//!   handle.
//! * A tree node larger than a quarter of a segment goes to a file of its own that is never
//!   synced. A leaf holds up to 17 records, so records are kept below [`RECORD_BYTES`] by the
//!   layers above, and segments are sized for that.

use std::fs::File;
use std::io;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

use super::fault::FaultLatch;
use super::synced::Synced;
use super::{seal, unseal};
#[cfg(test)]
use crate::raft::simulated::{Db, DbIter, DbTree, Disk};
#[cfg(not(test))]
use sled::{Db, Iter as DbIter, Tree as DbTree};

/// The most bytes of one record's value. 19 such records (a leaf before it splits, with two
/// concurrent inserts) with keys of 4 KiB fit into a quarter of [`SEGMENT_BYTES`].
pub(crate) const RECORD_BYTES: usize = 20 * 1024;

/// What a damage that the database itself found begins with.
pub(super) const CORRUPT_FILE: &str = "the file db is corrupt";

/// The tree of node records, and the one that is not the node's but the engine's own.
pub(super) const META: &str = "meta";
pub(super) const SYNC_KEY: &[u8] = b"s/sync";

const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

const _: () = assert!(19 * (RECORD_BYTES + 4 * 1024 + 256) < SEGMENT_BYTES / 4);

/// sled cleans its segments on its own thread, every so often.
const CLEAN_EVERY_MS: u64 = 1_000;

/// A database whose lock is still held is tried again so often, with such a pause between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The numbers of syncs, in the database and beside it.
#[derive(Debug)]
struct Numbered {
    meta: DbTree,
    synced: Mutex<Synced>,
}

/// One sled database.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    db: Db,
    /// `None`: the database is not in a file.
    sync_handle: Option<std::sync::Arc<File>>,
    /// The tree that has the number of the last sync, and the file that has it too. `None`: the
    /// database is not in a file.
    synced: Option<std::sync::Arc<Numbered>>,
    faults: FaultLatch,
    #[cfg(test)]
    syncs_fail: std::sync::Arc<std::sync::atomic::AtomicBool>,
    #[cfg(test)]
    stall: Stall,
    #[cfg(test)]
    crash: Crash,
}

/// Stands for a process that dies: from some write on, nothing reaches the database any more.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Crash(std::sync::Arc<std::sync::atomic::AtomicI64>);

#[cfg(test)]
impl Default for Crash {
    fn default() -> Self {
        Self(std::sync::Arc::new(i64::MAX.into()))
    }
}

#[cfg(test)]
impl Crash {
    /// Lets `writes` more writes through.
    pub(crate) fn after(&self, writes: i64) {
        self.0.store(writes, std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the process has died, counting one write.
    fn happened(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0
    }

    /// Whether a write was lost.
    pub(crate) fn lost_some(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst) < 0
    }
}

/// Stands for a disk that does not answer: syncs wait until it does.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Stall(std::sync::Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>);

#[cfg(test)]
impl Stall {
    pub(crate) fn set(&self, stalled: bool) {
        *self.0.0.lock() = stalled;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut stalled = self.0.0.lock();
        while *stalled {
            self.0.1.wait(&mut stalled);
        }
    }
}

/// One ordered map in the database. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    tree: DbTree,
    faults: FaultLatch,
    #[cfg(test)]
    crash: Crash,
}

pub(crate) type Row = (sled::IVec, sled::IVec);

fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { at, .. } => {
            let place = at.map_or_else(String::new, |at| format!(" at offset {}", at.lid()));
            io::Error::new(io::ErrorKind::InvalidData, format!("{CORRUPT_FILE}{place}"))
        }
        other => io::Error::other(other.to_string()),
    }
}

/// sled panics on some damage; that is an error like the others.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(to_io),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            let said = said.unwrap_or("it panicked");
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{CORRUPT_FILE}: {said}")))
        }
    }
}

/// sled's threads may hold its lock for a moment after the last handle of a database is dropped.
/// Other processes are kept out by the folder's own lock.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let held = |error: &sled::Error| matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"));
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(error) if held(&error) => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
    config.open()
}

impl Engine {
    pub(crate) fn open(dir: &Path, cache_bytes: u64, faults: FaultLatch) -> io::Result<Self> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(CLEAN_EVERY_MS));
        // Before the database, which makes its files.
        let mut synced = Synced::open(dir)?;
        let db = guarded(|| open_unlocked(&config))?;
        #[cfg(test)]
        let db = Db::Sled(db);
        let meta = guarded(|| db.open_tree(META))?;
        let number = match guarded(|| meta.get(SYNC_KEY))? {
            Some(record) => unseal(&record)?.try_into().map(u64::from_le_bytes).unwrap_or(0),
            None => 0,
        };
        synced.check(number)?;
        let numbered = Numbered { meta, synced: Mutex::new(synced) };
        let sync_handle = Some(File::open(dir.join("db"))?.into());
        // The files themselves must survive, too.
        File::open(dir)?.sync_all()?;
        Ok(Self {
            db,
            sync_handle,
            synced: Some(numbered.into()),
            faults,
            #[cfg(test)]
            syncs_fail: Default::default(),
            #[cfg(test)]
            stall: Stall::default(),
            #[cfg(test)]
            crash: Crash::default(),
        })
    }

    /// A database on a simulated disk.
    #[cfg(test)]
    pub(crate) fn simulated(disk: Disk, faults: FaultLatch) -> Self {
        let (syncs_fail, stall, crash) = Default::default();
        let db = Db::on(disk);
        Self { db, sync_handle: None, synced: None, faults, syncs_fail, stall, crash }
    }

    /// Begins a sync on a simulated disk: the mark for [`Engine::end_sync`].
    #[cfg(test)]
    pub(crate) fn begin_sync(&self) -> u64 {
        self.db.written()
    }

    /// Ends a sync: what was written before it began is durable.
    #[cfg(test)]
    pub(crate) fn end_sync(&self, mark: u64) -> io::Result<()> {
        self.faults.check()?;
        let synced = self.db.flush_to(mark).map_err(to_io);
        synced.map_err(|error| self.faults.latch("syncing the database", &error).into())
    }

    pub(crate) fn tree(&self, name: &str) -> io::Result<Tree> {
        let tree = guarded(|| self.db.open_tree(name))?;
        Ok(Tree {
            tree,
            faults: self.faults.clone(),
            #[cfg(test)]
            crash: self.crash.clone(),
        })
    }

    pub(crate) fn tree_names(&self) -> Vec<String> {
        let names = self.db.tree_names();
        names.iter().filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }

    pub(crate) fn drop_tree(&self, name: &str) -> io::Result<bool> {
        #[cfg(test)]
        if self.crash.lost_some() {
            return Ok(false);
        }
        guarded(|| self.db.drop_tree(name))
    }

    /// Returns when everything written before the call survives a power loss. A failure latches.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.faults.check()?;
        let synced = self.sync_numbered();
        synced.map_err(|error| self.faults.latch("syncing the database", &error).into())
    }

    fn sync_numbered(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.crash.lost_some() {
            return Ok(());
        }
        let Some(Numbered { meta, synced }) = self.synced.as_deref() else {
            guarded(|| self.db.flush())?;
            return self.sync_data();
        };
        let mut synced = synced.lock();
        let number = synced.next();
        guarded(|| meta.insert(SYNC_KEY, seal(&number.to_le_bytes())))?;
        guarded(|| self.db.flush())?;
        self.sync_data()?;
        synced.done(number)
    }

    #[cfg(not(test))]
    fn sync_data(&self) -> io::Result<()> {
        self.sync_handle.as_ref().map_or(Ok(()), |file| file.sync_data())
    }

    #[cfg(test)]
    fn sync_data(&self) -> io::Result<()> {
        self.stall.wait();
        if self.syncs_fail.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.sync_handle.as_ref().map_or(Ok(()), |file| file.sync_data())
    }

    /// Makes syncs fail from now on.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self) {
        self.syncs_fail.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn stall(&self) -> &Stall {
        &self.stall
    }

    #[cfg(test)]
    pub(crate) fn crash(&self) -> &Crash {
        &self.crash
    }

    /// Makes syncs work again.
    #[cfg(test)]
    pub(crate) fn heal_syncs(&self) {
        self.syncs_fail.store(false, std::sync::atomic::Ordering::SeqCst);
    }

    /// Bytes of the database on disk.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        guarded(|| self.db.size_on_disk())
    }
}

impl Tree {
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<sled::IVec>> {
        guarded(|| self.tree.get(key))
    }

    /// Writes one record. A failure latches.
    pub(crate) fn put(&self, key: &[u8], value: impl Into<sled::IVec>) -> io::Result<()> {
        self.faults.check()?;
        #[cfg(test)]
        if self.crash.happened() {
            return Ok(());
        }
        let value = value.into();
        let put = guarded(|| self.tree.insert(key, value));
        put.map(drop).map_err(|error| self.faults.latch("writing a record", &error).into())
    }

    /// Removes one record, if it is there. A failure latches.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.faults.check()?;
        #[cfg(test)]
        if self.crash.happened() {
            return Ok(());
        }
        let deleted = guarded(|| self.tree.remove(key));
        deleted.map(drop).map_err(|error| self.faults.latch("removing a record", &error).into())
    }

    /// Rows in key order.
    pub(crate) fn range<'a>(&self, range: impl RangeBounds<&'a [u8]>) -> Rows {
        Rows(self.tree.range(range))
    }
}

/// Rows of a tree, from either end.
pub(crate) struct Rows(DbIter);

impl Iterator for Rows {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        guarded(|| self.0.next().transpose()).transpose()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        guarded(|| self.0.next_back().transpose()).transpose()
    }
}
