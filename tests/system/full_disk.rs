//! Three real nodes on a disk that fills up completely and is then freed.
//!
//! Needs root to mount a small file system in memory. Without it the test is skipped and says so.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::disk::SmallDisk;
use crate::support::{Cluster, KEYVIZ, eventually, http_get, stderr};

/// An eighth of it is the floor.
const DISK_BYTES: u64 = 160 << 20;
const FLOOR_BYTES: u64 = DISK_BYTES / 8;

const VALUE_BYTES: usize = 20_000;

/// The answer of `/readyz`, whatever its code.
fn readyz(cluster: &Cluster, index: usize) -> String {
    http_get(&cluster.http[index], "/readyz")
}

fn metric(cluster: &Cluster, index: usize, name: &str) -> u64 {
    let page = http_get(&cluster.http[index], "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().expect("a whole number")
}

fn free(disk: &SmallDisk) -> u64 {
    let space = rustix::fs::statvfs(&disk.0).expect("the disk is mounted");
    space.f_bavail * space.f_frsize
}

/// Writes a file that leaves so many bytes free; 0: until the disk is full.
fn fill(disk: &SmallDisk, name: &str, leave: u64) -> PathBuf {
    let path = disk.0.join(name);
    let mut file = std::fs::File::create(&path).expect("an empty file");
    let chunk = vec![7u8; 64 << 10];
    while free(disk) > leave && file.write_all(&chunk).is_ok() {}
    path
}

fn read_only(status: &Value) -> usize {
    let members = status["members"].as_array().expect("members");
    members.iter().filter(|member| member["read_only"] != "").count()
}

/// The keys that were acknowledged are there, and the matrix answers, from every node, with at
/// least what is `counted` still.
fn assert_reads_go_on(cluster: &Cluster, acknowledged: u64, counted: u64) {
    for node in 0..cluster.len() {
        for key in [0, acknowledged / 2, acknowledged - 1] {
            let found = cluster.run_on(node, &["get", &format!("k{key:05}"), "--raw"]);
            assert!(found.status.success(), "node {}: {}", node + 1, stderr(&found));
            assert_eq!(found.stdout.len(), VALUE_BYTES);
        }
        let matrix = cluster.heat(node, "writes", &[]);
        assert_eq!(matrix["responded"], cluster.len(), "node {}", node + 1);
        assert!(matrix["total"].as_u64() >= Some(counted), "{}", matrix["total"]);
    }
}

#[test]
fn no_harm_a_full_disk_makes_the_nodes_read_only_in_words_and_room_makes_them_write_again() {
    let mut cluster = Cluster::prepare(3, &["--groups", "2", "--split-at", "m"]);
    let Some(disk) = SmallDisk::mount(&cluster.folder.path().join("disk"), DISK_BYTES) else {
        return;
    };
    // The nodes' folders lie beside their logs: let the folders lead to the small disk.
    for node in 0..3 {
        let folder = disk.0.join(format!("node-{}", node + 1));
        std::fs::create_dir(&folder).expect("the disk is empty");
        std::os::unix::fs::symlink(&folder, cluster.data(node)).expect("a link");
    }
    (0..3).for_each(|node| cluster.spawn(node));
    cluster.wait_until_serving();

    // Someone else takes most of the disk; what is left above the floor is soon written.
    let other = fill(&disk, "other", FLOOR_BYTES + (12 << 20));
    let value = "v".repeat(VALUE_BYTES);
    let (mut acknowledged, mut others) = (0, 0);
    let refusal = loop {
        let put = cluster.run(&["put", &format!("k{acknowledged:05}"), &value]);
        if put.status.success() {
            acknowledged += 1;
        } else if stderr(&put).contains("is full") {
            break stderr(&put);
        } else {
            // Proposed while a majority filled up, or while a group changed its leader.
            others += 1;
            let each = (0..3).map(|node| {
                let key = format!("k{acknowledged:05}");
                stderr(&cluster.run_on(node, &["put", &key, &value]))
            });
            let status = cluster.run(&["cluster", "status"]);
            let status = String::from_utf8_lossy(&status.stdout).into_owned();
            let said =
                || format!("{} {:?} {status}", stderr(&put), each.clone().collect::<Vec<_>>());
            assert!(others < 4, "{}", said());
        }
        assert!(acknowledged < 1_000, "nothing was refused with {} bytes free", free(&disk));
    };
    assert!(acknowledged > 5, "{acknowledged} acknowledged, then {refusal}");
    assert!(refusal.contains("is full"), "{refusal}");
    assert!(refusal.contains("read-only until there is space"), "{refusal}");

    // Everybody tells.
    eventually("all nodes are read-only", || read_only(&cluster.json(&["cluster", "status"])) == 3);
    let table = cluster.run(&["cluster", "status"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("read-only: the disk of"));
    for node in 0..3 {
        assert!(readyz(&cluster, node).starts_with("ready, read-only: the disk of"));
        assert_eq!(metric(&cluster, node, "keyviz_disk_full"), 1);
        assert_eq!(metric(&cluster, node, "keyviz_storage_fault"), 0);
        assert!(metric(&cluster, node, "keyviz_disk_free_bytes") < FLOOR_BYTES);
        eventually("the stored history goes first", || {
            cluster.log(node).contains("the stored history is dropped")
        });
    }
    let split = cluster.run(&["routes", "split", "1", "b"]);
    assert!(stderr(&split).contains("is full"), "the catalog too: {}", stderr(&split));
    assert_reads_go_on(&cluster, acknowledged, acknowledged);

    // To the last byte: the ballast is what the nodes then have, and it is enough to elect leaders,
    // and to start.
    let rest = fill(&disk, "rest", 0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    cluster.kill(1);
    cluster.spawn(1);
    cluster.wait_until_serving();
    cluster.kill(0);
    eventually("the others find leaders", || {
        cluster.run_on(2, &["get", "k00000", "--raw"]).status.success()
    });
    cluster.spawn(0);
    cluster.wait_until_serving();
    // The history went first, so what the killed nodes had counted went with them.
    assert_reads_go_on(&cluster, acknowledged, 0);
    assert!(cluster.ended().is_empty(), "no node gave up");

    // Room again: no restart, no command.
    std::fs::remove_file(rest).expect("it is there");
    std::fs::remove_file(other).expect("it is there");
    eventually("no node is read-only", || read_only(&cluster.json(&["cluster", "status"])) == 0);
    let put = cluster.run(&["put", "after", "x"]);
    assert!(put.status.success(), "{}", stderr(&put));
    for node in 0..3 {
        assert_eq!(metric(&cluster, node, "keyviz_disk_full"), 0);
        eventually("the history is stored again", || {
            cluster.log(node).contains("the history is stored again")
        });
    }
    assert_reads_go_on(&cluster, acknowledged, 0);
    let rows = cluster.run(&["scan", "k", "l", "--keys-only", "--format", "json"]);
    assert!(rows.status.success(), "{}", stderr(&rows));
    assert!(String::from_utf8_lossy(&rows.stdout).lines().count() as u64 >= acknowledged);
}

/// A disk of this size gets a floor of 24 MiB, and a node lets 64 MiB of writes be in progress.
const SMALL_DISK_BYTES: u64 = 192 << 20;

/// Load of values up to the largest until disks of their own are full: what is accepted fits.
fn fills_without_a_fault(nodes: usize, value: &str) {
    let mut cluster = Cluster::prepare(nodes, &["--groups", "2"]);
    let mut disks = Vec::new();
    for node in 0..nodes {
        let Some(disk) = SmallDisk::mount(&cluster.data(node), SMALL_DISK_BYTES) else {
            return;
        };
        disks.push(disk);
        cluster.spawn(node);
    }
    cluster.wait_until_serving();
    let flags = ["load", "--duration", "6s", "--clients", "64", "--read-ratio", "0"];
    let more = ["--value-bytes", value, "--format", "json", "--node", &cluster.grpc.join(",")];
    let load = Command::new(KEYVIZ).args(flags).args(more).output().expect("load runs");
    let told = String::from_utf8_lossy(&load.stdout).into_owned();
    let report: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"));
    let errors = report["errors_by_kind"].as_object().unwrap_or_else(|| panic!("{told}"));
    assert!(!errors.contains_key("INTERNAL"), "{value} on {nodes}: {told}");
    for (node, disk) in disks.iter().enumerate() {
        assert_eq!(metric(&cluster, node, "keyviz_storage_fault"), 0, "{value} on {nodes}");
        assert!(free(disk) > 0, "{value} on {nodes}: node {}", node + 1);
        assert!(free(disk) < SMALL_DISK_BYTES / 2, "{value} on {nodes}: {told}");
    }
    assert!(cluster.ended().is_empty(), "no node gave up");
    let found = cluster.run(&["scan", "", "--limit", "1", "--keys-only"]);
    assert!(found.status.success(), "{}", stderr(&found));
}

#[test]
fn no_harm_large_values_fill_a_small_disk_without_a_fault() {
    fills_without_a_fault(1, "1MiB");
    fills_without_a_fault(3, "256KiB");
    fills_without_a_fault(3, "1MiB");
}
