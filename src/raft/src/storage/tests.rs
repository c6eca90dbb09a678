//! Rows over restarts, half-written batches and snapshots taken while writes go on.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::keyspace::{redo, value};
use super::*;
use crate::types::LogPosition;

const GROUP: GroupId = GroupId(3);

fn open(dir: &tempfile::TempDir) -> Storage {
    Storage::open(dir.path(), StorageOptions::default()).unwrap()
}

fn write(keyspace: &Keyspace, index: u64, commands: &[&[(&str, Option<Bytes>)]]) {
    write_commands(keyspace, index, commands, false);
}

fn write_commands(
    keyspace: &Keyspace,
    index: u64,
    commands: &[&[(&str, Option<Bytes>)]],
    replayable: bool,
) {
    let mut batch = Batch::new(keyspace);
    for command in commands {
        batch.begin_command();
        if replayable {
            batch.allow_replay();
        }
        for (key, value) in *command {
            let key = Bytes::from(key.to_string());
            match value {
                Some(value) => batch.put(key, value.clone()).unwrap(),
                None => batch.delete(key).unwrap(),
            }
        }
        batch.end_command();
    }
    batch.set_applied(LogPosition { term: 1, index });
    keyspace.write(&batch.into_changes()).unwrap();
}

fn all(keyspace: &Keyspace) -> BTreeMap<Bytes, Bytes> {
    let limit = PageLimit { rows: usize::MAX, bytes: usize::MAX };
    keyspace.scan(Bound::Unbounded, Bound::Unbounded, limit).unwrap().rows.into_iter().collect()
}

fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::from(text.to_owned()))
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn rows_read_back_whatever_their_size_and_old_parts_go() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    let mut model = BTreeMap::new();
    let mut random = Random(42);
    for index in 0..400 {
        let key = format!("k{}", random.below(20));
        let length = [0, 1, 200, RECORD_BYTES - 1, RECORD_BYTES, 100_000][random.below(6) as usize];
        let value = (random.below(4) > 0).then(|| Bytes::from(vec![index as u8; length]));
        write(&keyspace, index, &[&[(&key, value.clone())]]);
        match value {
            Some(value) => model.insert(Bytes::from(key), value),
            None => model.remove(key.as_bytes()),
        };
        if index % 40 == 0 {
            assert!(all(&keyspace) == model);
        }
    }
    drop(keyspace);
    let keyspace = storage.open_space(GROUP).unwrap();
    assert!(all(&keyspace) == model);
    assert_eq!(keyspace.applied(), Some(LogPosition { term: 1, index: 399 }));
    for (key, value) in &model {
        assert_eq!(keyspace.get(key).unwrap().as_ref(), Some(value));
        write(&keyspace, 400, &[&[(std::str::from_utf8(key).unwrap(), None)]]);
    }
    let tree = keyspace.current().tree.clone();
    let left = tree.range(value::PART_PREFIX..&b"\0raft\0q"[..]).count();
    assert_eq!(left, 0, "parts of values that are gone");
}

#[test]
fn scans_page_in_order_and_never_show_what_is_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    let keys = ["\0", "\0raft", "\0raft\x01", "\0z", "a", "b", "c", "d"];
    for (index, key) in (0..).zip(keys) {
        write(&keyspace, index, &[&[(key, Some(Bytes::from(vec![1; 50_000])))]]);
    }
    assert_eq!(all(&keyspace).len(), keys.len());
    let mut seen = Vec::new();
    let mut from = Bound::Unbounded;
    loop {
        let limit = PageLimit { rows: 3, bytes: 120_000 };
        let page =
            keyspace.scan(from.as_ref().map(|key: &Bytes| &key[..]), Bound::Unbounded, limit);
        let page = page.unwrap();
        assert!(page.rows.len() <= 2, "two rows fill the bytes");
        seen.extend(page.rows.iter().map(|(key, _)| key.clone()));
        let Some((last, _)) = page.rows.last() else { break };
        from = Bound::Excluded(last.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, keys);
    let none = keyspace.scan(
        Bound::Included(b"c"),
        Bound::Excluded(b"a"),
        PageLimit { rows: 9, bytes: 9 },
    );
    assert_eq!(none.unwrap(), Page::default());
    assert!(matches!(keyspace.get(b"\0raft\0redo"), Err(KeyspaceError::ReservedKey)));
    assert!(matches!(
        keyspace.get(&[1; MAX_STORED_KEY_BYTES + 1]),
        Err(KeyspaceError::KeyTooLong(_))
    ));
    assert!(matches!(
        Batch::new(&keyspace).put(Bytes::from_static(b"\0raft\0x"), Bytes::new()),
        Err(KeyspaceError::ReservedKey)
    ));
}

#[test]
fn reads_in_a_batch_see_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    write(&keyspace, 0, &[&[("a", bytes("1")), ("b", bytes("1")), ("d", bytes("1"))]]);
    let mut batch = Batch::new(&keyspace);
    batch.put("b".into(), "2".into()).unwrap();
    batch.put("c".into(), "2".into()).unwrap();
    batch.delete("a".into()).unwrap();
    assert_eq!(batch.get(b"a").unwrap(), None);
    assert_eq!(batch.get(b"b").unwrap(), bytes("2"));
    assert_eq!(batch.get(b"d").unwrap(), bytes("1"));
    let scan = |from: Bound<&[u8]>, rows| {
        let page = batch.scan(from, Bound::Unbounded, PageLimit { rows, bytes: 100 }).unwrap();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let rows: Vec<String> =
            page.rows.iter().map(|(key, value)| text(key) + &text(value)).collect();
        (rows.join(" "), page.more)
    };
    assert_eq!(scan(Bound::Unbounded, 9), ("b2 c2 d1".into(), false));
    assert_eq!(scan(Bound::Unbounded, 2), ("b2 c2".into(), true));
    assert_eq!(scan(Bound::Excluded(b"b"), 9), ("c2 d1".into(), false));
    assert_eq!(keyspace.get(b"a").unwrap(), bytes("1"), "nothing is written before the batch is");
}

/// A crash between the batch's record and its rows: the rows are made good when it is opened.
#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    for long in [1, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(&dir);
        let keyspace = storage.open_space(GROUP).unwrap();
        write(&keyspace, 0, &[&[("a", bytes("old")), ("b", bytes("old"))]]);
        let tree = keyspace.current().tree.clone();
        let value = Some(Bytes::from(vec![7; long]));
        let changes: BTreeMap<Bytes, Option<Bytes>> =
            [("a", value.clone()), ("b", None), ("c", value.clone())]
                .into_iter()
                .map(|(key, value)| (Bytes::from(key), value))
                .collect();
        let at = LogPosition { term: 2, index: 9 };
        // What `Current::write` does, up to where the process dies.
        redo::write(&tree, 2, Some(at), changes.iter()).unwrap();
        value::write(&tree, b"a", value.as_ref().unwrap(), true).unwrap();
        drop(keyspace);
        let keyspace = storage.open_space(GROUP).unwrap();
        assert_eq!(keyspace.applied(), Some(at));
        let expected: BTreeMap<Bytes, Bytes> =
            changes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        assert!(all(&keyspace) == expected);

        // And one that dies while the parts of its record are written never was.
        if long > RECORD_BYTES {
            let part = tree.range(&b"\0raft\0redo\0"[..]..&b"\0raft\0redp"[..]).next();
            let (key, _) = part.expect("the batch was written in parts").unwrap();
            let other_slot = [&key[..key.len() - 3], &[1, 0, 0]].concat();
            tree.put(&other_slot, vec![9; 10]).unwrap();
            let keyspace = storage.open_space(GROUP).unwrap();
            assert_eq!(keyspace.applied(), Some(at));
        }
    }
}

#[test]
fn a_spoiled_batch_record_is_an_error_and_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    write(&keyspace, 5, &[&[("a", bytes("1")), ("b", None)]]);
    let tree = keyspace.current().tree.clone();
    let good = tree.get(b"\0raft\0redo").unwrap().unwrap();
    for at in 0..good.len() {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1 << (at % 8);
        tree.put(b"\0raft\0redo", flipped).unwrap();
        let error = storage.open_space(GROUP).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
        tree.put(b"\0raft\0redo", good[..at].to_vec()).unwrap();
        assert!(storage.open_space(GROUP).is_err(), "cut at {at}");
    }
}

/// Random writes between the runs of a view, against a copy taken when the view was.
#[test]
fn a_view_shows_the_rows_of_its_moment_while_writes_go_on() {
    for seed in 1..=40 {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let storage = open(&dir);
        let keyspace = storage.open_space(GROUP).unwrap();
        let mut index = 0;
        let mut change = |keyspace: &Keyspace, random: &mut Random| {
            let key = format!("k{:02}", random.below(60));
            let length = [3, 10, 30_000][random.below(3) as usize];
            let value = (random.below(3) > 0).then(|| Bytes::from(vec![random.0 as u8; length]));
            let other = format!("k{:02}", random.below(60));
            index += 1;
            write(keyspace, index, &[&[(&key, value), (&other, bytes("x"))]]);
        };
        for _ in 0..80 {
            change(&keyspace, &mut random);
        }
        let expected = all(&keyspace);
        let mut view = keyspace.view();
        let mut seen = BTreeMap::new();
        loop {
            for _ in 0..random.below(10) {
                change(&keyspace, &mut random);
            }
            let run = view.next_run(1 + random.below(200) as usize).unwrap();
            if run.is_empty() {
                break;
            }
            for (key, value) in run {
                assert!(seen.last_key_value().is_none_or(|(last, _)| *last < key));
                seen.insert(key, value);
            }
        }
        assert!(seen == expected, "seed {seed}");
        assert_eq!(view.next_run(1).unwrap(), []);
    }
}

#[test]
fn a_view_of_replaced_rows_fails_rather_than_ends() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    write(&keyspace, 0, &[&[("a", bytes("1")), ("b", bytes("1"))]]);
    let mut view = keyspace.view();
    assert_eq!(view.next_run(1).unwrap().len(), 1);
    drop(keyspace.replace(storage.stage(GROUP).unwrap()));
    assert!(view.next_run(1).is_err());
}

#[tokio::test]
async fn node_records_are_kept_and_spoiled_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    assert_eq!(storage.get_record("node").unwrap(), None);
    storage.put_record("node", b"1").await.unwrap();
    storage.put_record("cluster", b"").await.unwrap();
    storage.close().await.unwrap();
    drop(storage);
    let storage = open(&dir);
    assert_eq!(storage.get_record("node").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(storage.get_record("cluster").unwrap().as_deref(), Some(&b""[..]));
    storage.inner.meta.put(&record_key("node"), vec![1, 2, 3, 4, 5]).unwrap();
    let error = storage.get_record("node").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn trees_of_unfinished_snapshots_go_when_the_group_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let keyspace = storage.open_space(GROUP).unwrap();
    write(&keyspace, 0, &[&[("a", bytes("1"))]]);
    storage.stage(GROUP).unwrap().load(&[("b".into(), "2".into())]).unwrap();
    assert!(storage.inner.rows.tree_names().contains(&"g3.1".to_owned()));
    drop(keyspace);
    let keyspace = storage.open_space(GROUP).unwrap();
    assert!(!storage.inner.rows.tree_names().contains(&"g3.1".to_owned()));
    assert_eq!(keyspace.get(b"a").unwrap(), bytes("1"));
}

/// Dies at every single write of a batch whose changes depend on what was there before, though
/// the batch was not asked for it: its machine may know from elsewhere.
#[test]
fn a_crash_at_any_write_leaves_the_rows_before_or_after_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let crash = storage.inner.journal.interference().crash.clone();
    for long in [1, 50_000] {
        for writes in 0.. {
            let group = GroupId(1_000 * long as u64 + writes as u64);
            let keyspace = storage.open_space(group).unwrap();
            let old = Some(Bytes::from(vec![1; long]));
            write(&keyspace, 0, &[&[("a", old.clone()), ("b", old.clone()), ("d", old)]]);
            let before = all(&keyspace);
            crash.after(writes);
            let read = keyspace.get(b"a").unwrap().unwrap();
            let mut batch = Batch::new(&keyspace);
            batch.begin_command();
            batch.put("a".into(), [&read[..], b"!"].concat().into()).unwrap();
            batch.delete("b".into()).unwrap();
            batch.put("c".into(), read).unwrap();
            batch.set_applied(LogPosition { term: 1, index: 1 });
            keyspace.write(&batch.into_changes()).unwrap();
            let lost = crash.lost_some();
            crash.after(i64::MAX);
            let after = lost.then(|| storage.open_space(group).unwrap());
            let after = after.unwrap_or(keyspace);
            let expected = if after.applied().unwrap().index == 0 {
                before
            } else {
                let value = vec![1; long];
                let appended: Bytes = [&value[..], b"!"].concat().into();
                let rows = [("a", appended), ("c", value.clone().into()), ("d", value.into())];
                rows.map(|(key, value)| (Bytes::from(key), value)).into_iter().collect()
            };
            assert!(all(&after) == expected, "{writes} writes of a batch with {long} bytes");
            if !lost {
                assert!(writes >= 4, "only {writes} writes were tried");
                break;
            }
        }
    }
}

/// The same for commands that may be applied again: the rows may be cut short, and applying the
/// batch again makes them good.
#[test]
fn rows_of_a_batch_and_of_a_chunk_go_in_the_order_that_fills_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let crash = storage.inner.journal.interference().crash.clone();
    let rows: Vec<KeyValue> = (b'a'..=b'p').map(|key| (vec![key].into(), "1".into())).collect();
    // What nine writes leave of sixteen rows.
    let early: Vec<&[u8]> = b"acegijlnp".chunks(1).collect();

    let keyspace = storage.open_space(GROUP).unwrap();
    let mut batch = Batch::new(&keyspace);
    for (key, value) in &rows {
        batch.begin_command();
        batch.allow_replay();
        batch.put(key.clone(), value.clone()).unwrap();
        batch.end_command();
    }
    crash.after(9);
    keyspace.write(&batch.into_changes()).unwrap();
    crash.after(i64::MAX);
    assert!(all(&keyspace).into_keys().eq(early.iter().copied()));

    let mut staged = storage.stage(GROUP).unwrap();
    crash.after(9);
    staged.load(&rows).unwrap();
    crash.after(i64::MAX);
    let staged = staged.rows(Bound::Unbounded, Bound::Unbounded).map(|row| row.unwrap().0);
    assert!(staged.eq(early));
}

#[test]
fn a_crash_in_a_replayable_batch_is_made_good_by_applying_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir);
    let crash = storage.inner.journal.interference().crash.clone();
    for writes in 0.. {
        let group = GroupId(writes as u64);
        let keyspace = storage.open_space(group).unwrap();
        write(&keyspace, 0, &[&[("a", bytes("old")), ("b", bytes("old"))]]);
        let batch: [&[(&str, Option<Bytes>)]; 3] =
            [&[("a", bytes("new"))], &[("b", None)], &[("c", bytes("new"))]];
        crash.after(writes);
        write_commands(&keyspace, 3, &batch, true);
        let lost = crash.lost_some();
        crash.after(i64::MAX);
        let keyspace = storage.open_space(group).unwrap();
        if keyspace.applied().unwrap().index == 0 {
            write_commands(&keyspace, 3, &batch, true);
        }
        let rows: Vec<_> = all(&keyspace).into_iter().collect();
        assert_eq!(rows, [("a".into(), "new".into()), ("c".into(), "new".into())], "{writes}");
        if !lost {
            assert!(writes >= 4);
            break;
        }
    }
}
