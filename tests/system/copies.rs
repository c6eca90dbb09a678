//! A history outlives its node: what was shown of a node that is gone is shown still, to the
//! integer, and what may be missing is told. Real processes, killed, with their folders deleted.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Cluster, KEYVIZ, eventually, stderr};
use serde_json::Value;

const FLAGS: &[&str] =
    &["--groups", "3", "--split-at", "key/00001000,key/00002000", "--keyviz-step", "1s"];

/// What ended so long before a node dies is complete.
const BOUND: Duration = Duration::from_secs(10);

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    since.as_millis() as u64
}

fn load(nodes: &[String], seconds: u64) -> Child {
    Command::new(KEYVIZ)
        .args(["load", "--pattern", "uniform", "--keys", "3000", "--read-ratio", "0.4"])
        .args(["--clients", "4", "--seed", "5", "--rate", "200"])
        .args(["--duration", &format!("{seconds}s"), "--format", "json"])
        .args(["--node", &nodes.join(",")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// A load that ends with the test.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The matrix of a window at a node.
fn matrix(cluster: &Cluster, at: usize, series: &str, window: (u64, u64)) -> Value {
    let (from, to) = (window.0.to_string(), window.1.to_string());
    cluster.json_on(at, &["heat", "--series", series, "--from", &from, "--to", &to])
}

/// The sum of each column over all rows and blocks, and whether any cell is partial.
fn sums(matrix: &Value) -> (Vec<u64>, bool) {
    let columns = matrix["columns"].as_array().expect("columns").len();
    let rows = matrix["rows"].as_array().expect("rows");
    let mut sums = vec![0; columns];
    for row in rows {
        for (sum, value) in sums.iter_mut().zip(row["values"].as_array().expect("values")) {
            *sum += value.as_u64().expect("a number");
        }
    }
    for block in matrix["blocks"].as_array().into_iter().flatten() {
        sums[block["column"].as_u64().expect("a column") as usize] +=
            block["value"].as_u64().expect("a number");
    }
    let partial = rows.iter().any(|row| !row["partial"].as_array().expect("a list").is_empty());
    (sums, partial)
}

fn status_of(matrix: &Value, node: u64) -> Value {
    let mut nodes = matrix["nodes"].as_array().expect("nodes").iter();
    nodes.find(|status| status["id"] == node).cloned().unwrap_or(Value::Null)
}

fn lag_seconds(cluster: &Cluster, at: usize) -> Option<f64> {
    cluster.metric(at, "keyviz_copies_lag_seconds")
}

/// Waits until each node's columns are held by others.
fn all_are_copied(cluster: &Cluster, nodes: usize) {
    eventually("every node's history is held by two others", || {
        (0..nodes).all(|at| {
            let holders = cluster.metric(at, "keyviz_copies_holders");
            let held = cluster.metric(at, "keyviz_copies_held");
            let lag = lag_seconds(cluster, at);
            holders == Some(2.0)
                && held.is_some_and(|held| held >= 2.0)
                && lag.is_some_and(|lag| lag > 0.0 && lag < 5.0)
        })
    });
}

const SERIES: [&str; 4] = ["writes", "reads", "write-bytes", "read-bytes"];

#[test]
fn conservation_and_once_what_was_shown_of_a_node_is_shown_after_its_end() {
    let mut cluster = Cluster::start(3, FLAGS);
    all_are_copied(&cluster, 3);
    eventually("the node that dies leads a group", || {
        let status = cluster.json(&["cluster", "status"]);
        status["groups"].as_array().expect("groups").iter().any(|group| group["leader"] == 3)
    });
    let begun_ms = now_ms() / 1_000 * 1_000;
    let _load = Load(load(&cluster.grpc, 90));
    std::thread::sleep(Duration::from_secs(16));
    let window = (begun_ms, (now_ms() - BOUND.as_millis() as u64) / 1_000 * 1_000);
    let before = SERIES.map(|series| sums(&matrix(&cluster, 0, series, window)));
    for (series, (columns, partial)) in SERIES.iter().zip(&before) {
        assert!(columns.iter().sum::<u64>() > 0 && !partial, "{series}: {columns:?}");
    }
    let own = cluster.json_on(2, &["heat", "--scope", "node", "--last", "1m"]);
    assert!(own["total"].as_u64() > Some(0), "the node that dies counts");
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("the folder is ours");

    let the_same = |cluster: &Cluster, when: &str| {
        for at in [0, 1] {
            for (series, before) in SERIES.iter().zip(&before) {
                let after = matrix(cluster, at, series, window);
                assert_eq!(sums(&after), *before, "{series} at node {} {when}: {after}", at + 1);
            }
        }
    };
    let asked = matrix(&cluster, 0, "writes", window);
    let status = status_of(&asked, 3);
    assert_eq!(status["ok"], false, "{status}");
    assert!(!status["answered_by"].as_array().expect("a list").is_empty(), "{status}");
    let said = status["error"].as_str().expect("an error");
    assert!(said.contains("answered by node") && said.contains("complete to"), "{said}");
    assert!(status["complete_to_ms"].as_u64() >= Some(window.1), "{status}");
    the_same(&cluster, "once it is dead");
    // What nobody has is told: the time since.
    let since = matrix(&cluster, 0, "writes", (begun_ms, now_ms()));
    assert!(sums(&since).1, "the last seconds may lack counts");
    // Its hot keys are there too.
    let (from, to) = (window.0.to_string(), window.1.to_string());
    let arguments = ["hot", "--series", "writes", "--from", &from, "--to", &to, "--by-node"];
    let hot = cluster.json_on(0, &arguments);
    assert_eq!(hot["partial"], false, "{hot}");

    // Replaced by another: the same.
    let fourth = cluster.join(0);
    let replaced = cluster.run_on(0, &["cluster", "replace-node", "3", "--with", "4"]);
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    eventually("it is no member any more", || {
        status_of(&matrix(&cluster, 0, "writes", window), 3) == Value::Null
    });
    the_same(&cluster, "once it is replaced");
    let at_fourth = matrix(&cluster, fourth, "writes", window);
    assert_eq!(sums(&at_fourth), before[0], "at the node in its place");

    // The copies move to it, so that another may die.
    eventually("the new member holds three copies", || {
        cluster.metric(fourth, "keyviz_copies_held") == Some(3.0)
    });
    std::thread::sleep(Duration::from_secs(4));
    cluster.kill(0);
    for at in [1, fourth] {
        let after = matrix(&cluster, at, "writes", window);
        assert_eq!(sums(&after), before[0], "after a second one died: {after}");
    }
}

#[test]
fn once_holders_that_restart_and_members_that_return_count_nothing_twice() {
    let mut cluster = Cluster::start(3, FLAGS);
    all_are_copied(&cluster, 3);
    let begun_ms = now_ms() / 1_000 * 1_000;
    {
        let _load = Load(load(&cluster.grpc, 6));
        std::thread::sleep(Duration::from_secs(8));
    }
    let window = (begun_ms, now_ms() / 1_000 * 1_000 - 1_000);
    std::thread::sleep(Duration::from_secs(5));
    let before = SERIES.map(|series| sums(&matrix(&cluster, 0, series, window)));
    let same = |cluster: &Cluster, at: usize| {
        SERIES
            .iter()
            .zip(&before)
            .all(|(series, before)| sums(&matrix(cluster, at, series, window)).0 == before.0)
    };
    // A holder starts again, while the node that counted is away.
    cluster.kill(2);
    cluster.kill(1);
    cluster.spawn(1);
    cluster.wait_until_serving();
    eventually("a holder that has started again answers", || {
        let status = status_of(&matrix(&cluster, 1, "writes", window), 3);
        status["answered_by"].as_array().is_some_and(|holders| !holders.is_empty())
    });
    eventually("it tells what it told", || same(&cluster, 1));
    // The node comes back and speaks for itself.
    cluster.spawn(2);
    cluster.wait_until_serving();
    eventually("the node answers itself", || {
        status_of(&matrix(&cluster, 0, "writes", window), 3)["ok"] == true
    });
    for at in 0..3 {
        eventually("nothing is counted twice", || same(&cluster, at));
    }
}

#[test]
fn honest_partiality_without_copies_what_a_dead_node_counted_is_partial_in_words() {
    let flags = [FLAGS, &["--keyviz-history-copies", "1"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let begun_ms = now_ms() / 1_000 * 1_000;
    {
        let _load = Load(load(&cluster.grpc, 3));
        std::thread::sleep(Duration::from_secs(4));
    }
    let window = (begun_ms, now_ms() / 1_000 * 1_000);
    assert_eq!(cluster.metric(0, "keyviz_copies_sent_bytes_total"), Some(0.0));
    cluster.kill(2);
    let after = matrix(&cluster, 0, "writes", window);
    let status = status_of(&after, 3);
    assert_eq!(
        (&status["ok"], status["answered_by"].as_array().map(Vec::len)),
        (&Value::Bool(false), Some(0))
    );
    assert!(sums(&after).1, "all of it may lack counts: {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_copies_of_strangers_and_liars_are_refused_in_words() {
    use keyviz_proto as proto;
    use tonic::Code;

    let cluster = Cluster::start(3, FLAGS);
    all_are_copied(&cluster, 3);
    let status = cluster.json(&["cluster", "status"]);
    let ours = status["cluster_id"].as_str().expect("a cluster has an id").to_owned();
    let address = format!("http://{}", cluster.grpc[0]);
    let client = proto::key_viz_peer_client::KeyVizPeerClient::connect(address).await;
    let mut client = client.expect("the node listens");
    let sender = |cluster_id: &str, node_id, disk: &'static [u8]| {
        Some(proto::CopySender { cluster_id: cluster_id.to_owned(), node_id, disk: disk.into() })
    };
    let cases = [
        (None, Code::InvalidArgument, "without a sender"),
        (sender("another", 2, &[0; 16]), Code::FailedPrecondition, "the caller to cluster another"),
        (sender(&ours, 9, &[0; 16]), Code::FailedPrecondition, "node 9 is no member"),
        (sender(&ours, 2, &[0; 16]), Code::PermissionDenied, "its disk is not that of node 2"),
        (sender(&ours, 2, &[]), Code::PermissionDenied, "its disk is not that of node 2"),
    ];
    for (sender, code, words) in cases {
        let request = proto::StoreCopyRequest {
            sender: sender.clone(),
            node_id: 2,
            incarnation: 1,
            step_ms: 1_000,
            complete_to_ms: Some(u64::MAX),
            ..Default::default()
        };
        let refused = client.store_copy(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
        let request = proto::CopyInventoryRequest { sender, node_id: 2 };
        let refused = client.copy_inventory(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), code, "{refused}");
    }
}

/// How much a node that is killed at any time loses: the time before its death of which no copy has
/// everything.
#[test]
#[ignore = "kills a node a hundred times: ten minutes"]
fn honest_partiality_the_loss_over_a_hundred_kills_is_bounded() {
    let kills: usize =
        std::env::var("KEYVIZ_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(100);
    let mut cluster = Cluster::start(3, FLAGS);
    all_are_copied(&cluster, 3);
    let _load = Load(load(&cluster.grpc, 3_600));
    let mut losses: Vec<u64> = Vec::new();
    for kill in 0..kills {
        let index = kill % 3;
        // At another phase of the second each time.
        std::thread::sleep(Duration::from_millis(2_500 + (kill as u64 * 137) % 1_000));
        let killed_ms = now_ms();
        cluster.kill(index);
        let asker = (index + 1) % 3;
        let mut complete_to_ms = None;
        let until = Instant::now() + Duration::from_secs(10);
        while complete_to_ms.is_none() && Instant::now() < until {
            let window = (killed_ms - 20_000, killed_ms);
            let status = status_of(&matrix(&cluster, asker, "writes", window), index as u64 + 1);
            complete_to_ms = status["complete_to_ms"].as_u64();
        }
        let complete_to_ms = complete_to_ms.expect("a holder answers in its name");
        losses.push(killed_ms.saturating_sub(complete_to_ms));
        cluster.spawn(index);
        cluster.wait_until_serving();
        all_are_copied(&cluster, 3);
    }
    losses.sort_unstable();
    let (median, most) = (losses[losses.len() / 2], losses[losses.len() - 1]);
    println!("{kills} kills: median loss {median} ms, maximum {most} ms");
    assert!(most < BOUND.as_millis() as u64, "{losses:?}");
}
