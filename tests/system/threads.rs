//! A node wakes the threads that it needs, and no others.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;

use crate::support::{Cluster, eventually, stderr};

/// Times that each of the threads in which sled writes has given up the processor to wait.
fn waits(pid: u32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the node runs");
    let waits = tasks.flatten().filter_map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        let name = read("comm")?.trim().to_owned();
        let status = read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((name, line.trim().parse().ok()?))
    });
    waits.filter(|(name, _)| name.starts_with("sled-io-")).collect()
}

#[test]
fn no_harm_most_of_the_threads_in_which_sled_writes_sleep_while_a_node_writes() {
    let cluster = Cluster::start(1, &[]);
    let pid = cluster.pid(0);
    let mut round = 0;
    eventually("at most two of them wake for puts", || {
        let before = waits(pid);
        round += 1;
        for number in 0..10 {
            let put = cluster.run_on(0, &["put", &format!("key/{number}"), &format!("{round}")]);
            assert!(put.status.success(), "{}", stderr(&put));
        }
        let after = waits(pid);
        assert!(after.len() >= 7, "sled has as many as ever: {after:?}");
        // A thread that waits for work in vain for a second looks up then.
        let woken =
            after.iter().filter(|(name, waits)| **waits > before.get(*name).unwrap_or(&0) + 2);
        (1..=2).contains(&woken.count())
    });
}
