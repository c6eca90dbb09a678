//! Changes of routes that the catalog refuses: each with its reason and its status, and the table
//! stays as it is.

use crate::support::{Cluster, stderr};
use keyviz_proto::routes_client::RoutesClient;
use keyviz_proto::{MergeRoutesRequest, SplitRouteRequest, WatchRoutesRequest};
use serde_json::Value;
use tonic::Code;

fn routes(cluster: &Cluster) -> Value {
    let list = cluster.json(&["routes", "list"]);
    let identity = |route: &Value| {
        let facts = ["route_id", "start", "end", "group_id", "parents"];
        facts.into_iter().map(|fact| route[fact].clone()).collect::<Value>()
    };
    list["routes"].as_array().expect("routes").iter().map(identity).collect()
}

fn split(route_id: u64, key: &[u8]) -> SplitRouteRequest {
    SplitRouteRequest { route_id, key: key.to_vec().into(), ..Default::default() }
}

fn merge(left_id: u64, right_id: u64) -> MergeRoutesRequest {
    MergeRoutesRequest { left_id, right_id, ..Default::default() }
}

/// What a client that checks nothing itself is told.
#[tokio::test]
async fn every_bad_change_has_its_status_and_changes_nothing() {
    let flags = ["--replication", "1", "--groups", "2", "--split-at", "g,p"];
    let cluster = Cluster::start(1, &flags);
    let address = format!("http://{}", cluster.grpc[0]);
    let mut client = RoutesClient::connect(address).await.expect("the node serves");
    // Now 4 [..c), 5 [c..g), 2 [g..p), 3 [p..); 1 is retired. Groups 1, 1, 2, 1.
    client.split_route(split(1, b"c")).await.expect("the key is inside");
    let before = routes(&cluster);
    let late = |version| SplitRouteRequest { expected_version: version, ..split(2, b"h") };
    let named = SplitRouteRequest { request_id: "r".repeat(129), ..split(2, b"h") };
    for (what, request, code) in [
        ("outside, below", split(2, b"a"), Code::InvalidArgument),
        ("outside, at the end", split(2, b"p"), Code::InvalidArgument),
        ("equal to the start", split(2, b"g"), Code::InvalidArgument),
        ("empty", split(4, b""), Code::InvalidArgument),
        ("too long", split(2, &[b'h'; 4_097]), Code::InvalidArgument),
        ("reserved", split(4, b"\0x"), Code::InvalidArgument),
        ("id 0", split(0, b"h"), Code::InvalidArgument),
        ("unknown id", split(99, b"h"), Code::NotFound),
        ("retired id", split(1, b"b"), Code::NotFound),
        ("old version", late(1), Code::Aborted),
        ("version ahead", late(9), Code::Aborted),
        ("long request id", named, Code::InvalidArgument),
    ] {
        let status = client.split_route(request).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {}", status.message());
        if code == Code::Aborted {
            let current = status.metadata().get("keyviz-catalog-version").expect("it is told");
            assert_eq!(current, "2");
            assert!(status.message().contains('2'), "{}", status.message());
        }
    }
    let late = MergeRoutesRequest { expected_version: 1, ..merge(4, 5) };
    for (what, request, code) in [
        ("in the wrong order", merge(5, 4), Code::FailedPrecondition),
        ("of non-neighbours", merge(4, 3), Code::FailedPrecondition),
        ("across groups", merge(5, 2), Code::FailedPrecondition),
        ("with itself", merge(4, 4), Code::InvalidArgument),
        ("id 0", merge(0, 5), Code::InvalidArgument),
        ("unknown id", merge(4, 99), Code::NotFound),
        ("retired id", merge(1, 2), Code::NotFound),
        ("old version", late, Code::Aborted),
    ] {
        let status = client.merge_routes(request).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {}", status.message());
        assert!(status.message().len() > 10, "it says why: {}", status.message());
    }
    let ahead =
        client.watch_routes(WatchRoutesRequest { after_version: 3, ..Default::default() }).await;
    assert_eq!(ahead.expect_err("ahead").code(), Code::OutOfRange);
    assert_eq!(routes(&cluster), before);
}

#[test]
fn refused_changes_say_why_and_change_nothing() {
    let cluster = Cluster::start(1, &["--replication", "1", "--groups", "2", "--split-at", "g,p"]);
    let long = "k".repeat(4_097);
    let before = routes(&cluster);
    for (arguments, code, reason) in [
        (&["routes", "split", "1", "z"][..], 1, "INVALID_ARGUMENT"),
        (&["routes", "split", "2", "g"], 1, "INVALID_ARGUMENT"),
        (&["routes", "split", "99", "z"], 3, "NOT_FOUND"),
        (&["routes", "split", "1", "c", "--expected-version", "7"], 5, "ABORTED"),
        (&["routes", "merge", "1", "2"], 5, "FAILED_PRECONDITION"),
        (&["routes", "merge", "1", "3"], 5, "FAILED_PRECONDITION"),
        (&["routes", "watch", "--after", "99"], 5, "OUT_OF_RANGE"),
        (&["routes", "split", "1", ""], 2, ""),
        (&["routes", "split", "1", "hex:0001"], 2, ""),
        (&["routes", "split", "1", &long], 2, ""),
        (&["routes", "merge", "1", "1"], 2, ""),
    ] {
        let output = cluster.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(routes(&cluster), before);
    let once = ["routes", "split", "1", "c", "--request-id", "again"];
    let first = cluster.json(&once);
    assert_eq!(cluster.json(&once), first, "a retry under its id has the same answer");
    let retired = cluster.run(&["routes", "split", "1", "b"]);
    assert!(stderr(&retired).contains("NOT_FOUND"), "{}", stderr(&retired));
    let history = cluster.json(&["routes", "history"]);
    assert_eq!(history["retired"][0]["route_id"], 1);
    assert_eq!(
        history["retired"][0]["children"],
        first["created"]
            .as_array()
            .map(|created| {
                created.iter().map(|route| route["route_id"].clone()).collect::<Value>()
            })
            .expect("a split creates routes")
    );
    for (key, times) in [("ca", 3), ("fa", 4)] {
        for _ in 0..times {
            assert!(cluster.run(&["put", key, "v"]).status.success());
        }
    }
    let right = first["created"][1]["route_id"].to_string();
    let halved = cluster.run(&["routes", "split", &right, "--auto", "--format", "json"]);
    let told = stderr(&halved);
    assert!(halved.status.success() || told.contains("no key to split at"), "{told}");
}
