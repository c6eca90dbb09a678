//! The autopilot on three real processes: an uneven load becomes even with nobody's hand, what
//! cannot be helped is left alone, and its journal agrees with the routes whoever dies or acts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Cluster, KEYVIZ, eventually, http_answer, http_get, stderr};

const FLAGS: &[&str] =
    &["--keyviz-step", "2s", "--groups", "4", "--autopilot", "act", "--autopilot-least-load", "20"];

/// A running `load`, which is ended with the value.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().expect("the process is ours");
        self.0.wait().expect("the process is ours");
    }
}

fn load(cluster: &Cluster, pattern: &str, more: &[&str]) -> Load {
    let load = Command::new(KEYVIZ)
        .args(["load", "--pattern", pattern, "--rate", "800", "--clients", "16"])
        .args(["--duration", "15m", "--read-ratio", "0.3"])
        .args(["--node", &cluster.grpc.join(",")])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    Load(load)
}

/// The answer of a command, once it succeeds.
fn answer(cluster: &Cluster, arguments: &[&str]) -> Value {
    let mut found = Value::Null;
    eventually("the command answers", || {
        let told = cluster.run(&[arguments, &["--format", "json"]].concat());
        found = serde_json::from_slice(&told.stdout).unwrap_or_default();
        told.status.success()
    });
    found
}

fn entries(cluster: &Cluster) -> Vec<Value> {
    let journal = answer(cluster, &["autopilot", "log", "--limit", "1024"]);
    journal["entries"].as_array().expect("a list").clone()
}

/// Operations of the last columns by the node that served them: the hottest over the mean, and all
/// a second.
fn measured(cluster: &Cluster) -> (f64, f64) {
    let (mut by_node, mut all, mut seconds) = ([0.0; 3], 0.0, 0.0);
    for series in ["writes", "reads"] {
        let path = format!("/api/v1/matrix?series={series}&by_node=true&max_rows=8&from_ms=");
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now_ms.expect("after 1970").as_millis() as u64;
        let from_ms = now_ms - now_ms % 2_000 - 8_000;
        let path = format!("{path}{from_ms}&to_ms={}", from_ms + 8_000);
        let Ok(answer) = http_answer(&cluster.http[0], &path) else { continue };
        let Some((_, body)) = answer.split_once("\r\n\r\n") else { continue };
        let matrix: Value = serde_json::from_str(body).unwrap_or_default();
        for share in matrix["by_node"].as_array().into_iter().flatten() {
            let total = share["total"].as_f64().unwrap_or(0.0);
            let node = share["id"].as_u64().unwrap_or(1) as usize - 1;
            (by_node[node], all) = (by_node[node] + total, all + total);
        }
        seconds = 8.0;
    }
    let most = by_node.iter().copied().fold(0.0, f64::max);
    if all > 0.0 { (most * 3.0 / all, all / seconds) } else { (0.0, 0.0) }
}

/// All routes by id, and that they cover the key space.
fn routes(cluster: &Cluster) -> Vec<Value> {
    let routes = cluster.json(&["routes", "list"])["routes"].as_array().expect("a list").clone();
    let mut end = Value::from("");
    for route in &routes {
        assert_eq!(route["start"], end, "{routes:#?}");
        end = route["end"].clone();
    }
    assert!(end.is_null(), "{routes:#?}");
    routes
}

/// Waits until nothing is under way.
fn settled(cluster: &Cluster) -> Vec<Value> {
    let mut all = Vec::new();
    eventually("every act has ended", || {
        all = entries(cluster);
        all.iter().all(|entry| entry["state"] != "under-way")
    });
    all
}

/// What the journal says of keys that moved is where the routes are: the newest move wins.
fn agrees(cluster: &Cluster, entries: &[Value]) {
    let routes = routes(cluster);
    let done = |entry: &&Value| {
        let act = entry["act"]["act"].as_str().unwrap_or_default();
        entry["state"] == "done" && (act == "move" || act == "split-and-move")
    };
    let key = |value: &Value| value.as_str().map(str::to_owned);
    let mut seen: Vec<(String, Option<String>)> = Vec::new();
    for entry in entries.iter().filter(done) {
        let act = &entry["act"];
        let (start, end) = (key(&act["start"]).unwrap_or_default(), key(&act["end"]));
        let later = |(from, to): &(String, Option<String>)| {
            to.as_ref().is_none_or(|to| *to > start) && end.as_ref().is_none_or(|end| end > from)
        };
        if !seen.iter().any(later) {
            for route in &routes {
                let from = key(&route["start"]).unwrap_or_default();
                let inside = from >= start && end.as_ref().is_none_or(|end| from < *end);
                assert!(!inside || route["group_id"] == act["group"], "{entry:#}: {routes:#?}");
            }
        }
        seen.push((start, end));
    }
}

#[test]
fn acts_bounded_and_proven_a_hot_spot_is_spread_within_90_seconds_with_nobodys_hand() {
    let cluster = Cluster::start(3, FLAGS);
    let running = load(&cluster, "hotspot", &[]);
    let began = Instant::now();
    let mut before = (0.0, 0.0);
    let mut even = None;
    let mut held = 0;
    while began.elapsed() < Duration::from_secs(150) && held < 5 {
        std::thread::sleep(Duration::from_secs(2));
        let now = measured(&cluster);
        println!("{:3} s: {:.2} times the mean, {:.0}/s", began.elapsed().as_secs(), now.0, now.1);
        if now.0 > before.0 {
            before = now;
        }
        let is_even = now.0 > 0.0 && now.0 <= 1.3 && now.1 > 100.0;
        held = if is_even { held + 1 } else { 0 };
        even = if is_even { even.or(Some(began.elapsed())) } else { None };
    }
    let status = cluster.run(&["autopilot"]);
    println!("{}", String::from_utf8_lossy(&status.stdout));
    let all = settled(&cluster);
    println!("{}", String::from_utf8_lossy(&cluster.run(&["autopilot", "log"]).stdout));
    let after = measured(&cluster);
    println!("before {before:?}, after {after:?}, even after {even:?}");
    let even = even.unwrap_or_else(|| panic!("it stays uneven: {all:#?}"));
    assert!(before.0 > 2.0, "it was uneven: {before:?}");
    assert!(even <= Duration::from_secs(90), "{even:?}");
    assert!(all.iter().all(|entry| entry["by"] == "autopilot"), "{all:#?}");
    assert!(all.iter().any(|entry| entry["act"]["act"] == "split-and-move"), "{all:#?}");
    agrees(&cluster, &all);

    // The newest act is measured, and was forecast to within 15%.
    let mut newest = Value::Null;
    eventually("an act is measured", || {
        let all = settled(&cluster);
        let measured = all.iter().find(|entry| {
            entry["outcome"]["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty())
        });
        newest = measured.cloned().unwrap_or_default();
        !newest.is_null()
    });
    println!("{newest:#}");
    let forecast = newest["forecast"]["imbalance_after"].as_f64().expect("a forecast");
    let outcome = newest["outcome"]["imbalance_after"].as_f64().expect("an outcome");
    println!("forecast {forecast:.3}, outcome {outcome:.3}");
    assert!((forecast / outcome - 1.0).abs() <= 0.15, "{newest:#}");

    // The page's API says the same.
    let told: Value =
        serde_json::from_str(&http_get(&cluster.http[1], "/api/v1/autopilot")).expect("it is JSON");
    assert_eq!(told["mode"], "act");
    let log = http_get(&cluster.http[2], "/api/v1/autopilot/log?limit=1");
    let log: Value = serde_json::from_str(&log).expect("it is JSON");
    assert_eq!(log["entries"].as_array().map(Vec::len), Some(1), "{log:#}");
    let metrics = http_get(&cluster.http[0], "/metrics");
    assert!(metrics.contains("keyviz_autopilot_mode{mode=\"act\"} 1"), "{metrics}");
    drop(running);
}

#[test]
fn acts_bounded_and_proven_one_hot_key_is_named_and_left_alone() {
    let cluster = Cluster::start(3, FLAGS);
    let running = load(&cluster, "uniform", &["--keys", "1"]);
    let mut told = Value::Null;
    eventually("the autopilot says why it does nothing", || {
        told = answer(&cluster, &["autopilot"]);
        let reasons = told["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().any(|reason| reason.as_str().is_some_and(|words| words.contains("one key")))
    });
    std::thread::sleep(Duration::from_secs(20));
    println!("{}", String::from_utf8_lossy(&cluster.run(&["autopilot"]).stdout));
    assert_eq!(entries(&cluster), Vec::<Value>::new());
    assert_eq!(routes(&cluster).len(), 4);
    let found = answer(&cluster, &["why", "--last", "1m"]);
    let one = found["findings"].as_array().expect("a list");
    let one = one.iter().find(|finding| finding["kind"] == "one-key").expect("the key is named");
    let advice = one["advice"].as_str().expect("words");
    assert!(advice.starts_with("A split cannot divide one key"), "{advice}");
    drop(running);
}

/// The node (from 0) that leads the catalog group.
fn acting(cluster: &Cluster) -> usize {
    let mut node = None;
    eventually("a node acts", || {
        node = answer(cluster, &["autopilot"])["node"].as_u64();
        node.is_some()
    });
    node.expect("it was just seen") as usize - 1
}

#[test]
fn acts_bounded_and_proven_the_journal_agrees_with_the_routes_whoever_dies_or_splits() {
    let flags = [FLAGS, &["--move-rate", "64KiB"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    // Some rows, so that moves take their time.
    let running = load(&cluster, "hotspot", &["--value-bytes", "256"]);
    eventually("an act is under way", || {
        entries(&cluster).iter().any(|entry| entry["state"] == "under-way")
    });
    // Its driver dies.
    let victim = acting(&cluster);
    cluster.kill(victim);
    cluster.spawn(victim);
    // An operator splits meanwhile.
    for at in ["key/00060200", "key/00060400", "key/00060600"] {
        eventually("a split is made", || {
            let list = answer(&cluster, &["routes", "list"]);
            let routes = list["routes"].as_array().expect("a list").clone();
            let of = routes
                .iter()
                .rfind(|route| route["start"].as_str().is_some_and(|start| start <= at));
            let of = of.expect("its route");
            if of["start"] == at {
                return true;
            }
            let id = of["route_id"].to_string();
            cluster.run(&["routes", "split", &id, at]).status.success()
        });
    }
    cluster.wait_until_serving();
    eventually("acts have ended after the death of the node", || {
        entries(&cluster).iter().filter(|entry| entry["state"] == "done").count() >= 2
    });
    // The switch, while it acts.
    let off = cluster.json(&["autopilot", "off"]);
    assert_eq!((&off["mode"], &off["set"]), (&Value::from("off"), &Value::from(true)));
    let begun = entries(&cluster).len();
    let all = settled(&cluster);
    assert!(all.len() <= begun, "what had begun is completed, and nothing more: {all:#?}");
    std::thread::sleep(Duration::from_secs(6));
    let all = settled(&cluster);
    assert!(all.len() <= begun, "{all:#?}");
    println!("{}", String::from_utf8_lossy(&cluster.run(&["autopilot", "log"]).stdout));
    agrees(&cluster, &all);
    let by_operator = all.iter().filter(|entry| entry["by"] == "operator").count();
    assert!(by_operator >= 1, "the operator's splits are entered: {all:#?}");
    // Every node says the same, and the numbers have no gap.
    for node in 0..3 {
        let mut told = Value::Null;
        eventually("the node has applied the journal", || {
            told = cluster.json_on(node, &["autopilot", "log", "--limit", "1024"]);
            told["entries"].as_array().map(Vec::len) == Some(all.len())
        });
        assert_eq!(told["entries"], Value::from(all.clone()), "node {}", node + 1);
    }
    let ids: Vec<u64> = all.iter().filter_map(|entry| entry["id"].as_u64()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1] + 1), "{ids:?}");
    // It stays off after a restart, and an operator's act is carried out all the same.
    let group = routes(&cluster)[0]["group_id"].as_u64().expect("a number");
    let to = if group == 1 { 2 } else { 1 };
    let refused = cluster.run(&["routes", "move", "999999", "1"]);
    assert!(!refused.status.success(), "{}", stderr(&refused));
    let first = routes(&cluster)[0]["route_id"].to_string();
    let moved = cluster.run(&["routes", "move", &first, &to.to_string()]);
    assert!(moved.status.success(), "{}", stderr(&moved));
    let all = settled(&cluster);
    let newest = &all[0];
    assert_eq!((&newest["by"], &newest["act"]["act"]), (&"operator".into(), &"move".into()));
    agrees(&cluster, &all);
    drop(running);
}

#[test]
fn bad_input_of_the_autopilot_is_refused_with_the_reason() {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s", "--groups", "2"]);
    let told = answer(&cluster, &["autopilot"]);
    assert_eq!((&told["mode"], &told["set"]), (&"advise".into(), &false.into()));
    for (flags, said) in [
        (&["--autopilot", "fly"][..], "fly"),
        (&["--autopilot-above", "0.5"], "--autopilot-above"),
        (&["--autopilot-until", "3"], "--autopilot-until"),
        (&["--autopilot-acts", "0"], "--autopilot-acts"),
        (&["--autopilot-cool-down", "1s"], "--autopilot-cool-down"),
        (&["--autopilot-least-load", "nan"], "--autopilot-least-load"),
    ] {
        let refused = Command::new(KEYVIZ)
            .args(["serve", "--id", "1", "--data", "/nowhere/at/all"])
            .args(flags)
            .output()
            .expect("the binary starts");
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
        assert!(stderr(&refused).contains(said), "{flags:?}: {}", stderr(&refused));
    }
    let refused = cluster.run(&["autopilot", "fly"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let answer = http_answer(&cluster.http[0], "/api/v1/autopilot/log?limit=9999");
    assert!(answer.expect("it answers").contains("at most 1024"));
    let answer = http_answer(&cluster.http[0], "/api/v1/findings/stream?every_ms=5");
    assert!(answer.expect("it answers").contains("every_ms=5"));
    // Switched, it stays so.
    cluster.json(&["autopilot", "act"]);
    let told = self::answer(&cluster, &["autopilot"]);
    assert_eq!((&told["mode"], &told["set"]), (&"act".into(), &true.into()));
    let page = cluster.run(&["autopilot", "log"]);
    assert!(String::from_utf8_lossy(&page.stdout).contains("No act was recorded"));
}
