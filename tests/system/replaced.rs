//! A member that is dead for long is replaced by itself, where it was asked for and there is room.

use crate::support::{Cluster, eventually, stderr};
use serde_json::Value;

const FLAGS: &[&str] = &["--groups", "2", "--split-at", "m", "--replace-after", "10s"];

fn members(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.run_on(0, &["cluster", "status", "--format", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let members = status["members"].as_array().into_iter().flatten();
    members.filter_map(|member| member["id"].as_u64()).collect()
}

/// Who holds the data groups.
fn holders(cluster: &Cluster) -> Vec<Vec<u64>> {
    let status = cluster.json_on(0, &["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups").iter();
    let ids = |group: &Value| {
        let replicas = group["replicas"].as_array().expect("replicas").iter();
        let mut ids: Vec<u64> = replicas.filter_map(|one| one["node_id"].as_u64()).collect();
        ids.sort_unstable();
        ids
    };
    groups.filter(|group| group["group_id"] != 0).map(ids).collect()
}

#[test]
fn no_lost_write_a_dead_member_is_replaced_by_itself_once_there_is_room_and_not_before() {
    let mut cluster = Cluster::start(3, FLAGS);
    for key in ["a", "z"] {
        let put = cluster.run(&["put", key, "kept"]);
        assert!(put.status.success(), "{}", stderr(&put));
    }
    cluster.kill(2);
    // Two nodes cannot hold three replicas: it stays, and the log says why.
    eventually("the log says why it is not replaced", || {
        (0..2).any(|node| {
            let log = cluster.log(node);
            log.contains("is not replaced yet") && log.contains("add a node first")
        })
    });
    assert_eq!(members(&cluster), [1, 2, 3]);
    // With a third that answers there is room.
    let fourth = cluster.join(0);
    eventually("the dead member is removed by itself", || members(&cluster) == [1, 2, 4]);
    eventually("its replicas are made again", || {
        holders(&cluster).iter().all(|nodes| *nodes == [1, 2, 4])
    });
    assert!((0..2).any(|node| cluster.log(node).contains("(--replace-after): it is removed")));
    for key in ["a", "z"] {
        assert_eq!(cluster.run_on(fourth, &["get", key]).stdout, b"kept\n");
    }
    // It stays removed, and says so.
    cluster.spawn(2);
    eventually("the old one learns that it was removed", || {
        cluster.log(2).contains("removed") || cluster.log(2).contains("has left")
    });
    assert_eq!(members(&cluster), [1, 2, 4]);
}

#[test]
fn nobody_is_replaced_where_it_was_not_asked_for_or_would_cost_the_quorum() {
    let mut cluster = Cluster::start(3, &["--groups", "1", "--replace-after", "10s"]);
    // Two of three are gone: what is left cannot decide, and does not.
    cluster.kill(1);
    cluster.kill(2);
    std::thread::sleep(std::time::Duration::from_secs(14));
    cluster.spawn(1);
    eventually("a majority answers again", || {
        cluster.run_on(0, &["put", "a", "1"]).status.success()
    });
    assert_eq!(members(&cluster), [1, 2, 3]);
}
