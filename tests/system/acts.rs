//! Remedies of findings as acts on real processes: previewed, carried out, measured and journaled,
//! with the autopilot advising or off; and findings as a stream.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, KEYVIZ, PATIENCE, eventually, stderr};

/// A running `load`, which is ended with the value.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().expect("the process is ours");
        self.0.wait().expect("the process is ours");
    }
}

fn load(cluster: &Cluster) -> Load {
    let load = Command::new(KEYVIZ)
        .args(["load", "--pattern", "hotspot", "--rate", "200", "--clients", "8"])
        .args(["--duration", "10m", "--read-ratio", "0.3", "--node", &cluster.grpc.join(",")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    Load(load)
}

fn post(address: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), serde_json::from_str(body).unwrap_or_default())
}

/// A finding that has an act among its remedies, and that remedy, from 0.
fn remedy_of(found: &Value, act: &str) -> Option<(Value, usize)> {
    found["findings"].as_array()?.iter().find_map(|finding| {
        let remedies = finding["remedies"].as_array()?;
        let at = remedies.iter().position(|remedy| remedy["act"] == act)?;
        Some((finding.clone(), at))
    })
}

#[test]
fn acts_bounded_and_proven_an_operator_sees_the_forecast_before_and_the_outcome_after() {
    let flags = ["--keyviz-step", "1s", "--groups", "3", "--autopilot", "advise"];
    let cluster = Cluster::start(3, &flags);
    let running = load(&cluster);
    // The first seconds of a load say little: a remedy is previewed until its forecast is an
    // improvement. The page sends a remedy back as it came.
    let mut preview = Value::Null;
    eventually("a split with a move is offered, and its forecast is better", || {
        let told = cluster.run(&["why", "--last", "1m", "--format", "json"]);
        let found: Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
        let Some((finding, at)) = remedy_of(&found, "split-and-move") else { return false };
        let remedy = finding["remedies"][at].to_string();
        let (status, answer) = post(&cluster.http[1], "/api/v1/acts/preview", &remedy);
        assert_eq!(status, 200, "{answer:#}");
        let forecast = &answer["forecast"];
        let is_better = forecast["hottest_after"].as_f64() < forecast["hottest_before"].as_f64();
        preview = answer;
        is_better && preview["refused"] == ""
    });
    println!("{preview:#}");
    let (status, refused) = post(
        &cluster.http[1],
        "/api/v1/acts",
        r#"{"act": "move", "start": "nowhere", "group": 1}"#,
    );
    assert_eq!(status, 409, "{refused:#}");
    assert!(refused["message"].as_str().is_some_and(|said| said.contains("whole routes")));
    let (status, refused) = post(&cluster.http[1], "/api/v1/acts", r#"{"act": "explode"}"#);
    assert_eq!((status, &refused["code"]), (400, &"INVALID_ARGUMENT".into()));
    let log = cluster.json(&["autopilot", "log"]);
    assert_eq!(log["revision"], 0, "nothing was recorded by looking: {log:#}");

    // The autopilot advises, and does nothing.
    let mut told = Value::Null;
    eventually("the autopilot advises", || {
        told = cluster.json(&["autopilot"]);
        told["advice"].as_array().is_some_and(|advice| !advice.is_empty())
    });
    assert_eq!((&told["mode"], &told["under_way"]), (&"advise".into(), &0.into()), "{told:#}");

    // What is found in the first seconds of a load has other bounds later, and another id. A busy
    // machine refuses questions for a while, too.
    let (mut applied, mut of) = (None, String::new());
    let mut is_applied = || {
        let told = cluster.run(&["why", "--last", "1m", "--format", "json"]);
        let found: Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
        let Some((finding, at)) = remedy_of(&found, "split-and-move") else { return false };
        let (id, number) = (finding["id"].as_str().expect("text"), (at + 1).to_string());
        let output = cluster.run(&["why", "--last", "1m", "--apply", id, "--remedy", &number]);
        id.clone_into(&mut of);
        let said = stderr(&output);
        let is_refused = ["there is no finding", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"]
            .iter()
            .any(|refusal| said.contains(refusal));
        applied = Some(output);
        !is_refused
    };
    let tries = (0..120).find(|_| {
        std::thread::sleep(Duration::from_secs(1));
        is_applied()
    });
    assert!(tries.is_some(), "the finding is there when its remedy is applied");
    let applied = applied.expect("it was applied");
    let (said, printed) = (stderr(&applied), String::from_utf8_lossy(&applied.stdout).into_owned());
    println!("{said}{printed}");
    assert!(applied.status.success(), "{said}");
    assert!(said.contains("forecast: hottest node"), "{said}");
    assert!(printed.contains("operator: Split at") && printed.contains("(done"), "{printed}");
    let mut entry = Value::Null;
    eventually("the outcome is measured", || {
        entry = cluster.json(&["autopilot", "log"])["entries"][0].clone();
        entry["outcome"]["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty())
    });
    println!("{entry:#}");
    assert_eq!((&entry["by"], &entry["finding"]), (&"operator".into(), &of.into()));
    let at = |of: &str, name: &str| entry[of][name].as_f64().expect("a number");
    assert!(at("outcome", "imbalance_after") < at("outcome", "imbalance_before"), "{entry:#}");
    assert_eq!(entry["outcome"]["worse"], false);
    let off = at("forecast", "imbalance_after") / at("outcome", "imbalance_after");
    assert!((0.85..1.15).contains(&off), "{entry:#}");

    // From here on what anybody does is entered.
    let routes = cluster.json(&["routes", "list"])["routes"].clone();
    let cold = routes.as_array().expect("routes").last().cloned().expect("one");
    let cold = cold["route_id"].to_string();
    assert!(cluster.run(&["routes", "split", &cold, "zzz"]).status.success());
    let entry = cluster.json(&["autopilot", "log"])["entries"][0].clone();
    assert_eq!((&entry["by"], &entry["act"]["act"]), (&"operator".into(), &"split".into()));
    // In any mode an operator's act is carried out.
    cluster.json(&["autopilot", "off"]);
    let merge = r#"{"act": "merge", "start": "zz", "end": null, "request_id": "m"}"#;
    let (status, refused) = post(&cluster.http[0], "/api/v1/acts/preview", merge);
    assert_eq!(status, 200);
    assert!(refused["refused"].as_str().is_some_and(|said| said.contains("whole routes")));
    let start = routes.as_array().expect("routes").last().expect("one")["start"].clone();
    let merge = serde_json::json!({ "act": "merge", "start": start, "request_id": "m" });
    let (status, begun) = post(&cluster.http[2], "/api/v1/acts", &merge.to_string());
    assert_eq!((status, &begun["state"]), (200, &"under-way".into()), "{begun:#}");
    let (_, again) = post(&cluster.http[0], "/api/v1/acts", &merge.to_string());
    assert_eq!(again["id"], begun["id"], "one request, one act");
    eventually("the merge is done", || {
        cluster.json(&["autopilot", "log"])["entries"][0]["state"] == "done"
    });
    drop(running);
}

#[test]
fn findings_are_sent_as_they_change() {
    let cluster = Cluster::start(3, &["--keyviz-step", "1s", "--groups", "3"]);
    let address = &cluster.http[1];
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
    let path = "/api/v1/findings/stream?last_ms=60000&every_ms=1000";
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("it is sent");
    let mut lines = BufReader::new(socket).lines();
    let mut next = || loop {
        let line = lines.next().expect("the stream goes on").expect("it is text");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).expect("it is JSON");
        }
    };
    // At once, although there is nothing.
    assert_eq!(next()["findings"], serde_json::json!([]));
    let running = load(&cluster);
    let found = loop {
        let found = next();
        if found["findings"].as_array().is_some_and(|findings| !findings.is_empty()) {
            break found;
        }
    };
    assert!(found["rate"].as_f64() > Some(0.0), "{found:#}");
    drop(running);
}
