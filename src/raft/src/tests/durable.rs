//! Rows are never ahead of the log that they came from, whatever other nodes have.

use std::time::Duration;

use openraft::storage::RaftLogStorage as _;

use crate::testing::{Cluster, GROUP, Map, quick};
use crate::types::{LogPosition, Vote};
use crate::{Groups, Peers, PeersOptions, Storage, StorageOptions};

/// Long enough for an entry to be committed by the others and to be applied, were it not held back.
const LONG: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_write_a_node_applies_only_what_is_durable_in_its_own_log() {
    let cluster = Cluster::start(3, &[GROUP], quick()).await;
    let first = cluster.put(GROUP, "k", "1").await;
    let leader = cluster.leader(GROUP).await;
    let follower = (1..=3).find(|node| *node != leader).expect("there are two");
    let group = cluster.nodes[&follower].group(GROUP);
    group.wait_applied(first.log_index, Duration::from_secs(20)).await.expect("it follows");

    let storage = cluster.nodes[&follower].groups.storage().clone();
    storage.stall_syncs(true);
    let second = cluster.put(GROUP, "k", "2").await;
    tokio::time::sleep(LONG).await;
    let applied = group.status().applied.map(|at| at.index);
    let row = group.keyspace().get(b"k").expect("reads").expect("it is there");
    storage.stall_syncs(false);
    assert!(applied < Some(second.log_index), "{applied:?} is ahead of the log");
    assert_eq!(row, "1", "a row that the log does not know of");
    group.wait_applied(second.log_index, Duration::from_secs(20)).await.expect("it goes on");
    assert_eq!(group.keyspace().get(b"k").expect("reads").expect("it is there"), "2");
}

#[tokio::test]
async fn a_group_whose_rows_do_not_reach_its_log_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let storage = Storage::open(dir.path(), StorageOptions::default()).expect("opens");
    let mut log = storage.open_log(GROUP).expect("opens");
    log.purge(LogPosition { term: 2, index: 9 }.into()).await.expect("purges");
    // Nobody waits for a purge; what is durable after it says that it is done.
    log.save_vote(&Vote::new(2, 1)).await.expect("votes");
    drop(log);
    let peers = Peers::anonymous(1, "", PeersOptions::default());
    let groups = Groups::new(storage, peers, quick());
    let refused = groups.create(GROUP, Map).await.map(drop).expect_err("nothing was applied");
    let said = format!("{refused} {:?}", std::error::Error::source(&refused));
    assert!(said.contains("its rows are at entry 0, its log begins after entry 9"), "{said}");
}
