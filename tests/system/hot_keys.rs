//! Hot keys of real clusters: by command and HTTP, through a kill, beside what was written.

use std::collections::BTreeMap;

use crate::support::{Cluster, eventually, http_answer, http_get, stderr};
use serde_json::Value;

/// The keys of an answer: lower and upper bound.
pub fn keys(answer: &Value) -> BTreeMap<String, (u64, u64)> {
    let bound = |key: &Value, name: &str| key[name].as_u64().expect("a number");
    let keys = answer["keys"].as_array().expect("keys").iter();
    keys.map(|key| {
        let name = key["key"].as_str().expect("text").to_owned();
        (name, (bound(key, "lower"), bound(key, "upper")))
    })
    .collect()
}

/// Every bound holds, and every key above the threshold is named.
#[track_caller]
fn check(answer: &Value, truth: &BTreeMap<String, u64>) {
    let named = keys(answer);
    for (key, (lower, upper)) in &named {
        let count = truth.get(key).copied().unwrap_or(0);
        assert!(*lower <= count && count <= *upper, "{key}: {lower} <= {count} <= {upper}");
    }
    let threshold = answer["threshold"].as_u64().expect("a number");
    for (key, count) in truth {
        assert!(named.contains_key(key) || *count <= threshold, "{key}: {count} > {threshold}");
    }
}

#[test]
fn bounds_hot_keys_are_named_on_every_node_by_command_and_http() {
    let cluster = Cluster::start(3, &["--keyviz-step", "2s", "--groups", "2"]);
    let long = "w".repeat(4_096);
    let mut writes = BTreeMap::new();
    let loads = [("hot", 30), ("warm/\u{1b}[31m", 9), ("<b>x</b>", 5), ("a", 1), ("hex:01ff", 4)];
    for (key, times) in loads.iter().copied().chain([(&*long, 3)]) {
        for node in 0..times {
            // Through all nodes: a forwarded write is counted by its leader, once.
            let put = cluster.run_on(node % 3, &["put", key, "v"]);
            assert!(put.status.success(), "{}", stderr(&put));
        }
        let shown = if key.contains('\u{1b}') { "hex:7761726d2f1b5b33316d" } else { key };
        writes.insert(shown.to_owned(), times as u64);
    }
    assert!(cluster.run(&["delete", "a"]).status.success());
    *writes.entry("a".to_owned()).or_default() += 1;
    for _ in 0..4 {
        assert!(cluster.run(&["get", "hot", "--consistency", "stale"]).status.success());
    }
    for node in 0..3 {
        let answer = cluster.json_on(node, &["hot", "--by-node"]);
        assert_eq!(answer["partial"], false, "{answer}");
        check(&answer, &writes);
        assert_eq!(answer["keys"][0]["key"], "hot");
        let of_nodes = answer["keys"][0]["by_node"].as_array().expect("nodes");
        let sum: u64 = of_nodes.iter().map(|node| node["lower"].as_u64().expect("n")).sum();
        assert_eq!(answer["keys"][0]["lower"].as_u64(), Some(sum));
        let total = cluster.total(node, "writes", &[]);
        let lower: u64 = keys(&answer).values().map(|bounds| bounds.0).sum();
        assert!(lower <= total, "conservation: {lower} of {total}");
    }
    let reads = cluster.json(&["hot", "--series", "reads"]);
    check(&reads, &BTreeMap::from([("hot".to_owned(), 4)]));

    // A range, one key, and a window before everything.
    let range = cluster.json(&["hot", "b", "i"]);
    assert_eq!(keys(&range).keys().collect::<Vec<_>>(), ["hot"]);
    let cold = cluster.json(&["hot", "y", "z"]);
    assert!(keys(&cold).is_empty());
    let past = cluster.json(&["hot", "--from", "1000", "--to", "2000"]);
    assert!(keys(&past).is_empty() && past["threshold"] == 0);
    let http: Value =
        serde_json::from_str(&http_get(&cluster.http[1], "/api/v1/hotkeys?limit=1")).expect("JSON");
    assert_eq!(http["keys"][0]["key"], "hot");
    assert_eq!(http["keys"].as_array().map(Vec::len), Some(1));
    // What was cut is under the threshold.
    check(&http, &writes);

    let table = cluster.run(&["hot"]);
    let text = String::from_utf8(table.stdout).expect("text");
    assert!(text.contains("█") && text.contains("every key with more than"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(cluster.metric(0, "keyviz_hot_keys_enabled") == Some(1.0));
    let metrics = http_get(&cluster.http[0], "/metrics");
    assert!(!metrics.contains("warm"), "metrics name no keys");

    for (query, named) in [
        ("limit=10000", "limit is 10000; an answer has at most 1000 keys"),
        ("points=241", "points is 241; a key has at most 240 points"),
        ("series=read-bytes", "by operations"),
        ("from_ms=5&to_ms=5", "from_ms"),
        ("start=b&end=a", "range"),
        ("limit=x", "limit=x"),
        ("nonsense=1", "nonsense"),
    ] {
        let path = format!("/api/v1/hotkeys?{query}");
        let answer = http_answer(&cluster.http[0], &path).expect("an answer");
        assert!(answer.contains(" 400 ") && answer.contains(named), "{query}: {answer}");
    }
}

#[test]
fn honest_partiality_a_missing_and_a_restarted_node_say_so() {
    let mut cluster = Cluster::start(3, &["--keyviz-step", "2s"]);
    for _ in 0..20 {
        assert!(cluster.run(&["put", "hot", "v"]).status.success());
    }
    let before = cluster.json(&["hot"]);
    assert_eq!(keys(&before)["hot"], (20, 20), "{before}");
    cluster.kill(2);
    let missing = cluster.json_on(0, &["hot"]);
    assert_eq!((&missing["partial"], &missing["responded"]), (&Value::Bool(true), &2.into()));
    cluster.spawn(2);
    cluster.wait_until_serving();
    // A checkpoint is a second old at most, so a count that was read before is there again, or its
    // column says that it is partial.
    eventually("all members answer again", || {
        let again = cluster.json_on(0, &["hot"]);
        let whole = keys(&again).get("hot") == Some(&(20, 20));
        again["responded"] == 3 && (whole || again["partial"] == true)
    });
}

#[test]
fn hashed_names_are_the_same_on_all_nodes_and_off_answers_unavailable() {
    let cluster = Cluster::start(3, &["--keyviz-hot-keys", "hashed"]);
    for node in 0..3 {
        assert!(cluster.run_on(node, &["put", "secret/name", "v"]).status.success());
    }
    let answers: Vec<Value> =
        (0..3).map(|node| cluster.json_on(node, &["hot", "secret", "secreu"])).collect();
    let name = answers[0]["keys"][0]["key"].as_str().expect("a name").to_owned();
    assert!(name.starts_with('#') && !name.contains("secret"));
    for answer in &answers {
        assert_eq!(
            (&answer["hashed"], answer["keys"][0]["lower"].as_u64()),
            (&true.into(), Some(3))
        );
        assert_eq!(answer["keys"][0]["key"], *name);
    }

    let off = Cluster::start(1, &["--keyviz-hot-keys", "off"]);
    let refused = off.run(&["hot"]);
    assert!(stderr(&refused).contains("--keyviz-hot-keys=off"), "{}", stderr(&refused));
    assert!(off.run(&["put", "k", "v"]).status.success());
    assert_eq!(off.total(0, "writes", &[]), 1, "cells go on");
    let wrong = off.run(&["hot", "--series", "read-bytes"]);
    assert_eq!(wrong.status.code(), Some(2));
}
