//! The edge to sled: everything above sees [`Engine`], [`Tree`] and `io::Error`.
//!
//! What sled promises and what is added here:
//!
//! * One insert is atomic; inserts of one thread survive a crash as a prefix of their order.
//!   Nothing here relies on `apply_batch`, which rolls sled's write buffer to disk twice a call.
//! * A node has two databases ([`ROWS`], [`JOURNAL`]), each with its own writes and syncs. Nothing
//!   is promised of the order between them but what the layers above wait for.
//! * `flush` of sled 0.34 ends in `sync_file_range`, which does not make a write survive a power
//!   loss. [`Engine::sync`] follows it with an `fdatasync` of the database file through a second
//!   handle.
//! * A tree node larger than a quarter of a segment goes to a file of its own that is never
//!   synced. A leaf holds up to 17 records, so records are kept below [`RECORD_BYTES`] by the
//!   layers above, and segments are sized for that.

pub(in crate::storage) mod database;
pub(in crate::storage) mod fault;
pub(in crate::storage) mod interference;
pub(in crate::storage) mod pool;
pub(in crate::storage) mod scarce;
mod synced;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{seal, unseal};
use database::{Database as Given, Db, DbIter, DbTree};
use fault::FaultLatch;
use interference::Interference;
use pool::Calls;
use scarce::Scarce;
use synced::Synced;

/// The most bytes of one record's value. 19 such records (a leaf before it splits, with two
/// concurrent inserts) with keys of 4 KiB fit into a quarter of [`SEGMENT_BYTES`].
pub(crate) const RECORD_BYTES: usize = 20 * 1024;

/// One of the databases of a node.
#[derive(Debug)]
pub(crate) struct Database {
    /// Its file in the node's folder.
    file: Cow<'static, str>,
    /// sled gives the room of what is gone back on a thread of its own, which empties at most one
    /// segment each time it wakes, and syncs the file then, whether there is something or not.
    clean_every_ms: u64,
}

/// Rows. A row that changes leaves room in a segment among rows that stay: with a tenth of a
/// second, changes of 20 MiB/s are kept up with; with a quarter, the file grows to three times
/// that.
pub(super) const ROWS: Database = Database { file: Cow::Borrowed("db"), clean_every_ms: 100 };

/// Logs, votes and node records. Entries go in the order in which they came, so segments empty by
/// themselves.
pub(crate) const JOURNAL: Database =
    Database { file: Cow::Borrowed("log/db"), clean_every_ms: 1_000 };

impl Database {
    /// One beside the store, in a folder of its own.
    pub(super) fn beside(folder: &str) -> Self {
        Database { file: format!("{folder}/db").into(), clean_every_ms: 1_000 }
    }

    /// Its file in the node's folder.
    pub(super) fn file(&self) -> &str {
        &self.file
    }
}

/// Whether an error is a damage that the database itself found.
pub(super) fn names_damaged_file(what: &str) -> bool {
    [ROWS, JOURNAL].iter().any(|database| what.contains(&corrupt_file(database.file())))
}

fn corrupt_file(file: &str) -> String {
    format!("the file {file} is corrupt")
}

/// The tree of node records, and the one that is not the node's but the engine's own.
pub(super) const META: &str = "meta";
pub(super) const SYNC_KEY: &[u8] = b"s/sync";

const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

const _: () = assert!(19 * (RECORD_BYTES + 4 * 1024 + 256) < SEGMENT_BYTES / 4);

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
    /// Its file in the node's folder, for messages.
    file: Arc<str>,
    /// `None`: the database is not in a file.
    sync_handle: Option<Arc<File>>,
    /// The tree that has the number of the last sync, and the file that has it too. `None`: the
    /// database is not in a file.
    synced: Option<Arc<Numbered>>,
    /// `None`: the database is not in a file.
    calls: Option<Calls>,
    faults: FaultLatch,
    interference: Interference,
}

/// One ordered map in the database. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    tree: DbTree,
    /// The file of its database.
    file: Arc<str>,
    calls: Option<Calls>,
    faults: FaultLatch,
    interference: Interference,
}

pub(crate) type Row = (sled::IVec, sled::IVec);

fn to_io(file: &str, error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => match Scarce::of(&error) {
            Some(scarce) => scarce.error(error),
            None => error,
        },
        sled::Error::Corruption { at, .. } => {
            let place = at.map_or_else(String::new, |at| format!(" at offset {}", at.lid()));
            io::Error::new(io::ErrorKind::InvalidData, format!("{}{place}", corrupt_file(file)))
        }
        other => {
            let said = other.to_string();
            match Scarce::of_words(&said) {
                Some(scarce) => scarce.error(said),
                None => io::Error::other(said),
            }
        }
    }
}

/// sled panics on some damage, and where the system gives it no thread; that is an error like the
/// others.
fn guarded<T>(file: &str, work: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| to_io(file, error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            let said = said.unwrap_or("it panicked");
            if let Some(scarce) = Scarce::of_words(said).or_else(Scarce::of_pressure) {
                return Err(scarce.error(said));
            }
            let what = format!("{}: {said}", corrupt_file(file));
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

/// The same for work that writes, which may wait for sled's threads.
fn guarded_write<T>(
    file: &str,
    calls: &Option<Calls>,
    work: impl FnOnce() -> sled::Result<T>,
) -> io::Result<T> {
    let _call = calls.as_ref().map(Calls::begin);
    guarded(file, work)
}

/// sled's threads may hold its lock for a moment after the last handle of a database is dropped.
/// Other processes are kept out by the folder's own lock.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let held = |error: &sled::Error| match error {
        sled::Error::Io(error) => error.to_string().contains("acquire lock"),
        _ => false,
    };
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(error) if held(&error) => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
    config.open()
}

impl Engine {
    /// Opens one of the databases of a node's folder, or makes it.
    pub(crate) fn open(
        folder: &Path,
        database: &Database,
        cache_bytes: u64,
        faults: FaultLatch,
    ) -> io::Result<Self> {
        Self::open_files(folder, database, cache_bytes, faults).map_err(Scarce::told)
    }

    fn open_files(
        folder: &Path,
        database: &Database,
        cache_bytes: u64,
        faults: FaultLatch,
    ) -> io::Result<Self> {
        let file = database.file();
        let path = folder.join(file);
        let dir = path.parent().expect("a file is in a folder");
        if dir != folder {
            std::fs::create_dir_all(dir)?;
        }
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(database.clean_every_ms));
        let mut synced = Synced::open(dir)?;
        let db = guarded(file, || open_unlocked(&config))?;
        let calls = Some(pool::watch(&db));
        let db = Db::Sled(db);
        let meta = guarded(file, || db.open_tree(META))?;
        let number = match guarded(file, || meta.get(SYNC_KEY))? {
            Some(record) => unseal(&record)?.try_into().map(u64::from_le_bytes).unwrap_or(0),
            None => 0,
        };
        synced.check(file, number)?;
        let numbered = Numbered { meta, synced: Mutex::new(synced) };
        let sync_handle = Some(File::open(&path)?.into());
        // The files themselves must survive, too.
        File::open(dir)?.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(Self {
            db,
            file: file.into(),
            sync_handle,
            synced: Some(numbered.into()),
            calls,
            faults,
            interference: Interference::default(),
        })
    }

    /// A database that is given.
    pub(crate) fn over(given: Arc<dyn Given>, faults: FaultLatch) -> Self {
        Self {
            db: Db::Given(given),
            file: "given".into(),
            sync_handle: None,
            synced: None,
            calls: None,
            faults,
            interference: Interference::default(),
        }
    }

    /// Whether the database is given, and not in a file.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.db, Db::Given(_))
    }

    /// Returns when everything written before the call survives a power loss, as [`Engine::sync`]
    /// does, and in the time that a given database takes for it. A failure latches.
    pub(crate) async fn sync_in_time(&self) -> io::Result<()> {
        let Db::Given(given) = &self.db else { return self.sync() };
        let synced = given.sync().await;
        self.faults.check()?;
        synced.map_err(|error| self.faults.latch("syncing the database", &error).into())
    }

    /// Latches `error`, as if a sync had failed with it.
    pub(crate) fn fail(&self, error: &io::Error) {
        self.faults.latch("syncing the database", error);
    }

    pub(crate) fn tree(&self, name: &str) -> io::Result<Tree> {
        let tree = guarded_write(&self.file, &self.calls, || self.db.open_tree(name))?;
        Ok(Tree {
            tree,
            file: Arc::clone(&self.file),
            calls: self.calls.clone(),
            faults: self.faults.clone(),
            interference: self.interference.clone(),
        })
    }

    pub(crate) fn tree_names(&self) -> Vec<String> {
        let names = self.db.tree_names();
        names.iter().filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }

    pub(crate) fn drop_tree(&self, name: &str) -> io::Result<bool> {
        if self.interference.is_dead() {
            return Ok(false);
        }
        guarded_write(&self.file, &self.calls, || self.db.drop_tree(name))
    }

    /// Returns when everything written before the call survives a power loss. A failure latches.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.faults.check()?;
        let synced = self.sync_numbered();
        synced.map_err(|error| self.faults.latch("syncing the database", &error).into())
    }

    fn sync_numbered(&self) -> io::Result<()> {
        if self.interference.is_dead() {
            return Ok(());
        }
        let Some(Numbered { meta, synced }) = self.synced.as_deref() else {
            guarded_write(&self.file, &self.calls, || self.db.flush())?;
            return self.sync_data();
        };
        let mut synced = synced.lock();
        let number = synced.next();
        guarded_write(&self.file, &self.calls, || {
            meta.insert(SYNC_KEY, seal(&number.to_le_bytes()))
        })?;
        guarded_write(&self.file, &self.calls, || self.db.flush())?;
        self.sync_data()?;
        synced.done(number)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.interference.before_sync()?;
        self.sync_handle.as_ref().map_or(Ok(()), |file| file.sync_data())
    }

    /// What a test does to the database.
    #[cfg(test)]
    pub(crate) fn interference(&self) -> &Interference {
        &self.interference
    }

    /// The same is done to this as to another database of the process.
    #[cfg(test)]
    pub(crate) fn dies_with(mut self, other: &Self) -> Self {
        self.interference.crash = other.interference.crash.clone();
        self
    }

    /// Bytes of the database on disk.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        guarded(&self.file, || self.db.size_on_disk())
    }
}

impl Tree {
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<sled::IVec>> {
        guarded(&self.file, || self.tree.get(key))
    }

    /// Writes one record. A failure latches.
    pub(crate) fn put(&self, key: &[u8], value: impl Into<sled::IVec>) -> io::Result<()> {
        self.faults.check()?;
        if self.interference.loses_write() {
            return Ok(());
        }
        let value = value.into();
        let put = guarded_write(&self.file, &self.calls, || self.tree.insert(key, value));
        put.map(drop).map_err(|error| self.faults.latch("writing a record", &error).into())
    }

    /// Removes one record, if it is there. A failure latches.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.faults.check()?;
        if self.interference.loses_write() {
            return Ok(());
        }
        let deleted = guarded_write(&self.file, &self.calls, || self.tree.remove(key));
        deleted.map(drop).map_err(|error| self.faults.latch("removing a record", &error).into())
    }

    /// Rows in key order.
    pub(crate) fn range<'a>(&self, range: impl RangeBounds<&'a [u8]>) -> Rows {
        Rows { rows: self.tree.range(range), file: Arc::clone(&self.file) }
    }

    /// Hands everything that was written to the system, so that it survives the process. It need
    /// not survive a power loss. A failure latches.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.faults.check()?;
        let flushed = guarded_write(&self.file, &self.calls, || self.tree.flush());
        flushed.map(drop).map_err(|error| self.faults.latch("writing the database", &error).into())
    }
}

/// Rows of a tree, from either end.
pub(crate) struct Rows {
    rows: DbIter,
    file: Arc<str>,
}

impl Iterator for Rows {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        guarded(&self.file, || self.rows.next().transpose()).transpose()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        guarded(&self.file, || self.rows.next_back().transpose()).transpose()
    }
}
