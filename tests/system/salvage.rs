//! Law 9 where a majority is lost for good: what the surviving folders hold becomes a new cluster.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::backup::{keyviz, restored, text};
use crate::support::{Cluster, PATIENCE, eventually, stderr};

const KEYS: usize = 200;

fn salvage(arguments: &[&str]) -> (Option<i32>, String, Value) {
    let output = keyviz(&[&["salvage", "--format", "json"], arguments].concat());
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), stderr(&output), json)
}

fn put_keys(cluster: &Cluster, index: usize) {
    for n in 0..KEYS {
        let key = format!("{}{n}", ["a", "h", "p", "x"][n % 4]);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !cluster.run_on(index, &["put", &key, &format!("value {n}")]).status.success() {
            assert!(std::time::Instant::now() < deadline, "{key} was never acknowledged");
        }
    }
}

/// All files of a folder with their contents, but for the lock, which names its last holder.
fn contents(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if path.is_dir() {
            found.extend(contents(&path));
        } else if name != "LOCK" {
            found.push((path.display().to_string(), fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

#[test]
fn no_lost_write_a_survivor_gives_all_that_it_holds_to_a_new_cluster() {
    let split = ["--split-at", "g,n,t", "--groups", "4", "--keyviz-step", "1s"];
    let mut cluster = Cluster::start(3, &split);
    put_keys(&cluster, 0);
    // The survivor has applied everything that was acknowledged.
    eventually("the third replica has every key", || {
        let rows = cluster.run_on(2, &["scan", "a", "--consistency", "stale", "--format", "csv"]);
        String::from_utf8_lossy(&rows.stdout).lines().count() > KEYS
    });
    for index in 0..3 {
        cluster.kill(index);
    }
    let survivor = cluster.data(2);
    for lost in 0..2 {
        fs::remove_dir_all(cluster.data(lost)).expect("the folder is ours");
    }
    let before = contents(&survivor);
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("salvaged.backup");

    // Without the confirmation the loss is stated, and nothing is written.
    let wanted = ["--data", text(&survivor), "--out", text(&file)];
    let (code, words, plan) = salvage(&wanted);
    let id = plan["cluster_id"].as_str().expect("the id").to_owned();
    assert_eq!(code, Some(5), "{words}");
    assert!(words.contains(&format!("--accept-loss {id}")), "{words}");
    assert_eq!(plan["groups"].as_array().expect("groups").len(), 5);
    for group in plan["groups"].as_array().expect("groups") {
        assert_eq!(group["members_missing"], serde_json::json!([1, 2]), "{group}");
    }
    let (code, words, _) = salvage(&[&wanted[..], &["--accept-loss", "another"]].concat());
    assert_eq!(code, Some(5), "{words}");
    assert!(words.contains("names cluster another"), "{words}");
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);

    let (code, words, made) = salvage(&[&wanted[..], &["--accept-loss", &id]].concat());
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(made["written"]["histories"], serde_json::json!([3]), "{made}");
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1, "only the file is left");
    assert!(contents(&survivor) == before, "the folder of the survivor was changed");

    let new = restored(3, &file);
    for n in 0..KEYS {
        let key = format!("{}{n}", ["a", "h", "p", "x"][n % 4]);
        let read = new.run(&["get", &key]);
        assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), format!("value {n}"), "{key}");
    }
    assert_ne!(new.json(&["cluster", "status"])["cluster_id"], Value::String(id));
    assert!(new.run(&["put", "after", "salvage"]).status.success());
}

#[test]
fn no_lost_write_each_group_comes_from_the_folder_whose_log_ends_last() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    put_keys(&cluster, 0);
    // The third member misses what follows; the second has it.
    cluster.kill(2);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !cluster.run_on(0, &["put", "late", "acknowledged"]).status.success() {
        assert!(std::time::Instant::now() < deadline, "it was never acknowledged");
    }
    cluster.kill(0);
    cluster.kill(1);
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("salvaged.backup");
    let (second, third) = (cluster.data(1), cluster.data(2));
    let folders = ["--data", text(&third), "--data", text(&second), "--out", text(&file)];
    let (_, _, plan) = salvage(&folders);
    let id = plan["cluster_id"].as_str().expect("the id").to_owned();
    for group in plan["groups"].as_array().expect("groups") {
        assert_eq!(group["folder"].as_str(), Some(text(&second)), "{group}");
    }
    let (code, words, _) = salvage(&[&folders[..], &["--accept-loss", &id]].concat());
    assert_eq!(code, Some(0), "{words}");
    let new = restored(1, &file);
    assert_eq!(String::from_utf8_lossy(&new.run(&["get", "late"]).stdout).trim(), "acknowledged");
}

#[test]
fn what_cannot_be_salvaged_is_refused_in_words() {
    let mut first = Cluster::start(1, &["--groups", "1"]);
    let mut second = Cluster::start(1, &["--groups", "1"]);
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("salvaged.backup");
    let (one, two) = (first.data(0), second.data(0));
    let refused = |folders: &[&str], words: &str| {
        let (code, said, _) = salvage(&[folders, &["--out", text(&file)]].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{words:?} is not in {said}");
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
    };
    refused(&["--data", text(&one)], "is in use");
    first.stop(0);
    second.stop(0);
    refused(&["--data", text(&one), "--data", text(&two)], "belongs to cluster");
    refused(&["--data", text(place.path())], "no node");
    let copy = tempfile::tempdir().expect("a temporary folder");
    let copied = copy.path().join("copy");
    let cp = std::process::Command::new("cp").arg("-a").arg(&one).arg(&copied).status();
    assert!(cp.expect("cp runs").success());
    refused(&["--data", text(&one), "--data", text(&copied)], "are both folders of node 1");
}

/// A disk that went back forms a majority with one that missed everything, and they replace what
/// was acknowledged before: a later term is no reason to prefer their logs.
#[test]
fn no_lost_write_folders_that_contradict_each_other_are_not_salvaged_together() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    put_keys(&cluster, 0);
    cluster.stop(2);
    let place = tempfile::tempdir().expect("a temporary folder");
    let old = place.path().join("old");
    cluster.stop(1);
    let copied = Command::new("cp").arg("-a").arg(cluster.data(1)).arg(&old).status();
    assert!(copied.expect("cp runs").success());
    cluster.spawn(1);
    for n in 0..20 {
        let key = format!("later{n}");
        eventually("a majority takes it", || cluster.run(&["put", &key, "x"]).status.success());
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    cluster.kill(0);
    cluster.kill(1);
    fs::remove_dir_all(cluster.data(1)).expect("the folder is ours");
    fs::rename(&old, cluster.data(1)).expect("the folder is ours");
    cluster.spawn(2);
    cluster.spawn(1);
    eventually("the two take a write", || {
        cluster.run_on(2, &["put", "after", "x"]).status.success()
    });
    cluster.kill(1);
    cluster.kill(2);

    let file = place.path().join("salvaged.backup");
    let folders: Vec<_> = (0..3).map(|index| cluster.data(index)).collect();
    let with = |nodes: &[usize], more: &[&str]| {
        let data = nodes.iter().flat_map(|node| ["--data", text(&folders[*node])]);
        salvage(&data.chain(["--out", text(&file)]).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let (code, words, _) = with(&[0, 1, 2], &[]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("cannot be used together"), "{words}");
    let (code, words, plan) = with(&[0, 2], &[]);
    assert_eq!(code, Some(1), "{words} {plan}");
    assert!(words.contains("has another entry there, or lacks it"), "{words}");
    assert!(words.contains("one folder at a time") && !file.exists(), "{words}");

    let (_, _, plan) = with(&[0], &[]);
    let id = plan["cluster_id"].as_str().expect("the id").to_owned();
    let (code, words, _) = with(&[0], &["--accept-loss", &id]);
    assert_eq!(code, Some(0), "{words}");
    let new = restored(1, &file);
    for n in 0..20 {
        assert!(new.run(&["get", &format!("later{n}")]).status.success(), "later{n}");
    }
}
