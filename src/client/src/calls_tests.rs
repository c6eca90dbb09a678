use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::*;
use crate::fake::{self, FakeNode, Fault, Store};
use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;

async fn cluster() -> (Arc<Store>, FakeNode, FakeNode, Client) {
    let store = Arc::new(Store::default());
    let (one, two) = (fake::start(store.clone()).await, fake::start(store.clone()).await);
    let nodes = vec![one.address.clone(), two.address.clone()];
    let client = Client::new(nodes, Duration::from_millis(500));
    (store, one, two, client)
}

async fn put(client: &Client) -> Result<(), CallError> {
    let request = proto::PutRequest { key: Bytes::from("k"), value: Bytes::from("v") };
    let put = |channel| {
        let request = request.clone();
        async move { KvClient::new(channel).put(request).await }
    };
    client.call(Effect::Write, put).await.map(|_| ())
}

async fn get(client: &Client) -> Result<Option<Bytes>, CallError> {
    let get = |channel| async move {
        let request = proto::GetRequest { key: Bytes::from("k"), consistency: 0 };
        KvClient::new(channel).get(request).await
    };
    client.call(Effect::Read, get).await.map(|answer| answer.into_inner().value)
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
        assert!(matches!(&error, CallError::Unknown { .. }), "{fault:?}: {error}");
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
async fn a_read_goes_on_where_another_node_may_answer() {
    let (store, one, two, client) = cluster().await;
    store.map.lock().insert(Bytes::from("k"), Bytes::from("v"));
    for fault in [Fault::Unavailable, Fault::Silent, Fault::NotApplied] {
        one.fail(fault, 1);
        assert_eq!(get(&client).await.expect("the second node answers"), Some(Bytes::from("v")));
    }
    one.fail(Fault::Refused, 1);
    let error = get(&client).await.unwrap_err().to_string();
    assert_eq!(error, format!("{} answers INVALID_ARGUMENT: no such thing", one.address));
    one.fail(Fault::Unavailable, 1);
    two.fail(Fault::Unavailable, 1);
    let error = get(&client).await.unwrap_err().to_string();
    assert_eq!(error, format!("{} answers UNAVAILABLE: no leader", two.address));
}
