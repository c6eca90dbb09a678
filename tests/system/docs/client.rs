//! `keyviz-client` and its examples against real processes.

use std::time::Duration;

use keyviz_client::{
    Batch, Bytes, ChangeOptions, Client, Consistency, Error, MatrixQuery, RouteTable, RouteUpdate,
    Series, Swap,
};

use crate::support::Cluster;

#[path = "../../../src/client/examples/heatmap.rs"]
mod heatmap;
#[path = "../../../src/client/examples/routes.rs"]
mod routes;
#[path = "../../../src/client/examples/store.rs"]
mod store;

fn client(cluster: &Cluster) -> Client {
    let builder = Client::builder().nodes(&cluster.grpc).deadline(Duration::from_secs(60));
    builder.build().expect("good addresses")
}

/// The routes of a table as their ids and first keys.
fn ids(table: &RouteTable) -> Vec<(u64, Bytes)> {
    table.iter().map(|route| (route.route_id, route.start.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_run() {
    let cluster = Cluster::start(1, &["--groups", "1", "--keyviz-step", "1s"]);
    store::run(&cluster.grpc).await.expect("the store example");
    heatmap::run(&cluster.grpc, 2).await.expect("the heatmap example");
    let table = routes::run(&cluster.grpc, 1).await.expect("the routes example");
    assert_eq!(table.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_what_it_wrote_and_the_matrix_counts_it() {
    let cluster = Cluster::start(3, &["--keyviz-step", "1s", "--split-at", "m"]);
    let client = client(&cluster);
    for key in ["a", "n"] {
        client.put(key, "1").await.expect("a put");
        for consistency in [Consistency::Linearizable, Consistency::Lease] {
            let value = client.get_with(key, consistency).await.expect("a get");
            assert_eq!(value, Some(Bytes::from("1")), "{key} {consistency:?}");
        }
    }
    assert_eq!(client.get("b").await.expect("a get"), None);
    let swapped = client.cas("a", Some("1".into()), Some("2".into())).await.expect("a swap");
    assert_eq!(swapped, Swap::Done);
    let swapped = client.cas("a", Some("1".into()), None).await.expect("a swap");
    assert_eq!(swapped, Swap::Found(Some("2".into())));
    let across = Batch::new().put("a", "3").put("n", "3");
    let error = client.batch(across).await.expect_err("two groups");
    assert_eq!(error.code(), Some(tonic::Code::FailedPrecondition), "{error}");
    client.batch(Batch::new().put("b", "3").delete("a")).await.expect("a batch");
    let mut rows = client.scan(..).keys_only();
    let mut keys = Vec::new();
    while let Some((key, _)) = rows.next().await.expect("a scan") {
        keys.push(key);
    }
    assert_eq!(keys, ["b", "n"].map(Bytes::from));
    assert!(!client.delete("a").await.expect("a delete"), "it is gone already");
    assert_eq!(client.delete_range("a"..).await.expect("it deletes"), 2);

    // Two puts, two swaps, a batch of two, a delete, and a deleted range over two routes.
    let matrix = client.matrix(MatrixQuery::new(Series::Writes)).await.expect("a matrix");
    assert_eq!((matrix.responded, matrix.expected), (3, 3));
    assert!(matrix.total > 0, "{matrix:?}");
    assert_eq!(matrix.total, matrix.rows.iter().flat_map(|row| &row.values).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_while_nodes_are_killed_and_no_write_happens_twice() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let client = client(&cluster);
    client.put("counter", "0").await.expect("a put");
    let (mut value, mut swaps) = (0_u64, 0);
    for round in 0..3 {
        cluster.kill(round);
        while swaps < (round as u64 + 1) * 10 {
            let text = |number: u64| Some(Bytes::from(number.to_string()));
            match client.cas("counter", text(value), text(value + 1)).await {
                Ok(Swap::Done) => (value, swaps) = (value + 1, swaps + 1),
                Ok(Swap::Found(found)) => panic!("{found:?} rather than {value}"),
                // What happened is read, never guessed.
                Err(Error::Unknown { .. }) => {
                    let found = client.get("counter").await.expect("a get").expect("it exists");
                    let found = String::from_utf8_lossy(&found).parse::<u64>().expect("a number");
                    assert!(found == value || found == value + 1, "{found}, {value}");
                    value = found;
                }
                Err(error) => assert!(error.is_unavailable(), "{error}"),
            }
        }
        cluster.spawn(round);
        cluster.wait_until_serving();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_at_another_node_and_keeps_the_table() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let client = client(&cluster);
    let mut watch = client.watch_routes();
    assert_eq!(watch.next().await.expect("the table"), RouteUpdate::Table);
    let first = watch.table().iter().next().expect("a route").route_id;
    let change = client.split_route(first, "m", ChangeOptions::default()).await.expect("a split");
    assert!(matches!(watch.next().await, Ok(RouteUpdate::Changes(changes)) if changes.len() == 1));
    // The same request again is the same change.
    let id = Some("one-change".to_owned());
    let options = ChangeOptions { request_id: id, ..ChangeOptions::default() };
    let left = change.created[0].route_id;
    let once = client.split_route(left, "f", options.clone()).await.expect("a split");
    let again = client.split_route(left, "f", options).await.expect("the same split");
    assert_eq!(once.catalog_version, again.catalog_version);
    let old = ChangeOptions { expected_version: 1, ..ChangeOptions::default() };
    let error = client.split_route(once.created[0].route_id, "c", old).await.expect_err("outdated");
    assert_eq!(error.current_catalog_version(), Some(once.catalog_version), "{error}");

    // The watch reads from the first address.
    cluster.kill(0);
    let right = change.created[1].route_id;
    client.split_route(right, "t", ChangeOptions::default()).await.expect("two nodes suffice");
    while watch.table().len() < 4 {
        watch.next().await.expect("another node serves the watch");
    }
    assert!(watch.streams() > 1, "the watch was interrupted");
    let listed = client.routes().await.expect("a list");
    let listed = listed.routes.into_iter().map(|route| (route.route_id, route.start));
    assert_eq!(ids(watch.table()), listed.collect::<Vec<_>>());
    assert_eq!(watch.into_table().version(), once.catalog_version + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_columns_continues_after_its_cursor() {
    let mut cluster = Cluster::start(3, &["--keyviz-step", "1s"]);
    let client = client(&cluster);
    let mut columns = client.columns(keyviz_client::ColumnsQuery::new(Series::Writes));
    let first = columns.next().await.expect("an update").cursor_ms;
    cluster.kill(0);
    // Columns that lack a member are sent again, so the cursor may stay where it is.
    let update = columns.next().await.expect("another node serves the stream");
    assert!(update.cursor_ms >= first, "the cursor went back");
    cluster.spawn(0);
    cluster.wait_until_serving();
    let mut last = first;
    while last == first {
        let update = columns.next().await.expect("all nodes are up");
        assert!(update.cursor_ms >= last, "the cursor went back");
        last = update.cursor_ms;
    }
    assert_eq!(columns.cursor_ms(), Some(last));
}
