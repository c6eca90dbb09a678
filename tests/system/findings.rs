//! Findings on three real processes: a load whose cause is known is named, with what helps.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use keyviz_client::Client;
use serde_json::Value;

use crate::support::{Cluster, KEYVIZ, eventually, http_answer, http_get, stderr};

/// How long a load runs before its cause must have a name.
const SECONDS: u64 = 14;

/// A running `load`, which is ended with the value.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().expect("the process is ours");
        self.0.wait().expect("the process is ours");
    }
}

fn load(cluster: &Cluster, pattern: &str, seconds: u64) -> Load {
    let load = Command::new(KEYVIZ)
        .args(["load", "--pattern", pattern, "--rate", "600", "--clients", "16"])
        .args(["--duration", "5m", "--read-ratio", "0.6"])
        .args(["--node", &cluster.grpc.join(",")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    std::thread::sleep(Duration::from_secs(seconds));
    Load(load)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

fn why(cluster: &Cluster, more: &[&str]) -> Value {
    // A busy machine may refuse one for the queries before it, and says to try again.
    let arguments = [&["why", "--last", "1m"][..], more, &["--format", "json"]].concat();
    let mut found = Value::Null;
    eventually("the findings are told", || {
        let told = cluster.run(&arguments);
        found = serde_json::from_slice(&told.stdout).unwrap_or_default();
        told.status.success()
    });
    found
}

fn of_kind<'a>(found: &'a Value, kind: &str) -> Option<&'a Value> {
    found["findings"].as_array().expect("a list").iter().find(|finding| finding["kind"] == kind)
}

fn page(cluster: &Cluster) -> String {
    let mut text = String::new();
    eventually("the page is told", || {
        let page = cluster.run(&["why", "--last", "1m"]);
        text = String::from_utf8_lossy(&page.stdout).into_owned();
        page.status.success()
    });
    text
}

#[test]
fn a_hot_range_is_named_with_its_beginning_its_leader_and_what_helps() {
    let split = "key/00025000,key/00050000,key/00075000";
    let flags = ["--keyviz-step", "1s", "--groups", "4", "--split-at", split];
    let cluster = Cluster::start(3, &flags);
    drop(load(&cluster, "uniform", 10));
    let began_ms = now_ms();
    let running = load(&cluster, "hotspot", SECONDS);
    let found = why(&cluster, &[]);
    let hot = of_kind(&found, "hot-range").unwrap_or_else(|| panic!("no hot range: {found:#}"));
    println!("{}", page(&cluster));
    let key = |name: &str| keyviz_json::parse_key(hot[name].as_str().expect("a key"));
    let (start, end) = (key("start").expect("a key"), key("end").expect("a key"));
    assert!(start >= "key/0005" && start < end && end <= "key/0007", "{hot:#}");
    assert!(hot["share"].as_f64() > Some(0.6), "{hot:#}");
    let since_ms = hot["since_ms"].as_u64().expect("a time");
    // Two columns, and what a busy machine takes to begin.
    assert!(since_ms.abs_diff(began_ms) <= 4_000, "{} ms off", since_ms.abs_diff(began_ms));

    // Who serves it is who leads its group.
    let status = cluster.json(&["cluster", "status"]);
    let routes = cluster.json(&["routes", "list"]);
    let routes = routes["routes"].as_array().expect("routes");
    let of_start =
        |route: &&Value| route["start"].as_str().is_some_and(|key| key.as_bytes() <= &start[..]);
    let group = &routes.iter().rfind(of_start).expect("its route")["group_id"];
    assert_eq!(hot["groups"], serde_json::json!([group]), "{hot:#}");
    let groups = status["groups"].as_array().expect("groups");
    let leads = groups.iter().find(|other| other["group_id"] == *group).expect("the group");
    assert_eq!(hot["nodes"], serde_json::json!([leads["leader"]]));

    // Followers can serve its reads, and a half of it can go to another group.
    let remedies = hot["remedies"].as_array().expect("a list");
    let reads = remedies.iter().find(|remedy| remedy["act"] == "read-from-followers");
    let forecast = &reads.expect("six of ten operations are reads")["forecast"];
    let at = |name: &str| forecast[name].as_f64().expect("a number");
    assert!(at("hottest_after") < 0.9 * at("hottest_before"), "{forecast:#}");
    assert_eq!(forecast["nodes"].as_array().map(Vec::len), Some(3));
    let moves = remedies.iter().find(|remedy| remedy["act"] == "split-and-move");
    let moves = moves.unwrap_or_else(|| panic!("no move: {remedies:#?}"));
    let forecast = &moves["forecast"];
    let at = |name: &str| forecast[name].as_f64().expect("a number");
    assert!(at("hottest_after") < 0.8 * at("hottest_before"), "{moves:#}");
    assert!(moves["at"].is_string() && moves["group"] != *group, "{moves:#}");
    // No split alone.
    assert!(remedies.iter().all(|remedy| remedy["act"] != "split"));

    // It goes on under one id, at the page's API too, and within its keys.
    let again: Value = serde_json::from_str(&http_get(
        &cluster.http[0],
        &format!("/api/v1/findings?from_ms={}", now_ms() - 60_000),
    ))
    .expect("it is JSON");
    assert_eq!(of_kind(&again, "hot-range").map(|hot| &hot["id"]), Some(&hot["id"]));
    let inside = why(&cluster, &["key/0006"]);
    assert!(inside["rate"].as_f64() > Some(0.0));
    let outside = why(&cluster, &["..key/0003"]);
    assert!(of_kind(&outside, "hot-range").is_none(), "{outside:#}");
    let page = page(&cluster);
    assert!(page.contains("hot-range: from key/000") && page.contains("What helps:"), "{page}");

    // It has ended some looks after its load has.
    drop(running);
    eventually("the finding is resolved", || {
        let found = why(&cluster, &[]);
        let ended = found["resolved"].as_array().expect("a list");
        ended.iter().any(|ended| ended["id"] == hot["id"] && ended["resolved_ms"].is_u64())
    });
}

/// One key that has half of all writes, beside even writes and range queries over all of them.
async fn hot_key(client: Client, key: &[u8], seed: u64) {
    let mut random = seed;
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        let even = format!("item/{:05}", (random >> 33) % 20_000);
        for key in [Bytes::copy_from_slice(key), even.clone().into()] {
            if client.put(key, "v").await.is_err() {
                return;
            }
        }
        if random.is_multiple_of(7) {
            let mut rows = client.scan(even.clone().."item0".to_owned()).limit(50);
            while let Ok(Some(_)) = rows.next().await {}
        }
    }
}

#[test]
fn one_hot_key_with_range_queries_is_named_and_no_split_is_offered() {
    let cluster = Cluster::start(3, &["--keyviz-step", "1s", "--groups", "3"]);
    // A key that would clear the terminal of whoever reads of it.
    let key = b"item/07000\x1b[2J";
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    let client = Client::new(&cluster.grpc).expect("addresses are given");
    for seed in 1..=12 {
        runtime.spawn(hot_key(client.clone(), key, seed * 7_919));
    }
    std::thread::sleep(Duration::from_secs(SECONDS));
    let page = page(&cluster);
    println!("{page}");
    let found = why(&cluster, &[]);
    let one = of_kind(&found, "one-key").unwrap_or_else(|| panic!("no key: {found:#}"));
    let text = keyviz_json::key_text(key);
    assert_eq!(one["key"], *text, "{one:#}");
    assert!((0.3..0.7).contains(&one["share"].as_f64().expect("a share")), "{one:#}");
    let advice = one["advice"].as_str().expect("words");
    assert!(advice.starts_with("A split cannot divide one key"), "{advice}");
    let split = |remedy: &Value| remedy["act"].as_str().is_some_and(|act| act.contains("split"));
    assert!(!one["remedies"].as_array().expect("a list").iter().any(split));
    assert!(page.contains("one-key: the key item/07000\\x1b[2J"), "{page}");
    assert!(!page.contains('\x1b') && page.contains("A split cannot divide one key"), "{page}");
}

#[test]
fn bad_input_of_findings_is_refused_by_name_and_silence_is_no_finding() {
    let mut cluster = Cluster::start(3, &["--keyviz-step", "1s", "--groups", "2"]);
    let idle = why(&cluster, &[]);
    assert_eq!((&idle["findings"], &idle["resolved"]), (&Value::from([0; 0]), &[0; 0].into()));
    assert_eq!((&idle["responded"], &idle["expected"]), (&3.into(), &3.into()));
    assert!(page(&cluster).contains("Nothing was counted"));

    let long = "k".repeat(4_097);
    for (query, said) in [
        ("from_ms=9&to_ms=5", "from_ms (9) is not before to_ms (5)"),
        ("from_ms=x", "a whole number"),
        ("max_findings=257", "at most 256"),
        ("max_findings=-1", "a whole number"),
        ("start=b&end=a", "not after its start"),
        ("start=hex:0", "hex"),
        (&format!("start={long}"), "4097 bytes"),
        ("series=reads", "unknown field"),
    ] {
        let answer = http_answer(&cluster.http[0], &format!("/api/v1/findings?{query}"));
        let answer = answer.expect("it answers");
        assert!(answer.contains("400") && answer.contains(said), "{query:.60}: {answer}");
        assert!(answer.contains("INVALID_ARGUMENT"), "{query:.60}: {answer}");
    }
    for (flags, said) in [
        (&["why", "b..a"][..], "[RANGE]"),
        (&["why", "--last", "0s"], "--last"),
        (&["why", "--most", "0"], "--most"),
        (&["why", "--from", "5", "--to", "5"], "--to <TIME>"),
        (&["why", "--last", "1h", "--from", "5"], "--from"),
    ] {
        let refused = cluster.run(flags);
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
        assert!(stderr(&refused).contains(said), "{flags:?}: {}", stderr(&refused));
    }

    // A member that does not answer is named, and its columns are partial.
    let running = load(&cluster, "uniform", 3);
    cluster.kill(2);
    eventually("the answer says who is missing", || {
        let found = cluster.json_on(0, &["why", "--last", "1m"]);
        let silent = found["silent"].as_array().expect("a list");
        found["responded"] == 2 && silent.len() == 1 && silent[0]["id"] == 3
    });
    let partial = cluster.json_on(0, &["why", "--last", "1m"]);
    assert!(partial["partial_columns"].as_u64() > Some(0), "{partial:#}");
    let kinds = ["one-key", "moving-spot", "scan", "sequential-append", "periodic-burst"];
    for kind in kinds {
        assert!(of_kind(&partial, kind).is_none(), "{partial:#}");
    }
    drop(running);
}
