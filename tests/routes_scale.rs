//! As many routes as there may be, on a real process: `cargo test --release --test routes_scale`.

#[path = "support"]
mod support {
    mod cluster;
    mod commands;

    pub use cluster::{Cluster, eventually};
}

use keyviz_proto::routes_client::RoutesClient;
use keyviz_proto::watch_routes_response::Event;
use keyviz_proto::{ListRoutesRequest, MergeRoutesRequest, SplitRouteRequest, WatchRoutesRequest};
use support::{Cluster, eventually};
use tonic::Code;

const ROUTES: usize = 100_000;
/// Boundaries a flag: the system bounds the length of one argument.
const A_FLAG: usize = 5_000;

fn key(number: usize) -> String {
    format!("k{number:06}")
}

#[tokio::test]
async fn bounds_a_hundred_thousand_routes_are_served_listed_and_watched_and_one_more_is_refused() {
    if cfg!(debug_assertions) {
        println!("skipped: a debug build takes half a minute over a hundred thousand routes");
        return;
    }
    let boundaries: Vec<String> = (1..ROUTES).map(key).collect();
    let lists: Vec<String> = boundaries.chunks(A_FLAG).map(|keys| keys.join(",")).collect();
    let mut flags = vec!["--replication", "1", "--groups", "1"];
    for list in &lists {
        flags.extend(["--split-at", list]);
    }
    let cluster = Cluster::start(1, &flags);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", cluster.grpc[0]));
    let channel = endpoint.expect("an address").connect().await.expect("the node serves");
    // A client that raises no limit.
    let mut plain = RoutesClient::new(channel.clone());
    let request = ListRoutesRequest::default();
    let mut parts = plain.stream_routes(request).await.expect("a stream").into_inner();
    let mut listed = 0;
    while let Some(part) = parts.message().await.expect("within the limit of 4 MiB") {
        listed += part.routes.len();
    }
    assert_eq!(listed, ROUTES);
    let (mut paged, mut page_token) = (0, Default::default());
    loop {
        let request =
            ListRoutesRequest { page_size: 10_000, page_token, ..ListRoutesRequest::default() };
        let page = plain.list_routes(request).await.expect("a page").into_inner();
        paged += page.routes.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, ROUTES);

    let mut client = RoutesClient::new(channel).max_decoding_message_size(64 << 20);
    let request = ListRoutesRequest::default();
    let list = client.list_routes(request).await.expect("a list").into_inner();
    assert_eq!(list.routes.len(), ROUTES);
    let request = WatchRoutesRequest { after_version: 0, ..Default::default() };
    let mut watch = client.watch_routes(request).await.expect("a watch").into_inner();
    let mut seen = 0;
    loop {
        let message = watch.message().await.expect("it goes on").expect("it goes on");
        let Some(Event::Snapshot(part)) = message.event else { panic!("{message:?}") };
        seen += part.routes.len();
        if !part.more {
            break;
        }
    }
    assert_eq!(seen, ROUTES);

    let split = |route_id, key: &str| SplitRouteRequest {
        route_id,
        key: key.to_owned().into(),
        ..Default::default()
    };
    let last = list.routes[ROUTES - 1].route_id;
    let full = client.split_route(split(last, "l")).await.expect_err("there are enough");
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("100000"), "{}", full.message());
    let [left_id, right_id] = [list.routes[0].route_id, list.routes[1].route_id];
    let merge = MergeRoutesRequest { left_id, right_id, ..Default::default() };
    client.merge_routes(merge).await.expect("neighbours of one group");
    client.split_route(split(last, "l")).await.expect("there is room for one");

    for number in [0, 2, 77_777, ROUTES - 1] {
        assert!(cluster.run(&["put", &key(number), "value"]).status.success());
    }
    eventually("the matrix is whole", || cluster.heat(0, "writes", &[])["responded"] == 1);
    let matrix = cluster.heat(0, "writes", &[]);
    assert_eq!(matrix["unattributed"], 0);
    assert_eq!(cluster.total(0, "writes", &[]), 4);
    assert!(matrix["rows"].as_array().expect("rows").len() <= 256);
}
