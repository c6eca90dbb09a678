//! Routes that split and merge under load on three real nodes: nothing is lost, everything is
//! counted once, and every subscriber ends with the same table.
//!
//! `KEYVIZ_ROUTE_CHANGES` sets the number of changes (20 where it is not set).

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{self, Cluster, KEYVIZ, eventually, stderr};
use serde_json::Value;

const FLAGS: &[&str] =
    &["--groups", "2", "--split-at", "key/00000600,key/00001200", "--keyviz-step", "2s"];

/// Keys of the load; the routes change among them.
const KEYS: usize = 2_000;

/// Key `number` of the load.
fn key(number: usize) -> String {
    format!("key/{number:08}")
}

fn changes_wanted() -> u64 {
    let set = std::env::var("KEYVIZ_ROUTE_CHANGES").ok();
    set.map_or(20, |text| text.parse().expect("KEYVIZ_ROUTE_CHANGES is a number"))
}

/// A linear congruential sequence (Knuth, MMIX): any fixed mix will do.
struct Mix(u64);

impl Mix {
    fn below(&mut self, limit: usize) -> usize {
        let (a, c) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);
        self.0 = self.0.wrapping_mul(a).wrapping_add(c);
        (self.0 >> 33) as usize % limit
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a whole number")
}

/// Makes `wanted` splits and merges on random nodes, all of them among the keys of the load, and
/// says how many tries it took.
fn change_routes(cluster: &Cluster, wanted: u64) -> u64 {
    let (mut mix, mut done, mut tries) = (Mix(11), 0, 0);
    while done < wanted {
        tries += 1;
        assert!(tries < 3 * wanted + 20, "most changes are refused: {done} of {tries}");
        let node = mix.below(cluster.len());
        let list = cluster.json_on(node, &["routes", "list"]);
        let routes = list["routes"].as_array().expect("routes");
        let merge = routes.len() > 5 && (routes.len() > 40 || mix.below(2) == 0);
        let output = if merge {
            let at = mix.below(routes.len() - 1);
            let [left, right] = [&routes[at], &routes[at + 1]];
            if left["group_id"] != right["group_id"] {
                continue;
            }
            let ids = [left["route_id"].to_string(), right["route_id"].to_string()];
            cluster.run_on(node, &["routes", "merge", &ids[0], &ids[1]])
        } else {
            let key = key(mix.below(KEYS));
            let starts = |route: &&Value| route["start"].as_str().expect("printable") <= &*key;
            let route = routes.iter().rev().find(starts).expect("one starts at the first key");
            if route["start"] == *key {
                continue;
            }
            cluster.run_on(node, &["routes", "split", &route["route_id"].to_string(), &key])
        };
        done += u64::from(output.status.success());
        // The node's table may be behind that of the node that made the last change.
        let refused = output.status.code() == Some(3) && stderr(&output).contains("NOT_FOUND");
        assert!(output.status.success() || refused, "{}", stderr(&output));
    }
    tries
}

/// What identifies a table: version, and id, range and group of every route.
fn table(list: &Value) -> (u64, BTreeMap<String, Value>) {
    let routes = list["routes"].as_array().expect("routes").iter();
    (number(&list["catalog_version"]), routes.map(identity).collect())
}

fn identity(route: &Value) -> (String, Value) {
    let facts = [&route["start"], &route["end"], &route["group_id"], &route["parents"]];
    (route["route_id"].to_string(), facts.into_iter().cloned().collect())
}

fn tables_agree(cluster: &Cluster) -> (u64, BTreeMap<String, Value>) {
    let list = |node| table(&cluster.json_on(node, &["routes", "list"]));
    eventually("every node has applied the same table", || {
        (1..cluster.len()).all(|node| list(node) == list(0))
    });
    list(0)
}

fn assert_total(cluster: &Cluster, series: &str, total: u64) {
    for node in 0..cluster.len() {
        for more in
            [&[][..], &["--rows", "16"], &["--axis", "then"], &["--axis", "then", "--rows", "16"]]
        {
            let matrix = cluster.heat(node, series, more);
            assert_eq!(matrix["total"], total, "{series} {more:?} at node {}", node + 1);
            assert_eq!(matrix["unattributed"], 0);
            let rows = matrix["rows"].as_array().expect("rows");
            let cells = rows.iter().flat_map(|row| row["values"].as_array().expect("values"));
            let blocks = matrix["blocks"].as_array().expect("blocks").iter();
            let counts = cells.chain(blocks.map(|block| &block["value"]));
            assert_eq!(counts.map(number).sum::<u64>(), total, "cells and blocks sum to the total");
            for pair in rows.windows(2) {
                assert_eq!(pair[0]["end"], pair[1]["start"], "order: neither gap nor overlap");
            }
        }
    }
}

#[test]
fn conservation_and_no_lost_write_while_routes_split_and_merge_on_random_nodes() {
    let cluster = Cluster::start(3, FLAGS);
    // Waiting for the nodes scanned them, and scans are reads.
    let before = cluster.total(0, "reads", &[]);
    let wanted = changes_wanted();
    let keys = KEYS.to_string();
    let seconds = (wanted / 2).clamp(10, 120);
    let load = Command::new(KEYVIZ)
        .args(["load", "--pattern", "zipf", "--clients", "32", "--keys", &keys])
        .args(["--read-ratio", "0.5", "--duration", &format!("{seconds}s"), "--seed", "7"])
        .args(["--verify", "--format", "json", "--node", &cluster.grpc.join(",")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let tries = change_routes(&cluster, wanted);
    let output = load.wait_with_output().expect("the load ends");
    let report: Value = serde_json::from_slice(&output.stdout).expect("the load reports");
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(report["missing"], 0, "{report}");
    let (version, _) = tables_agree(&cluster);
    assert_eq!(version, wanted + 1, "each acknowledged change happened once");
    assert_total(&cluster, "writes", number(&report["writes_acked"]));
    let reads = before + number(&report["reads_ok"]) + number(&report["verified"]);
    assert_total(&cluster, "reads", reads);
    let events = &cluster.heat(1, "writes", &[])["events"];
    assert_eq!(events.as_array().expect("events").len() as u64, wanted, "every change is marked");
    println!("{wanted} changes in {tries} tries; {report}");
}

fn watch(cluster: &Cluster, node: usize, name: &str, after: u64) -> Child {
    let file = File::create(cluster.folder.path().join(name)).expect("a file");
    Command::new(KEYVIZ)
        .args(["routes", "watch", "--format", "json", "--after", &after.to_string()])
        .args(["--node", &cluster.grpc[node]])
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// The table that a subscriber has after the lines it read; `table` is what it had before.
fn replay(cluster: &Cluster, names: &[&str]) -> (u64, BTreeMap<String, Value>) {
    let (mut version, mut routes) = (0, BTreeMap::new());
    for name in names {
        let text = std::fs::read_to_string(cluster.folder.path().join(name)).expect("a file");
        // A subscriber that was killed may leave half a line.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line).expect("a JSON object a line");
            if let Some(snapshot) = event.get("snapshot") {
                version = number(&snapshot["catalog_version"]);
                routes =
                    snapshot["routes"].as_array().expect("routes").iter().map(identity).collect();
            } else if let Some(deltas) = event.get("deltas") {
                for delta in deltas["deltas"].as_array().expect("changes") {
                    let next = number(&delta["catalog_version"]);
                    assert_eq!(next, version + 1, "no hole and no change twice");
                    version = next;
                    for id in delta["retired"].as_array().expect("ids") {
                        assert!(routes.remove(&id.to_string()).is_some(), "{id} was live");
                    }
                    routes
                        .extend(delta["created"].as_array().expect("routes").iter().map(identity));
                }
            }
        }
    }
    (version, routes)
}

#[test]
fn subscribers_before_after_cut_off_and_stopped_end_with_the_table_of_every_node() {
    let cluster = Cluster::start(3, FLAGS);
    let mut before = watch(&cluster, 0, "before", 0);
    let mut cut = watch(&cluster, 1, "cut", 0);
    let mut stopped = watch(&cluster, 2, "stopped", 0);
    eventually("all have the table", || {
        ["before", "cut", "stopped"].iter().all(|name| replay(&cluster, &[name]).0 > 0)
    });
    change_routes(&cluster, 6);
    eventually("the second has read on", || replay(&cluster, &["cut"]).0 > 1);
    cut.kill().expect("the process is ours");
    cut.wait().expect("the process is ours");
    support::signal(&stopped, "STOP");
    change_routes(&cluster, 10.max(changes_wanted() / 2));
    // A long run stops it for a minute.
    std::thread::sleep(Duration::from_secs(if changes_wanted() < 100 { 0 } else { 60 }));
    support::signal(&stopped, "CONT");
    let (resumed_from, _) = replay(&cluster, &["cut"]);
    let mut resumed = watch(&cluster, 2, "resumed", resumed_from);
    let mut after = watch(&cluster, 1, "after", 0);
    let wanted = tables_agree(&cluster);
    for names in [&["before"][..], &["stopped"], &["after"], &["cut", "resumed"]] {
        eventually("a subscriber has the table of all nodes", || replay(&cluster, names) == wanted);
    }
    for child in [&mut before, &mut stopped, &mut resumed, &mut after] {
        child.kill().expect("the process is ours");
        child.wait().expect("the process is ours");
    }
}

#[test]
fn a_split_happens_once_or_not_at_all_when_the_catalog_leader_is_killed() {
    let mut cluster = Cluster::start(3, FLAGS);
    for pause_ms in [0, 3, 10] {
        let leader = catalog_leader(&cluster);
        let asked = (leader + 1) % 3;
        let (version, routes) = tables_agree(&cluster);
        let first = routes.iter().find(|(_, facts)| facts[0] == "").expect("a first route").0;
        let key = format!("a{version}");
        let mut split = Command::new(KEYVIZ)
            .args(["routes", "split", first, &format!("A{key}")])
            .args(["--request-id", &format!("kill-{pause_ms}"), "--node", &cluster.grpc[asked]])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        // Starting the client takes a few milliseconds; then the proposal is on its way.
        std::thread::sleep(Duration::from_millis(15 + pause_ms));
        cluster.kill(leader);
        let acknowledged = split.wait().expect("the process is ours").success();
        cluster.spawn(leader);
        cluster.wait_until_serving();
        let (now, _) = tables_agree(&cluster);
        assert!(now == version || now == version + 1, "once or not at all: {version} to {now}");
        assert!(now == version + 1 || !acknowledged, "an acknowledged split is there");
        println!(
            "killed after {pause_ms} ms: acknowledged {acknowledged}, happened {}",
            now - version
        );
    }
}

/// Who leads the catalog group, by index.
fn catalog_leader(cluster: &Cluster) -> usize {
    let status = cluster.json(&["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups");
    let catalog = groups.iter().find(|group| group["group_id"] == 0).expect("the catalog's");
    number(&catalog["leader"]) as usize - 1
}

/// The last index in the catalog group's log on node `index`, as that node tells.
fn catalog_log(cluster: &Cluster, index: usize) -> u64 {
    let status = cluster.json_on(index, &["cluster", "status"]);
    let groups = status["groups"].as_array().expect("groups");
    let catalog = groups.iter().find(|group| group["group_id"] == 0).expect("the catalog's");
    let replicas = catalog["replicas"].as_array().expect("replicas");
    let own = replicas.iter().find(|replica| replica["node_id"] == index as u64 + 1);
    number(&own.expect("it is a member")["last_log_index"])
}

/// The followers are paused, so that the leader has the proposal in its log, cannot commit it and
/// cannot answer; there it is killed. What it sent may lie in the followers' sockets, or not.
#[test]
fn once_a_split_whose_leader_dies_between_the_proposal_and_the_answer() {
    let mut cluster = Cluster::start(3, FLAGS);
    for round in 0..3 {
        let leader = catalog_leader(&cluster);
        let (version, routes) = tables_agree(&cluster);
        let log = catalog_log(&cluster, leader);
        let first = routes.iter().find(|(_, facts)| facts[0] == "").expect("a first route").0;
        // The first route shrinks with every round.
        let key = format!("A{}", 9 - round);
        let followers: Vec<u32> =
            (0..3).filter(|node| *node != leader).map(|node| cluster.pid(node)).collect();
        followers.iter().for_each(|pid| support::signal_pid(*pid, "STOP"));
        let mut split = Command::new(KEYVIZ)
            .args(["routes", "split", first, &key])
            .args(["--request-id", &format!("between-{round}"), "--node", &cluster.grpc[leader]])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        eventually("the leader has the proposal in its log", || {
            catalog_log(&cluster, leader) > log
        });
        assert!(split.try_wait().expect("the process is ours").is_none(), "it is not answered");
        cluster.kill(leader);
        followers.iter().for_each(|pid| support::signal_pid(*pid, "CONT"));
        let acknowledged = split.wait().expect("the process is ours").success();
        cluster.spawn(leader);
        cluster.wait_until_serving();
        let (now, table) = tables_agree(&cluster);
        assert!(now == version || now == version + 1, "once or not at all: {version} to {now}");
        assert!(now == version + 1 || !acknowledged, "an acknowledged split is there");
        let new_routes = table.len() as u64 - routes.len() as u64;
        assert_eq!(new_routes, now - version, "the table is that of the version");
        println!("round {round}: acknowledged {acknowledged}, happened {}", now - version);
        // The same request again: it takes effect now, or it is told that it has.
        let id = format!("between-{round}");
        cluster.json(&["routes", "split", first, &key, "--request-id", &id]);
        assert_eq!(tables_agree(&cluster).0, version + 1);
    }
}
