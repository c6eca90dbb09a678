//! Three nodes: one asks, one is healthy, and the third is what the test makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyviz_catalog::AppliedCatalog;
use keyviz_core::matrix::NodeShare;
use keyviz_core::sampler::{Bucket, Counts, Harvest, Layout, Segment, Slot};
use keyviz_core::{
    GroupId, History, HistoryConfig, Incarnation, KeyRange, NodeId, RouteId, RouteSpec, Sampler,
    SamplerConfig, Series, Term,
};
use keyviz_directory::{Directory, MemberAddress};
use keyviz_fanout::{
    Axis, Clock, Fanout, FanoutParts, LocalMatrix, MatrixAnswer, MatrixRequest, Work,
};
use keyviz_peer::PeerClient;
use keyviz_proto::key_viz_peer_server::{KeyVizPeer, KeyVizPeerServer};
use keyviz_raft::{Peers, PeersOptions};
use keyviz_server::MatrixPeer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub const CLUSTER: &str = "cluster-a";
pub const STEP_MS: u64 = 1_000;
pub const NOW_MS: u64 = 1_000_002_500;
/// Where no time matters: an answer that takes this long is a failure of the test.
pub const PLENTY: Duration = Duration::from_secs(20);

/// Two routes of two groups.
fn routes() -> Vec<RouteSpec> {
    let middle = Bytes::from_static(b"m");
    let route = |id: u64, range| RouteSpec {
        id: RouteId::new(id).expect("above 0"),
        range,
        group: GroupId(id),
    };
    vec![
        route(1, KeyRange { start: Bytes::new(), end: Some(middle.clone()) }),
        route(2, KeyRange { start: middle, end: None }),
    ]
}

/// Node `node` led both groups in the term of its own number, for three columns. In each it wrote
/// 100^(node-1) times in the first route, and twice that in the second.
pub fn local(node: u64, work: Work) -> Arc<LocalMatrix> {
    let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
    sampler.publish_routes(1, routes()).expect("they cover the keys");
    let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
    let start_ms = NOW_MS - 2 * STEP_MS;
    let history = History::new(config, NodeId(node), Incarnation(node), start_ms).expect("valid");
    let slot = |route: &RouteSpec| Slot {
        range: route.range.clone(),
        bucket: Bucket::Route(route.id),
        group: route.group,
        lead: Some(Term(node)),
    };
    let slots = routes().iter().map(slot).collect();
    let layout = Arc::new(Layout { catalog_version: 1, slots });
    for column in 0..3 {
        let writes = 100u64.pow(node as u32 - 1);
        let cell = |writes| Counts { writes, ..Counts::ZERO };
        let cells = vec![(0, cell(writes)), (1, cell(2 * writes))];
        let segment = Segment { layout: Arc::clone(&layout), cells };
        let harvest = Harvest { segments: vec![segment], ..Harvest::default() };
        let _ = history.add(NOW_MS.min(start_ms + (column + 1) * STEP_MS), harvest);
    }
    let clock = Clock::of(|| NOW_MS);
    let local = LocalMatrix::new(Arc::new(sampler), Arc::new(history), clock, true);
    Arc::new(local.with_work(work))
}

pub fn peer(node: u64, cluster: &str) -> MatrixPeer {
    peer_of(local(node, Work::default()), cluster)
}

pub fn peer_of(local: Arc<LocalMatrix>, cluster: &str) -> MatrixPeer {
    let directory = Directory::new();
    directory.set_cluster_id(cluster);
    MatrixPeer::new(local, directory)
}

/// A server that ends with the value.
pub struct Serving {
    pub address: String,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}

impl Serving {
    pub fn new(address: String, serve: impl Future<Output = ()> + Send + 'static) -> Self {
        Serving { address, task: tokio::spawn(serve) }
    }

    pub async fn peer(peer: impl KeyVizPeer) -> Self {
        let (listener, address) = listen().await;
        let service = KeyVizPeerServer::new(peer);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().add_service(service).serve_with_incoming(incoming);
        Serving::new(address, async move { server.await.expect("the server serves") })
    }
}

/// Node 1, which asks.
pub struct Asker {
    pub fanout: Arc<Fanout>,
    _healthy: Option<Serving>,
}

impl Asker {
    /// With a healthy node 2, and whatever is at `third`.
    pub async fn new(third: &str, deadline: Duration) -> Self {
        let healthy = Serving::peer(peer(2, CLUSTER)).await;
        let mut asker = Asker::of(&[(2, &healthy.address), (3, third)], deadline);
        asker._healthy = Some(healthy);
        asker
    }

    pub fn of(others: &[(u64, &str)], deadline: Duration) -> Self {
        let directory = Directory::new();
        directory.set_cluster_id(CLUSTER);
        let member = |address: &str| MemberAddress { address: address.into(), http: String::new() };
        let mut members = BTreeMap::from([(NodeId(1), member("127.0.0.1:1"))]);
        members.extend(others.iter().map(|(node, address)| (NodeId(*node), member(address))));
        directory.set_members(members);
        let peers = Peers::anonymous(1, CLUSTER, PeersOptions::default());
        let fanout = Fanout::new(FanoutParts {
            node: NodeId(1),
            local: local(1, Work::default()),
            peers: PeerClient::new(peers, Arc::clone(&directory), PLENTY) as _,
            directory,
            catalog: AppliedCatalog::default(),
            deadline,
        });
        Asker { fanout, _healthy: None }
    }

    pub async fn ask(&self) -> Arc<MatrixAnswer> {
        self.fanout.cluster(&request()).await.expect("there is an answer")
    }
}

pub fn request() -> MatrixRequest {
    MatrixRequest {
        series: Series::Writes,
        role: None,
        from_ms: Some(0),
        to_ms: None,
        start: Bytes::new(),
        end: None,
        max_rows: 0,
        max_columns: 0,
        axis: Axis::Now,
        spread: false,
        boundaries: Arc::default(),
        by_route: false,
        sources: false,
    }
}

fn share(answer: &Arc<MatrixAnswer>, node: u64) -> Option<&NodeShare> {
    answer.matrix.by_node.iter().find(|share| share.node == NodeId(node))
}

/// Nodes 1 and 2 are in the answer with all that they counted, whatever node 3 did.
pub fn assert_right_for_the_others(answer: &Arc<MatrixAnswer>) {
    for node in [1, 2] {
        let status = &answer.matrix.nodes[node as usize - 1];
        assert!(status.ok, "node {node}: {status:?}");
        let writes = 3 * 100u64.pow(node as u32 - 1);
        let share = share(answer, node).expect("it answered");
        assert_eq!(share.rows, [writes, 2 * writes], "node {node}");
    }
    let shares: u64 =
        answer.matrix.by_node.iter().fold(0, |sum, share| sum.saturating_add(share.total));
    assert_eq!(answer.matrix.total, shares, "nothing is from nowhere");
}

/// Node 3 is not in the answer, which says why and that every cell may miss something.
pub fn assert_without_the_third(answer: &Arc<MatrixAnswer>, why: &str) {
    assert_right_for_the_others(answer);
    let status = &answer.matrix.nodes[2];
    let error = status.error.as_deref().unwrap_or_default();
    assert!(!status.ok && error.contains(why), "{status:?} should say {why:?}");
    assert!(share(answer, 3).is_none(), "{why}: no half answer is counted");
    assert_eq!((answer.matrix.responded, answer.matrix.expected), (2, 3));
    let columns = answer.matrix.columns.len();
    assert_eq!(columns, 3);
    assert!(answer.matrix.rows.iter().all(|row| row.partial.len() == columns), "{why}: partial");
}

/// Node 3 is in the answer with all that it counted.
pub fn assert_with_the_third(answer: &Arc<MatrixAnswer>) {
    assert_right_for_the_others(answer);
    assert_eq!(share(answer, 3).map(|share| share.rows.clone()), Some(vec![30_000, 60_000]));
    assert_eq!((answer.matrix.responded, answer.matrix.total), (3, 3 * 3 * 10_101));
    assert!(answer.matrix.rows.iter().all(|row| row.partial.is_empty()));
    assert!(answer.matrix.conflicts.is_empty());
}
