//! `load` ends when it was told to, whatever becomes of the cluster.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Cluster, KEYVIZ};
use serde_json::Value;

/// With its drain and its verification; before, a run of ten seconds took half an hour.
const BOUND: Duration = Duration::from_secs(120);

fn run(cluster: &Cluster, more: &[&str], harm: impl FnOnce()) -> Value {
    let load = Command::new(KEYVIZ)
        .args(["load", "--rate", "500", "--duration", "4s", "--clients", "16"])
        .args(["--format", "json", "--node", &cluster.grpc.join(",")])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    harm();
    let output = load.wait_with_output().expect("it ends");
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    serde_json::from_slice(&output.stdout).expect("it reports")
}

#[test]
fn bounds_a_run_ends_in_time_with_a_node_killed_one_stopped_and_all_gone() {
    let mut cluster = Cluster::start(3, &["--groups", "2", "--split-at", "key/00050000"]);
    let killed = cluster.pid(1);
    let report = run(&cluster, &["--verify"], || crate::support::signal_pid(killed, "KILL"));
    assert_eq!(report["missing"], 0, "{report}");
    assert!(report["duration_s"].as_f64() < Some(15.0), "{report}");
    cluster.kill(1);
    cluster.spawn(1);
    cluster.wait_until_serving();

    let stopped = cluster.pid(2);
    let report = run(&cluster, &[], || crate::support::signal_pid(stopped, "STOP"));
    assert!(report["duration_s"].as_f64() < Some(15.0), "{report}");
    cluster.signal(2, "CONT");
    cluster.wait_until_serving();

    // What cannot be read back is counted, and not waited for key by key.
    let pids = [0, 1, 2].map(|node| cluster.pid(node));
    let report = run(&cluster, &["--verify"], || {
        pids.iter().for_each(|pid| crate::support::signal_pid(*pid, "KILL"));
    });
    assert!(report["unread"].as_u64() > Some(0), "{report}");
}
