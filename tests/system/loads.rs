//! Loads and rankings of real clusters, beside the matrix of the same window.

use crate::support::{Cluster, eventually, http_answer, http_get, stderr};
use serde_json::Value;

/// All series, as a load has them and as a matrix names them.
const SERIES: [(&str, &str); 4] = [
    ("reads", "reads"),
    ("writes", "writes"),
    ("read_bytes", "read-bytes"),
    ("write_bytes", "write-bytes"),
];

fn loads(cluster: &Cluster, node: usize, query: &str) -> Value {
    let answer = http_get(&cluster.http[node], &format!("/api/v1/loads?{query}"));
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer[name].as_array().unwrap_or_else(|| panic!("{name} in {answer}"))
}

/// Over all loads and what is shared, each series is its total.
#[track_caller]
fn adds_up(answer: &Value) {
    for (series, _) in SERIES {
        let parts = list(answer, "loads").iter().chain(list(answer, "shared"));
        let sum: u64 = parts.map(|part| number(part, series)).sum();
        assert_eq!(sum, number(&answer["total"], series), "{series} of {answer}");
    }
}

/// Writes and reads through all nodes, and waits until the columns with them are closed.
fn with_load(flags: &[&str]) -> Cluster {
    let cluster = Cluster::start(3, flags);
    for (at, key) in ["a/1", "a/2", "k/1", "k/1", "k/1", "k/2/x", "z"].iter().enumerate() {
        let put = cluster.run_on(at % 3, &["put", key, "value"]);
        assert!(put.status.success(), "{}", stderr(&put));
        let get = cluster.run_on((at + 1) % 3, &["get", key]);
        assert!(get.status.success(), "{}", stderr(&get));
    }
    eventually("the columns are closed", || {
        let total = &loads(&cluster, 0, "by=group")["total"];
        number(total, "writes") == 7 && number(total, "reads") == 7
    });
    cluster
}

#[test]
fn conservation_loads_by_everything_add_up_to_the_matrix_on_every_node() {
    let flags = ["--keyviz-step", "1s", "--groups", "3", "--split-at", "k,k/2,y"];
    let cluster = with_load(&flags);
    let window = {
        let answer = loads(&cluster, 0, "by=route");
        format!("from_ms={}&to_ms={}", number(&answer, "from_ms"), number(&answer, "to_ms"))
    };
    for by in ["route", "group", "leader", "node", "prefix"] {
        for node in 0..3 {
            let answer = loads(&cluster, node, &format!("by={by}&{window}"));
            adds_up(&answer);
            assert_eq!(answer["partial"], false, "{answer}");
            for (series, name) in SERIES {
                let matrix = http_get(
                    &cluster.http[node],
                    &format!("/api/v1/matrix?series={name}&{window}&max_columns=1"),
                );
                let matrix: Value = serde_json::from_str(&matrix).expect("JSON");
                let total = number(&answer["total"], series);
                assert_eq!(total, number(&matrix, "total"), "{series} by {by} at {node}");
            }
        }
    }
    // Four routes, of which each has its keys' load; the route of `k/2` is in the second turn.
    let routes = loads(&cluster, 0, &format!("by=route&{window}"));
    let writes = |start: &str| {
        let route = list(&routes, "loads").iter().find(|load| load["start"] == start);
        number(route.unwrap_or_else(|| panic!("{start} in {routes}")), "writes")
    };
    assert_eq!([writes(""), writes("k"), writes("k/2"), writes("y")], [2, 3, 1, 1]);
    // Each node says what it counted, and together they say all.
    let of_nodes: u64 = (0..3)
        .map(|node| {
            let own = loads(&cluster, node, &format!("by=node&scope=node&{window}"));
            adds_up(&own);
            number(&own["total"], "writes")
        })
        .sum();
    assert_eq!(of_nodes, 7);
    let prefixes = loads(&cluster, 0, &format!("by=prefix&prefixes=k/1,k/2&{window}"));
    let writes: Vec<u64> =
        list(&prefixes, "loads").iter().map(|load| number(load, "writes")).collect();
    assert!(writes.iter().sum::<u64>() <= 4, "{prefixes}");
    // One that has no load is listed where it is named.
    let named = loads(&cluster, 0, &format!("by=node&ids=1,77&{window}"));
    assert_eq!(list(&named, "loads").len(), 2, "{named}");
}

#[test]
fn bad_questions_for_loads_and_rankings_are_refused_by_name() {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s", "--groups", "1"]);
    for (path, words) in [
        ("/api/v1/loads?by=colour", "by=colour: one of route, group, leader, node, prefix"),
        ("/api/v1/loads?by=group&prefix_depth=2", "for loads by prefix"),
        ("/api/v1/loads?by=prefix&prefix_depth=17", "at most 16"),
        ("/api/v1/loads?by=prefix&prefixes=a,ab", "begins with another"),
        ("/api/v1/loads?ids=1,x", "ids=x"),
        ("/api/v1/loads?from_ms=5&to_ms=5", "from_ms (5) is not before to_ms (5)"),
        ("/api/v1/loads?start=b&end=a", "key range"),
        ("/api/v1/loads?colour=1", "colour"),
        ("/api/v1/top?rank=colour", "one of cost, reads"),
        ("/api/v1/top?limit=257", "at most 256"),
        ("/api/v1/top?from_ms=5&to_ms=5", "from_ms (5) is not before to_ms (5)"),
    ] {
        let answer = http_answer(&cluster.http[0], path).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        let answer: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(answer["code"], "INVALID_ARGUMENT", "{path}: {answer}");
        let message = answer["message"].as_str().expect("text");
        assert!(message.contains(words), "{path}: {message}");
    }
    let refused = cluster.run(&["top", "--by", "colour"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}

#[test]
fn conservation_commands_print_loads_that_add_up_and_what_the_cluster_can_do() {
    let flags = ["--keyviz-step", "1s", "--groups", "3", "--split-at", "k,k/2,y"];
    let cluster = with_load(&flags);
    for by in ["group", "leader", "node", "route"] {
        let answer = cluster.json(&["loads", "--by", by]);
        adds_up(&answer);
        assert_eq!(number(&answer["total"], "writes"), 7, "{by}: {answer}");
    }
    let prefix = cluster.json(&["loads", "--by", "prefix", "--prefixes", "k/1,k/2"]);
    adds_up(&prefix);
    let of_nodes: u64 = (0..3)
        .map(|node| cluster.json_on(node, &["loads", "--by", "node", "--scope", "node"]))
        .map(|own| number(&own["total"], "writes"))
        .sum();
    assert_eq!(of_nodes, 7);
    let table = cluster.run(&["loads", "--by", "route", "--ids", "1,2"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("LOAD OF") && table.contains("k .. k/2"), "{table}");
    let csv = cluster.run(&["loads", "--by", "group", "--format", "csv"]);
    let csv = String::from_utf8_lossy(&csv.stdout).into_owned();
    assert!(csv.starts_with("of,id,prefix,start,end,reads,writes,"), "{csv}");
    for (arguments, words) in [
        (&["loads", "--by", "colour"][..], "one of route, group"),
        (&["loads", "--prefixes", "a"], "needs '--by prefix'"),
        (&["loads", "b", "a"], "ends before it begins"),
        (&["loads", "--depth", "17"], "17"),
    ] {
        let refused = cluster.run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(words), "{arguments:?}: {}", stderr(&refused));
    }

    let can = cluster.json(&["capabilities"]);
    assert_eq!(list(&can, "members").len(), 3, "{can}");
    assert!(list(&can, "cluster").contains(&Value::from("get_loads")), "{can}");
    let table = cluster.run(&["capabilities"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("get_loads") && table.contains("node 3: version"), "{table}");
}

#[test]
fn the_hottest_range_is_first_with_its_group_and_leader() {
    let flags = ["--keyviz-step", "1s", "--groups", "3", "--split-at", "k,k/2,y"];
    let cluster = with_load(&flags);
    let top = cluster.json(&["top", "--by", "writes", "--routes", "--last", "1h"]);
    let ranges = list(&top, "ranges");
    assert_eq!(ranges[0]["start"], "k", "{top}");
    assert_eq!(ranges[0]["end"], "k/2", "{top}");
    let share = ranges[0]["share"].as_f64().expect("a share");
    assert!((share - 3.0 / 7.0).abs() < 1e-9, "{top}");
    assert_eq!(ranges.len(), 4, "{top}");
    let leader = ranges[0]["leader"].as_u64().expect("a leader");
    let routes = cluster.json(&["routes", "list"]);
    let route = list(&routes, "routes").iter().find(|route| route["start"] == "k").expect("it");
    assert_eq!(Some(leader), route["leader"].as_u64());
    assert_eq!(ranges[0]["route_ids"][0], route["route_id"]);
    // Ranked by another series the same routes are in another order.
    let read = cluster.json(&["top", "--by", "read-bytes", "--last", "1h"]);
    assert!(list(&read, "ranges").len() >= 4, "{read}");
    let table = cluster.run(&["top", "--by", "writes", "--routes", "--last", "1h"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("KEYS") && table.contains("k .. k/2") && table.contains("42.9%"),
        "{table}"
    );
    let csv = cluster.run(&["top", "--format", "csv", "--last", "1h", "--limit", "1"]);
    assert_eq!(String::from_utf8_lossy(&csv.stdout).lines().count(), 2);
}
