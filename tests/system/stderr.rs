//! A node whose stderr fails or takes nothing goes on as if it had none.

use std::process::Stdio;

use crate::support::{Cluster, eventually, stderr};

const GROUPS: u64 = 4;
const FLAGS: &[&str] = &["--groups", "4"];

/// How the log of the first node fails.
type Spawn = fn(&mut Cluster) -> Option<std::process::ChildStderr>;

/// Three nodes, of which the first says everything to a stderr that fails.
fn cluster(level: &str, spawn: Spawn) -> (Cluster, Option<std::process::ChildStderr>) {
    let mut cluster = Cluster::prepare(3, FLAGS);
    cluster.flags.extend(["--log".into(), level.into()]);
    let held = spawn(&mut cluster);
    cluster.flags.truncate(FLAGS.len());
    cluster.spawn(1);
    cluster.spawn(2);
    cluster.wait_until_serving();
    (cluster, held)
}

fn put(cluster: &Cluster, index: usize, key: &str) {
    eventually("the write is acknowledged", || {
        cluster.run_on(index, &["put", key, "value"]).status.success()
    });
}

/// The leader of each group, as node `at` has it.
fn leaders(cluster: &Cluster, at: usize) -> Vec<Option<u64>> {
    let status = cluster.json_on(at, &["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups");
    groups.iter().map(|group| group["leader"].as_u64()).collect()
}

/// Node 1 leads all groups.
fn lead_all(cluster: &Cluster) {
    for group in 0..=GROUPS {
        eventually("the first node leads the group", || {
            let leader = leaders(cluster, 0)[group as usize];
            let Some(leader) = leader else { return false };
            let transfer = ["cluster", "transfer-leader", &group.to_string(), "1"];
            leader == 1 || cluster.run_on(leader as usize - 1, &transfer).status.success()
        });
    }
}

/// A restarted peer gets what the node leads, again and again, and the node stops in good order.
fn goes_on(cluster: &mut Cluster) {
    lead_all(cluster);
    for round in 0..2 {
        cluster.kill(2);
        put(cluster, 0, &format!("key/{round}"));
        cluster.spawn(2);
        eventually("the restarted peer has what was written meanwhile", || {
            let key = format!("key/{round}");
            let read = cluster.run_on(2, &["get", &key, "--consistency", "stale"]);
            read.status.success() && read.stdout.starts_with(b"value")
        });
        lead_all(cluster);
    }
    assert!(cluster.metric(0, "keyviz_log_lines_lost_total").is_some_and(|lost| lost > 0.0));
    assert_eq!(cluster.stop(0), Some(0), "as SIGTERM always ends a node");
    eventually("the groups have other leaders", || {
        leaders(cluster, 1).iter().all(|leader| matches!(leader, Some(2 | 3)))
    });
    assert!(cluster.ended().iter().all(|index| *index == 0));
}

#[test]
fn no_harm_a_log_whose_reader_has_gone_stops_nothing() {
    let (mut cluster, _) = cluster("debug", |cluster| {
        drop(cluster.spawn_saying_to(0, Stdio::piped()));
        None
    });
    goes_on(&mut cluster);
}

#[test]
fn no_harm_a_log_whose_reader_does_not_read_stops_nothing() {
    // At this level a pipe is full within a second.
    let (mut cluster, held) =
        cluster("trace", |cluster| cluster.spawn_saying_to(0, Stdio::piped()));
    eventually("the pipe and the queue before it are full", || {
        put(&cluster, 0, "more");
        cluster.metric(0, "keyviz_log_lines_lost_total").is_some_and(|lost| lost > 0.0)
    });
    goes_on(&mut cluster);
    drop(held);
}

#[test]
#[cfg(target_os = "linux")]
fn no_harm_a_log_on_a_full_disk_stops_nothing() {
    let (mut cluster, _) = cluster("debug", |cluster| {
        let full = std::fs::File::options().write(true).open("/dev/full");
        cluster.spawn_saying_to(0, full.expect("Linux has it").into())
    });
    goes_on(&mut cluster);
}

#[test]
fn one_node_down_is_a_few_lines_and_not_one_for_each_attempt() {
    let mut cluster = Cluster::start(3, FLAGS);
    for n in 0..8 {
        put(&cluster, 0, &format!("key/{n}"));
    }
    let lines = |cluster: &Cluster| {
        (0..2).map(|index| cluster.log(index).lines().count()).collect::<Vec<_>>()
    };
    cluster.kill(2);
    eventually("both say that node 3 does not answer", || {
        (0..2).all(|index| cluster.log(index).contains("node 3 at"))
    });
    put(&cluster, 0, "while/down");
    let before = lines(&cluster);
    std::thread::sleep(std::time::Duration::from_secs(15));
    let after = lines(&cluster);
    for index in 0..2 {
        let more = after[index] - before[index];
        assert!(more <= 3, "{more} lines in 15 s:\n{}", cluster.log(index));
    }
    let named = cluster.log(0).matches("does not answer").count();
    assert_eq!(named, 1, "{}", cluster.log(0));
    cluster.spawn(2);
    eventually("both say that it is back", || {
        (0..2).all(|index| cluster.log(index).contains("answers again"))
    });
    // What is wanted is there for those who ask.
    cluster.stop(1);
    cluster.flags.extend(["--log".into(), "openraft=warn".into()]);
    cluster.kill(2);
    cluster.spawn(1);
    eventually("--log shows what openraft says", || cluster.log(1).contains("openraft::"));
    let put = cluster.run_on(0, &["put", "last", "value"]);
    assert!(put.status.success(), "{}", stderr(&put));
}
