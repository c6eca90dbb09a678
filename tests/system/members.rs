//! Nodes that come and go under load: nothing acknowledged is lost, and every count stays.

use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{self, Cluster, KEYVIZ, eventually, http_answer, stderr};
use serde_json::Value;

const FLAGS: &[&str] =
    &["--groups", "4", "--split-at", "key/0750,key/1500,key/2250", "--keyviz-step", "2s"];

/// A workload that writes, on the first members alone, so that it may outlive those that come and
/// go.
fn load(nodes: &[String], seconds: u64, rate: &str) -> Child {
    Command::new(KEYVIZ)
        .args(["load", "--pattern", "uniform", "--keys", "3000", "--read-ratio", "0.2"])
        .args(["--clients", "4", "--seed", "11", "--rate", rate, "--verify"])
        .args(["--duration", &format!("{seconds}s"), "--format", "json"])
        .args(["--node", &nodes.join(",")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

fn report(load: Child) -> Value {
    let output = load.wait_with_output().expect("the load ends");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("the load reports: {}", stderr(&output)))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

/// Acknowledged writes, and how many more there may have been.
fn written(report: &Value) -> (u64, u64) {
    let sure = number(report, "writes_acked") + number(report, "deletes_acked");
    (sure, number(report, "errors"))
}

/// Nodes that hold each data group, as one node says.
fn holders(cluster: &Cluster, at: usize) -> Vec<Vec<u64>> {
    let status = cluster.json_on(at, &["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups");
    let ids = |group: &Value| {
        let replicas = group["replicas"].as_array().expect("replicas").iter();
        replicas.map(|replica| replica["node_id"].as_u64().expect("an id")).collect()
    };
    groups.iter().filter(|group| group["group_id"] != 0).map(ids).collect()
}

fn run(cluster: &Cluster, at: usize, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--format", "json", "--timeout", "30s"]].concat();
    let output = cluster.run_on(at, &arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("--format json prints JSON")
}

#[test]
fn no_lost_write_and_conservation_from_three_nodes_to_five_and_back_under_load() {
    let mut cluster = Cluster::start(3, FLAGS);
    let load = load(&cluster.grpc, 12, "300");
    std::thread::sleep(Duration::from_secs(1));
    for id in ["4", "5"] {
        let index = cluster.join(0);
        let added = run(&cluster, 1, &["cluster", "add-node", id, &cluster.grpc[index].clone()]);
        assert_eq!(added["voter"], true, "{added}");
    }
    let held = holders(&cluster, 4);
    assert!(held.iter().all(|nodes| nodes.len() == 3), "three replicas each: {held:?}");
    for node in 1..=5 {
        let holds = held.iter().filter(|nodes| nodes.contains(&node)).count();
        assert!((2..=3).contains(&holds), "node {node} holds {holds} of {held:?}");
    }
    // Every node reaches every group, whether it holds it or not.
    for node in 0..5 {
        for key in ["a", "key/1000", "key/2000", "z"] {
            let put = cluster.run_on(node, &["put", &format!("{key}{node}"), "v"]);
            assert!(put.status.success(), "{}", stderr(&put));
            let got = cluster.run_on((node + 1) % 5, &["get", &format!("{key}{node}")]);
            assert_eq!(got.stdout, b"v\n", "{}", stderr(&got));
        }
    }
    for id in ["4", "2"] {
        let left = run(&cluster, 0, &["cluster", "remove-node", id]);
        assert_eq!(left["gone"], true, "{left}");
    }
    let report = report(load);
    assert_eq!(number(&report, "missing"), 0, "{report}");
    let held = holders(&cluster, 0);
    assert!(held.iter().all(|nodes| nodes.len() == 3), "{held:?}");
    assert!(held.iter().flatten().all(|node| [1, 3, 5].contains(node)), "{held:?}");
    let (sure, unknown) = written(&report);
    let sure = sure + 20;
    for node in [0, 2, 4] {
        let total = cluster.total(node, "writes", &[]);
        assert!((sure..=sure + unknown).contains(&total), "{total} of {sure} + {unknown}");
    }
    let again = cluster.run_on(0, &["cluster", "add-node", "4", &cluster.grpc[3].clone()]);
    assert_eq!(again.status.code(), Some(5));
    assert!(stderr(&again).contains("never used again"), "{}", stderr(&again));
}

#[test]
fn no_lost_write_when_a_dead_node_is_replaced_by_a_new_id() {
    let mut cluster = Cluster::start(3, FLAGS);
    let load = load(&cluster.grpc[..2], 5, "300");
    std::thread::sleep(Duration::from_secs(1));
    cluster.kill(2);
    let mut said = String::new();
    eventually("the catalog group has a leader that refuses it", || {
        let refused = cluster.run_on(0, &["cluster", "remove-node", "2"]);
        said = stderr(&refused);
        assert!(!refused.status.success(), "one of two that answer");
        refused.status.code() == Some(5)
    });
    assert!(
        said.contains("FAILED_PRECONDITION") && said.contains("would lose its quorum"),
        "{said}"
    );
    let index = cluster.join(0);
    let added =
        cluster.run_on(0, &["cluster", "add-node", "4", &cluster.grpc[index].clone(), "--no-wait"]);
    assert!(added.status.success(), "{}", stderr(&added));
    let left = run(&cluster, 0, &["cluster", "remove-node", "3"]);
    assert_eq!(left["gone"], true, "{left}");
    let held = holders(&cluster, 0);
    assert!(held.iter().all(|nodes| nodes.len() == 3 && !nodes.contains(&3)), "{held:?}");
    let report = report(load);
    assert_eq!(number(&report, "missing"), 0, "{report}");
    // The new node alone with one of the old ones still has everything.
    cluster.kill(0);
    eventually("two of three serve", || {
        cluster.run_on(index, &["get", "key/0001"]).status.code() != Some(2)
            && cluster.run_on(index, &["put", "after", "1"]).status.success()
    });
}

/// An address that leads to `target`, but whose first connections are reset once so many bytes of
/// answers have come.
fn reset_at_first(target: String, limits: Vec<u64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let mut limits = limits.into_iter();
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { continue };
            let limit = limits.next().unwrap_or(u64::MAX);
            let carry = |from: &TcpStream, to: &TcpStream, limit: u64| {
                let (from, mut to) =
                    (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut (&from).take(limit), &mut to);
                    for stream in [&from, &to] {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                });
            };
            carry(&client, &server, u64::MAX);
            carry(&server, &client, limit);
        }
    });
    address
}

#[test]
fn a_node_joins_through_a_member_whose_connections_break_at_first() {
    let mut cluster = Cluster::start(1, &[]);
    let limits = vec![0, 20, 40, 60, 80, 100, 120, 160, 200];
    let address = reset_at_first(cluster.grpc[0].clone(), limits);
    let node = cluster.enlist_through(address);
    cluster.spawn(node);
    eventually("it has joined and serves", || {
        assert_eq!(cluster.exited(node), None, "{}", cluster.log(node));
        support::is_ready(&cluster.http[node])
    });
}

/// The node that leads the catalog group, and with it carries moves out.
fn driver(cluster: &Cluster, at: usize) -> Option<usize> {
    let status = cluster.json_on(at, &["cluster", "status"]);
    let leader = status["groups"][0]["leader"].as_u64()?;
    usize::try_from(leader).ok()?.checked_sub(1)
}

/// `None`: the node says that it does not know.
fn moves_left(cluster: &Cluster, at: usize) -> Option<u64> {
    let status = cluster.json_on(at, &["cluster", "status"]);
    let left = status.get("moves_left").expect("the status says it");
    assert!(left.is_u64() || left.is_null(), "{status}");
    left.as_u64()
}

#[test]
fn no_lost_write_when_the_driver_the_target_or_the_source_of_a_move_is_killed() {
    let flags = &["--groups", "8", "--split-at", "key/0500,key/1000,key/1500,key/2000,key/2500"];
    let mut cluster = Cluster::start(3, flags);
    let load = load(&cluster.grpc, 10, "200");
    let new = cluster.join(0);
    let mut killed = Vec::new();
    // The driver, wherever it is, then the target.
    for victim in [None, Some(new)] {
        eventually("moves are under way, or done", || {
            moves_left(&cluster, 0).is_some_and(|left| left < 6) || victim.is_none()
        });
        let victim = victim.or_else(|| driver(&cluster, new)).unwrap_or(0);
        killed.push((victim, moves_left(&cluster, new)));
        cluster.kill(victim);
        std::thread::sleep(Duration::from_millis(500));
        cluster.spawn(victim);
        cluster.wait_until_serving();
    }
    eventually("the rest of the moves", || moves_left(&cluster, new) == Some(0));
    let held = holders(&cluster, new);
    assert!(held.iter().all(|nodes| nodes.len() == 3), "{held:?} after {killed:?}");
    let new_holds = held.iter().filter(|nodes| nodes.contains(&4)).count();
    assert_eq!(new_holds, 6, "{held:?} after {killed:?}");
    // It leaves again, and dies while it does.
    let leaving = cluster.run_on(0, &["cluster", "remove-node", "4", "--no-wait"]);
    assert!(leaving.status.success(), "{}", stderr(&leaving));
    eventually("it has begun", || moves_left(&cluster, 0).is_some_and(|left| left < 6));
    cluster.kill(new);
    std::thread::sleep(Duration::from_millis(500));
    cluster.spawn(new);
    let gone = run(&cluster, 0, &["cluster", "remove-node", "4"]);
    assert_eq!(gone["gone"], true, "{gone}");
    let held = holders(&cluster, 0);
    assert!(held.iter().all(|nodes| nodes.len() == 3 && !nodes.contains(&4)), "{held:?}");
    let report = report(load);
    assert_eq!(number(&report, "missing"), 0, "{report}");
}

#[test]
fn a_node_is_not_removed_where_that_makes_no_sense_and_the_reason_is_said() {
    let cluster = Cluster::start(3, FLAGS);
    let refuse = |id: &str, exit: i32, code: &str, words: &str| {
        let refused = cluster.run(&["cluster", "remove-node", id]);
        assert_eq!(refused.status.code(), Some(exit));
        let said = stderr(&refused);
        assert!(said.contains(code) && said.contains(words), "{said}");
    };
    refuse("3", 5, "FAILED_PRECONDITION", "groups keep 3 replicas");
    refuse("9", 3, "NOT_FOUND", "the members are 1, 2, 3");
}

#[test]
fn a_node_that_was_removed_while_it_was_down_learns_of_it_and_refuses_in_words() {
    let mut cluster = Cluster::start(3, FLAGS);
    let new = cluster.join(0);
    run(&cluster, 0, &["cluster", "add-node", "4", &cluster.grpc[new].clone()]);
    let put = cluster.run_on(new, &["put", "key/0001", "before"]);
    assert!(put.status.success(), "{}", stderr(&put));
    cluster.kill(new);
    let left = run(&cluster, 0, &["cluster", "remove-node", "4"]);
    assert_eq!(left["gone"], true, "{left}");
    let put = cluster.run_on(0, &["put", "key/0001", "after"]);
    assert!(put.status.success(), "{}", stderr(&put));
    cluster.spawn(new);
    let refused = |cluster: &Cluster, arguments: &[&str]| {
        let output = cluster.run_on(new, arguments);
        let said = stderr(&output);
        !output.status.success()
            && said.contains("UNAVAILABLE")
            && said.contains("node 4 has left the cluster or was removed from it")
    };
    let stale = &["get", "key/0001", "--consistency", "stale"][..];
    eventually("it learns that it is no member", || refused(&cluster, stale));
    for arguments in [
        stale,
        &["get", "key/0001"],
        &["put", "key/0001", "late"],
        &["scan", "a"],
        &["routes", "list"],
        &["heat"],
    ] {
        assert!(refused(&cluster, arguments), "{arguments:?}");
    }
    let ready = http_answer(&cluster.http[new], "/readyz").expect("it answers");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("was removed from it"), "{ready}");
    let status = cluster.json_on(new, &["cluster", "status"]);
    assert!(status["removed"].as_str().is_some_and(|why| why.contains("node 4")), "{status}");
    assert!(status["moves_left"].is_null(), "it does not hear of moves: {status}");
    // A client that knows others is served by them.
    let nodes = format!("{},{}", cluster.grpc[new], cluster.grpc[0]);
    let got = Command::new(KEYVIZ).args(["get", "key/0001", "--node", &nodes]).output();
    assert_eq!(got.expect("the binary starts").stdout, b"after\n");
    let status = cluster.json_on(0, &["cluster", "status"]);
    assert_eq!(status["removed"], "", "{status}");
    // Started where it reaches nobody, it remembers.
    for node in 0..=new {
        cluster.kill(node);
    }
    cluster.spawn(new);
    eventually("it serves, and refuses from the first request on", || {
        let got = cluster.run_on(new, stale);
        assert!(!got.status.success(), "{}", String::from_utf8_lossy(&got.stdout));
        refused(&cluster, stale)
    });
}

#[test]
fn a_node_that_lost_its_disk_comes_back_at_its_address_under_a_new_id() {
    let mut cluster = Cluster::start(3, &["--groups", "2", "--split-at", "m"]);
    for key in ["a", "x"] {
        assert!(cluster.run(&["put", key, "before"]).status.success());
    }
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("its disk is lost");
    let command = |more: &[&str]| {
        let mut command = std::process::Command::new(support::KEYVIZ);
        command
            .args(["serve", "--id", "30", "--listen", &cluster.grpc[2], "--http", &cluster.http[2]])
            .args(["--join", &cluster.grpc[0]])
            .args(more)
            .arg("--data")
            .arg(cluster.data(2))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null());
        command
    };
    // Its address is taken, unless it says that it takes the place.
    let refused = command(&[]).output().expect("the binary starts");
    let said = support::stderr(&refused);
    assert!(!refused.status.success() && said.contains("is the address of node 3"), "{said}");
    std::fs::remove_dir_all(cluster.data(2)).expect("what was begun");
    let log = std::fs::File::create(cluster.log_path(2)).expect("a file");
    let mut back = command(&["--replace-lost"]).stderr(log).spawn().expect("the binary starts");
    let others = cluster.grpc[..2].join(",");
    let status = || {
        let output = std::process::Command::new(support::KEYVIZ)
            .args(["cluster", "status", "--format", "json", "--node", &others])
            .output()
            .expect("the binary starts");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    eventually("it is a member with replicas of all groups, and node 3 is none", || {
        let status = status();
        let ids = |list: &Value, name: &str| -> Vec<u64> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|item| item[name].as_u64()).collect()
        };
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        ids(&status["members"], "id") == [1, 2, 30]
            && !groups.is_empty()
            && groups.iter().all(|group| ids(&group["replicas"], "node_id") == [1, 2, 30])
    });
    for key in ["a", "x"] {
        eventually("it serves what was acknowledged", || {
            let found = cluster.run_on(2, &["get", key, "--consistency", "stale", "--raw"]);
            found.status.success() && found.stdout.starts_with(b"before")
        });
    }
    back.kill().expect("the process is ours");
    back.wait().expect("the process is ours");
}
