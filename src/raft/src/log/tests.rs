//! A log over restarts, cuts, purges and bad bytes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use tokio::sync::oneshot;

use super::record::{self, BlockBuilder, CorruptLog, Key};
use super::shared::CacheBudget;
use super::store::GroupLog;
use super::writer::{Op, Writer, stopped};
use crate::loops::Loops;
use crate::storage::{Engine, FaultLatch, JOURNAL, RECORD_BYTES, Tree};
use crate::types::{Command, Entry, IoFlushed, LogId, LogPosition, Payload, Types, Vote};
use keyviz_types::GroupId;

const GROUP: GroupId = GroupId(7);

struct Store {
    engine: Engine,
    tree: Tree,
    writer: Writer,
    faults: FaultLatch,
    budget: Arc<CacheBudget>,
}

impl Store {
    fn open(dir: &tempfile::TempDir, cache_bytes: u64) -> Self {
        let faults = FaultLatch::default();
        let engine = Engine::open(dir.path(), &JOURNAL, 1 << 20, faults.clone()).unwrap();
        let tree = engine.tree("log").unwrap();
        let writer = Writer::start(engine.clone(), tree.clone(), faults.clone(), Loops::default());
        let writer = writer.unwrap();
        Self { engine, tree, writer, faults, budget: CacheBudget::new(cache_bytes) }
    }

    fn log(&self, group: GroupId) -> io::Result<GroupLog> {
        let (tree, writer) = (self.tree.clone(), self.writer.clone());
        GroupLog::open(group, tree, writer, self.faults.clone(), self.budget.clone())
    }

    fn keys(&self) -> Vec<Key> {
        let rows = self.tree.range(..);
        rows.filter_map(|row| Key::decode(GROUP, &row.unwrap().0)).collect()
    }

    /// Waits until everything submitted before is durable.
    async fn sync(&self) -> io::Result<()> {
        let (done, waiter) = oneshot::channel();
        let tree = self.engine.tree("beside")?;
        self.writer.submit(Op::Record { tree, key: b"k".to_vec(), value: None, done });
        waiter.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn close(self) {
        self.writer.stop();
        self.engine.sync().unwrap();
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogPosition { term, index }.into()
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = match bytes {
        0 => Payload::Blank,
        bytes => Payload::Normal(Command(Bytes::from(vec![index as u8; bytes]))),
    };
    Entry { log_id: id(term, index), payload }
}

async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    let (done, waiter) = Types::oneshot();
    log.append(entries, IoFlushed::signal(done)).await?;
    waiter.await.unwrap()
}

async fn read(log: &mut GroupLog) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart_whatever_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 300, RECORD_BYTES, 5, RECORD_BYTES * 3 + 17, 0, 1_000_000, 9];
    let entries: Vec<Entry> =
        sizes.iter().zip(0..).map(|(bytes, index)| entry(3, index, *bytes)).collect();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    append(&mut log, entries[..4].to_vec()).await.unwrap();
    append(&mut log, entries[4..].to_vec()).await.unwrap();
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    log.save_committed(Some(id(3, 6))).await.unwrap();
    append(&mut log, vec![entry(3, 9, 1)]).await.unwrap();
    drop(log);
    store.close();

    // Once with memory for everything, once for almost nothing.
    for cache_bytes in [8 << 20, 1] {
        let store = Store::open(&dir, cache_bytes);
        let mut log = store.log(GROUP).unwrap();
        let found = log.try_get_log_entries(0..9).await.unwrap();
        assert!(found == entries, "with {cache_bytes} bytes of cache");
        assert_eq!(log.try_get_log_entries(3..=4).await.unwrap(), entries[3..=4]);
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
        assert_eq!(log.read_committed().await.unwrap(), Some(id(3, 6)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(id(3, 9))));
        assert!(
            store.log(GroupId(8)).unwrap().get_log_state().await.unwrap().last_log_id.is_none()
        );
        drop(log);
        store.close();
    }
}

#[tokio::test]
async fn a_cut_through_a_block_holds_after_a_restart() {
    for cut in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir, 1);
        let mut log = store.log(GROUP).unwrap();
        append(&mut log, (0..5).map(|index| entry(1, index, 10)).collect()).await.unwrap();
        append(&mut log, vec![entry(1, 5, RECORD_BYTES * 2)]).await.unwrap();
        append(&mut log, (6..12).map(|index| entry(1, index, 10)).collect()).await.unwrap();
        let after = (cut > 0).then(|| id(1, cut - 1));
        log.truncate_after(after).await.unwrap();
        append(&mut log, vec![entry(2, cut, 10)]).await.unwrap();
        let mut expected: Vec<(u64, u64)> = (0..cut).map(|index| (1, index)).collect();
        expected.push((2, cut));
        assert_eq!(read(&mut log).await, expected);
        drop(log);
        store.close();
        let store = Store::open(&dir, 1);
        assert_eq!(read(&mut store.log(GROUP).unwrap()).await, expected, "cut at {cut}");
        store.close();
    }
}

#[tokio::test]
async fn a_purge_removes_blocks_and_holds_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    for index in 0..200 {
        append(&mut log, vec![entry(1, index, 10)]).await.unwrap();
    }
    log.purge(id(1, 149)).await.unwrap();
    assert_eq!(read(&mut log).await.first(), Some(&(1, 150)));
    // A sync goes through the writer, which sweeps between batches.
    for index in 200..210 {
        append(&mut log, vec![entry(1, index, 10)]).await.unwrap();
    }
    drop(log);
    store.close();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    let expected: Vec<(u64, u64)> = (150..210).map(|index| (1, index)).collect();
    assert_eq!(read(&mut log).await, expected);
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(id(1, 149)));
    let blocks = store.keys().iter().filter(|key| matches!(key, Key::Block { .. })).count();
    assert_eq!(blocks, 60, "the purged blocks are gone from the disk");
    // Beyond the end, as after a snapshot.
    log.purge(id(2, 500)).await.unwrap();
    append(&mut log, vec![entry(2, 501, 1)]).await.unwrap();
    drop(log);
    store.close();
    let store = Store::open(&dir, 1 << 20);
    assert_eq!(read(&mut store.log(GROUP).unwrap()).await, [(2, 501)]);
    store.close();
}

#[tokio::test]
async fn a_block_without_its_head_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    append(&mut log, vec![entry(1, 0, 10)]).await.unwrap();
    append(&mut log, vec![entry(1, 1, RECORD_BYTES * 2)]).await.unwrap();
    drop(log);
    // As if the process had died before it wrote part 0.
    store.tree.delete(&Key::Block { first: 1, part: 0 }.encode(GROUP)).unwrap();
    let mut log = store.log(GROUP).unwrap();
    assert_eq!(read(&mut log).await, [(1, 0)]);
    assert!(!store.keys().contains(&Key::Block { first: 1, part: 1 }));
    append(&mut log, vec![entry(2, 1, 1)]).await.unwrap();
    assert_eq!(read(&mut log).await, [(1, 0), (2, 1)]);
    drop(log);
    store.close();
}

/// Opens a log of a few records of each kind with `spoil` done to record `n`.
async fn open_spoiled(
    n: usize,
    spoil: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) -> Option<io::Result<()>> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1);
    let mut log = store.log(GROUP).unwrap();
    log.save_vote(&Vote::new(4, 1)).await.unwrap();
    append(&mut log, (0..3).map(|index| entry(1, index, 10)).collect()).await.unwrap();
    append(&mut log, vec![entry(1, 3, RECORD_BYTES * 2)]).await.unwrap();
    append(&mut log, vec![entry(1, 4, 0)]).await.unwrap();
    log.purge(id(1, 0)).await.unwrap();
    store.sync().await.unwrap();
    drop(log);
    let (key, value) = store.tree.range(..).nth(n)?.unwrap();
    let last = store.tree.range(..).count() - 1;
    match spoil(value.to_vec()) {
        Some(spoiled) => store.tree.put(&key, spoiled).unwrap(),
        // Whole trailing blocks may be lost without a trace in the log; not the others.
        None if n == last => return Some(Err(io::Error::other("not asked"))),
        None => store.tree.delete(&key).unwrap(),
    }
    let opened = store.log(GROUP).map(drop);
    store.close();
    Some(opened)
}

#[tokio::test]
async fn every_bit_flip_and_every_cut_of_a_record_is_a_typed_error() {
    let mut records = 0;
    for n in 0.. {
        let Some(length) = record_length(n).await else { break };
        records += 1;
        // Some bytes of each record, the ends of its fields among them over all records.
        let step = (length / 20).max(1);
        for at in (0..length).step_by(step) {
            let flipped = open_spoiled(n, |mut value| {
                value[at] ^= 1 << (at % 8);
                Some(value)
            });
            let cut = open_spoiled(n, |value| Some(value[..at].to_vec()));
            for result in [flipped.await.unwrap(), cut.await.unwrap()] {
                let error = result.expect_err(&format!("byte {at} of record {n}"));
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let corrupt = error.get_ref().and_then(|error| error.downcast_ref::<CorruptLog>());
                assert_eq!(corrupt.map(|corrupt| corrupt.group), Some(GROUP), "{error}");
            }
        }
    }
    assert_eq!(records, 7, "vote, purge mark, three blocks, one of them in three parts");
}

async fn record_length(n: usize) -> Option<usize> {
    let length = std::cell::Cell::new(0);
    let found = open_spoiled(n, |value| {
        length.set(value.len());
        Some(value)
    });
    found.await?.unwrap();
    Some(length.get())
}

#[tokio::test]
async fn a_missing_block_names_the_entry_after_it() {
    // Records 0 and 1 are the vote and the purge mark, 2 the block of entries 0 to 2, then the
    // three parts of entry 3.
    let error = open_spoiled(2, |_| None).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("group 7 is corrupt at entry 3"), "{error}");
    let error = open_spoiled(4, |_| None).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("a part of its block is missing"), "{error}");
    let error = open_spoiled(3, |_| None).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("group 7 is corrupt at entry 4"), "{error}");
}

#[test]
fn decoding_arbitrary_bytes_never_panics() {
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut good = BlockBuilder::new(5);
    (5..9).for_each(|index| good.push(&entry(2, index, 20)));
    let good = good.finish();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random() % 4 {
            let at = (random() % bytes.len() as u64) as usize;
            bytes[at] = random() as u8;
        }
        bytes.truncate(bytes.len() - (random() % 3) as usize);
        // With the checksum put right, so that what is behind it is reached.
        if bytes.len() > 5 {
            let crc = crc32fast::hash(&bytes[5..]);
            bytes[1..5].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = record::decode_block(GROUP, 5, bytes.into());
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    append(&mut log, vec![entry(1, 0, 10)]).await.unwrap();
    store.engine.interference().fail_syncs(true);
    let failed = append(&mut log, vec![entry(1, 1, 10)]).await.unwrap_err();
    assert!(failed.to_string().contains("storage failed while syncing"), "{failed}");
    // The disk works again, but writes must still fail.
    store.engine.interference().fail_syncs(false);
    let later = append(&mut log, vec![entry(1, 2, 10)]).await.unwrap_err();
    assert_eq!(later.to_string(), failed.to_string());
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err());
    assert_eq!(log.read_vote().await.unwrap(), None);
    assert!(store.faults.get().is_some());
    store.writer.stop();
}

#[tokio::test]
async fn many_groups_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1 << 20);
    let mut waiters = Vec::new();
    let mut logs: Vec<GroupLog> = (0..50).map(|group| store.log(GroupId(group)).unwrap()).collect();
    for index in 0..10 {
        for log in &mut logs {
            let (done, waiter) = Types::oneshot();
            log.append(vec![entry(1, index, 100)], IoFlushed::signal(done)).await.unwrap();
            waiters.push(waiter);
        }
    }
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    let stats = store.writer.counters().read();
    assert_eq!(stats.entries, 500);
    assert!(stats.batches < 100, "{} syncs for 500 appends", stats.batches);
    drop(logs);
    store.close();
}

/// Whether the entries up to an index are durable by now.
async fn is_durable(log: &GroupLog, index: u64) -> bool {
    let waited =
        tokio::time::timeout(std::time::Duration::from_millis(50), log.durable(index)).await;
    waited.is_ok_and(|durable| durable.is_ok())
}

#[tokio::test]
async fn who_waits_for_an_entry_waits_for_its_sync_and_again_after_it_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    append(&mut log, vec![entry(1, 0, 10), entry(1, 1, 10), entry(1, 2, 10)]).await.unwrap();
    assert!(is_durable(&log, 2).await && !is_durable(&log, 3).await);

    store.engine.interference().stall.set(true);
    let (done, cut_off) = Types::oneshot();
    log.append([entry(1, 3, 10)], IoFlushed::signal(done)).await.unwrap();
    assert!(!is_durable(&log, 3).await, "it is on its way");
    log.truncate_after(Some(id(1, 1))).await.unwrap();
    assert!(is_durable(&log, 1).await && !is_durable(&log, 2).await, "it was cut off");
    let (done, appended) = Types::oneshot();
    log.append([entry(2, 2, 10)], IoFlushed::signal(done)).await.unwrap();
    assert!(!is_durable(&log, 2).await, "the one in its place is on its way");
    store.engine.interference().stall.set(false);
    cut_off.await.unwrap().unwrap();
    appended.await.unwrap().unwrap();
    assert!(is_durable(&log, 2).await && !is_durable(&log, 3).await);

    log.purge(id(2, 7)).await.unwrap();
    assert!(is_durable(&log, 7).await, "a snapshot has it");
    drop(log);
    store.close();

    let store = Store::open(&dir, 1 << 20);
    let mut log = store.log(GROUP).unwrap();
    assert!(is_durable(&log, 7).await && !is_durable(&log, 8).await);
    store.engine.interference().fail_syncs(true);
    let waits = tokio::spawn({
        let log = log.clone();
        async move { log.durable(8).await }
    });
    append(&mut log, vec![entry(2, 8, 10)]).await.unwrap_err();
    waits.await.unwrap().unwrap_err();
    log.durable(8).await.unwrap_err();
}

/// Appends, cuts and purges. Nothing reads the errors of a process that died.
async fn live(store: &Store) -> io::Result<()> {
    let mut log = store.log(GROUP)?;
    append(&mut log, (0..5).map(|index| entry(1, index, 10)).collect()).await?;
    append(&mut log, vec![entry(1, 5, RECORD_BYTES * 2)]).await?;
    append(&mut log, (6..9).map(|index| entry(1, index, 10)).collect()).await?;
    log.truncate_after(Some(id(1, 6))).await?;
    append(&mut log, vec![entry(2, 7, 10)]).await?;
    log.truncate_after(Some(id(1, 3))).await?;
    append(&mut log, vec![entry(3, 4, RECORD_BYTES * 2), entry(3, 5, 1)]).await?;
    log.save_vote(&Vote::new(3, 1)).await?;
    log.purge(id(1, 2)).await?;
    store.sync().await
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_a_log_without_hole() {
    for writes in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir, 1 << 20);
        store.engine.interference().crash.after(writes);
        let lived = live(&store).await;
        let lost = store.engine.interference().crash.lost_some();
        assert!(lived.is_ok() || lost, "{lived:?}");
        store.writer.stop();
        drop(store);

        let store = Store::open(&dir, 1 << 20);
        let mut log = store.log(GROUP).unwrap_or_else(|error| panic!("{writes} writes: {error}"));
        let found = read(&mut log).await;
        let purged = log.get_log_state().await.unwrap().last_purged_log_id;
        let first = purged.map_or(0, |at| at.index + 1);
        let next = first + found.len() as u64;
        let indexes: Vec<u64> = found.iter().map(|(_, index)| *index).collect();
        assert_eq!(indexes, (first..next).collect::<Vec<_>>(), "{writes} writes");
        assert!(found.is_sorted(), "{writes} writes: {found:?}");
        append(&mut log, vec![entry(9, next, 1)]).await.unwrap();
        drop(log);
        store.close();
        if !lost {
            assert_eq!(found, [(1, 3), (3, 4), (3, 5)]);
            assert!(writes > 15, "only {writes} writes were tried");
            return;
        }
    }
}

/// What `docs/format.md` shows.
pub(crate) fn format_samples() -> Vec<(&'static str, Bytes)> {
    let key = |key: Key| Bytes::copy_from_slice(&key.encode(GROUP));
    let vote = Vote { committed: true, ..Vote::new(3, 2) };
    let mut block = BlockBuilder::new(300);
    block.push(&Entry { log_id: id(3, 300), payload: Payload::Blank });
    let command = Command(Bytes::from_static(b"set"));
    block.push(&Entry { log_id: id(3, 301), payload: Payload::Normal(command) });
    block.set_committed(Some(id(2, 299)));
    vec![
        ("log-key-vote", key(Key::Vote)),
        ("log-key-purged", key(Key::Purged)),
        ("log-key-block", key(Key::Block { first: 300, part: 0 })),
        ("vote", record::encode_vote(&vote).into()),
        ("purged", record::encode_purged(id(2, 299)).into()),
        ("block", block.finish().into()),
    ]
}
