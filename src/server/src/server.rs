//! The servers: every gRPC service on one port, HTTP on another.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use keyviz_catalog_group::CatalogGroup;
use keyviz_directory::Directory;
use keyviz_fanout::{Fanout, Feeds, Findings, HandoffStore, Loads, Top};
use keyviz_kv::Coordinator;
use keyviz_proto as proto;
use keyviz_raft::{
    CONNECTION_WINDOW_BYTES, Groups, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_MESSAGE_BYTES,
    STREAM_WINDOW_BYTES, Storage,
};
use keyviz_security::{Caller, Listener, Protocol, Security};
use keyviz_types::NodeId;

use crate::alerts::{AlertOptions, AlertService};
use crate::autopilot::{Autopilot, AutopilotConfig, AutopilotParts};
use crate::gate::{Gate, GateLayer};
use crate::grpc::backup::BackupService;
use crate::grpc::cluster::ClusterService;
use crate::grpc::findings::FindingsService;
use crate::grpc::keyviz::KeyVizService;
use crate::grpc::kv::KvService;
use crate::grpc::leaders::LeaderLog;
use crate::grpc::loads::LoadsService;
use crate::grpc::routes::{RoutesService, SharedRoutes};
use crate::grpc::shared_cluster::SharedCluster;
use crate::grpc::visualizer::SharedKeyViz;
use crate::health;
use crate::http::{self, HttpState, Names};
use crate::intake::IntakeLayer;
use crate::loops::LoopHealth;
use crate::malformed;
use crate::metrics::{Metrics, MetricsParts, Requests};
use crate::peer::handoff::Handoffs;
use crate::peer::kv::KvPeerService;
use crate::peer::matrix::MatrixPeer;
use crate::request_id::RequestIdLayer;
use crate::verify::Verification;
use keyviz_peer::client::PeerClient;

/// Calls that a connection may have open.
const STREAMS: u32 = 256;

/// Bytes of a call's headers.
const HEADER_BYTES: u32 = 8 << 10;

/// Calls that a client gave up before they were begun, of one connection at once: with more the
/// connection is closed. A client may give up all that it has open many times over while a busy
/// node does not get to them; each takes its headers until it is begun.
const RESET_STREAMS: usize = 8_192;

/// Everything that the edge serves.
pub struct ServerDeps {
    /// This node.
    pub node: NodeId,
    /// The key-value plane.
    pub coordinator: Arc<Coordinator>,
    /// The catalog.
    pub catalog: Arc<CatalogGroup>,
    /// Cluster matrices.
    pub fanout: Arc<Fanout>,
    /// The store of columns of nodes that have left.
    pub handoffs: Arc<dyn HandoffStore>,
    /// Raft groups held here.
    pub groups: Groups,
    /// Members and placement.
    pub directory: Arc<Directory>,
    /// Other nodes.
    pub peers: Arc<PeerClient>,
    /// The node's storage.
    pub storage: Storage,
    /// Compares replicas.
    pub verification: Arc<Verification>,
    /// Mode and limits of the autopilot.
    pub autopilot: AutopilotConfig,
    /// Where HTTP is served; empty: nowhere.
    pub http: String,
    /// Names under which clients reach the node, beside the address of HTTP.
    pub called: Vec<String>,
    /// Who may call.
    pub security: Security,
    /// Time that a request may take.
    pub timeout: Duration,
    /// The state of the node's control loops.
    pub loops: Arc<LoopHealth>,
    /// Ends the streams that never end by themselves.
    pub stop: CancellationToken,
    /// Lines of the log that could not be written so far.
    pub lost_log_lines: fn() -> u64,
    /// Spans that were dropped instead of exported so far.
    pub dropped_spans: fn() -> u64,
    /// What is alerted on.
    pub alerts: AlertOptions,
}

/// The edge's services, ready to be served.
pub struct Services {
    kv: Arc<Coordinator>,
    directory: Arc<Directory>,
    routes: Arc<RoutesService>,
    keyviz: Arc<KeyVizService>,
    findings: Arc<FindingsService>,
    loads: Arc<LoadsService>,
    alerts: Arc<AlertService>,
    matrix_peer: MatrixPeer,
    cluster: Arc<ClusterService>,
    autopilot: Arc<Autopilot>,
    metrics: Arc<Metrics>,
    requests: Arc<Requests>,
    backup: BackupService,
    groups: Groups,
    gate: Option<Arc<Gate>>,
    names: Arc<Names>,
    stop: CancellationToken,
}

impl Services {
    /// The services of an edge.
    pub fn new(edge: ServerDeps) -> Self {
        let ServerDeps { node, coordinator, catalog, fanout, groups, directory, .. } = edge;
        let ServerDeps { peers, handoffs, storage, http, security, timeout, loops, stop, .. } =
            edge;
        let (verification, lost_log_lines) = (edge.verification, edge.lost_log_lines);
        let called = edge.called.iter().map(String::as_str);
        let names = Names::new(&http, security.admin_token.is_some(), called);
        let served = groups.clone();
        let handoffs = Handoffs {
            local: Arc::clone(fanout.local()),
            store: handoffs,
            directory: Arc::clone(&directory),
        };
        let leaders = Arc::new(LeaderLog::default());
        let requests = Arc::<Requests>::default();
        let backup =
            BackupService { groups: groups.clone(), local: Arc::clone(fanout.local()), timeout };
        let gate = Gate::new(security.clone());
        let alerts = Arc::new(AlertService::new(
            node,
            edge.alerts,
            Arc::clone(&fanout),
            Arc::clone(&catalog),
            Arc::clone(&directory),
            Arc::clone(&peers),
        ));
        let routes = Arc::new(RoutesService {
            node,
            catalog: Arc::clone(&catalog),
            groups: groups.clone(),
            peers: Arc::clone(&peers),
            directory: Arc::clone(&directory),
            timeout,
            stop: stop.clone(),
        });
        let cluster = Arc::new(ClusterService {
            node,
            coordinator: Arc::clone(&coordinator),
            catalog: Arc::clone(&catalog),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            peers,
            handoffs,
            storage: storage.clone(),
            security: security.clone(),
            verification: Arc::clone(&verification),
            http,
            started: Instant::now(),
            timeout,
            loops: Arc::clone(&loops),
            alerts: Arc::clone(&alerts),
        });
        let autopilot = Autopilot::new(AutopilotParts {
            node,
            config: edge.autopilot,
            catalog: Arc::clone(&catalog),
            cluster: Arc::clone(&cluster),
            findings: Findings::new(Arc::clone(&fanout)),
            coordinator: Arc::clone(&coordinator),
            stop: stop.clone(),
        });
        let metrics = Metrics::new(MetricsParts {
            alerts: Arc::clone(&alerts),
            coordinator: Arc::clone(&coordinator),
            groups: groups.clone(),
            fanout: Arc::clone(&fanout),
            requests: Arc::clone(&requests),
            catalog: catalog.applied().clone(),
            storage: storage.clone(),
            verification: Arc::clone(&verification),
            loops: Arc::clone(&loops),
            lost_log_lines,
            dropped_spans: edge.dropped_spans,
            security: security.clone(),
            gate: gate.clone(),
            autopilot: Arc::clone(&autopilot),
            started: SystemTime::now(),
        });
        let findings = Arc::new(FindingsService {
            findings: Findings::new(Arc::clone(&fanout)),
            cluster: Arc::clone(&cluster),
            requests: Arc::clone(&requests),
            streams: Arc::default(),
            stop: stop.clone(),
        });
        let loads = Arc::new(LoadsService {
            loads: Loads::new(Arc::clone(&fanout)),
            top: Top::new(Arc::clone(&fanout)),
            routes: Arc::clone(&routes),
            requests: Arc::clone(&requests),
        });
        Services {
            alerts,
            loads,
            kv: Arc::clone(&coordinator),
            routes,
            matrix_peer: MatrixPeer::new(Arc::clone(fanout.local()), Arc::clone(&directory))
                .knowing_disks_of(served.clone()),
            keyviz: Arc::new(KeyVizService {
                leaders,
                feeds: Feeds::new(Arc::clone(&fanout), stop.clone()),
                fanout,
                requests: Arc::clone(&requests),
            }),
            requests,
            backup,
            findings,
            cluster,
            autopilot,
            metrics: Arc::new(metrics),
            directory,
            groups: served,
            gate,
            names,
            stop,
        }
    }

    /// Records changes of the groups' leaders until stopped.
    pub async fn watch_leaders(self: Arc<Self>) {
        let clock = self.keyviz.fanout.local().clock().clone();
        let leaders = Arc::clone(&self.keyviz.leaders);
        let (groups, directory) = (self.groups.clone(), Arc::clone(&self.directory));
        leaders.watch(groups, directory, move || clock.now_ms(), self.stop.clone()).await;
    }

    /// Acts and advises on the leader of the catalog group until stopped.
    pub async fn run_autopilot(self: Arc<Self>) {
        Arc::clone(&self.autopilot).run().await;
    }

    /// Judges alerts and tells their receiver until stopped.
    pub async fn judge_alerts(self: Arc<Self>) {
        self.alerts.run(self.stop.clone()).await;
    }

    /// Serves gRPC until stopped; requests in flight are finished first.
    pub fn serve_grpc(
        &self,
        listener: Listener,
    ) -> BoxFuture<'_, Result<(), tonic::transport::Error>> {
        async move {
            use proto::backup_server::BackupServer;
            use proto::cluster_peer_server::ClusterPeerServer;
            use proto::cluster_server::ClusterServer;
            use proto::key_viz_server::KeyVizServer;
            use proto::kv_peer_server::KvPeerServer;
            use proto::kv_server::KvServer;
            use proto::routes_server::RoutesServer;

            macro_rules! sized {
                ($server:ident, $service:expr) => {
                    $server::new($service)
                        .max_decoding_message_size(MAX_MESSAGE_BYTES)
                        .max_encoding_message_size(usize::MAX)
                        .accept_compressed(CompressionEncoding::Gzip)
                        .accept_compressed(CompressionEncoding::Zstd)
                        .send_compressed(CompressionEncoding::Gzip)
                        .send_compressed(CompressionEncoding::Zstd)
                };
            }
            let kv = KvService {
                coordinator: Arc::clone(&self.kv),
                requests: Arc::clone(&self.requests),
            };
            let (keyviz, findings) = (Arc::clone(&self.keyviz), Arc::clone(&self.findings));
            let keyviz = SharedKeyViz(keyviz, findings, Arc::clone(&self.loads));
            let autopilot = Arc::clone(&self.autopilot);
            let cluster = SharedCluster(Arc::clone(&self.cluster), autopilot);
            let peer = KvPeerService {
                coordinator: Arc::clone(&self.kv),
                directory: Arc::clone(&self.directory),
            };
            let (health_reporter, health_service) = tonic_health::server::health_reporter();
            let readiness = Arc::clone(&self.cluster);
            let health = health::follow(readiness, health_reporter, self.stop.clone());
            // Requests in flight are finished after the last report.
            let health = health.then(|()| std::future::pending::<Infallible>());
            let reflection = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            let sound = "the descriptor set was made by the build that made this program";
            let reflection_v1 = reflection().build_v1().expect(sound);
            let reflection_v1alpha = reflection().build_v1alpha().expect(sound);
            let serving = Server::builder()
                .layer(MapResponseLayer::new(malformed::as_invalid))
                // The outermost layer that can answer, so that refusals have an id too.
                .layer(RequestIdLayer)
                .layer(IntakeLayer::of(Protocol::Grpc))
                .layer(GateLayer(self.gate.clone()))
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS))
                .http2_max_header_list_size(HEADER_BYTES)
                .max_concurrent_streams(STREAMS)
                .add_service(sized!(KvServer, kv))
                .add_service(sized!(RoutesServer, SharedRoutes(Arc::clone(&self.routes))))
                .add_service(sized!(KeyVizServer, keyviz))
                .add_service(sized!(ClusterServer, cluster.clone()))
                .add_service(sized!(KvPeerServer, peer))
                .add_service(self.matrix_peer.clone().into_server())
                .add_service(sized!(ClusterPeerServer, cluster))
                .add_service(sized!(BackupServer, self.backup.clone()))
                .add_service(self.groups.service())
                .add_service(health_service)
                .add_service(reflection_v1)
                .add_service(reflection_v1alpha)
                .serve_with_incoming_shutdown(
                    listener.into_stream(),
                    self.stop.clone().cancelled_owned(),
                );
            // In one future, so that a panic of either ends both, and the node.
            tokio::select! {
                served = serving => served,
                never = health => match never {},
            }
        }
        .boxed()
    }

    /// Serves HTTP until stopped.
    pub fn serve_http(&self, listener: Listener) -> BoxFuture<'_, std::io::Result<()>> {
        async move {
            let router = http::router(HttpState {
                keyviz: Arc::clone(&self.keyviz),
                findings: Arc::clone(&self.findings),
                loads: Arc::clone(&self.loads),
                alerts: Arc::clone(&self.alerts),
                routes: Arc::clone(&self.routes),
                cluster: Arc::clone(&self.cluster),
                autopilot: Arc::clone(&self.autopilot),
                metrics: Arc::clone(&self.metrics),
                gate: self.gate.clone(),
                names: Arc::clone(&self.names),
            });
            let router = router.layer(IntakeLayer::of(Protocol::Http));
            axum::serve(listener, router.into_make_service_with_connect_info::<Caller>())
                .with_graceful_shutdown(self.stop.clone().cancelled_owned())
                .await
        }
        .boxed()
    }
}
