use bytes::Bytes;

use super::watch::column_line;
use super::*;
use keyviz_proto as proto;

fn options() -> DemoOptions {
    DemoOptions {
        nodes: 3,
        groups: 4,
        data: None,
        port: 7401,
        load: Some(Pattern::Hotspot),
        duration: None,
        keyviz: KeyvizOptions { step: Duration::from_secs(2), ..KeyvizOptions::DEFAULT },
        storage: StorageFlags { cache_bytes: CACHE_BYTES, ..StorageFlags::DEFAULT },
        autopilot: AutopilotConfig::default(),
    }
}

#[test]
fn members_of_a_demo_agree_on_their_cluster() {
    let members = options().members(Path::new("/d"));
    assert_eq!(members.len(), 3);
    for (member, id) in members.iter().zip(1..) {
        assert_eq!(member.id, id);
        assert_eq!(member.listen.port(), 7400 + id as u16);
        assert_eq!(member.http.map(|http| http.port()), Some(7500 + id as u16));
        assert_eq!(member.data, Path::new("/d").join(format!("node{id}")));
        assert_eq!(member.start, members[0].start);
        assert!(member.listen.ip().is_loopback());
    }
    let Start::Bootstrap(bootstrap) = &members[0].start else { panic!("a demo is new") };
    assert_eq!(bootstrap.split_at.len() as u64, ROUTES - 1);
    assert_eq!((bootstrap.groups, bootstrap.replication), (4, 3));
}

#[test]
fn routes_of_a_demo_are_the_keys_of_its_workload() {
    let splits = split_keys(KEY_PREFIX, KEYS, ROUTES);
    assert!(splits.is_sorted());
    assert_eq!(splits[0], "demo/00003125");
    assert_eq!(splits[30], "demo/00096875");
}

#[test]
fn keys_of_a_demo_are_none_of_load() {
    let prefix = super::super::load::DEFAULT_KEY_PREFIX;
    let LoadOptions { workload: Workload::Pattern(pattern), .. } =
        options().workload(Pattern::Hotspot)
    else {
        panic!("it is a pattern");
    };
    assert_eq!(pattern.key_prefix, KEY_PREFIX);
    assert!(!KEY_PREFIX.starts_with(prefix) && !prefix.starts_with(KEY_PREFIX));
}

#[test]
fn a_column_is_told_with_its_hottest_row() {
    let row = |start: &'static [u8], values: Vec<u64>| proto::Row {
        start: Bytes::from_static(start),
        values,
        ..proto::Row::default()
    };
    let column = proto::Column { start_ms: 1_767_182_400_000, end_ms: 0, open: false };
    let matrix = proto::Matrix {
        columns: vec![column],
        rows: vec![row(b"", vec![3]), row(b"k\x1b", vec![1_500])],
        ..proto::Matrix::default()
    };
    assert_eq!(
        column_line(&matrix, 0, &column),
        "2025-12-31T12:00:00Z 1,503 writes, hottest from k\\x1b: 1,500"
    );
    assert_eq!(column_line(&matrix, 1, &column), "2025-12-31T12:00:00Z 0 writes");
}

/// Ends a control loop shortly after it started.
fn ending(name: &'static str) -> keyviz_node::LoopWrap {
    std::sync::Arc::new(move |which, running| match which == name {
        false => running,
        true => Box::pin(async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            panic!("put in by a test");
        }),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_stops_and_names_the_control_loop_that_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    // Each node has its port, and one 100 above for HTTP.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = free.local_addr().expect("a bound socket has an address").port();
    drop(free);
    let options = DemoOptions {
        nodes: 1,
        groups: 1,
        port,
        load: None,
        data: Some(folder.path().to_path_buf()),
        ..options()
    };
    let ran = run_demo(options, crate::ColorDepth::None, Some(ending("members")));
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await.expect("it stops");
    let error = ran.expect_err("a loop has ended").to_string();
    assert!(error.contains("the control loop \"members\" panicked"), "{error}");
    assert!(error.contains("node 1"), "{error}");
}
