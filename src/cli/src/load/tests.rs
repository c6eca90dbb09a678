use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::fake::{self, FakeNode, Fault, Store};
use super::*;
use crate::flags::values::Address;

async fn cluster(nodes: usize) -> (Arc<Store>, Vec<FakeNode>) {
    let store = Arc::new(Store::default());
    let mut cluster = Vec::new();
    for _ in 0..nodes {
        cluster.push(fake::start(store.clone()).await);
    }
    (store, cluster)
}

fn addresses(nodes: &[FakeNode]) -> Vec<Address> {
    nodes.iter().map(|node| node.address.clone()).collect()
}

fn options(workload: Workload) -> LoadOptions {
    LoadOptions {
        workload,
        clients: 8,
        seed: 1,
        duration: None,
        timeout: Duration::from_secs(5),
        spread: false,
        verify: true,
        record: None,
    }
}

fn pattern(pattern: Pattern, operations: u64) -> LoadOptions {
    options(Workload::Pattern(PatternOptions {
        pattern,
        read_ratio: 0.5,
        keys: 50,
        value_bytes: 32,
        key_prefix: "k".into(),
        rate: None,
        operations: Some(operations),
    }))
}

fn trace(file: &tempfile::NamedTempFile, speed: Option<f64>) -> LoadOptions {
    let path = file.path().to_owned();
    options(Workload::Trace(TraceOptions { path, speed, skip_bad: true }))
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    file.write_all(content.as_bytes()).expect("the temporary folder is writable");
    file
}

async fn done(options: LoadOptions, nodes: &[FakeNode]) -> LoadReport {
    run(options, addresses(nodes), Arc::default()).await.expect("the cluster is there")
}

#[tokio::test]
async fn every_pattern_does_its_operations_and_verifies_them() {
    let (store, nodes) = cluster(3).await;
    for kind in <Pattern as clap::ValueEnum>::value_variants() {
        let report = done(pattern(*kind, 400), &nodes).await;
        assert_eq!(report.errors, 0, "{kind:?}: {report:?}");
        assert_eq!(report.writes_acked + report.reads_ok + report.scans_ok, 400, "{kind:?}");
        assert_eq!(report.scans_ok > 0, *kind == Pattern::Scan);
        assert_eq!(report.missing, Some(0));
        assert!(report.verified.is_some_and(|verified| verified > 0), "{kind:?}");
        assert!(report.findings().is_clean() && !report.interrupted);
    }
    assert!(store.map.lock().len() <= 50);
    assert!(nodes.iter().all(|node| node.writes_seen.load(Ordering::Relaxed) > 0));
}

#[tokio::test]
async fn order_a_trace_keeps_the_operations_of_each_key_in_order() {
    let (store, nodes) = cluster(3).await;
    let mut content = String::from("t_s,op,key,value_bytes\n");
    for at in 0..2_000 {
        let op = if at % 7 == 6 { "delete" } else { "write" };
        content.push_str(&format!("{at},{op},k{},{}\nbad line\n", at % 13, at));
    }
    for key in 0..20 {
        content.push_str(&format!("2000,read,k{key},5\n"));
    }
    let report = done(trace(&file(&content), None), &nodes).await;
    assert_eq!((report.writes_acked, report.deletes_acked, report.reads_ok), (1_715, 285, 20));
    assert_eq!((report.errors, report.missing, report.wrong), (0, Some(0), Some(0)));
    assert_eq!((report.verified, report.trace_lines_skipped), (Some(13), Some(2_000)));
    let mut sizes: BTreeMap<Bytes, Vec<Option<usize>>> = BTreeMap::new();
    for (key, value) in store.log.lock().iter() {
        sizes.entry(key.clone()).or_default().push(value.as_ref().map(Bytes::len));
    }
    for (key, sizes) in sizes {
        let expected = (0..2_000usize).filter(|at| format!("k{}", at % 13).as_bytes() == key);
        let expected: Vec<_> = expected.map(|at| (at % 7 != 6).then_some(at)).collect();
        assert_eq!(sizes, expected, "{key:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_where_a_trace_has_a_bad_line() {
    let (store, nodes) = cluster(1).await;
    let file = file("t_s,op,key,value_bytes\n0,write,a,1\n0,write,b\n");
    let mut options = trace(&file, None);
    if let Workload::Trace(trace) = &mut options.workload {
        trace.skip_bad = false;
    }
    let error = run(options, addresses(&nodes), Arc::default()).await.unwrap_err().to_string();
    assert!(error.contains("line 3: 3 fields, expected 4"), "{error}");
    assert!(store.log.lock().is_empty());
}

#[tokio::test]
async fn a_trace_keeps_its_times_at_a_given_speed() {
    let (_, nodes) = cluster(1).await;
    let file = file("t_s,op,key,value_bytes\n0,write,a,1\n10,write,a,1\n20,read,a,1\n");
    let started = Instant::now();
    let report = done(trace(&file, Some(100.0)), &nodes).await;
    assert!((200..2_000).contains(&started.elapsed().as_millis()), "{report:?}");
    assert_eq!(report.errors, 0);
}

#[tokio::test]
async fn no_lost_write_what_a_server_loses_is_found() {
    let (_, nodes) = cluster(1).await;
    nodes[0].fail(Fault::Lost, 1);
    let file = file("t_s,op,key,value_bytes\n0,write,a,9\n0,write,b,9\n0,write,b,9\n");
    let mut options = trace(&file, None);
    options.clients = 1;
    let report = done(options, &nodes).await;
    assert_eq!((report.writes_acked, report.verified), (3, Some(1)));
    assert_eq!((report.missing, report.wrong), (Some(1), Some(0)));
    assert!(!report.findings().is_clean());
}

#[tokio::test]
async fn no_lost_write_an_older_value_is_wrong() {
    let (store, nodes) = cluster(1).await;
    let file = file("t_s,op,key,value_bytes\n0,write,a,9\n5,write,a,9\n");
    let mut options = trace(&file, Some(10.0));
    options.clients = 1;
    let (run, spoil) = tokio::join!(done(options, &nodes), async {
        while store.log.lock().len() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nodes[0].fail(Fault::Lost, 1);
    });
    let () = spoil;
    assert_eq!((run.missing, run.wrong), (Some(1), Some(1)));
}

#[tokio::test]
async fn once_a_write_of_unknown_outcome_is_counted_and_not_repeated() {
    let (store, nodes) = cluster(2).await;
    nodes[0].fail(Fault::AppliedButUnknown, 3);
    let mut options = pattern(Pattern::Sequential, 60);
    if let Workload::Pattern(pattern) = &mut options.workload {
        pattern.read_ratio = 0.0;
    }
    let report = done(options, &nodes).await;
    assert_eq!((report.errors, report.unknown, report.retries), (3, 3, 0));
    assert_eq!(report.errors_by_kind, BTreeMap::from([("UNKNOWN", 3)]));
    assert_eq!(report.writes_acked, 57);
    assert_eq!(store.log.lock().len(), 60);
    assert_eq!(report.missing, Some(0));
}

#[tokio::test]
async fn writes_that_certainly_did_not_happen_are_made_in_the_end() {
    let (store, nodes) = cluster(2).await;
    nodes[0].fail(Fault::NotApplied, 20);
    nodes[1].fail(Fault::NotApplied, 20);
    let report = done(pattern(Pattern::Uniform, 100), &nodes).await;
    assert_eq!((report.errors, report.missing), (0, Some(0)));
    assert!(report.retries >= 40);
    assert_eq!(store.log.lock().len() as u64, report.writes_acked);
}

#[tokio::test]
async fn no_harm_clients_of_a_dead_node_move_on_and_come_back() {
    let (store, mut nodes) = cluster(2).await;
    let mut options = pattern(Pattern::Uniform, 0);
    if let Workload::Pattern(pattern) = &mut options.workload {
        pattern.operations = None;
        pattern.rate = Some(500.0);
    }
    options.duration = Some(Duration::from_secs(3));
    let load = tokio::spawn(run(options, addresses(&nodes), Arc::default()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let dead = nodes.remove(0);
    let socket = dead.socket;
    dead.kill().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let back = fake::start_at(store.clone(), socket).await;
    let report = load.await.expect("no client panics").expect("a node is there");
    assert_eq!((report.missing, report.wrong, report.unread), (Some(0), Some(0), Some(0)));
    assert_eq!(report.errors, report.unknown, "{report:?}");
    assert!(report.writes_acked + report.reads_ok > 1_400, "{report:?}");
    assert!(back.writes_seen.load(Ordering::Relaxed) > 50, "{back:?}");
}

#[tokio::test]
async fn a_stalled_server_shows_in_open_loop_latency() {
    let (_, nodes) = cluster(1).await;
    let mut options = pattern(Pattern::Uniform, 100);
    options.clients = 1;
    options.timeout = Duration::from_millis(300);
    if let Workload::Pattern(pattern) = &mut options.workload {
        (pattern.rate, pattern.read_ratio) = (Some(1_000.0), 0.0);
    }
    nodes[0].fail(Fault::Silent, 1);
    let report = done(options, &nodes).await;
    assert_eq!((report.errors, report.unknown), (1, 1));
    assert!(report.p50_us > 100_000, "the queue behind the stall counts: {report:?}");
}

#[tokio::test]
async fn a_stopped_run_still_reports() {
    let (_, nodes) = cluster(1).await;
    let mut options = pattern(Pattern::Uniform, u64::MAX);
    options.record = None;
    let progress = Arc::new(Progress::default());
    let load = tokio::spawn(run(options, addresses(&nodes), progress.clone()));
    while progress.done() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    progress.stop();
    let report = load.await.expect("no client panics").expect("a node is there");
    assert!(report.interrupted && report.errors == 0);
    assert_eq!(report.missing, Some(0));
}

#[tokio::test]
async fn the_record_has_every_operation() {
    let (_, nodes) = cluster(2).await;
    nodes[0].fail(Fault::AppliedButUnknown, 1);
    let record = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let mut options = pattern(Pattern::Uniform, 200);
    options.record = Some(record.path().to_owned());
    let report = done(options, &nodes).await;
    let text = std::fs::read_to_string(record.path()).expect("the record was written");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    assert_eq!(lines.len(), 200);
    let count = |field: &str, value: &str| lines.iter().filter(|line| line[field] == value).count();
    assert_eq!(count("outcome", "ok") as u64, report.writes_acked + report.reads_ok);
    assert_eq!((count("outcome", "unknown") + count("outcome", "failed")) as u64, report.errors);
    assert!(lines.iter().all(|line| line["start_us"].as_u64() <= line["end_us"].as_u64()));
    assert!(
        lines.iter().filter(|line| line["op"] == "write").all(|line| line["digest"].is_string())
    );
    let other = tempfile::tempdir().expect("the temporary folder is writable");
    let mut options = pattern(Pattern::Uniform, 1);
    options.record = Some(other.path().join("no/such/folder"));
    let error = run(options, addresses(&nodes), Arc::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot write the record "), "{error}");
}

#[tokio::test]
async fn no_node_at_all_is_told_before_anything_is_sent() {
    let (_, mut nodes) = cluster(1).await;
    let addresses = addresses(&nodes);
    nodes.remove(0).kill().await;
    let error = run(pattern(Pattern::Uniform, 1), addresses, Arc::default()).await.unwrap_err();
    assert!(matches!(error, LoadError::NoNode(_)), "{error}");
}
