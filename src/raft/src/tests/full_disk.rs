//! A disk that is full, and has room again, under one node of three.

use std::time::Duration;

use bytes::Bytes;

use crate::testing::{Cluster, GROUP, quick};
use crate::*;

async fn reached(cluster: &Cluster, node: RaftNodeId, index: u64) {
    let group = cluster.nodes[&node].group(GROUP);
    group.wait_applied(index, Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_follower_takes_no_command_and_follows_on_and_a_full_leader_refuses() {
    let cluster = Cluster::start(3, &[GROUP], quick()).await;
    let first = cluster.put(GROUP, "k", "1").await;
    let leader = cluster.leader(GROUP).await;
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    reached(&cluster, follower, first.log_index).await;

    let full = cluster.nodes[&follower].groups.storage().clone();
    full.pretend_free(Some(0));
    assert_eq!(full.disk_space(), DiskSpace::Full);
    let term = cluster.nodes[&leader].group(GROUP).status().term;
    let mut last = first;
    for round in 0..20 {
        last = cluster.put(GROUP, "k", &round.to_string()).await;
        // Longer than an election takes, in all: the follower hears of its leader all the same.
        tokio::time::sleep(Duration::from_millis(75)).await;
    }
    let status = cluster.nodes[&follower].group(GROUP).status();
    assert!(status.last_log < Some(last.log_index), "no command was stored: {status:?}");
    assert_eq!(status.term, term, "and no election was called");
    full.pretend_free(None);
    reached(&cluster, follower, last.log_index).await;

    let storage = cluster.nodes[&leader].groups.storage().clone();
    storage.pretend_free(Some(1));
    let group = cluster.nodes[&leader].group(GROUP);
    let before = group.load();
    let refused = group.propose(Bytes::from("k=refused")).await.unwrap_err();
    assert_eq!(group.load(), before, "what is refused was not proposed");
    assert!(matches!(&refused, ProposeError::DiskFull(full) if full.free_bytes == 1), "{refused}");
    assert!(refused.is_refusal());
    assert_eq!(cluster.get(leader, GROUP, "k").await.unwrap(), "19", "reads go on");
    assert!(storage.fault().is_none());

    // It hands over to one that has room.
    let able = std::collections::BTreeSet::from([follower]);
    // To one that is known to have all of the log, which is told by its next answer.
    let groups = &cluster.nodes[&leader].groups;
    let handed_over = async {
        while groups.hand_over_to(&able, Duration::from_secs(10)).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), handed_over).await.unwrap();
    assert_eq!(cluster.leader(GROUP).await, follower);
    storage.pretend_free(None);
    let last = cluster.put(GROUP, "k", "room").await;
    reached(&cluster, leader, last.log_index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_refuses_early_while_no_majority_of_replicas_has_room() {
    let cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.put(GROUP, "k", "1").await;
    let leader = cluster.leader(GROUP).await;
    let group = cluster.nodes[&leader].group(GROUP);
    let others: Vec<RaftNodeId> = (1..=3).filter(|node| *node != leader).collect();
    let pretend = |node: RaftNodeId, free| {
        cluster.nodes[&node].groups.storage().pretend_free(free);
    };
    let eventually_full = async |full: &[RaftNodeId]| {
        let expected = match full.len() {
            0 | 1 => Ok(()),
            _ => Err(ReplicasFull { full: full.to_vec() }),
        };
        let told = async {
            while group.check_replicas_space() != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("heartbeats tell it");
    };
    pretend(others[0], Some(0));
    cluster.put(GROUP, "k", "one of three is full").await;
    eventually_full(&others[..1]).await;
    pretend(others[1], Some(0));
    eventually_full(&others).await;
    let said = group.check_replicas_space().expect_err("two of three are full").to_string();
    for node in &others {
        assert!(said.contains(&format!("the disk of node {node} is full")), "{said}");
    }
    pretend(others[0], None);
    eventually_full(&[]).await;
    cluster.put(GROUP, "k", "room again").await;
}
