//! What the picture keeps over a stop in good order and over kill -9, on a real process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{self, Cluster, eventually, http_get};
use serde_json::Value;

const STEP_MS: u64 = 2_000;
const FLAGS: &[&str] = &["--replication", "1", "--groups", "1", "--keyviz-step", "2s"];

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_millis() as u64
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a whole number")
}

fn put(cluster: &Cluster, count: usize) {
    for n in 0..count {
        let output = cluster.run(&["put", &format!("key/{n}"), "value"]);
        assert!(output.status.success(), "{}", support::stderr(&output));
    }
}

/// Start times of the columns that have a partial cell.
fn partial_columns(matrix: &Value) -> Vec<u64> {
    let columns = matrix["columns"].as_array().expect("columns");
    let rows = matrix["rows"].as_array().expect("rows");
    let cells = rows.iter().flat_map(|row| row["partial"].as_array().expect("cells"));
    let mut starts: Vec<u64> =
        cells.map(|column| number(&columns[number(column) as usize]["start_ms"])).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

#[test]
fn conservation_over_a_stop_in_good_order() {
    let mut cluster = Cluster::start(1, FLAGS);
    put(&cluster, 12);
    assert_eq!(cluster.stop(0), Some(0));
    cluster.spawn(0);
    cluster.wait_until_serving();
    put(&cluster, 3);
    let matrix = cluster.heat(0, "writes", &[]);
    assert_eq!(matrix["total"], 15);
    assert!(partial_columns(&matrix).is_empty(), "nothing is missing: {matrix}");
}

#[test]
fn honest_partiality_of_the_second_before_kill_9() {
    let mut cluster = Cluster::start(1, FLAGS);
    put(&cluster, 12);
    // More than a step and a second: the first column is closed and stored.
    std::thread::sleep(Duration::from_millis(STEP_MS + 1_200));
    put(&cluster, 5);
    // Longer than it takes to the next checkpoint, and it must be on disk.
    std::thread::sleep(Duration::from_millis(1_500));
    let alive = cluster.total(0, "writes", &[]);
    cluster.kill(0);
    let killed_ms = now_ms();
    cluster.spawn(0);
    cluster.wait_until_serving();
    let matrix = cluster.heat(0, "writes", &[]);
    assert_eq!((alive, number(&matrix["total"])), (17, 17), "all of it was older than a second");
    let open_then = killed_ms - killed_ms % STEP_MS;
    let partial = partial_columns(&matrix);
    // The kill takes a moment, in which a column may end.
    assert!(!partial.is_empty(), "a loss that is not shown: {matrix}");
    assert!(partial.iter().all(|start| start + STEP_MS >= open_then), "{partial:?} {killed_ms}");
    eventually("the metrics are there", || {
        http_get(&cluster.http[0], "/metrics").contains("keyviz_history_damaged_records 0")
    });
}
