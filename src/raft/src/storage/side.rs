//! Rows of a node outside of groups: written in atomic batches like those of a group, and never
//! replicated.
//!
//! Each set has its own database and folder and fails independently: the visualizer keeps its
//! history here, and neither a full disk nor a damaged file of it may harm the store. Removing a
//! folder releases all of its space at once and needs none.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Storage;
use super::engine::fault::FaultLatch;
use super::engine::{Database, Engine, Tree};
use super::keyspace::current::{Changes, Current, KeyValue};
use super::keyspace::{Keyspace, KeyspaceError, PageLimit};
use keyviz_types::GroupId;

/// The folder of these, in a node's folder.
const FOLDER: &str = "side";

/// The tree of the rows, in a database that has no other.
const ROWS: &str = "rows";

/// Each page is read once and written a few times.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Rows beside the groups, by name. One writer; what is written survives the process at once and a
/// power loss after [`SideRows::sync`]. Clones share them.
#[derive(Clone, Debug)]
pub struct SideRows {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    keyspace: Keyspace,
    // Closes with the last handle.
    engine: Engine,
}

/// The sets that are open, by name.
#[derive(Debug, Default)]
pub(super) struct Sides(Mutex<HashMap<String, Weak<Open>>>);

const PAGE: PageLimit = PageLimit { rows: 1_024, bytes: 4 << 20 };

fn database(name: &str) -> Database {
    Database::beside(&format!("{FOLDER}/{name}"))
}

/// The database of a set and its tree.
pub(super) fn open_database(dir: &Path, name: &str) -> io::Result<(Engine, Tree)> {
    // Its own latch: a failure here stops nothing else.
    let engine = Engine::open(dir, &database(name), CACHE_BYTES, FaultLatch::default())?;
    let tree = engine.tree(ROWS)?;
    Ok((engine, tree))
}

/// The file of a set, in the node's folder.
pub(super) fn file(name: &str) -> String {
    database(name).file().to_owned()
}

/// Names of the sets of a node's folder.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let name = |entry: io::Result<std::fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
    let mut names: Vec<String> =
        entries.filter_map(|entry| name(entry).transpose()).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Bytes of all sets on disk. One that goes meanwhile counts nothing.
pub(super) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let bytes =
        |name: &String| std::fs::metadata(dir.join(file(name))).map_or(0, |file| file.len());
    Ok(names(dir)?.iter().map(bytes).sum())
}

/// Removes a set, if there is one.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::remove_dir_all(dir.join(FOLDER).join(name)) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(()),
        removed => removed,
    }
}

impl Storage {
    /// Opens the rows of a name, which may be none.
    pub fn open_side(&self, name: &str) -> io::Result<SideRows> {
        let mut sides = self.inner.sides.0.lock();
        if let Some(open) = sides.get(name).and_then(Weak::upgrade) {
            return Ok(SideRows { open });
        }
        let (engine, tree) = self.open_side_database(name)?;
        let open = Arc::new(Open { keyspace: keyspace(Current::open(tree, 0)?), engine });
        sides.insert(name.to_owned(), Arc::downgrade(&open));
        Ok(SideRows { open })
    }

    /// Removes the rows of a name, which gives their room back at once. Remaining handles have no
    /// effect.
    pub fn remove_side(&self, name: &str) -> io::Result<()> {
        self.inner.sides.0.lock().remove(name);
        if self.inner.rows.is_given() {
            return self.inner.rows.drop_tree(&given_tree(name)).map(drop);
        }
        remove(self.dir(), name)
    }

    /// Names of rows beside the groups that begin with `prefix`.
    pub fn side_names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = names(self.dir())?;
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }

    fn open_side_database(&self, name: &str) -> io::Result<(Engine, Tree)> {
        if self.inner.rows.is_given() {
            let rows = &self.inner.rows;
            return Ok((rows.clone(), rows.tree(&given_tree(name))?));
        }
        open_database(self.dir(), name)
    }
}

/// In a database that is given they lie among the rows.
fn given_tree(name: &str) -> String {
    format!("{FOLDER}.{name}")
}

// The number names no group: it is only shown in messages.
fn keyspace(rows: Current) -> Keyspace {
    Keyspace::new(GroupId(u64::MAX), rows)
}

impl SideRows {
    /// Rows as they lie in a tree, for reading.
    pub(super) fn unopened(engine: Engine, tree: Tree) -> Self {
        let keyspace = keyspace(Current::unopened(tree, 0, None));
        SideRows { open: Arc::new(Open { keyspace, engine }) }
    }

    /// The value of a row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyspaceError> {
        self.open.keyspace.get(key)
    }

    /// Shows all rows in key order, without keeping them. Reads page by page, as
    /// [`SideRows::rows`].
    pub fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), KeyspaceError> {
        let mut last: Option<Bytes> = None;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = self.open.keyspace.scan(from, Bound::Unbounded, PAGE)?;
            page.rows.iter().for_each(|(key, value)| visit(key, value));
            last = page.rows.last().map(|(key, _)| key.clone());
            if !page.more {
                return Ok(());
            }
        }
    }

    /// All rows in key order. Reads page by page, so writes in between may or may not be seen.
    pub fn rows(&self) -> Result<Vec<KeyValue>, KeyspaceError> {
        let mut rows: Vec<KeyValue> = Vec::new();
        loop {
            let from = rows.last().map(|(key, _)| key.clone());
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = self.open.keyspace.scan(from, Bound::Unbounded, PAGE)?;
            rows.extend(page.rows);
            if !page.more {
                return Ok(rows);
            }
        }
    }

    /// Writes and deletes rows: all of it or, after a crash, none.
    ///
    /// # Errors
    /// After the first failure all operations fail until the rows are removed.
    pub fn apply(
        &self,
        puts: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        deletes: impl IntoIterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let deletes = deletes.into_iter().map(|key| (Bytes::from(key), None));
        let puts =
            puts.into_iter().map(|(key, value)| (Bytes::from(key), Some(Bytes::from(value))));
        let rows = deletes.chain(puts).collect();
        self.open.keyspace.write(&Changes { rows, several: true, ..Changes::default() })?;
        self.open.keyspace.current().tree.flush()
    }

    /// Returns when everything written before the call survives a power loss.
    pub fn sync(&self) -> io::Result<()> {
        self.open.engine.sync()
    }

    /// Everything on these rows fails from now on, as after a sync that failed with `error`.
    pub fn fail(&self, error: &io::Error) {
        self.open.engine.fail(error);
    }

    /// Makes syncs fail from now on.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self) {
        self.open.engine.interference().fail_syncs(true);
    }
}

#[cfg(test)]
mod tests {
    use super::super::StorageOptions;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn side_rows_survive_a_restart_whatever_their_size() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let long = vec![7u8; 300_000];
        {
            let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
            let side = storage.open_side("history").expect("opens");
            side.apply([(b"a".to_vec(), long.clone()), (b"b".to_vec(), vec![])], [])
                .expect("writes");
            side.apply([(b"c".to_vec(), vec![1])], [b"b".to_vec()]).expect("writes");
            let again = storage.open_side("history").expect("two handles share it");
            assert_eq!(again.rows().expect("reads").len(), 2);
            assert_eq!(again.get(b"a").expect("reads").as_deref(), Some(&long[..]));
            assert_eq!(again.get(b"b").expect("reads"), None);
            let mut seen = Vec::new();
            again.each(&mut |key, value| seen.push((key.to_vec(), value.len()))).expect("reads");
            assert_eq!(seen, [(b"a".to_vec(), long.len()), (b"c".to_vec(), 1)]);
            drop((side, again));
            storage.close().await.expect("closes");
        }
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        let side = storage.open_side("history").expect("opens");
        let rows = side.rows().expect("reads");
        let rows: Vec<(&[u8], &[u8])> =
            rows.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        assert_eq!(rows, [(&b"a"[..], long.as_slice()), (b"c", &[1])]);
        assert!(storage.open_side("other").expect("opens").rows().expect("reads").is_empty());
        assert_eq!(storage.side_names("").expect("lists"), ["history", "other"]);
        assert!(disk_bytes(folder.path()).expect("counts") > 300_000);
        assert_eq!(storage.side_names("hi").expect("lists"), ["history"]);
        storage.remove_side("history").expect("removes");
        assert_eq!(storage.side_names("").expect("lists"), ["other"]);
        // The old handle writes nowhere.
        drop(side.apply([(b"d".to_vec(), vec![1])], []));
        let anew = storage.open_side("history").expect("opens");
        assert!(anew.rows().expect("reads").is_empty());
        anew.apply([(b"d".to_vec(), vec![2])], []).expect("writes");
        drop(side);
        assert_eq!(storage.open_side("history").expect("opens").rows().expect("reads").len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_harm_to_the_store_side_rows_that_are_damaged_or_fail_stop_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        let side = storage.open_side("history").expect("opens");
        side.apply([(b"a".to_vec(), vec![1; 9_000])], []).expect("writes");
        side.sync().expect("its disk works");
        side.fail_syncs();
        side.sync().expect_err("its disk fails");
        side.apply([(b"b".to_vec(), vec![1])], []).expect_err("from then on");
        assert!(storage.fault().is_none());
        storage.put_record("node", b"goes on").await.expect("the store does");
        drop(side);
        drop(storage);

        let file = folder.path().join(file("history"));
        std::fs::write(&file, [0x55; 4_096]).expect("writes");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        let refused = storage.open_side("history").map(|side| side.rows().map(drop));
        assert!(matches!(refused, Err(_) | Ok(Err(_))), "{refused:?}");
        assert_eq!(storage.get_record("node").expect("reads"), Some(b"goes on".to_vec()));
        storage.remove_side("history").expect("removes");
        storage.open_side("history").expect("it is new");
    }
}
