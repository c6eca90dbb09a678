//! Three nodes in one process: real folders, real gRPC on loopback.

use std::time::Duration;

use bytes::Bytes;

use crate::testing::{Cluster, GROUP, quick, rows};
use crate::*;
use keyviz_types::GroupId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_readable_on_every_node() {
    let cluster = Cluster::start(3, &[GROUP], quick()).await;
    let first = cluster.put(GROUP, "a", "1").await;
    let second = cluster.put(GROUP, "a", "2").await;
    assert_eq!((first.reply, second.reply), (Bytes::new(), Bytes::from("1")));
    assert_eq!(second.log_index, first.log_index + 1);
    for node in 1..=3 {
        assert_eq!(cluster.get(node, GROUP, "a").await.unwrap(), "2");
    }
    let leader = cluster.leader(GROUP).await;
    let follower = if leader == 1 { 2 } else { 1 };
    let group = cluster.nodes[&follower].group(GROUP);
    match group.propose(Bytes::from("a=3")).await {
        Err(ProposeError::NotLeader { leader: Some((named, member)) }) => {
            assert_eq!(named, leader);
            assert_eq!(member.addr, cluster.addrs[&leader].to_string());
        }
        other => panic!("a follower must name the leader, not {other:?}"),
    }
    assert!(matches!(group.read_index().await, Err(ReadError::NotLeader { .. })));
    let lead = cluster.nodes[&leader].group(GROUP);
    for consistency in [ReadGuarantee::Linearizable, ReadGuarantee::Lease, ReadGuarantee::Stale] {
        lead.confirm_read(consistency, Duration::from_secs(5)).await.unwrap();
    }
}

/// A restarted leader that went on in its old term would answer reads from what it had saved as
/// committed, which may be less than what it had acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_write_to_readers_a_restarted_leader_leads_again_only_in_a_new_term() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    let before = cluster.put(GROUP, "a", "1").await;
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    let after = cluster.put(GROUP, "a", "2").await;
    assert!(after.term > before.term, "{:?} then {:?}", before.term, after.term);
    assert_eq!(after.reply, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_write_when_the_leader_is_stopped_and_a_follower_catches_up() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    for n in 0..20 {
        cluster.put(GROUP, &format!("k{n}"), "before").await;
    }
    let old = cluster.leader(GROUP).await;
    let term = cluster.nodes[&old].group(GROUP).leadership().borrow().leading.unwrap();
    cluster.stop_node(old).await;
    for n in 20..40 {
        cluster.put(GROUP, &format!("k{n}"), "without").await;
    }
    let new = cluster.leader(GROUP).await;
    assert_ne!(new, old);
    assert!(cluster.nodes[&new].group(GROUP).leadership().borrow().leading.unwrap() > term);
    cluster.start_node(old).await;
    for n in 0..40 {
        let expected = if n < 20 { "before" } else { "without" };
        assert_eq!(cluster.get(old, GROUP, &format!("k{n}")).await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_write_when_all_nodes_restart() {
    let groups = [GroupId(1), GroupId(2), GroupId(3)];
    let mut cluster = Cluster::start(3, &groups, quick()).await;
    for group in groups {
        for n in 0..10 {
            cluster.put(group, &format!("k{n}"), &format!("{group}/{n}")).await;
        }
    }
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    for group in groups {
        for n in 0..10 {
            let got = cluster.get(2, group, &format!("k{n}")).await.unwrap();
            assert_eq!(got, format!("{group}/{n}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_too_far_behind_gets_the_rows_while_writes_go_on() {
    let options = GroupOptions { compact_entries: 50, keep_entries: 10, ..quick() };
    let mut cluster = Cluster::start(3, &[GROUP], options).await;
    let behind = cluster.leader(GROUP).await % 3 + 1;
    cluster.stop_node(behind).await;
    let long = "x".repeat(100_000);
    for n in 0..400 {
        let value = if n % 40 == 0 { &long } else { "short" };
        cluster.put(GROUP, &format!("k{n:03}"), value).await;
    }
    let leader = cluster.leader(GROUP).await;
    // The log stays while a retry to the missing node is under way, so this takes a moment.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while cluster.nodes[&leader].group(GROUP).status().purged.is_none_or(|at| at.index < 100) {
        assert!(tokio::time::Instant::now() < deadline, "the log must go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.start_node(behind).await;
    for n in 400..500 {
        cluster.put(GROUP, &format!("k{n:03}"), "late").await;
    }
    assert_eq!(cluster.get(behind, GROUP, "k499").await.unwrap(), "late");
    let expected = rows(&cluster.nodes[&leader].group(GROUP));
    assert_eq!(expected.len(), 500);
    assert_eq!(rows(&cluster.nodes[&behind].group(GROUP)), expected);
    cluster.stop_node(behind).await;
    cluster.start_node(behind).await;
    assert_eq!(rows(&cluster.nodes[&behind].group(GROUP)), expected, "it stays after a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_members_come_and_go() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.put(GROUP, "a", "1").await;
    let old = cluster.leader(GROUP).await;
    let to = old % 3 + 1;
    cluster.nodes[&old].group(GROUP).transfer_leader(to, Duration::from_secs(10)).await.unwrap();
    assert_eq!(cluster.leader(GROUP).await, to);

    cluster.start_node(4).await;
    let member = Member::grpc(cluster.addrs[&4].to_string());
    let leader = cluster.nodes[&to].group(GROUP);
    leader.add_learner(4, member).await.unwrap();
    leader.change_membership([1, 2, 3, 4], false).await.unwrap();
    assert_eq!(cluster.get(4, GROUP, "a").await.unwrap(), "1");
    leader
        .change_membership([1, 2, 3].into_iter().filter(|node| *node != old).chain([4]), false)
        .await
        .unwrap();
    assert!(!leader.status().members.contains_key(&old));
    cluster.stop_node(old).await;
    cluster.put(GROUP, "a", "2").await;
    assert_eq!(cluster.get(4, GROUP, "a").await.unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused() {
    let cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.leader(GROUP).await;
    let addr = cluster.addrs[&1].to_string();
    let hello = |to| keyviz_proto::RaftHello {
        cluster_id: "test".into(),
        from: 9,
        to,
        ..Default::default()
    };
    let stranger = Peers::anonymous(9, "other", PeersOptions::default());
    let channel = stranger.channel(1, &addr).unwrap();
    let mut client = keyviz_proto::raft_transport_client::RaftTransportClient::new(channel);
    let mut request = keyviz_proto::RaftVoteRequest {
        hello: Some(stranger.hello(1)),
        group: 1,
        vote: Some(keyviz_proto::RaftVote { term: 100, node: 9, committed: false }),
        ..Default::default()
    };
    let refused = client.vote(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    request.hello = Some(hello(2));
    let refused = client.vote(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "it is node 1, not 2");
    request.hello = Some(hello(1));
    request.vote = None;
    let refused = client.vote(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_stops_and_says_so_and_the_others_go_on() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.put(GROUP, "a", "1").await;
    let broken = cluster.leader(GROUP).await;
    let group = cluster.nodes[&broken].group(GROUP);
    cluster.nodes[&broken].groups.storage().fail_syncs();
    let error = group.propose(Bytes::from("a=lost")).await.unwrap_err();
    assert!(!error.is_refusal(), "it may have reached the others: {error}");
    let fault = cluster.nodes[&broken].groups.storage().fault().expect("it is latched");
    assert!(fault.to_string().contains("storage failed while syncing"), "{fault}");
    let mut leadership = group.leadership();
    let stops = leadership.wait_for(|now| now.leading.is_none());
    tokio::time::timeout(Duration::from_secs(5), stops).await.expect("it stops leading").unwrap();
    assert!(group.status().stopped.is_some());
    assert!(matches!(group.propose(Bytes::from("a=2")).await, Err(ProposeError::Stopped(_))));
    let node = cluster.nodes.remove(&broken).unwrap();
    cluster.put(GROUP, "b", "2").await;
    assert!(node.groups.shutdown().await.is_err(), "closing must not pretend to have synced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_quorum_refuses_and_keeps_its_term() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.put(GROUP, "a", "1").await;
    let leader = cluster.leader(GROUP).await;
    let follower = leader % 3 + 1;
    let other = follower % 3 + 1;
    cluster.get(follower, GROUP, "a").await.unwrap();
    cluster.stop_node(other).await;
    cluster.stop_node(leader).await;
    let group = cluster.nodes[&follower].group(GROUP);
    let term = group.status().term;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(group.status().term, term, "several elections are due, none may raise the term");
    let refused = group.propose(Bytes::from("a=2")).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
    let consistency = ReadGuarantee::Linearizable;
    assert!(group.confirm_read(consistency, Duration::from_secs(1)).await.is_err());
    assert!(group.confirm_read(ReadGuarantee::Stale, Duration::from_secs(1)).await.is_ok());
    assert_eq!(group.keyspace().get(b"a").unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_its_quorum_confirms_no_read() {
    let mut cluster = Cluster::start(3, &[GROUP], quick()).await;
    cluster.put(GROUP, "a", "1").await;
    let leader = cluster.leader(GROUP).await;
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.stop_node(node).await;
    }
    let group = cluster.nodes[&leader].group(GROUP);
    let limit = Duration::from_secs(2);
    assert!(group.confirm_read(ReadGuarantee::Linearizable, limit).await.is_err());
    // The lease was good at first; after it has run out nobody vouches for it any more.
    tokio::time::sleep(quick().election_max).await;
    assert!(group.confirm_read(ReadGuarantee::Lease, limit).await.is_err());
    let error = group.propose(Bytes::from("a=2")).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_proposals_are_refusals() {
    let options = GroupOptions { proposals: 1, ..quick() };
    let cluster = Cluster::start(1, &[GROUP], options).await;
    let group = cluster.nodes[&cluster.leader(GROUP).await].group(GROUP);
    let long = Bytes::from(vec![b'='; MAX_COMMAND_BYTES + 1]);
    assert!(matches!(group.propose(long).await, Err(ProposeError::TooLong { .. })));
    let many = (0..50).map(|n| group.propose(Bytes::from(format!("k{n}=1"))));
    let results = futures::future::join_all(many).await;
    let refused = results.iter().filter(|result| matches!(result, Err(ProposeError::Overloaded)));
    let refused = refused.count();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert!(refused > 0 && accepted > 0 && refused + accepted == 50, "{refused} of {accepted}");
    assert_eq!(rows(&group).len(), accepted);
    group.propose(Bytes::from(vec![b'='; MAX_COMMAND_BYTES])).await.unwrap();
}

/// A machine that panics on one command.
struct Brittle;

impl Machine for Brittle {
    fn restore(&mut self, _: &Keyspace) -> Result<(), MachineError> {
        Ok(())
    }

    fn apply(
        &mut self,
        _: LogPosition,
        command: &Bytes,
        _: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError> {
        assert!(command != "panic", "as asked");
        Ok(Bytes::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_panics_stops_its_group_and_no_other() {
    let cluster = Cluster::start(1, &[GROUP], quick()).await;
    let node = &cluster.nodes[&1];
    let brittle = node.groups.create(GroupId(2), Brittle).await.unwrap();
    brittle.initialize(cluster.members()).await.unwrap();
    let mut leadership = brittle.leadership();
    leadership.wait_for(|now| now.leading.is_some()).await.unwrap();
    brittle.propose(Bytes::from("well")).await.unwrap();
    assert!(brittle.propose(Bytes::from("panic")).await.is_err());
    leadership.wait_for(|now| now.leading.is_none()).await.unwrap();
    assert!(brittle.status().stopped.is_some());
    cluster.put(GROUP, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_stop_hands_its_groups_over_first() {
    let groups = [GroupId(1), GroupId(2), GroupId(3)];
    let mut cluster = Cluster::start(3, &groups, quick()).await;
    for group in groups {
        cluster.put(group, "a", "1").await;
    }
    let node = cluster.leader(GROUP).await;
    let (led, moved) = cluster.nodes[&node].groups.hand_over(Duration::from_secs(5)).await;
    assert!(led >= 1);
    assert_eq!(moved, led);
    for group in groups {
        assert_ne!(cluster.leader(group).await, node);
    }
    cluster.stop_node(node).await;
    for group in groups {
        cluster.put(group, "a", "2").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_the_log_hold_in_bytes() {
    let options = GroupOptions { compact_bytes: 1 << 20, ..quick() };
    let cluster = Cluster::start(1, &[GROUP], options).await;
    let value = "x".repeat(100_000);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // Far fewer entries than make openraft compact by number.
    while cluster.nodes[&1].group(GROUP).status().purged.is_none_or(|at| at.index < 20) {
        cluster.put(GROUP, "k", &value).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(tokio::time::Instant::now() < deadline, "nothing was purged");
    }
}

/// The follower ends the transfer half way, as a broken connection would; the next one begins with
/// what it has. Rows change meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_goes_on_and_progress_is_seen() {
    let options = GroupOptions { compact_entries: 50, keep_entries: 10, ..quick() };
    let mut cluster = Cluster::start(3, &[GROUP], options).await;
    let behind = cluster.leader(GROUP).await % 3 + 1;
    cluster.stop_node(behind).await;
    let value = "x".repeat(100_000);
    for n in 0..200 {
        cluster.put(GROUP, &format!("k{n:03}"), &value).await;
    }
    let leader = cluster.leader(GROUP).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while cluster.nodes[&leader].group(GROUP).status().purged.is_none_or(|at| at.index < 100) {
        assert!(tokio::time::Instant::now() < deadline, "the log must go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.start_node(behind).await;
    let follower = cluster.nodes[&behind].group(GROUP);
    let mut held = None;
    while held.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "a snapshot must come");
        match follower.status().receiving {
            Some(progress) if progress.rows > 20 => {
                held = follower.incoming().held().await.filter(|(_, ranges)| !ranges.is_empty());
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    let rows_held: u64 =
        held.into_iter().flat_map(|(_, ranges)| ranges).map(|held| held.rows).sum();
    assert!(rows_held > 20, "{rows_held} rows are held");
    cluster.put(GROUP, "k001", "changed meanwhile").await;
    cluster.put(GROUP, "k199", "changed too").await;
    assert_eq!(cluster.get(behind, GROUP, "k199").await.unwrap(), "changed too");
    let leader = cluster.leader(GROUP).await;
    let expected = rows(&cluster.nodes[&leader].group(GROUP));
    assert_eq!(expected.len(), 200);
    assert!(rows(&follower) == expected);
}
