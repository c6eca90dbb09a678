use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fake::{self, Fault, Store};
use keyviz_types::MAX_KEY_BYTES;

async fn node_with(keys: &[&str]) -> (Arc<Store>, fake::FakeNode, Client) {
    let store = Arc::new(Store::default());
    for key in keys {
        store.map.lock().insert(Bytes::copy_from_slice(key.as_bytes()), Bytes::new());
    }
    let node = fake::start(store.clone()).await;
    let client = Client::builder()
        .nodes([node.address.as_str()])
        .timeout(Duration::from_millis(500))
        .single_pass()
        .build()
        .expect("an address");
    (store, node, client)
}

/// The number of keys that a scan of 36 rows returns where streams break after their first page of
/// 10.
async fn scanned(fault: Fault, times: u64, limit: u64) -> (usize, Result<(), Error>) {
    let keys: Vec<String> = (0..35).map(|at| format!("k{at:02}")).collect();
    let (store, node, client) =
        node_with(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // The longest key has no key directly after it.
    store.map.lock().insert(vec![b'm'; MAX_KEY_BYTES].into(), Bytes::new());
    node.fail(fault, times);
    let mut scan = client.scan(..).limit(limit);
    let mut keys = Vec::new();
    let ended = loop {
        match scan.next().await {
            Ok(Some((key, _))) => keys.push(key),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(keys.is_sorted_by(|a, b| a < b), "each key once: {keys:?}");
    (keys.len(), ended)
}

#[tokio::test]
async fn a_scan_whose_stream_breaks_continues_after_its_last_key() {
    for limit in [0, 36, 100] {
        let (keys, ended) = scanned(Fault::ScanCut, 3, limit).await;
        ended.expect("it goes on");
        assert_eq!(keys, 36, "limit {limit}");
    }
    let (keys, ended) = scanned(Fault::ScanCut, 2, 25).await;
    ended.expect("it goes on");
    assert_eq!(keys, 25);
}

#[tokio::test]
async fn a_scan_that_is_refused_ends_with_the_reason() {
    let (keys, ended) = scanned(Fault::ScanRefused, 1, 0).await;
    let error = ended.expect_err("it was refused");
    assert_eq!((keys, error.code()), (10, Some(tonic::Code::PermissionDenied)));
}

#[tokio::test]
async fn a_range_that_is_deleted_in_part_says_how_far() {
    let (store, node, client) = node_with(&["a", "f", "m", "z"]).await;
    node.fail(Fault::RangeCut, 1);
    *store.routes.lock() = ["", "f", "m"].map(Bytes::from).to_vec();
    let error = client.delete_range(..).await.expect_err("the last part fails");
    assert_eq!((error.deleted, &error.next[..]), (2, &b"m"[..]));
    assert_eq!(store.map.lock().len(), 2);
    node.fail(Fault::None, 0);
    assert_eq!(client.delete_range("m"..).await.expect("the fault is over"), 2);
}

#[test]
fn parts_end_where_routes_end_and_cover_the_range() {
    let bounds = ["", "b", "f", "m"].map(Bytes::from);
    let expected = [KeyRange::from("b".."f"), KeyRange::from("f".."m")];
    assert_eq!(parts(&KeyRange::from("b".."m"), &bounds), expected);
    assert_eq!(parts(&KeyRange::from("x"..), &bounds), [KeyRange::from("x"..)]);
    let many: Vec<Bytes> = (0..1_000).map(|at| Bytes::from(format!("{at:04}"))).collect();
    let parts = parts(&KeyRange::all(), &many);
    assert!(parts.len() <= MAX_PARTS, "{}", parts.len());
    assert_eq!((&parts[0].start, &parts[parts.len() - 1].end), (&Bytes::new(), &None));
    assert!(parts.windows(2).all(|pair| pair[0].end.as_ref() == Some(&pair[1].start)));
}
