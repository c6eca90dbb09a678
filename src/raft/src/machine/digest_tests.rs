use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use openraft::storage::RaftStateMachine as _;
use tokio::task::JoinHandle;

use super::*;
use crate::machine::apply::{Applier, Staged, Transfer};
use crate::storage::{Batch, Storage, StorageOptions};
use crate::testing::{self, Cluster, GROUP, Map};
use crate::types::{LogPosition, SnapshotMeta, StoredMembership};
use keyviz_types::GroupId;

const SOON: Duration = Duration::from_secs(30);

/// No entry is waited for.
const NONE: u64 = u64::MAX;

fn write(keyspace: &Keyspace, index: u64, rows: &[(&str, Bytes)]) {
    let mut batch = Batch::new(keyspace);
    for (key, value) in rows {
        batch.begin_command();
        batch.put(Bytes::from(key.to_string()), value.clone()).unwrap();
        batch.end_command();
    }
    batch.set_applied(LogPosition { term: 1, index });
    keyspace.write(&batch.into_changes()).unwrap();
}

fn text(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// The digest as it is described, put together in another way.
fn expected(index: u64, rows: &BTreeMap<Bytes, Bytes>) -> RowsDigest {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for part in rows.iter().flat_map(|(key, value)| [key, value]) {
        all.extend((part.len() as u32).to_le_bytes());
        all.extend_from_slice(part);
        bytes += part.len() as u64;
    }
    let digest = xxhash_rust::xxh3::xxh3_128(&all);
    RowsDigest { index, digest, rows: rows.len() as u64, bytes }
}

type Computing = JoinHandle<Result<RowsDigest, DigestError>>;

fn compute(armed: ArmedDigest, bytes_per_s: u64) -> (Computing, Arc<DigestProgress>) {
    let progress = Arc::<DigestProgress>::default();
    let computing = tokio::spawn(armed.compute(SOON, bytes_per_s, Arc::clone(&progress)));
    (computing, progress)
}

async fn until(mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !check() {
        assert!(Instant::now() < deadline, "in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Opened {
    _dir: tempfile::TempDir,
    storage: Storage,
    keyspace: Keyspace,
}

fn open() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
    let keyspace = storage.open_space(GroupId(3)).unwrap();
    write(&keyspace, 5, &[("a", text("1"))]);
    Opened { _dir: dir, storage, keyspace }
}

/// Installs a snapshot of one row as of an entry.
async fn install(opened: &Opened, index: u64) {
    let Opened { storage, keyspace, .. } = opened;
    let mut applier = Applier::open(storage.clone(), keyspace.clone(), Box::new(Map)).unwrap();
    let mut staged = Staged::new(storage.clone(), keyspace.clone()).unwrap();
    staged.rows().load(&[(text("s"), text("9"))]).unwrap();
    let last_log_id = Some(LogPosition { term: 2, index }.into());
    let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
    applier.install_snapshot(&meta, Transfer::Staged(staged)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_write_goes_unseen_replicas_are_compared_at_exactly_the_entry_under_load() {
    let cluster = Cluster::start(3, &[GROUP], testing::quick()).await;
    let first = cluster.put(GROUP, "k0", "").await.log_index;
    let leader = cluster.nodes[&cluster.leader(GROUP).await].group(GROUP);
    for node in cluster.nodes.values() {
        node.group(GROUP).wait_applied(first, SOON).await.unwrap();
    }
    let indexes = [first + 3, first + 50, first + 117];
    let mut computing = Vec::new();
    for node in cluster.nodes.values() {
        for index in indexes {
            computing.push((index, compute(node.group(GROUP).digest_at(index).unwrap(), 0).0));
        }
    }
    // Proposed at once, so that they are applied in runs.
    let commands: Vec<String> = (0..300).map(|n| format!("k{}+{n},", n % 7)).collect();
    let proposed = join_all(commands.iter().map(|command| leader.propose(text(command)))).await;
    let mut log: Vec<(u64, &String)> = proposed
        .iter()
        .zip(&commands)
        .map(|(proposed, command)| (proposed.as_ref().unwrap().log_index, command))
        .collect();
    log.sort();
    for (index, computing) in computing {
        let mut rows = BTreeMap::from([(text("k0"), Vec::new())]);
        for (_, command) in log.iter().filter(|(at, _)| *at <= index) {
            let (key, value) = command.split_once('+').unwrap();
            rows.entry(text(key)).or_default().extend_from_slice(value.as_bytes());
        }
        let rows = rows.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
        assert_eq!(computing.await.unwrap(), Ok(expected(index, &rows)));
    }
    let applied = leader.keyspace().applied().unwrap().index;
    assert_eq!(leader.digest_at(applied).unwrap_err(), DigestError::Missed { applied });
    assert_eq!(leader.keyspace().batch_end(), NONE, "nothing is left");
}

#[tokio::test]
async fn an_entry_that_is_applied_already_is_missed_and_one_that_does_not_come_is_told() {
    let opened = open();
    let keyspace = &opened.keyspace;
    for index in [1, 5] {
        let missed = ArmedDigest::new(keyspace, index).unwrap_err();
        assert_eq!(missed, DigestError::Missed { applied: 5 });
    }
    let armed = ArmedDigest::new(keyspace, 9).unwrap();
    assert_eq!(keyspace.batch_end(), 9);
    let late = armed.compute(Duration::from_millis(20), 0, Arc::default()).await;
    assert_eq!(late, Err(DigestError::NotReached { applied: 5 }));
    assert_eq!(keyspace.batch_end(), NONE, "it has expired");
    // A batch that goes past it without ending there, which the cut rules out.
    let (computing, _) = compute(ArmedDigest::new(keyspace, 9).unwrap(), 0);
    write(keyspace, 10, &[("a", text("2"))]);
    assert_eq!(computing.await.unwrap(), Err(DigestError::Missed { applied: 10 }));
}

#[tokio::test]
async fn bounds_a_few_digests_of_a_group_are_under_way_and_none_outlives_its_caller() {
    let opened = open();
    let keyspace = &opened.keyspace;
    let arm = |index| ArmedDigest::new(keyspace, index);
    let mut armed: Vec<_> = [12, 9, 11, 9].into_iter().map(|index| arm(index).unwrap()).collect();
    assert_eq!(arm(10).unwrap_err(), DigestError::Busy);
    assert_eq!(keyspace.batch_end(), 9);
    armed.truncate(1);
    assert_eq!(keyspace.batch_end(), 12);
    drop(armed);
    assert_eq!(keyspace.batch_end(), NONE);
    // One whose caller goes away while it waits, and one while it reads.
    let waits = compute(arm(90).unwrap(), 0).0;
    write(keyspace, 6, &[("b", Bytes::from(vec![7; 2 * RUN_BYTES]))]);
    let (reads, progress) = compute(arm(7).unwrap(), 1);
    write(keyspace, 7, &[]);
    until(|| progress.read().0 > 0).await;
    for computing in [waits, reads] {
        computing.abort();
        assert!(computing.await.unwrap_err().is_cancelled());
    }
    assert_eq!(keyspace.batch_end(), NONE);
    let mut all = Vec::new();
    until(|| {
        all.clear();
        all.extend((0..4).filter_map(|_| arm(99).ok()));
        all.len() == 4
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_goes_past_the_entry_misses_it_and_one_that_ends_there_does_not() {
    let opened = open();
    let at = |index| compute(ArmedDigest::new(&opened.keyspace, index).unwrap(), 0).0;
    let (past, exact, later) = (at(8), at(9), at(10));
    install(&opened, 9).await;
    assert_eq!(past.await.unwrap(), Err(DigestError::Missed { applied: 9 }));
    let rows = BTreeMap::from([(text("s"), text("9"))]);
    assert_eq!(exact.await.unwrap(), Ok(expected(9, &rows)));
    write(&opened.keyspace, 10, &[("t", text("10"))]);
    let rows = BTreeMap::from([(text("s"), text("9")), (text("t"), text("10"))]);
    assert_eq!(later.await.unwrap(), Ok(expected(10, &rows)));
}

#[tokio::test]
async fn what_is_written_while_the_rows_are_read_does_not_change_the_digest() {
    let opened = open();
    let keyspace = &opened.keyspace;
    let long = |fill: u8| Bytes::from(vec![fill; RUN_BYTES]);
    // Three runs in a second or so.
    let (computing, progress) =
        compute(ArmedDigest::new(keyspace, 6).unwrap(), RUN_BYTES as u64 * 3);
    let rows = [("b", long(1)), ("c", long(2)), ("d", long(3)), ("e", text("6"))];
    write(keyspace, 6, &rows);
    until(|| progress.read().0 > 0).await;
    assert!(progress.is_taken());
    write(keyspace, 7, &[("a", text("7")), ("c", text("7")), ("cc", long(7)), ("e", text("7"))]);
    assert!(!computing.is_finished());
    let mut before: BTreeMap<Bytes, Bytes> = rows.map(|(key, value)| (text(key), value)).into();
    before.insert(text("a"), text("1"));
    assert_eq!(computing.await.unwrap(), Ok(expected(6, &before)));
}

#[tokio::test]
async fn a_reader_that_would_lose_its_view_hurries_and_one_whose_rows_are_replaced_is_overtaken() {
    let opened = open();
    let keyspace = &opened.keyspace;
    let keys: Vec<String> = (0..40).map(|n| format!("b{n:02}")).collect();
    let rows = |value: Bytes| -> Vec<(&str, Bytes)> {
        keys.iter().map(|key| (key.as_str(), value.clone())).collect()
    };
    let long = Bytes::from(vec![1; RUN_BYTES]);
    // Each run would take days at this rate.
    let (slow, progress) = compute(ArmedDigest::new(keyspace, 6).unwrap(), 1);
    write(keyspace, 6, &rows(long.clone()));
    until(|| progress.read().0 > 0).await;
    assert!(progress.read().1 < 2 * RUN_BYTES as u64);
    write(keyspace, 7, &rows(text("short")));
    until(|| progress.read().1 > 3 * RUN_BYTES as u64).await;
    slow.abort();
    let (lost, progress) = compute(ArmedDigest::new(keyspace, 8).unwrap(), 1);
    write(keyspace, 8, &rows(long));
    until(|| progress.read().0 > 0).await;
    install(&opened, 9).await;
    assert_eq!(lost.await.unwrap(), Err(DigestError::Overtaken));
}
