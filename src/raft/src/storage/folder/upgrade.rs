//! A folder of data format 1 becomes one of format 2 when it is opened.
//!
//! Format 1 had one database, with the logs, the node records and the rows of no group beside the
//! rows of groups. They are copied to where they belong and made durable there; then `FORMAT` says
//! 2; then they are removed from where they were. A crash before the second step leaves a folder of
//! format 1, and the copy is made anew; one after it leaves only the third step to do.
//!
//! Rows of no group that cannot be read, or find no room where they belong, are left behind: they
//! are the visualizer's, which must not keep the store from starting.

use std::io;

use super::Folder;
use crate::storage::BINDING;
use crate::storage::engine::{Engine, META, SYNC_KEY, Tree};
use crate::storage::{LOG, side};

impl Folder {
    /// Brings what is there to the format of this program. Blocks.
    pub(in crate::storage) fn upgrade(&self, rows: &Engine, journal: &Engine) -> io::Result<()> {
        if self.format() == 1 {
            for name in [META, LOG] {
                let (from, to) = (rows.tree(name)?, journal.tree(name)?);
                // What an attempt that was cut short left there.
                clear(&to)?;
                for row in from.range(..) {
                    let (key, value) = row?;
                    if !is_databases_own(name, &key) {
                        to.put(&key, value)?;
                    }
                }
            }
            journal.sync()?;
            for tree in rows.tree_names() {
                let Some(name) = tree.strip_prefix(SIDE_PREFIX) else { continue };
                if let Err(error) = self.copy_side(rows, &tree, name) {
                    let what = "rows of no group were left behind: they are gone";
                    tracing::warn!(name, %error, "{what}");
                    side::remove(self.dir(), name)?;
                }
            }
            self.set_format()?;
            tracing::info!("the folder has data format 2 now");
        }
        let is_elsewhere = |tree: &String| tree == LOG || tree.starts_with(SIDE_PREFIX);
        let left: Vec<String> = rows.tree_names().into_iter().filter(is_elsewhere).collect();
        for tree in &left {
            rows.drop_tree(tree)?;
        }
        let cleared = clear(&rows.tree(META)?)?;
        if !left.is_empty() || cleared { rows.sync() } else { Ok(()) }
    }

    fn copy_side(&self, rows: &Engine, tree: &str, name: &str) -> io::Result<()> {
        let (engine, to) = side::open_database(self.dir(), name)?;
        clear(&to)?;
        for row in rows.tree(tree)?.range(..) {
            let (key, value) = row?;
            to.put(&key, value)?;
        }
        engine.sync()
    }
}

/// What the trees of rows of no group were called.
pub(in crate::storage) const SIDE_PREFIX: &str = "side.";

/// The number of the last sync and the binding belong to a database, and not to the node.
fn is_databases_own(tree: &str, key: &[u8]) -> bool {
    tree == META && (key == SYNC_KEY || key == BINDING)
}

/// Removes everything but what is the database's own; whether there was something.
fn clear(tree: &Tree) -> io::Result<bool> {
    let mut found = false;
    for row in tree.range(..) {
        let (key, _) = row?;
        if !is_databases_own(META, &key) {
            tree.delete(&key)?;
            found = true;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::engine::fault::FaultLatch;
    use crate::storage::engine::{Database, JOURNAL, ROWS};
    use crate::storage::{OpenError, Storage, StorageOptions};

    fn engine(dir: &Path, database: &Database) -> Engine {
        Engine::open(dir, database, 1 << 20, FaultLatch::default()).expect("opens")
    }

    fn content(tree: &Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = tree.range(..).map(|row| row.expect("reads"));
        let rows = rows.filter(|(key, _)| key != SYNC_KEY);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// A folder as the program before this format left it.
    fn of_format_1() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("FORMAT"), "keyviz data format 1\n").expect("writes");
        let rows = engine(dir.path(), &ROWS);
        for n in 0..500u64 {
            let key = n.to_be_bytes();
            rows.tree(LOG).expect("opens").put(&key, vec![n as u8; 900]).expect("writes");
            rows.tree("g7.0").expect("opens").put(&key, vec![1]).expect("writes");
            rows.tree("side.history").expect("opens").put(&key, vec![2]).expect("writes");
        }
        rows.tree(META).expect("opens").put(b"r/node", vec![7]).expect("writes");
        rows.sync().expect("syncs");
        dir
    }

    fn is_upgraded(dir: &Path, log: &[(Vec<u8>, Vec<u8>)]) {
        let format = std::fs::read_to_string(dir.join("FORMAT")).expect("reads");
        assert_eq!(format, "keyviz data format 2\n");
        let journal = engine(dir, &JOURNAL);
        assert!(content(&journal.tree(LOG).expect("opens")) == log);
        let meta = content(&journal.tree(META).expect("opens"));
        assert_eq!(meta, [(b"r/node".to_vec(), vec![7])]);
        let rows = engine(dir, &ROWS);
        let names = rows.tree_names();
        assert!(
            !names.iter().any(|name| name == LOG || name.starts_with(SIDE_PREFIX)),
            "{names:?}"
        );
        let (_engine, side) = side::open_database(dir, "history").expect("opens");
        assert_eq!(content(&side).len(), 500);
        assert!(content(&rows.tree(META).expect("opens")).is_empty());
        assert_eq!(content(&rows.tree("g7.0").expect("opens")).len(), 500);
    }

    #[test]
    fn a_folder_of_format_1_is_brought_to_format_2_from_wherever_a_crash_left_it() {
        // How many writes of the upgrade get through before the process dies.
        for survive in
            [None, Some(0), Some(3), Some(499), Some(501), Some(502), Some(503), Some(504)]
        {
            let dir = of_format_1();
            let log = content(&engine(dir.path(), &ROWS).tree(LOG).expect("opens"));
            assert_eq!(log.len(), 500);
            if let Some(writes) = survive {
                let folder = Folder::open(dir.path()).expect("opens");
                let journal = engine(dir.path(), &JOURNAL);
                let rows = engine(dir.path(), &ROWS).dies_with(&journal);
                journal.interference().crash.after(writes);
                // The dead process writes no file either.
                let died = |file: &str| std::fs::read(dir.path().join(file)).expect("reads");
                let format = died("FORMAT");
                folder.upgrade(&rows, &journal).expect("it does not notice");
                if journal.interference().crash.lost_some() && writes < 501 {
                    std::fs::write(dir.path().join("FORMAT"), format).expect("writes");
                }
            }
            let storage = Storage::open(dir.path(), StorageOptions::default()).expect("opens");
            drop(storage);
            is_upgraded(dir.path(), &log);
            // Once more changes nothing.
            drop(Storage::open(dir.path(), StorageOptions::default()).expect("opens"));
            is_upgraded(dir.path(), &log);
        }
    }

    #[test]
    fn no_harm_to_the_store_a_history_that_cannot_be_brought_along_is_left_behind() {
        let dir = of_format_1();
        // Nothing can be made where it belongs.
        std::fs::write(dir.path().join("side"), "in the way").expect("writes");
        drop(Storage::open(dir.path(), StorageOptions::default()).expect("the store starts"));
        let journal = engine(dir.path(), &JOURNAL);
        assert_eq!(content(&journal.tree(LOG).expect("opens")).len(), 500);
        let rows = engine(dir.path(), &ROWS);
        assert_eq!(content(&rows.tree("g7.0").expect("opens")).len(), 500);
        assert!(!rows.tree_names().iter().any(|name| name.starts_with(SIDE_PREFIX)));
    }

    #[test]
    fn a_folder_without_its_journal_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(Storage::open(dir.path(), StorageOptions::default()).expect("opens"));
        std::fs::remove_dir_all(dir.path().join("log")).expect("removes");
        let refused = Storage::open(dir.path(), StorageOptions::default()).expect_err("no journal");
        assert!(matches!(refused, OpenError::Corrupt { .. }));
        assert!(refused.to_string().contains("log/db is missing"), "{refused}");
    }
}
