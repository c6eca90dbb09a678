use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::*;
use crate::fake::{self, FakeNode, Fault, Store};
use crate::{ChangeOptions, ClientBuilder};

async fn cluster() -> (Arc<Store>, FakeNode, FakeNode, Client) {
    let store = Arc::new(Store::default());
    let (one, two) = (fake::start(store.clone()).await, fake::start(store.clone()).await);
    let client = builder(&[&one, &two]).single_pass().build().expect("two addresses");
    (store, one, two, client)
}

fn builder(nodes: &[&FakeNode]) -> ClientBuilder {
    let nodes = nodes.iter().map(|node| node.address.as_str());
    Client::builder().nodes(nodes).timeout(Duration::from_millis(500))
}

async fn put(client: &Client) -> Result<(), Error> {
    client.put("k", "v").await
}

async fn get(client: &Client) -> Result<Option<Bytes>, Error> {
    client.get("k").await
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_does_not_answer() {
    let (store, one, two, client) = cluster().await;
    one.kill().await;
    put(&client).await.expect("the second node is there");
    assert_eq!(get(&client).await.expect("the second node is there"), Some(Bytes::from("v")));
    assert_eq!(store.log.lock().len(), 1);
    assert_eq!(two.writes_seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn no_address_that_answers_names_all_of_them_with_reasons() {
    let (_, one, two, client) = cluster().await;
    let (first, second) = (one.address.to_string(), two.address.to_string());
    one.kill().await;
    two.kill().await;
    let error = put(&client).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("no node answered: {first}: ")), "{error}");
    assert!(error.contains(&format!("; {second}: ")), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn once_a_write_of_unknown_outcome_is_never_sent_again() {
    let (store, one, two, client) = cluster().await;
    for fault in [Fault::AppliedButUnknown, Fault::Unavailable, Fault::Silent] {
        one.fail(fault, 1);
        let error = put(&client).await.unwrap_err();
        assert!(matches!(&error, Error::Unknown { .. }), "{fault:?}: {error}");
    }
    assert_eq!(two.writes_seen.load(Ordering::Relaxed), 0);
    assert_eq!(store.log.lock().len(), 1);
}

#[tokio::test]
async fn a_write_that_certainly_did_not_happen_goes_to_the_next_address() {
    let (store, one, _two, client) = cluster().await;
    one.fail(Fault::NotApplied, 1);
    put(&client).await.expect("the second node takes it");
    assert_eq!(store.log.lock().len(), 1);
}

#[tokio::test]
async fn a_write_waits_for_a_leader_until_its_deadline() {
    let (store, one, two, _) = cluster().await;
    let client = builder(&[&one, &two]).build().expect("two addresses");
    // An election: both nodes refuse twice, and nothing happened.
    one.fail(Fault::NotApplied, 2);
    two.fail(Fault::NotApplied, 2);
    put(&client).await.expect("there is a leader in the end");
    assert_eq!(store.log.lock().len(), 1);
    let impatient = builder(&[&one]).deadline(Duration::from_millis(100)).build();
    one.fail(Fault::NotApplied, u64::MAX);
    let error = put(&impatient.expect("an address")).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(store.log.lock().len(), 1);
}

#[tokio::test]
async fn once_a_client_that_may_retry_sends_no_write_of_unknown_outcome_again() {
    let (store, one, two, _) = cluster().await;
    let client = builder(&[&one, &two]).deadline(Duration::from_millis(700)).build();
    let client = client.expect("two addresses");
    for fault in [Fault::AppliedButUnknown, Fault::Unavailable, Fault::Silent] {
        one.fail(fault, 1);
        let error = put(&client).await.unwrap_err();
        assert!(matches!(&error, Error::Unknown { .. }), "{fault:?}: {error}");
        // A node that did not answer is asked last for a while.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(two.writes_seen.load(Ordering::Relaxed), 0);
    assert_eq!(store.log.lock().len(), 1);
}

#[tokio::test]
async fn a_restarted_node_is_used_again() {
    let (store, one, two, _) = cluster().await;
    store.map.lock().insert(Bytes::from("k"), Bytes::from("v"));
    let socket = one.socket;
    let client = builder(&[&one, &two]).build().expect("two addresses");
    // Reads: a write on a connection that just broke may have happened.
    let read = || async { get(&client).await.expect("a node is up") };
    assert_eq!(read().await, Some(Bytes::from("v")));
    one.kill().await;
    assert_eq!(read().await, Some(Bytes::from("v")));
    two.kill().await;
    let _one = fake::start_at(store.clone(), socket).await;
    assert_eq!(read().await, Some(Bytes::from("v")));
}

#[tokio::test]
async fn every_attempt_of_an_operation_has_the_same_request_id() {
    let (store, one, two, client) = cluster().await;
    one.fail(Fault::NotApplied, 1);
    put(&client).await.expect("the second node takes it");
    put(&client.with_request_id("import-17")).await.expect("both nodes are up");
    let ids = store.request_ids.lock().clone();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!((&ids[0], &ids[2][..]), (&ids[1], "import-17"));
    assert_eq!(ids[0].len(), 16, "{ids:?}");
    drop(two);
}

#[tokio::test]
async fn operations_on_a_key_go_to_the_leader_once_it_is_known() {
    let (store, one, two, _) = cluster().await;
    *store.routes.lock() = vec![Bytes::new()];
    *store.leader.lock() = Some(two.address.to_string());
    let client = builder(&[&one, &two]).build().expect("two addresses");
    put(&client).await.expect("the first node forwards it");
    put(&client).await.expect("the leader takes it");
    put(&client).await.expect("the leader takes it");
    let seen = [&one, &two].map(|node| node.writes_seen.load(Ordering::Relaxed));
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn a_change_decided_on_another_catalog_version_is_refused_at_once() {
    let (store, one, two, _) = cluster().await;
    let client = builder(&[&one, &two]).build().expect("two addresses");
    let options = ChangeOptions { expected_version: 7, ..ChangeOptions::default() };
    let error = client.split_route(1, "m", options).await.unwrap_err();
    assert_eq!(error.current_catalog_version(), Some(1), "{error}");
    assert_eq!(store.splits_seen.load(Ordering::Relaxed), 1, "it is not sent again");
    client.split_route(1, "m", ChangeOptions::default()).await.expect("any version will do");
}

#[test]
fn a_client_needs_good_addresses_and_files() {
    let error = Client::new(["localhost"]).unwrap_err().to_string();
    assert_eq!(error, "\"localhost\": an address is HOST:PORT (the port is missing)");
    let none: [&str; 0] = [];
    assert!(matches!(Client::new(none), Err(Error::NoAddress)));
    let builder = Client::builder().nodes(["a:1"]).token_file("/nowhere/token");
    assert!(matches!(builder.build(), Err(Error::Credentials(_))));
    let shown = format!("{:?}", Client::builder().token("hidden-token"));
    assert!(!shown.contains("hidden"), "{shown}");
}

#[tokio::test]
async fn a_token_that_is_replaced_is_presented_by_the_next_calls() {
    let (store, one, _two, _) = cluster().await;
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "first-token-of-16\n").expect("a file");
    let client = builder(&[&one]).token_file(&path).build().expect("a token");
    put(&client).await.expect("the node is up");
    std::fs::write(&path, "second-token-of-16\n").expect("a file");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !store.tokens.lock().iter().any(|token| token == "Bearer second-token-of-16") {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.tokens.lock());
        put(&client).await.expect("the node is up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.tokens.lock()[0], "Bearer first-token-of-16");
}

#[tokio::test]
async fn a_read_goes_on_where_another_node_may_answer() {
    let (store, one, two, client) = cluster().await;
    store.map.lock().insert(Bytes::from("k"), Bytes::from("v"));
    for fault in [Fault::Unavailable, Fault::Silent, Fault::NotApplied] {
        one.fail(fault, 1);
        assert_eq!(get(&client).await.expect("the second node answers"), Some(Bytes::from("v")));
    }
    // The node that did not answer is asked last for a while.
    let client = builder(&[&one, &two]).single_pass().build().expect("two addresses");
    one.fail(Fault::Refused, 1);
    let error = get(&client).await.unwrap_err().to_string();
    assert_eq!(error, format!("{} answers INVALID_ARGUMENT: no such thing", one.address));
    one.fail(Fault::Unavailable, 1);
    two.fail(Fault::Unavailable, 1);
    let error = get(&client).await.unwrap_err().to_string();
    assert_eq!(error, format!("{} answers UNAVAILABLE: no leader", two.address));
}
