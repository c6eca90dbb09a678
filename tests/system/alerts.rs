//! Alerts on real clusters: one firing and one resolve, through the death of the leader, and
//! receivers that fail.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Cluster, KEYVIZ, eventually, http_get, stderr, write_file};

/// A receiver of webhooks.
struct Receiver {
    url: String,
    told: Arc<Mutex<Vec<(u64, Value)>>>,
    /// Calls that are answered 500 before any is taken.
    refusals: Arc<AtomicU64>,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let (told, refusals) = (Arc::default(), Arc::<AtomicU64>::default());
        let receiver = Receiver { url, told, refusals };
        let (told, refusals) = (Arc::clone(&receiver.told), Arc::clone(&receiver.refusals));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                take(stream, &told, &refusals);
            }
        });
        receiver
    }

    fn statuses(&self) -> Vec<String> {
        let told = self.told.lock().expect("no panic");
        told.iter().map(|(_, body)| body["status"].as_str().expect("a status").to_owned()).collect()
    }
}

/// One request and its answer.
fn take(mut stream: TcpStream, told: &Mutex<Vec<(u64, Value)>>, refusals: &AtomicU64) {
    let (mut request, mut some) = (Vec::new(), [0; 4096]);
    let body = loop {
        let Ok(read @ 1..) = stream.read(&mut some) else { return };
        request.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        if body.len() >= length {
            break body.to_owned();
        }
    };
    let refuse = refusals.load(Ordering::Relaxed) > 0;
    let status = if refuse {
        refusals.fetch_sub(1, Ordering::Relaxed);
        "500 Internal Server Error"
    } else {
        let body = serde_json::from_str(&body).expect("JSON");
        told.lock().expect("no panic").push((now_ms(), body));
        "200 OK"
    };
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

const RULES: &str = "rules:\n\
    - name: hot-prefix\n  prefix: hot/\n  series: writes\n  above_rate: 5\n  for_columns: 1\n";

/// Writes keys of the prefix until it is told to stop.
struct Heat {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heat {
    fn start(nodes: &[String]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (told, nodes) = (Arc::clone(&stop), nodes.to_vec());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let client = keyviz_client::Client::new(&nodes).expect("a client");
                while !told.load(Ordering::Relaxed) {
                    // A node may be dead; others take it.
                    let _ = client.put("hot/1", "v").await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Heat { stop, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

impl Drop for Heat {
    fn drop(&mut self) {
        self.stop();
    }
}

fn cluster(receiver: &Receiver, rules: &str, folder: &TempDir) -> Cluster {
    let rules = write_file(folder.path(), "rules.yml", rules);
    let rules = rules.to_str().expect("a plain name").to_owned();
    let flags = [
        "--keyviz-step",
        "1s",
        "--groups",
        "1",
        "--alert-rules",
        &rules,
        "--alert-webhook",
        &receiver.url,
    ];
    Cluster::start(3, &flags)
}

/// The node that leads the catalog group, by its place.
fn leader(cluster: &Cluster, ask: usize) -> Option<usize> {
    let status = cluster.run_on(ask, &["cluster", "status", "--format", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).ok()?;
    let groups = status["groups"].as_array()?;
    let catalog = groups.iter().find(|group| group["group_id"] == 0)?;
    catalog["leader"].as_u64().map(|id| id as usize - 1)
}

#[test]
fn once_an_alert_fires_and_is_resolved_though_the_leader_is_killed_in_between() {
    let (receiver, folder) = (Receiver::start(), TempDir::new().expect("a folder"));
    let mut cluster = cluster(&receiver, RULES, &folder);
    let mut heat = Heat::start(&cluster.grpc);
    eventually("it fires", || receiver.statuses() == ["firing"]);
    let body = receiver.told.lock().expect("no panic")[0].1.clone();
    assert_eq!(body["alerts"][0]["labels"]["alertname"], "hot-prefix", "{body}");
    for node in 0..3 {
        let http = cluster.http[node].clone();
        eventually("every node knows", || {
            let known = http_get(&http, "/api/v1/alerts");
            let known: Value = serde_json::from_str(&known).expect("JSON");
            known["alerts"][0]["state"] == "firing"
        });
    }
    let leads = leader(&cluster, 0).expect("the catalog group has a leader");
    let sample = "keyviz_alert{alert=\"hot-prefix\",severity=\"warning\"}";
    assert_eq!(cluster.metric(leads, sample), Some(1.0));
    cluster.kill(leads);
    let asked = (leads + 1) % 3;
    eventually("another leads", || leader(&cluster, asked).is_some_and(|now| now != leads));
    // Some columns under the next leader: it knows that the alert was told.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(receiver.statuses(), ["firing"]);
    heat.stop();
    // Columns of a member that is dead are partial for a minute or more, so it comes back.
    cluster.spawn(leads);
    eventually("it is resolved", || receiver.statuses() == ["firing", "resolved"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(receiver.statuses(), ["firing", "resolved"]);
    let told = receiver.told.lock().expect("no panic");
    let fingerprint = |at: usize| told[at].1["alerts"][0]["fingerprint"].clone();
    assert_eq!(fingerprint(0), fingerprint(1));
}

#[test]
fn a_hot_spot_is_told_within_two_columns_and_a_receiver_that_fails_is_asked_again() {
    let (receiver, folder) = (Receiver::start(), TempDir::new().expect("a folder"));
    receiver.refusals.store(2, Ordering::Relaxed);
    let cluster = cluster(&receiver, RULES, &folder);
    // Nothing is told of a cluster at rest.
    std::thread::sleep(Duration::from_secs(2));
    assert!(receiver.statuses().is_empty());
    receiver.refusals.store(0, Ordering::Relaxed);
    let began_ms = now_ms();
    let mut heat = Heat::start(&cluster.grpc);
    eventually("it fires", || receiver.statuses() == ["firing"]);
    let after_ms = receiver.told.lock().expect("no panic")[0].0 - began_ms;
    println!("from the first write to the receiver: {after_ms} ms with columns of 1,000 ms");
    receiver.refusals.store(2, Ordering::Relaxed);
    heat.stop();
    eventually("it is resolved", || receiver.statuses() == ["firing", "resolved"]);
    assert_eq!(receiver.refusals.load(Ordering::Relaxed), 0, "it was asked until it took it");
    let failed: f64 =
        (0..3).filter_map(|node| cluster.metric(node, "keyviz_alerts_failed_total")).sum();
    assert!((failed - 2.0).abs() < 0.1, "{failed}");
}

#[test]
fn rules_are_checked_by_line_and_column_before_a_node_uses_them() {
    let folder = TempDir::new().expect("a folder");
    let check = |name: &str| {
        let command = std::process::Command::new(KEYVIZ).args(["alerts", "check", name]).output();
        command.expect("it starts")
    };
    let shipped = check("default");
    assert!(shipped.status.success(), "{}", stderr(&shipped));
    assert!(String::from_utf8_lossy(&shipped.stdout).contains("2 rules"));
    let bad = write_file(folder.path(), "bad.yml", "rules:\n- name: a\n  colour: red\n");
    let bad = bad.to_str().expect("a plain name");
    let refused = check(bad);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("line 3, column 3"), "{}", stderr(&refused));
    let data = folder.path().join("data");
    let serve = |more: &[&str]| {
        let data = data.to_str().expect("a plain name");
        let flags = ["serve", "--id", "1", "--data", data, "--bootstrap", "1=127.0.0.1:7401"];
        let command = std::process::Command::new(KEYVIZ).args(flags).args(more).output();
        command.expect("it starts")
    };
    let refused = serve(&["--alert-rules", bad]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("line 3, column 3"), "{}", stderr(&refused));
    let refused = serve(&["--alert-rules", "default", "--alert-webhook", "https://a/"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}
