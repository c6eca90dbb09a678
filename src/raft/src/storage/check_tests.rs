//! What the check of a folder finds, and the bytes that the page on the format shows.

use std::collections::HashMap;

use bytes::Bytes;

use super::check::{CheckReport, Verify, check_folder};
use super::keyspace::{redo, value};
use super::*;
use crate::log::format_samples as log_samples;
use crate::types::LogPosition;

const GROUP: GroupId = GroupId(7);

/// Knows nothing of what is stored.
struct Anything;

impl Verify for Anything {
    fn record(&self, _: &str, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn group(&self, _: &Keyspace) -> Result<(), String> {
        Ok(())
    }

    fn side(&self, _: &str, _: &SideRows) -> Result<Vec<(String, String)>, String> {
        Ok(Vec::new())
    }
}

fn check(dir: &Path) -> CheckReport {
    check_folder(dir, &Anything).expect("the folder opens")
}

fn sample(name: &str) -> Bytes {
    log_samples().into_iter().collect::<HashMap<_, _>>().remove(name).expect("it is one")
}

/// The database that holds a tree.
fn engine(dir: &Path, tree: &str) -> Engine {
    let database = if ["meta", "log"].contains(&tree) { &JOURNAL } else { &ROWS };
    Engine::open(dir, database, 1 << 20, FaultLatch::default()).unwrap()
}

/// A folder with a vote, a purge mark and entries 300 and 301 of one group, a node record, rows
/// applied up to entry 301 and a long one among them.
async fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
    storage.put_record("name", b"value").await.unwrap();
    let log = &storage.inner.log;
    log.put(&sample("log-key-vote"), sample("vote").as_ref()).unwrap();
    log.put(&sample("log-key-purged"), sample("purged").as_ref()).unwrap();
    log.put(&sample("log-key-block"), sample("block").as_ref()).unwrap();
    let keyspace = storage.open_space(GROUP).unwrap();
    let mut batch = Batch::new(&keyspace);
    batch.begin_command();
    batch.put(Bytes::from("k"), Bytes::from("v")).unwrap();
    batch.put(Bytes::from("long"), Bytes::from(vec![7; 50_000])).unwrap();
    batch.set_applied(LogPosition { term: 3, index: 301 });
    keyspace.write(&batch.into_changes()).unwrap();
    drop(keyspace);
    storage.close().await.unwrap();
    dir
}

/// Changes one record of a stopped folder.
fn spoil(dir: &Path, tree: &str, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let engine = engine(dir, tree);
    let tree = engine.tree(tree).unwrap();
    let mut value = tree.get(key).unwrap().expect("the record is there").to_vec();
    change(&mut value);
    tree.put(key, value).unwrap();
    engine.sync().unwrap();
}

#[tokio::test]
async fn a_sound_folder_is_sound_and_everything_in_it_was_read() {
    let dir = folder().await;
    let report = check(dir.path());
    assert_eq!(report.damage, []);
    let CheckReport { groups, entries, rows, records, .. } = report;
    assert_eq!((groups, entries, rows, records), (1, 2, 2, 1));
}

#[tokio::test]
async fn every_damaged_record_is_named_with_its_place() {
    let part = value::part_key(b"long", 1);
    let (vote, block) = (sample("log-key-vote"), sample("log-key-block"));
    let purged = sample("log-key-purged");
    let cases: [(&str, &[u8], &str, &str); 7] = [
        ("meta", b"r/name", "tree meta, record r/name", "corrupt"),
        ("log", &vote, "tree log, group 7, entry 0", "the vote does not read back"),
        ("log", &purged, "tree log, group 7, entry 0", "the purge mark does not read back"),
        ("log", &block, "tree log, group 7, entry 300", "its checksum does not match"),
        ("g7.0", b"\0raft\0redo", "tree g7.0, the last batch", "corrupt"),
        ("g7.0", &part, "tree g7.0, its rows", "row long: a row is corrupt"),
        ("g7.0", b"k", "tree g7.0, its rows", "row k: a row is corrupt"),
    ];
    for (tree, key, place, what) in cases {
        let dir = folder().await;
        spoil(dir.path(), tree, key, |value| match value.len() {
            // The kind of a short row is its first byte; the rest sled's own CRC guards.
            2 => value[0] ^= 0x40,
            length => value[length - 1] ^= 1,
        });
        let report = check(dir.path());
        let file =
            dir.path().join(if tree.starts_with('g') { ROWS.file() } else { JOURNAL.file() });
        let group = (tree != "meta").then_some(GROUP);
        let found = report.damage.iter().any(|damage| {
            damage.file == file
                && damage.group == group
                && damage.place == place
                && damage.what.contains(what)
        });
        assert!(found, "{place}: {what} is not in {report:?}");
    }
}

#[tokio::test]
async fn rows_ahead_of_a_log_that_lost_its_end_and_a_hole_in_it_are_damage() {
    let dir = folder().await;
    engine(dir.path(), "log").tree("log").unwrap().delete(&sample("log-key-block")).unwrap();
    let report = check(dir.path());
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].what, "the rows are at entry 301, the log ends at entry 299");

    let dir = folder().await;
    engine(dir.path(), "log").tree("log").unwrap().delete(&sample("log-key-purged")).unwrap();
    let report = check(dir.path());
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].what, "the entries before it are missing");

    let dir = folder().await;
    engine(dir.path(), "g7.0").tree("g7.0").unwrap().delete(b"\0raft\0redo").unwrap();
    let report = check(dir.path());
    assert_eq!(report.damage.len(), 1, "{report:?}");
    let what = "the rows are at entry 0, the log begins after entry 299";
    assert_eq!(report.damage[0].what, what);
}

#[tokio::test]
async fn a_folder_in_use_and_a_folder_of_no_node_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(check_folder(dir.path(), &Anything), Err(OpenError::NoNode(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made there");
    let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
    assert!(matches!(check_folder(dir.path(), &Anything), Err(OpenError::Locked { .. })));
    drop(storage);
}

/// What `docs/format.md` shows.
pub(crate) fn format_samples() -> Vec<(&'static str, Bytes)> {
    let dir = tempfile::tempdir().unwrap();
    let tree = engine(dir.path(), "rows").tree("rows").unwrap();
    let written = |key: &[u8]| Bytes::copy_from_slice(&tree.get(key).unwrap().expect("written"));
    value::write(&tree, b"k", b"value", false).unwrap();
    value::write(&tree, b"long", &[7; RECORD_BYTES], true).unwrap();
    let changes = [(Bytes::from("k"), Some(Bytes::from("v"))), (Bytes::from("x"), None)];
    let applied = Some(LogPosition { term: 3, index: 300 });
    redo::write(&tree, 5, applied, changes.iter().map(|(key, value)| (key, value))).unwrap();
    let node = tempfile::tempdir().unwrap();
    drop(Folder::open(node.path()).unwrap());
    vec![
        ("FORMAT", std::fs::read(node.path().join("FORMAT")).unwrap().into()),
        ("generation", seal(&3u64.to_be_bytes()).into()),
        ("row", written(b"k")),
        ("long-row-part-key", value::part_key(b"long", 0).into()),
        ("long-row-head", written(b"long")),
        ("redo", written(b"\0raft\0redo")),
    ]
}
