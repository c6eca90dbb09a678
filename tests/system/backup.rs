//! A cluster into a file, and the file into another cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{self, Cluster, KEYVIZ, eventually, stderr};
use serde_json::Value;

pub fn keyviz(arguments: &[&str]) -> Output {
    Command::new(KEYVIZ).args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// The folder of node `index` of `cluster`, made from a backup.
fn restore(cluster: &Cluster, index: usize, from: &Path, into: &Path) -> Output {
    let members: Vec<String> = cluster
        .advertised
        .iter()
        .enumerate()
        .map(|(index, address)| format!("{}={address}", index + 1))
        .collect();
    let id = (index + 1).to_string();
    let (from, into, members) = (text(from), text(into), members.join(","));
    keyviz(&[
        "restore",
        "--from",
        from,
        "--data",
        into,
        "--id",
        &id,
        "--bootstrap",
        &members,
        "--format",
        "json",
    ])
}

/// A cluster of `count` nodes on folders made from a backup.
pub fn restored(count: usize, from: &Path) -> Cluster {
    let mut cluster = Cluster::prepare(count, &["--keyviz-step", "1s"]);
    cluster.restarts_only = true;
    for index in 0..count {
        let made = restore(&cluster, index, from, &cluster.data(index));
        assert!(made.status.success(), "{}", stderr(&made));
        cluster.spawn(index);
    }
    cluster.wait_until_serving();
    cluster
}

/// What a backup has to keep, as a client sees it.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    rows: String,
    routes: Vec<(u64, String, u64, u64)>,
    version: Value,
    history: Value,
    writes: u64,
    write_bytes: u64,
}

/// Who leads is not kept.
fn without_leaders(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("leader");
            fields.values_mut().for_each(|field| *field = without_leaders(field.take()));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| *item = without_leaders(item.take()));
        }
        _ => {}
    }
    value
}

fn seen(cluster: &Cluster) -> Seen {
    let rows = cluster.run(&["scan", "", "--format", "json"]);
    assert!(rows.status.success(), "{}", stderr(&rows));
    let list = cluster.json(&["routes", "list"]);
    let route = |route: &Value| {
        let number = |name: &str| route[name].as_u64().expect("a number");
        (
            number("route_id"),
            route["start"].to_string(),
            number("group_id"),
            number("created_version"),
        )
    };
    Seen {
        rows: String::from_utf8(rows.stdout).expect("JSON is text"),
        routes: list["routes"].as_array().expect("routes").iter().map(route).collect(),
        version: list["catalog_version"].clone(),
        history: without_leaders(cluster.json(&["routes", "history"])),
        writes: cluster.total(0, "writes", &[]),
        write_bytes: cluster.total(0, "write-bytes", &[]),
    }
}

fn backup(cluster: &Cluster, out: &Path) -> Value {
    cluster.json(&["backup", "--out", text(out)])
}

fn damaged(sound: &Path, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(sound).expect("it is there");
    damage(&mut bytes);
    let path = sound.with_file_name(name);
    std::fs::write(&path, bytes).expect("the temporary folder takes a file");
    path
}

#[test]
fn durable_identity_and_conservation_a_restored_cluster_has_data_routes_ids_lineage_and_history() {
    let mut old = Cluster::start(3, &["--groups", "2", "--split-at", "g,m", "--keyviz-step", "1s"]);
    let load = old.json(&[
        "load",
        "--operations",
        "600",
        "--clients",
        "8",
        "--read-ratio",
        "0.2",
        "--keys",
        "300",
    ]);
    assert_eq!(load["errors"], 0);
    let long = "x".repeat(60_000);
    assert!(old.run(&["put", "long", &long]).status.success());
    for change in [&["routes", "split", "1", "d"][..], &["routes", "split", "2", "k"]] {
        let changed = old.run(change);
        assert!(changed.status.success(), "{}", stderr(&changed));
    }
    // What was counted is in the history within a second.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let before = seen(&old);
    let folder = old.folder.path().join("backups");
    std::fs::create_dir(&folder).expect("a folder");
    let made = backup(&old, &folder);
    let file = PathBuf::from(made["file"].as_str().expect("its name"));
    assert!(made["rows"].as_u64() > Some(before.rows.lines().count() as u64), "and the catalog's");
    assert_eq!(made["histories"], serde_json::json!([1, 2, 3]));
    let again = old.run(&["backup", "--out", text(&file)]);
    assert!(stderr(&again).contains("exists"), "{}", stderr(&again));
    let old_id = old.json(&["cluster", "status"])["cluster_id"].clone();
    for node in 0..3 {
        assert_eq!(old.stop(node), Some(0));
    }

    // Refused: a folder in use, a damaged file, a file that is none.
    let fresh = Cluster::prepare(3, &[]);
    let over = restore(&fresh, 0, &file, &old.data(0));
    assert!(stderr(&over).contains("holds data already"), "{}", stderr(&over));
    let length = std::fs::metadata(&file).expect("it is there").len() as usize;
    let flipped = damaged(&file, "flipped", |bytes| bytes[length / 2] ^= 4);
    let refused = restore(&fresh, 0, &flipped, &fresh.data(0));
    assert!(stderr(&refused).contains("damaged in chunk"), "{}", stderr(&refused));
    let cut = damaged(&file, "cut", |bytes| bytes.truncate(length - 9));
    let refused = restore(&fresh, 0, &cut, &fresh.data(0));
    assert!(stderr(&refused).contains("the file ends before"), "{}", stderr(&refused));
    let other = damaged(&file, "other", |bytes| *bytes = b"something else".to_vec());
    let refused = restore(&fresh, 0, &other, &fresh.data(0));
    assert!(stderr(&refused).contains("no backup of keyviz"), "{}", stderr(&refused));
    assert!(!fresh.data(0).exists());
    let left = std::fs::read_dir(fresh.folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "nothing is left of a restore that was refused");

    let new = restored(3, &file);
    assert_eq!(seen(&new), before);
    let status = new.json(&["cluster", "status"]);
    assert_ne!(status["cluster_id"], old_id, "nodes of the two clusters never mix");
    let checked = new.total(0, "writes", &[]);
    assert!(new.run(&["put", "after", "restore"]).status.success());
    let split = new.run(&["routes", "split", "3", "t"]);
    assert!(split.status.success(), "{}", stderr(&split));
    eventually("the write is counted beside the old ones", || {
        let matrix = new.heat(0, "writes", &[]);
        assert_eq!(matrix["conflicts"].as_array().map_or(0, Vec::len), 0, "{matrix}");
        matrix["total"] == checked + 1
    });
    let ids = seen(&new).routes.into_iter().map(|route| route.0).collect::<Vec<_>>();
    let newest = before.routes.iter().map(|route| route.0).max();
    assert!(ids.iter().filter(|id| Some(**id) > newest).count() == 2, "ids go on: {ids:?}");
}

#[test]
fn a_backup_restores_onto_one_node_and_a_restored_folder_is_sound() {
    let old = Cluster::start(3, &["--groups", "3"]);
    for key in ["a", "m", "z"] {
        assert!(old.run(&["put", key, "value"]).status.success());
    }
    let file = old.folder.path().join("backup");
    backup(&old, &file);
    let mut new = restored(1, &file);
    let rows = new.run(&["scan", "", "--format", "json"]);
    assert_eq!(String::from_utf8_lossy(&rows.stdout).lines().count(), 3);
    // It restarts as any node, and its folder is in order.
    new.kill(0);
    new.spawn(0);
    new.wait_until_serving();
    assert!(new.run(&["get", "m"]).status.success());
    assert_eq!(new.stop(0), Some(0));
    let checked = keyviz(&["check", "--data", text(&new.data(0))]);
    assert!(checked.status.success(), "{}", stderr(&checked));
}

#[test]
fn a_start_that_failed_does_not_stand_in_the_way_of_a_restore_and_a_node_does() {
    let old = Cluster::start(1, &["--groups", "1"]);
    assert!(old.run(&["put", "a", "value"]).status.success());
    let file = old.folder.path().join("backup");
    backup(&old, &file);
    let new = Cluster::prepare(1, &[]);
    let data = new.data(0);
    // Nobody listens there, so the node never joins.
    let nobody = support::free_addresses(1);
    let mut joining = Command::new(KEYVIZ)
        .args(["serve", "--id", "1", "--listen", &new.grpc[0], "--join", &nobody[0], "--data"])
        .arg(&data)
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    eventually("the folder is made", || data.join("side").exists());
    let held = restore(&new, 0, &file, &data);
    assert!(stderr(&held).contains("holds data already"), "{}", stderr(&held));
    support::signal(&joining, "KILL");
    joining.wait().expect("the process is ours");
    // What is not a node's stays.
    std::fs::write(data.join("notes"), "mine").expect("it is writable");
    assert!(!restore(&new, 0, &file, &data).status.success());
    std::fs::remove_file(data.join("notes")).expect("it is there");
    let made = restore(&new, 0, &file, &data);
    assert!(made.status.success(), "{}", stderr(&made));
    let again = restore(&new, 0, &file, &data);
    assert!(stderr(&again).contains("holds data already"), "{}", stderr(&again));
    let left: Vec<_> = new.folder.path().read_dir().expect("it is there").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Columns in which the only row is marked as partial.
fn partial(matrix: &Value) -> usize {
    let rows = matrix["rows"].as_array().expect("rows");
    rows.iter().map(|row| row["partial"].as_array().map_or(0, Vec::len)).max().unwrap_or(0)
}

#[test]
fn conservation_a_backup_has_the_history_of_nodes_that_left_and_fewer_nodes_keep_all_of_it() {
    let mut old = Cluster::start(
        3,
        &["--groups", "3", "--split-at", "h,q", "--replication", "2", "--keyviz-step", "1s"],
    );
    let load = old.json(&["load", "--operations", "900", "--read-ratio", "0", "--keys", "200"]);
    assert_eq!(load["errors"], 0, "{load}");
    for key in ["a", "k", "x"] {
        assert!(old.run(&["put", key, "value"]).status.success());
    }
    let left = old.run(&["cluster", "remove-node", "3"]);
    assert!(left.status.success(), "{}", stderr(&left));
    assert_eq!(old.stop(2), Some(0));
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let before = old.total(0, "writes", &[]);
    assert!(before >= 903, "{before}");
    let file = old.folder.path().join("backup");
    let made = backup(&old, &file);
    assert_eq!(made["histories"], serde_json::json!([1, 2]));
    assert_eq!(made["histories_kept"], serde_json::json!([3]));
    // One node takes all three histories; restored again, they go on.
    let new = restored(1, &file);
    let matrix = new.heat(0, "writes", &[]);
    assert_eq!(matrix["total"], before);
    let again = new.folder.path().join("again");
    assert_eq!(backup(&new, &again)["histories_kept"], serde_json::json!([2, 3]));
    let third = restored(2, &again);
    assert_eq!(third.total(1, "writes", &[]), before);
}

#[test]
fn honest_partiality_history_that_a_backup_lacks_is_told_and_marked() {
    let flags = ["--groups", "1", "--replication", "3", "--keyviz-step", "1s"];
    let mut old = Cluster::start(3, &flags);
    assert!(old.run(&["put", "a", "value"]).status.success());
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    old.kill(2);
    let file = old.folder.path().join("backup");
    let out = ["backup", "--out", text(&file), "--format", "json"];
    eventually("the others make a backup", || old.run_on(0, &out).status.code() == Some(6));
    for count in [1, 3] {
        let new = Cluster::prepare(count, &[]);
        let made: Vec<Value> = (0..count)
            .map(|index| {
                let made = restore(&new, index, &file, &new.data(index));
                assert!(stderr(&made).contains("lacks the history of node 3"), "{}", stderr(&made));
                serde_json::from_slice(&made.stdout).expect("JSON")
            })
            .collect();
        assert!(made.iter().all(|made| made["history_left_out"] == serde_json::json!([3])));
    }
    let new = restored(1, &file);
    assert!(new.run(&["put", "b", "value"]).status.success());
    let matrix = new.heat(0, "writes", &[]);
    assert_eq!(matrix["nodes"][0]["past_history"], true, "{matrix}");
    assert!(partial(&matrix) > 0, "{matrix}");
}

/// A catalog version goes with the cluster that it is of.
#[test]
fn a_catalog_version_from_before_a_restore_is_refused() {
    use keyviz_proto::routes_client::RoutesClient;
    use keyviz_proto::watch_routes_response::Event;
    use keyviz_proto::{RouteHistoryRequest, SplitRouteRequest, WatchRoutesRequest};
    use tonic::Code;

    let old = Cluster::start(1, &["--groups", "1", "--replication", "1"]);
    let file = old.folder.path().join("backup");
    backup(&old, &file);
    // After the backup, so the new cluster does not know of it.
    let split = old.run(&["routes", "split", "1", "m"]);
    assert!(split.status.success(), "{}", stderr(&split));
    let list = old.json(&["routes", "list"]);
    let (id, version) = (list["cluster_id"].as_str().expect("an id").to_owned(), 2);
    assert_eq!(list["catalog_version"], version);
    let new = restored(1, &file);
    // Another change makes the same version.
    assert!(new.run(&["routes", "split", "1", "f"]).status.success());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let url = format!("http://{}", new.grpc[0]);
        let mut client = RoutesClient::connect(url).await.expect("the node listens");
        let of = |cluster_id: &str| WatchRoutesRequest {
            after_version: version,
            cluster_id: cluster_id.to_owned(),
            ..Default::default()
        };
        let mut first = async |request| {
            let mut events = client.watch_routes(request).await.expect("it serves").into_inner();
            events.message().await.expect("it serves").expect("an event")
        };
        let foreign = first(of(&id)).await;
        let Some(Event::Snapshot(table)) = foreign.event else { panic!("{foreign:?}") };
        assert!(table.reset && table.routes[1].start.as_ref() == b"f");
        let ours = foreign.cluster_id;
        assert!(!ours.is_empty() && ours != id);
        // One of this cluster, or one that does not say, goes on from there.
        for cluster_id in [ours.as_str(), ""] {
            let next = first(of(cluster_id)).await;
            assert!(matches!(next.event, Some(Event::Progress(_))), "{next:?}");
        }
        let split = |cluster_id: &str| SplitRouteRequest {
            route_id: 3,
            key: "t".into(),
            expected_version: version,
            cluster_id: cluster_id.to_owned(),
            ..Default::default()
        };
        let refused = client.split_route(split(&id)).await.expect_err("another cluster's");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        let history =
            RouteHistoryRequest { after_version: 1, cluster_id: id.clone(), ..Default::default() };
        let refused = client.route_history(history).await.expect_err("another cluster's");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        let done = client.split_route(split(&ours)).await.expect("it is this cluster's");
        assert_eq!(done.into_inner().cluster_id, ours);
    });
    let refused = new.run(&[
        "routes",
        "split",
        "4",
        "z",
        "--expected-version",
        "3",
        "--expected-cluster",
        &id,
    ]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));

    // The same backup for the same members, once more: only a name tells the two apart.
    let other = Cluster::prepare(1, &[]);
    let members = format!("1={}", new.advertised[0]);
    let made = |name: &str, into: &str| {
        let (from, into) = (text(&file), other.folder.path().join(into));
        let named = ["--id", "1", "--bootstrap", &members, "--format", "json", "--as", name];
        let made =
            keyviz(&[&["restore", "--from", from, "--data", text(&into)], &named[..]].concat());
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        made["cluster_id"].as_str().expect("an id").to_owned()
    };
    assert_ne!(made("", "a"), made("second", "b"));
    assert_eq!(made("second", "c"), made("second", "d"));
}
