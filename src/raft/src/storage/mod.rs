//! The storage of a node: one folder, two databases and some side databases, one thread that makes
//! logs durable.
//!
//! | database | tree | holds |
//! |---|---|---|
//! | `log/db`, the journal | `meta` | see below |
//! | | `log` | the logs and votes of all groups |
//! | `db`, the rows | `g<group>.<generation>` | the rows of a group's state machine |
//! | `side/<name>/db` | `rows` | rows that belong to no group, which fail independently |
//!
//! `meta` has the node records (`r/<name>`), the current generation of each group (`g/<group>`) and
//! the groups whose erasure has begun (`e/<group>`).
//!
//! The journal is synced before a request is answered; the rows are synced only before the log
//! entries behind them are purged, because until then they can be rebuilt from the log. An entry is
//! applied only once it is durable in this node's log, so a crash never leaves rows that the log
//! lacks ([`GroupLog::durable`]).
//!
//! Logs and rows have separate databases because their contents have different lifetimes: entries
//! are purged in order after a few seconds, and rows stay. In one file each segment would hold a
//! few rows among purged entries, and occupy as much space as if those were still there.

mod batch;
mod check;
mod closed;
mod disk_space;
mod engine;
mod erase;
mod folder;
pub(crate) mod keyspace;
mod seal;
mod seed;
mod side;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

pub use batch::Batch;
pub use check::{CheckReport, Damage, Unsound, Verify, check_folder};
#[cfg(test)]
pub(crate) use check_tests::format_samples;
pub(crate) use disk_space::DiskSpaceMonitor;
pub(crate) use disk_space::NoSpace;
pub use disk_space::{DiskFull, DiskSpace};
pub use engine::database::{Database, DatabaseRows, DatabaseTree, Databases};
pub use engine::fault::Fault;
pub(crate) use engine::fault::FaultLatch;
pub use engine::scarce::Scarce;
pub(crate) use engine::{Engine, JOURNAL, RECORD_BYTES, Tree};
pub use folder::{FORMAT_VERSION as DATA_FORMAT, OpenError};
pub(crate) use keyspace::awaited::{AwaitedView, NoView};
pub(crate) use keyspace::check_key;
pub(crate) use keyspace::current::Current;
pub use keyspace::current::KeyValue;
pub use keyspace::value::{MAX_STORED_KEY_BYTES, RESERVED_PREFIX};
pub(crate) use keyspace::view::SnapshotView;
pub use keyspace::{Keyspace, KeyspaceError, Page, PageLimit};
pub use seed::{Seed, SeedError, SeedPoint};
pub use side::SideRows;

use super::log::{CacheBudget, GroupLog, Op, Writer, WriterStats, stopped};
use crate::loops::Loops;
use engine::ROWS;
pub(crate) use folder::Folder;
use keyviz_types::{DiskId, GroupId};
use seal::{seal, unseal};

/// The tree of logs and votes.
const LOG: &str = "log";

/// The journal has this part of the cache, a sixteenth: entries that are read again soon are kept
/// beside it ([`StorageOptions::log_cache_bytes`]).
const JOURNAL_CACHE_PART: u64 = 16;

/// Threads that an open storage needs: sled's pool and the thread that watches it, one of sled for
/// each of the two databases, the log writer, and the disk watch. Each side database has one more.
pub const THREADS: usize = engine::pool::POOL + 1 + 2 + 1 + 1;

/// Bounds of a node's storage.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// Memory that the database may use for its pages, bytes.
    pub cache_bytes: u64,
    /// Memory for log entries kept for replication and apply, bytes, over all groups.
    pub log_cache_bytes: u64,
    /// Bytes of the disk that are kept free: below, writes are refused. `None`: 256 MiB, or an
    /// eighth of the disk where that is less. 0: nothing is refused.
    pub min_free_bytes: Option<u64>,
}

impl StorageOptions {
    /// Default of [`StorageOptions::cache_bytes`].
    pub const CACHE_BYTES: u64 = 48 * 1024 * 1024;
    /// Default of [`StorageOptions::log_cache_bytes`].
    pub const LOG_CACHE_BYTES: u64 = 16 * 1024 * 1024;
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            cache_bytes: Self::CACHE_BYTES,
            log_cache_bytes: Self::LOG_CACHE_BYTES,
            min_free_bytes: None,
        }
    }
}

/// A node's open folder. Clones share it; it is released when the last clone is dropped, which
/// [`Storage::close`] makes orderly.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    rows: Engine,
    journal: Engine,
    sides: side::Sides,
    meta: Tree,
    log: Tree,
    writer: Writer,
    faults: FaultLatch,
    loops: Loops,
    monitor: DiskSpaceMonitor,
    budget: Arc<CacheBudget>,
    /// The highest generation given out for each group, so that two snapshots never share one.
    generations: Mutex<std::collections::HashMap<GroupId, u64>>,
    // Last, so that the lock outlives the database.
    _folder: Option<Folder>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// The key of the record in the rows' database that binds it to the journal.
const BINDING: &[u8] = b"b/start";

fn record_key(name: &str) -> Vec<u8> {
    [b"r/", name.as_bytes()].concat()
}

fn generation_key(group: GroupId) -> Vec<u8> {
    [&b"g/"[..], &group.0.to_be_bytes()].concat()
}

fn tree_name(group: GroupId, generation: u64) -> String {
    format!("g{group}.{generation}")
}

/// The group and the generation of a tree of rows.
fn group_of(name: &str) -> Option<(GroupId, u64)> {
    let (group, generation) = name.strip_prefix('g')?.split_once('.')?;
    let (group, generation) = (GroupId(group.parse().ok()?), generation.parse().ok()?);
    (tree_name(group, generation) == name).then_some((group, generation))
}

impl Storage {
    /// Opens a node's folder, or makes a new one. Blocks while the database recovers.
    pub fn open(dir: impl AsRef<Path>, options: StorageOptions) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        let folder = Folder::open(dir)?;
        for path in folder.close_to_others() {
            let path = path.display();
            tracing::warn!("{path} is accessible to other users, and its mode cannot be changed");
        }
        let faults = FaultLatch::default();
        let opened = || -> io::Result<Inner> {
            let monitor = DiskSpaceMonitor::of(dir, options.min_free_bytes)?;
            let journal_cache = options.cache_bytes / JOURNAL_CACHE_PART;
            let open = |database, cache| Engine::open(dir, database, cache, faults.clone());
            // In this order: rows without a journal are damage.
            let journal = open(&JOURNAL, journal_cache)?;
            let rows = open(&ROWS, options.cache_bytes - journal_cache)?;
            #[cfg(test)]
            let rows = rows.dies_with(&journal);
            folder.upgrade(&rows, &journal)?;
            let (meta, log) = (journal.tree(engine::META)?, journal.tree(LOG)?);
            // Writes that a killed process left in the page cache count as applied from here on.
            journal.sync()?;
            rows.sync()?;
            let loops = Loops::default();
            let writer =
                Writer::start(journal.clone(), log.clone(), faults.clone(), loops.clone())?;
            monitor.watch(loops.clone())?;
            Ok(Inner {
                dir: dir.to_path_buf(),
                rows,
                journal,
                sides: side::Sides::default(),
                meta,
                log,
                writer,
                loops,
                faults,
                monitor,
                budget: CacheBudget::new(options.log_cache_bytes),
                generations: Mutex::default(),
                _folder: Some(folder),
            })
        };
        let inner = opened().map_err(|error| OpenError::from_io(dir, error))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens databases that are given, as a new process would. The log writer is a task of the
    /// current runtime.
    pub fn over(given: Databases, options: StorageOptions) -> io::Result<Self> {
        let faults = FaultLatch::default();
        let rows = Engine::over(given.rows, faults.clone());
        let journal = Engine::over(given.journal, faults.clone());
        let (meta, log) = (journal.tree(engine::META)?, journal.tree(LOG)?);
        journal.sync()?;
        rows.sync()?;
        let (parts, tree) = (faults.clone(), log.clone());
        let loops = Loops::default();
        let writer = Writer::start_task(journal.clone(), tree, parts, &loops);
        Ok(Self {
            inner: Arc::new(Inner {
                dir: given.name,
                rows,
                journal,
                sides: side::Sides::default(),
                meta,
                log,
                writer,
                loops,
                faults,
                monitor: DiskSpaceMonitor::unlimited(),
                budget: CacheBudget::new(options.log_cache_bytes),
                generations: Mutex::default(),
                _folder: None,
            }),
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// A small record of the node by name, such as its id.
    pub fn get_record(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.inner.meta.get(&record_key(name))? {
            Some(record) => Ok(Some(unseal(&record)?.to_vec())),
            None => Ok(None),
        }
    }

    /// Writes a small record of the node. Durable when it returns.
    pub fn put_record<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>> {
        async move { self.put_meta(record_key(name), seal(value)).await }.boxed()
    }

    /// Records the owner of the rows in their database, and compares it with the record found: the
    /// two databases of a folder must be of one disk, and the journal, which is written first, must
    /// not be behind. `since`: the start in which the rows were bound first.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if they do not belong together.
    pub fn bind_rows(
        &self,
        disk: DiskId,
        number: u64,
        since: u64,
    ) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let rows = self.inner.rows.clone();
            let bound = crate::blocking(move || {
                let meta = rows.tree(engine::META)?;
                let found = meta.get(BINDING)?;
                folder::binding::check(found.as_deref(), disk, number, since)?;
                meta.put(BINDING, seal(&folder::binding::encode(disk, number)))?;
                rows.sync()
            });
            bound.await.unwrap_or_else(|_| Err(io::Error::other("binding the rows panicked")))
        }
        .boxed()
    }

    async fn put_meta(&self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        let (done, waiter) = oneshot::channel();
        let tree = self.inner.meta.clone();
        self.inner.writer.submit(Op::Record { tree, key, value: Some(value), done });
        waiter.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The failure that stopped this node's storage, if any. All later operations fail too.
    pub fn fault(&self) -> Option<Fault> {
        self.inner.faults.get().cloned()
    }

    /// Why the node must stop, once a loop of this layer has panicked; names the loop.
    pub fn failed_loop(&self) -> watch::Receiver<Option<String>> {
        self.inner.loops.failed()
    }

    pub(crate) fn loops(&self) -> &Loops {
        &self.inner.loops
    }

    /// The space on the disk.
    pub fn disk_space(&self) -> DiskSpace {
        self.inner.monitor.state()
    }

    /// Bytes that are free on the disk, and the bytes below which writes are refused.
    pub fn free_bytes(&self) -> (u64, u64) {
        (self.inner.monitor.free_bytes(), self.inner.monitor.min_free_bytes())
    }

    /// Fails while the disk is full, so that requests are refused before the database fails.
    pub fn check_space(&self) -> Result<(), DiskFull> {
        self.inner.monitor.check()
    }

    /// Accepts a command of so many bytes if the disk has room for it beside what was accepted a
    /// moment ago and beside the bytes under way.
    pub(crate) fn accept(&self, bytes: u64, under_way: u64) -> Result<(), NoSpace> {
        self.inner.monitor.accept(bytes, under_way)
    }

    /// The same for entries that a leader has already proposed and for snapshots, which are refused
    /// at a lower limit.
    pub(crate) fn accept_to_follow(&self, bytes: u64) -> Result<(), DiskFull> {
        self.inner.monitor.accept_to_follow(bytes)
    }

    #[cfg(test)]
    pub(crate) fn pretend_free(&self, free: Option<u64>) {
        self.inner.monitor.pretend(free);
    }

    /// Counters of the log writer since the folder was opened.
    pub fn writer_stats(&self) -> WriterStats {
        self.inner.writer.counters().read()
    }

    /// Operations that wait for the log writer.
    pub fn writer_queue(&self) -> usize {
        self.inner.writer.queued()
    }

    /// Bytes of the databases on disk.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        let sides = side::disk_bytes(self.dir())?;
        Ok(self.inner.rows.disk_bytes()? + self.inner.journal.disk_bytes()? + sides)
    }

    /// Returns when all rows that were written before the call survive a power loss. What was
    /// acknowledged survives it without, because the log has it.
    pub fn sync_rows(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let rows = self.inner.rows.clone();
            let synced = crate::blocking(move || rows.sync());
            synced.await.unwrap_or_else(|_| Err(io::Error::other("syncing the rows panicked")))
        }
        .boxed()
    }

    /// Stops the log writer after its last batch and syncs. Groups must be shut down before;
    /// what comes after fails.
    pub fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let inner = self.inner.clone();
            let closed = crate::blocking(move || {
                inner.writer.stop();
                inner.sync()
            });
            closed.await.unwrap_or_else(|_| Err(io::Error::other("closing the storage panicked")))
        }
        .boxed()
    }

    /// Stands for the death of the process at a write.
    #[cfg(test)]
    pub(crate) fn crash(&self) -> &engine::interference::Crash {
        &self.inner.journal.interference().crash
    }

    /// Makes syncs wait, or go on.
    #[cfg(test)]
    pub(crate) fn stall_syncs(&self, stalled: bool) {
        self.inner.journal.interference().stall.set(stalled);
    }

    /// Makes every later sync fail.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self) {
        self.inner.journal.interference().fail_syncs(true);
    }

    pub(crate) fn open_log(&self, group: GroupId) -> io::Result<GroupLog> {
        let inner = &self.inner;
        let (log, writer) = (inner.log.clone(), inner.writer.clone());
        GroupLog::open(group, log, writer, inner.faults.clone(), inner.budget.clone())
    }

    /// Opens the rows of a group and drops what unfinished snapshots left.
    pub(crate) fn open_space(&self, group: GroupId) -> io::Result<Keyspace> {
        let generation = match self.inner.meta.get(&generation_key(group))? {
            Some(record) => {
                let bytes: [u8; 8] = unseal(&record)?.try_into().map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "a generation is corrupt")
                })?;
                u64::from_be_bytes(bytes)
            }
            None => 0,
        };
        let prefix = format!("g{group}.");
        for name in self.inner.rows.tree_names() {
            if name.starts_with(&prefix) && name != tree_name(group, generation) {
                self.inner.rows.drop_tree(&name)?;
            }
        }
        self.inner.generations.lock().insert(group, generation);
        let tree = self.inner.rows.tree(&tree_name(group, generation))?;
        Ok(Keyspace::new(group, Current::open(tree, generation)?))
    }

    /// An empty tree to receive a snapshot of a group into.
    pub(crate) fn stage(&self, group: GroupId) -> io::Result<Current> {
        let generation = {
            let mut generations = self.inner.generations.lock();
            let last = generations.entry(group).or_insert(0);
            *last += 1;
            *last
        };
        let tree = self.inner.rows.tree(&tree_name(group, generation))?;
        Current::open(tree, generation)
    }

    /// Makes a staged tree the one that holds the group's rows after a restart. Durable when it
    /// returns, with everything written to the tree.
    pub(crate) async fn commit_generation(
        &self,
        group: GroupId,
        generation: u64,
    ) -> io::Result<()> {
        self.sync_rows().await?;
        self.put_meta(generation_key(group), seal(&generation.to_be_bytes())).await
    }

    /// Drops the tree of a generation that is not the current one.
    pub(crate) fn drop_generation(&self, group: GroupId, generation: u64) -> io::Result<()> {
        self.inner.rows.drop_tree(&tree_name(group, generation)).map(drop)
    }
}

impl Inner {
    /// Everything that was written before survives a power loss.
    fn sync(&self) -> io::Result<()> {
        self.journal.sync()?;
        self.rows.sync()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.monitor.stop();
        self.writer.stop();
    }
}
