//! A disk that stalls under a flood of proposals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::testing::{GROUP, Map, quick};
use crate::*;

const PROPOSALS: u32 = 64;
const COMMAND_BYTES: usize = 4_000;

/// What became of the flood so far.
#[derive(Default)]
struct Seen {
    refused: AtomicU64,
    given_up: AtomicU64,
    done: AtomicU64,
    most_under_way: AtomicU64,
    most_bytes: AtomicU64,
    most_queued: AtomicU64,
}

/// A disk that stalls for as long as this lives: a test that fails must still end.
struct Stall(Storage);

impl Stall {
    fn of(storage: &Storage) -> Self {
        storage.stall_syncs(true);
        Self(storage.clone())
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.stall_syncs(false);
    }
}

impl Seen {
    fn look(&self, groups: &Groups, group: &Group) {
        self.most_under_way.fetch_max(group.proposals_under_way(), Ordering::Relaxed);
        self.most_bytes.fetch_max(groups.queue_bytes(), Ordering::Relaxed);
        let queued = groups.storage().writer_queue() as u64;
        self.most_queued.fetch_max(queued, Ordering::Relaxed);
    }
}

/// Callers that lose patience after 20 ms and propose again.
async fn flood(groups: &Groups, group: &Arc<Group>, seen: &Arc<Seen>, rounds: u32) {
    let callers = (0..200u32).map(|caller| {
        let (groups, group, seen) = (groups.clone(), group.clone(), seen.clone());
        tokio::spawn(async move {
            for _ in 0..rounds {
                let value = "x".repeat(COMMAND_BYTES);
                let propose = group.propose(Bytes::from(format!("k{caller}={value}")));
                match tokio::time::timeout(Duration::from_millis(20), propose).await {
                    Ok(Ok(_)) => seen.done.fetch_add(1, Ordering::Relaxed),
                    Ok(Err(ProposeError::Overloaded)) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        seen.refused.fetch_add(1, Ordering::Relaxed)
                    }
                    Ok(Err(error)) => panic!("{error}"),
                    Err(_) => seen.given_up.fetch_add(1, Ordering::Relaxed),
                };
                seen.look(&groups, &group);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_a_stalled_disk_under_a_flood_refuses_early_keeps_little_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
    let options = GroupOptions { proposals: PROPOSALS, queue_bytes: 200_000, ..quick() };
    let groups =
        Groups::new(storage.clone(), Peers::anonymous(1, "", PeersOptions::default()), options);
    let group = groups.create(GROUP, Map).await.unwrap();
    group.initialize(BTreeMap::from([(1, Member::grpc("127.0.0.1:1"))])).await.unwrap();
    group.leadership().wait_for(|now| now.leading.is_some()).await.unwrap();
    group.propose(Bytes::from("before=1")).await.unwrap();

    let stall = Stall::of(&storage);
    let seen = Arc::<Seen>::default();
    flood(&groups, &group, &seen, 10).await;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // 2,000 proposals of 4 kB came; what waits is what both limits let in.
    let most = 200_000 / COMMAND_BYTES as u64;
    assert!(read(&seen.most_under_way) <= most, "{} under way", read(&seen.most_under_way));
    assert!(read(&seen.most_bytes) <= 200_000);
    assert!(read(&seen.most_queued) <= most + 8, "{} queued", read(&seen.most_queued));
    assert!(read(&seen.refused) > 1_000, "{} refused at once", read(&seen.refused));
    assert_eq!(read(&seen.done), 0, "nothing is acknowledged before it is durable");
    assert!(read(&seen.given_up) <= most, "only what was admitted made its caller wait");
    assert!(group.keyspace().get(b"before").unwrap().is_some(), "stale reads go on");

    drop(stall);
    let drained = async {
        while group.proposals_under_way() > 0 || groups.queue_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drained).await.unwrap();
    group.propose(Bytes::from("after=1")).await.unwrap();
    let taken_again = async {
        while read(&seen.done) == 0 {
            flood(&groups, &group, &seen, 1).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken_again).await.unwrap();
    groups.shutdown().await.unwrap();
}
