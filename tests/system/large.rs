//! Answers that are above gRPC's default limit of 4 MiB as a whole, to clients that raise no limit.

use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_proto::routes_client::RoutesClient;
use keyviz_proto::watch_routes_response::Event;
use prost::Message as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::Cluster;

/// What a client reads if it raises no limit.
const DEFAULT_LIMIT: usize = 4 << 20;
/// Keys of about 4,000 bytes: a few hundred make a large answer.
const ROUTES: usize = 600;
/// Routes that the first start makes.
const AT_FIRST: usize = 400;

async fn channel(cluster: &Cluster) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.grpc[0]));
    endpoint.expect("an address").connect().await.expect("the node serves")
}

fn key(number: usize) -> String {
    format!("{number:04}{}", "k".repeat(4_000))
}

/// One node whose routes begin at long keys.
async fn cluster() -> (Cluster, Channel) {
    // The system bounds the length of one argument, and of all.
    let keys: Vec<String> = (1..AT_FIRST).map(key).collect();
    let lists: Vec<String> = keys.chunks(25).map(|keys| keys.join(",")).collect();
    let mut flags = vec!["--groups", "1", "--keyviz-step", "1s"];
    lists.iter().for_each(|list| flags.extend(["--split-at", list]));
    let cluster = Cluster::start(1, &flags);
    let channel = channel(&cluster).await;
    let mut routes = RoutesClient::new(channel.clone());
    let mut last = AT_FIRST as u64;
    for number in AT_FIRST..ROUTES {
        let split = proto::SplitRouteRequest {
            route_id: last,
            key: key(number).into(),
            ..Default::default()
        };
        let split = routes.split_route(split).await.expect("it splits").into_inner();
        last = split.right.expect("the right half").route_id;
    }
    (cluster, channel)
}

#[tokio::test]
async fn bounds_routes_matrices_and_watches_of_long_keys_fit_in_messages_of_the_default_limit() {
    let (_cluster, channel) = cluster().await;
    let mut routes = RoutesClient::new(channel.clone());

    // As in earlier versions the whole table is one message, which such a client cannot read.
    let all = routes.list_routes(proto::ListRoutesRequest::default()).await;
    assert_eq!(all.expect_err("above the limit").code(), Code::OutOfRange);

    let request = proto::ListRoutesRequest::default();
    let mut parts = routes.stream_routes(request).await.expect("a stream").into_inner();
    let mut listed = Vec::new();
    while let Some(part) = parts.message().await.expect("each part fits") {
        listed.extend(part.routes);
    }
    assert_eq!(listed.len(), ROUTES);
    let bytes: usize = listed.iter().map(|route| route.encoded_len()).sum();
    assert!(bytes > DEFAULT_LIMIT, "{bytes} bytes in all");

    // Pages end at their bytes too, and cover what the stream has.
    let (mut paged, mut page_token, mut pages) = (Vec::new(), Default::default(), 0);
    loop {
        let request =
            proto::ListRoutesRequest { page_size: 10_000, page_token, ..Default::default() };
        let page = routes.list_routes(request).await.expect("a page").into_inner();
        paged.extend(page.routes);
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 4 && paged == listed, "{pages} pages, {} routes", paged.len());

    // A part of the key space.
    let (start, end) = (key(10).into(), Some(key(13).into()));
    let part = proto::ListRoutesRequest { start, end, ..Default::default() };
    let part = routes.list_routes(part).await.expect("a few").into_inner();
    assert_eq!(part.routes, listed[10..13]);

    let request = proto::WatchRoutesRequest::default();
    let mut watch = routes.watch_routes(request).await.expect("a watch").into_inner();
    let mut seen = 0;
    loop {
        let message = watch.message().await.expect("each message fits").expect("it goes on");
        let Some(Event::Snapshot(part)) = message.event else { panic!("{message:?}") };
        seen += part.routes.len();
        if !part.more {
            break;
        }
    }
    assert_eq!(seen, ROUTES);

    let mut keyviz = KeyVizClient::new(channel);
    let starts = listed.iter().skip(1).map(|route| route.start.clone());
    let request = proto::GetMatrixRequest { boundaries: starts.collect(), ..Default::default() };
    let mut parts = keyviz.stream_matrix(request).await.expect("a stream").into_inner();
    let mut matrix = proto::Matrix::default();
    while let Some(part) = parts.message().await.expect("each part fits") {
        matrix.merge(&part.encode_to_vec()[..]).expect("a part of a matrix");
    }
    assert_eq!(matrix.rows.len(), ROUTES);
    assert_eq!(matrix.boundaries.len(), ROUTES);
    assert!(matrix.encoded_len() > DEFAULT_LIMIT);
}

#[tokio::test]
async fn the_history_of_routes_is_read_backwards_page_by_page() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    let mut routes = RoutesClient::new(channel(&cluster).await);
    for number in 0..40 {
        let list = routes.list_routes(proto::ListRoutesRequest::default()).await.expect("a list");
        let last = list.into_inner().routes.pop().expect("a route");
        let split = proto::SplitRouteRequest {
            route_id: last.route_id,
            key: format!("{number:02}").into(),
            ..Default::default()
        };
        routes.split_route(split).await.expect("a split");
    }
    let ask = |limit, before_version| proto::RouteHistoryRequest {
        limit,
        before_version,
        ..Default::default()
    };
    let whole = routes.route_history(ask(0, 0)).await.expect("all").into_inner();
    assert_eq!((whole.changes.len(), whole.next_before_version), (40, 0));
    let (mut changes, mut retired, mut before) = (Vec::new(), Vec::new(), 0);
    for page in 0.. {
        let answer = routes.route_history(ask(7, before)).await.expect("a page").into_inner();
        assert!(answer.changes.len() <= 7 && answer.retired.len() <= 7, "page {page}");
        changes.splice(0..0, answer.changes);
        retired.splice(0..0, answer.retired);
        assert_eq!(answer.truncated, answer.next_before_version > 0);
        before = answer.next_before_version;
        if before == 0 {
            break;
        }
    }
    assert_eq!(changes, whole.changes);
    assert_eq!(retired, whole.retired);
}

#[tokio::test]
async fn a_watch_of_a_range_and_of_leaders_says_what_concerns_it_and_progress() {
    let cluster = Cluster::start(3, &["--groups", "2", "--split-at", "h,p"]);
    let mut routes = RoutesClient::new(channel(&cluster).await);
    let list = routes.list_routes(proto::ListRoutesRequest::default()).await.expect("a list");
    let list = list.into_inner();
    let request = proto::WatchRoutesRequest {
        leaders: true,
        start: "i".into(),
        end: Some("k".into()),
        ..Default::default()
    };
    let mut watch = routes.watch_routes(request.clone()).await.expect("a watch").into_inner();
    let first = watch.message().await.expect("a message").expect("it goes on");
    assert_eq!(first.cluster_id, list.cluster_id);
    let Some(Event::Snapshot(table)) = first.event else { panic!("{first:?}") };
    assert_eq!(table.routes.len(), 1);
    assert_eq!(&table.routes[0].start[..], b"h");
    let leaders = watch.message().await.expect("a message").expect("it goes on");
    let Some(Event::Leaders(leaders)) = leaders.event else { panic!("{leaders:?}") };
    assert!(leaders.all && leaders.leaders.len() == 2, "{leaders:?}");
    for leader in &leaders.leaders {
        let node = leader.node_id.expect("it is known") as usize;
        assert_eq!(leader.address, cluster.grpc[node - 1]);
    }

    // A change elsewhere is progress, one here is a delta.
    let split = |route_id, key: &str| proto::SplitRouteRequest {
        route_id,
        key: key.to_owned().into(),
        ..Default::default()
    };
    routes.split_route(split(list.routes[0].route_id, "c")).await.expect("a split");
    routes.split_route(split(list.routes[1].route_id, "j")).await.expect("a split");
    let (mut progress, mut deltas) = (0, Vec::new());
    while deltas.is_empty() {
        let message = watch.message().await.expect("a message").expect("it goes on");
        match message.event {
            Some(Event::Progress(told)) => progress = told.catalog_version,
            Some(Event::Deltas(told)) => deltas = told.deltas,
            Some(Event::Leaders(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(deltas[0].catalog_version, table.catalog_version + 2);
    assert!(progress <= table.catalog_version + 1, "{progress}");

    // A version needs its cluster, and that of another cluster is reset.
    let nameless = proto::WatchRoutesRequest { after_version: 1, ..request.clone() };
    let refused = routes.watch_routes(nameless).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let foreign =
        proto::WatchRoutesRequest { after_version: 1, cluster_id: "another".into(), ..request };
    let mut watch = routes.watch_routes(foreign).await.expect("a watch").into_inner();
    let first = watch.message().await.expect("a message").expect("it goes on");
    assert!(matches!(first.event, Some(Event::Snapshot(table)) if table.reset));
}
