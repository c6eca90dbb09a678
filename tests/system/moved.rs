//! A member that moves to another address, on real processes.

use std::process::{Command, Stdio};

use crate::support::{Cluster, KEYVIZ, eventually, free_addresses, is_ready, stderr};

/// The address of a member as node `at` has it.
fn address(cluster: &Cluster, at: usize, id: u64) -> Option<String> {
    let status = cluster.run_on(at, &["cluster", "status", "--format", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
    let members = status["members"].as_array()?;
    let member = members.iter().find(|member| member["id"] == id)?;
    member["ok"].as_bool()?.then(|| member["address"].as_str().map(str::to_owned))?
}

fn everyone_has(cluster: &Cluster, id: u64, wanted: &str) {
    for at in 0..cluster.len() {
        eventually(
            "every node's status shows the new address, and that the member answers",
            || address(cluster, at, id).as_deref() == Some(wanted),
        );
    }
}

fn moved(cluster: &mut Cluster, index: usize) -> String {
    let addresses = free_addresses(2);
    cluster.grpc[index] = addresses[0].clone();
    cluster.advertised[index] = addresses[0].clone();
    cluster.http[index] = addresses[1].clone();
    addresses[0].clone()
}

fn works(cluster: &Cluster, round: &str) {
    for at in 0..cluster.len() {
        let key = format!("key/{round}/{at}");
        eventually("a write through each node is acknowledged", || {
            cluster.run_on(at, &["put", &key, "value"]).status.success()
        });
    }
    for at in 0..cluster.len() {
        eventually("each node is ready", || is_ready(&cluster.http[at]));
    }
}

#[test]
fn a_node_that_starts_elsewhere_is_found_there_and_the_cluster_goes_on() {
    let mut cluster = Cluster::start(3, &["--groups", "2"]);
    works(&cluster, "before");
    // One after the other, until nobody is where it was.
    cluster.restarts_only = true;
    cluster.flags.clear();
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
        let new = moved(&mut cluster, index);
        cluster.spawn(index);
        everyone_has(&cluster, index as u64 + 1, &new);
        works(&cluster, &new);
    }
    // The groups themselves know it: a restart finds everybody.
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
    }
    for index in 0..3 {
        cluster.spawn(index);
    }
    works(&cluster, "after");
}

#[test]
fn a_node_that_is_started_with_join_again_moves_too() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let joined = cluster.join(0);
    assert_eq!(cluster.stop(joined), Some(0));
    let new = moved(&mut cluster, joined);
    cluster.spawn(joined);
    everyone_has(&cluster, joined as u64 + 1, &new);
    works(&cluster, "joined");
}

#[test]
fn add_node_moves_a_member_and_nobody_else() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let old = cluster.grpc[2].clone();
    let add = |cluster: &Cluster, at: &str| cluster.run_on(0, &["cluster", "add-node", "3", at]);
    // Nobody is there.
    let nowhere = free_addresses(1).remove(0);
    let refused = add(&cluster, &nowhere);
    assert!(!refused.status.success());
    let said = stderr(&refused);
    assert!(said.contains("does not answer") && said.contains(&format!("stays {old}")), "{said}");
    // Another member is there.
    let refused = add(&cluster, &cluster.grpc[1].clone());
    assert!(!refused.status.success(), "the address of node 2");
    // A node of the same id with another disk is there.
    let other = free_addresses(2);
    let data = cluster.folder.path().join("other");
    let mut child = Command::new(KEYVIZ)
        .args(["serve", "--id", "3", "--listen", &other[0], "--http", &other[1], "--data"])
        .arg(&data)
        .args(["--bootstrap", &format!("3={}", other[0]), "--groups", "1"])
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    eventually("the other cluster serves", || is_ready(&other[1]));
    let refused = add(&cluster, &other[0]);
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("not this member"), "{said}");
    child.kill().expect("the process is ours");
    child.wait().expect("the process is ours");
    assert_eq!(address(&cluster, 0, 3).as_deref(), Some(old.as_str()));
    // The member itself, which advertises what nobody can reach.
    assert_eq!(cluster.stop(2), Some(0));
    let new = moved(&mut cluster, 2);
    cluster.advertised[2] = nowhere;
    cluster.restarts_only = true;
    cluster.flags.clear();
    cluster.spawn(2);
    eventually("add-node takes the new address", || add(&cluster, &new).status.success());
    everyone_has(&cluster, 3, &new);
    works(&cluster, "added");
}

#[test]
fn a_member_whose_http_moved_is_shown_there_also_while_it_is_down() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let joined = cluster.join(0);
    assert_eq!(cluster.stop(joined), Some(0));
    cluster.http[joined] = free_addresses(1).remove(0);
    cluster.spawn(joined);
    eventually("it serves again", || is_ready(&cluster.http[joined]));
    let log = "where this node serves HTTP";
    eventually("it tells", || cluster.log(joined).contains(log));
    cluster.kill(joined);
    let shown = |at: usize| {
        let status = cluster.json_on(at, &["cluster", "status"]);
        let members = status["members"].as_array().expect("members").iter();
        let mut member = members.filter(|member| member["id"] == joined as u64 + 1);
        let member = member.next().expect("it is a member").clone();
        (member["ok"] == false).then(|| member["http"].as_str().map(str::to_owned)).flatten()
    };
    for at in 0..3 {
        let wanted = Some(cluster.http[joined].clone());
        eventually("who asks hears the new address", || shown(at) == wanted);
    }
}
