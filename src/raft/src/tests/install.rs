//! A process that dies at each write of the installation of a snapshot.

use bytes::Bytes;
use openraft::storage::RaftStateMachine as _;

use crate::KeyValue;
use crate::machine::apply::{Applier, Staged, Transfer};
use crate::storage::{Batch, Keyspace, PageLimit, Storage, StorageOptions};
use crate::testing::Map;
use crate::types::{LogPosition, SnapshotMeta, StoredMembership};
use keyviz_types::GroupId;

fn rows(keyspace: &Keyspace) -> Vec<KeyValue> {
    let limit = PageLimit { rows: usize::MAX, bytes: usize::MAX };
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    keyspace.scan(from, to, limit).unwrap().rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_an_installation_leaves_the_old_rows_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
    let (mut olds, mut news) = (0, 0);
    for writes in 0.. {
        let group = GroupId(1_000 + writes as u64);
        let keyspace = storage.open_space(group).unwrap();
        let mut batch = Batch::new(&keyspace);
        batch.begin_command();
        batch.put(Bytes::from("old"), Bytes::from("1")).unwrap();
        batch.put(Bytes::from("both"), Bytes::from("old")).unwrap();
        batch.set_applied(LogPosition { term: 1, index: 5 });
        keyspace.write(&batch.into_changes()).unwrap();
        let old = rows(&keyspace);
        let new: Vec<KeyValue> = [("both", vec![b'n'; 50_000]), ("new", vec![b'2'])]
            .map(|(key, value)| (Bytes::from(key), Bytes::from(value)))
            .into();

        storage.crash().after(writes);
        let mut applier = Applier::open(storage.clone(), keyspace.clone(), Box::new(Map)).unwrap();
        let mut staged = Staged::new(storage.clone(), keyspace).unwrap();
        staged.rows().load(&new).unwrap();
        let last = LogPosition { term: 2, index: 9 };
        let meta = SnapshotMeta {
            last_log_id: Some(last.into()),
            last_membership: StoredMembership::default(),
        };
        applier.install_snapshot(&meta, Transfer::Staged(staged)).await.unwrap();
        let lost = storage.crash().lost_some();
        drop(applier);

        // The process stays dead until the rows were looked at: nothing else writes meanwhile.

        let reopened = storage.open_space(group).unwrap();
        if reopened.applied() == Some(last) {
            assert_eq!(rows(&reopened), new, "{writes} writes");
            news += 1;
        } else {
            assert_eq!(reopened.applied(), Some(LogPosition { term: 1, index: 5 }));
            assert_eq!(rows(&reopened), old, "{writes} writes");
            assert!(lost, "nothing was lost, and the snapshot is not there");
            olds += 1;
        }
        storage.crash().after(i64::MAX);
        if !lost {
            break;
        }
    }
    assert!(olds >= 5 && news >= 1, "{olds} old, {news} new");
    storage.close().await.unwrap();
}
