//! From a configuration to a running node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio_util::sync::CancellationToken;

use keyviz_catalog::AppliedCatalog;
use keyviz_catalog::{BootstrapPlan, ClusterId, plan_bootstrap};
use keyviz_catalog_group::{CatalogGroup, CatalogMachine};
use keyviz_core::{GroupId, History, NodeId, Sampler, SamplerConfig};
use keyviz_directory::{Directory, MemberAddress};
use keyviz_fanout::{Clock, DEFAULT_DEADLINE, Fanout, FanoutParts, LocalMatrix};
use keyviz_kv::{Coordinator, CoordinatorParts, Ownerships};
use keyviz_peer::PeerClient;
use keyviz_raft::{
    Checks, Group, GroupOptions, Groups, HandshakeLoop, Member, OpenError, Peers, PeersOptions,
    Roster,
};
use keyviz_security::{self as security, Listener};
use keyviz_server::{ServerDeps, Services, Verification, VerificationParts};

use super::config::NodeConfig;
use super::error::NodeError;
use super::folder::identity::Identity;
use super::loops::addresses::Addresses;
use super::loops::balancer::Balancer;
use super::loops::copier::Copier;
use super::loops::disk::DiskWatch;
use super::loops::disks::DiskWatcher;
use super::loops::flusher::Flusher;
use super::loops::membership_probe::MembershipProbe;
use super::loops::mover::Mover;
use super::loops::placement_reconciler::PlacementReconciler;
use super::loops::supervisor::{ControlLoop, LoopWrap, Supervisor};
use super::loops::verifier::Verifier;
use super::running::Node;
use super::startup::bootstrap::BootstrapSpec;
use super::startup::first_start::FirstStart;
use super::startup::founding::Founding;
use super::startup::join::join;
use super::startup::opening::{
    is_empty, listen, no_copies_yet, open_archive, open_handoffs, open_security, open_storage,
    secured,
};
use super::startup::services::run_services;

/// Membership is looked at this often; it changes by hand.
const MEMBERS_EVERY: Duration = Duration::from_millis(100);

impl Node {
    /// Starts a node. Returns when its servers listen; a node that joins has joined by then. A
    /// cluster that is bootstrapped forms in the background.
    ///
    /// # Errors
    /// Each way in which a start can fail, with what to do about it.
    pub fn start(config: NodeConfig) -> BoxFuture<'static, Result<Node, NodeError>> {
        async move {
            match Node::start_unless(config, std::future::pending()).await? {
                Some(node) => Ok(node),
                None => unreachable!("nothing stops this start"),
            }
        }
        .boxed()
    }

    /// As [`Node::start`]; `None` where `stopped` came while the node waited to join. It is stopped
    /// in good order then.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_unless<'a>(
        config: NodeConfig,
        stopped: impl Future<Output = ()> + Send + 'a,
    ) -> BoxFuture<'a, Result<Option<Node>, NodeError>> {
        Node::start_supervised(config, stopped.boxed(), Supervisor::default())
    }

    /// As [`Node::start_unless`], with `wrap` around each control loop.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_wrapped<'a>(
        config: NodeConfig,
        stopped: impl Future<Output = ()> + Send + 'a,
        wrap: LoopWrap,
    ) -> BoxFuture<'a, Result<Option<Node>, NodeError>> {
        Node::start_supervised(config, stopped.boxed(), Supervisor::wrapping(wrap))
    }

    /// As [`Node::start_unless`], with the supervisor of the control loops.
    pub(crate) fn start_supervised(
        config: NodeConfig,
        stopped: BoxFuture<'_, ()>,
        supervisor: Supervisor,
    ) -> BoxFuture<'_, Result<Option<Node>, NodeError>> {
        Node::open(config, stopped, supervisor).boxed()
    }

    async fn open(
        config: NodeConfig,
        stopped: BoxFuture<'_, ()>,
        supervisor: Supervisor,
    ) -> Result<Option<Node>, NodeError> {
        if config.id == NodeId(0) {
            return Err(NodeError::ZeroId);
        }
        config.keyviz.history.validate()?;
        let security = open_security(&config).await?;
        let (grpc, address) = listen("gRPC", config.listen).await?;
        let http = match config.http {
            Some(address) => Some(listen("HTTP", address).await?),
            None => None,
        };
        let advertise = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let plan = match &config.origin {
            super::config::Origin::Bootstrap(spec) => {
                spec.check_member(config.id, &advertise)?;
                Some(bootstrap_plan(spec)?)
            }
            _ => None,
        };
        let restarts = matches!(config.origin, super::config::Origin::Restart);
        if restarts && is_empty(&config.data) {
            // Fail before a file is created.
            return Err(NodeError::NothingToStart { folder: config.data.display().to_string() });
        }
        let storage = open_storage(&config).await?;
        supervisor.follow(storage.failed_loop());
        let identity = Identity::claim(&storage, &config).await?;
        let plan = match (&identity.spec, plan) {
            (Some(spec), None) => Some(bootstrap_plan(spec)?),
            (_, plan) => plan,
        };

        let clock = Clock::system();
        // At random: clients choose keys, and must not know which of them share counters.
        let hot_keys_seed = rand::random();
        let sampler = SamplerConfig { hot_keys_seed, ..config.keyviz.sampler.clone() };
        let sampler = Arc::new(Sampler::new(sampler)?);
        let history =
            History::new(config.keyviz.history, config.id, identity.incarnation, clock.now_ms())?;
        // Columns are kept even if counting is off, so that the history shows when nothing was
        // counted.
        let history = history.counting(config.keyviz.enabled());
        let (enabled, hashed) = (config.keyviz.enabled(), config.keyviz.hash_keys);
        let (sampled, clocked) = (Arc::clone(&sampler), clock.clone());
        let local = LocalMatrix::new(sampled, Arc::new(history), clocked, enabled);
        let local = local.with_hashed_keys(hashed).with_copies(no_copies_yet(&config));
        let local = Arc::new(local);
        let directory = Directory::new();
        if let Some(id) = &identity.cluster_id {
            directory.set_cluster_id(id);
        }
        let stop = CancellationToken::new();
        let known = identity.cluster_id.clone().unwrap_or_default();
        let (number, checks) = (identity.incarnation.0, Checks::default());
        let roster =
            Roster::open(&storage, config.id, identity.disk, number, rand::random(), checks).await;
        let roster = roster.map_err(|error| OpenError::from_io(&config.data, error))?;
        let peers = Peers::new(
            config.id.0,
            known,
            PeersOptions { tls: security.client_tls(), credentials: security.as_node() },
            roster.clone(),
        );
        if !security.is_open() {
            let watch = security.clone().watch(stop.clone());
            supervisor.run_once(ControlLoop::Credentials, &stop, watch);
        }
        supervisor.run(ControlLoop::Connections, &stop, {
            let (connections, stop) = (security.connections.clone(), stop.clone());
            move || connections.clone().watch(stop.clone())
        });
        let options = GroupOptions {
            move_bytes_per_s: config.move_bytes_per_s,
            queue_bytes: config.queue_bytes,
            ..GroupOptions::default()
        };
        let groups = Groups::new(storage.clone(), peers.clone(), options);
        let catalog = AppliedCatalog::default();
        let catalog_group = groups.create(GroupId::CATALOG, CatalogMachine::of(&catalog)).await?;
        let client = PeerClient::new(peers.clone(), Arc::clone(&directory), config.request_timeout);
        let ownerships = Arc::new(Ownerships::default());
        let coordinator = Coordinator::new(CoordinatorParts {
            node: config.id,
            sampler: Arc::clone(&sampler),
            groups: groups.clone(),
            ownerships: Arc::clone(&ownerships),
            directory: Arc::clone(&directory),
            peers: Arc::clone(&client) as _,
            timeout: config.request_timeout,
            queue_bytes: config.queue_bytes,
        });
        let catalog_changes = {
            let clock = clock.clone();
            let peers = Arc::clone(&client) as _;
            let (groups, catalog) = (groups.clone(), catalog.clone());
            CatalogGroup::new(config.id, groups, catalog, peers, move || clock.now_ms())
        };
        let fanout = Fanout::new(FanoutParts {
            node: config.id,
            local: Arc::clone(&local),
            directory: Arc::clone(&directory),
            catalog: catalog.clone(),
            peers: Arc::clone(&client) as _,
            deadline: DEFAULT_DEADLINE,
        });
        let disk = Arc::new(DiskWatch {
            node: config.id,
            storage: storage.clone(),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            peers: Arc::clone(&client),
        });
        supervisor.run(ControlLoop::DiskSpace, &stop, {
            let stop = stop.clone();
            move || Arc::clone(&disk).run(stop.clone())
        });
        know_members(&directory, &roster, &catalog_group).await;
        let members = follow_members(
            Arc::clone(&directory),
            roster.clone(),
            Arc::clone(&catalog_group),
            stop.clone(),
        );
        supervisor.run_once(ControlLoop::Members, &stop, members);
        let disks = DiskWatcher {
            roster: roster.clone(),
            catalog: Arc::clone(&catalog_changes),
            directory: Arc::clone(&directory),
            stop: stop.clone(),
        };
        disks.take_over();
        supervisor.run_once(ControlLoop::Disks, &stop, disks.run());
        let handshakes =
            HandshakeLoop { roster: roster.clone(), peers: peers.clone(), stop: stop.clone() };
        let dials = peers.clone();
        let reconciler = PlacementReconciler {
            node: config.id,
            storage: storage.clone(),
            catalog: catalog.clone(),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            ownerships,
            sampler,
            peers,
            client: Arc::clone(&client),
            changing: Arc::default(),
            leaving: Arc::default(),
            supervisor: supervisor.clone(),
            stop: stop.clone(),
        };
        // Applied routes are published before the first request can arrive.
        reconciler.take_over().await;
        supervisor.run_once(ControlLoop::Placement, &stop, reconciler.run());
        let addresses = Arc::new(Addresses {
            node: config.id,
            disk: identity.disk,
            own: Member {
                addr: advertise.clone(),
                http: http.as_ref().map(|(_, address)| address.to_string()).unwrap_or_default(),
            },
            through: config.origin.through().map(str::to_owned),
            catalog: Arc::clone(&catalog_group),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            security: security.clone(),
            stop: stop.clone(),
        });
        supervisor.run(ControlLoop::Addresses, &stop, move || Arc::clone(&addresses).run());
        let ask = MembershipProbe {
            node: config.id,
            storage: storage.clone(),
            catalog,
            group: Arc::clone(&catalog_group),
            directory: Arc::clone(&directory),
            client: Arc::clone(&client),
            stop: stop.clone(),
        };
        ask.begin(identity.removed);
        supervisor.run_once(ControlLoop::Membership, &stop, ask.run());
        let balancer = Arc::new(Balancer {
            node: config.id,
            catalog: Arc::clone(&catalog_changes),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            client: Arc::clone(&client),
            replace_after: config.replace_after,
            stop: stop.clone(),
        });
        supervisor.run(ControlLoop::Balancer, &stop, move || Arc::clone(&balancer).run());
        let mover = Mover::new(&catalog_changes, &coordinator, config.move_bytes_per_s, &stop);
        supervisor.run(ControlLoop::Mover, &stop, move || Arc::clone(&mover).run());
        let verification = Verification::new(VerificationParts {
            node: config.id,
            catalog: Arc::clone(&catalog_changes),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            peers: Arc::clone(&client),
            now_ms: {
                let clock = clock.clone();
                Box::new(move || clock.now_ms())
            },
            stop: stop.clone(),
        });
        let verifier = Arc::new(Verifier {
            every: config.verify_every,
            bytes_per_s: config.verify_bytes_per_s,
            verification: Arc::clone(&verification),
            catalog: Arc::clone(&catalog_changes),
            clock: clock.clone(),
            stop: stop.clone(),
        });
        if !config.verify_every.is_zero() {
            supervisor.run(ControlLoop::Verifier, &stop, move || Arc::clone(&verifier).run());
        }
        let flushed = CancellationToken::new();
        let archive = open_archive(&storage, &local).await;
        let flusher = Arc::new(Flusher::new(Arc::clone(&local), archive));
        let flusher = supervisor.run(ControlLoop::Flusher, &flushed, {
            let flushed = flushed.clone();
            move || Arc::clone(&flusher).run(flushed.clone())
        });
        let copier = Arc::new(Copier {
            node: config.id,
            disk: identity.disk,
            copies: config.keyviz.copies,
            local: Arc::clone(&local),
            storage: storage.clone(),
            directory: Arc::clone(&directory),
            client: Arc::clone(&client),
            sessions: Default::default(),
            stop: stop.clone(),
        });
        supervisor.run(ControlLoop::Copier, &stop, {
            let copier = Arc::clone(&copier);
            move || Arc::clone(&copier).run()
        });

        let services = Arc::new(Services::new(ServerDeps {
            node: config.id,
            coordinator: Arc::clone(&coordinator),
            catalog: Arc::clone(&catalog_changes),
            fanout,
            handoffs: open_handoffs(&storage, &local).await,
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            peers: client,
            storage: storage.clone(),
            verification,
            autopilot: config.autopilot.clone(),
            http: http.as_ref().map(|(_, address)| address.to_string()).unwrap_or_default(),
            called: config.http_hosts.iter().chain([&advertise]).cloned().collect(),
            security: security.clone(),
            timeout: config.request_timeout,
            loops: supervisor.health(),
            stop: stop.clone(),
            lost_log_lines: config.lost_log_lines,
            dropped_spans: config.dropped_spans,
            alerts: config.alerts.clone(),
        }));
        run_services(&supervisor, &services, &stop);
        let failure = supervisor.failure();
        let grpc = secured(grpc, &security, security::Protocol::Grpc, address)?;
        let serving = serve_grpc(Arc::clone(&services), grpc, supervisor.clone());
        let mut servers = vec![supervisor.run_once(ControlLoop::Grpc, &stop, serving)];
        let http_address = http.as_ref().map(|(_, address)| *address);
        if let Some((listener, address)) = http {
            let listener = secured(listener, &security, security::Protocol::Http, address)?;
            let serving = serve_http(services, listener, supervisor.clone());
            servers.push(supervisor.run_once(ControlLoop::Http, &stop, serving));
        }
        let node = Node {
            id: config.id,
            address,
            http: http_address,
            coordinator,
            flusher: Some(flusher),
            flushed,
            copier,
            groups,
            security: security.clone(),
            stop: stop.clone(),
            servers,
            failure,
        };
        if let (Some(spec), Some(plan)) = (&identity.spec, plan) {
            let first_start = FirstStart {
                node: config.id,
                folder: config.data.display().to_string(),
                members: spec.members(),
                peers: dials,
                roster,
                asks: true,
                checks,
            };
            let founding = Founding {
                first_start,
                handshakes,
                group: catalog_group,
                changes: catalog_changes,
                members: first_members(spec),
                plan,
                cluster_id: ClusterId(rand::random()),
                clock,
                supervisor: supervisor.clone(),
                stop: stop.clone(),
            };
            supervisor.run_task("founding", async move {
                tokio::select! {
                    () = founding.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        } else {
            supervisor.run_once(ControlLoop::Handshakes, &stop, handshakes.run());
            if let Some(through) = &identity.join {
                let joined = tokio::select! {
                    joined = join(through, &config, &identity, &advertise, &security) => {
                        Some(joined)
                    }
                    () = stopped => None,
                };
                if !matches!(joined, Some(Ok(()))) {
                    if let Err(error) = node.shutdown().await {
                        let what = "the storage of a node that did not join did not close";
                        tracing::warn!(%error, "{what}");
                    }
                    return match joined {
                        Some(Err(error)) => Err(error),
                        _ => Ok(None),
                    };
                }
            }
        }
        Ok(Some(node))
    }
}

fn bootstrap_plan(spec: &BootstrapSpec) -> Result<BootstrapPlan, NodeError> {
    let members: Vec<NodeId> = spec.members().into_keys().collect();
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let (groups, replication) = (count(spec.groups()), count(spec.replication()));
    Ok(plan_bootstrap(&members, groups, replication, spec.split_at())?)
}

/// The first members as Raft is to know them. They report their HTTP addresses themselves.
fn first_members(spec: &BootstrapSpec) -> BTreeMap<u64, Member> {
    let members = spec.members().into_iter();
    members.map(|(id, addr)| (id.0, Member { addr, http: String::new() })).collect()
}

/// Takes the members from the log of the catalog group, before another node is heard: a node that
/// knows no address trusts its callers, and one of them may run on a copy of a member's folder.
pub(super) async fn know_members(directory: &Directory, roster: &Roster, catalog: &Group) {
    // The group answers after it has reported the members.
    catalog.is_initialized().await;
    set_members(directory, roster, catalog);
}

fn set_members(directory: &Directory, roster: &Roster, catalog: &Group) {
    let members = catalog.status().members;
    roster.set_addresses(members.iter().map(|(id, member)| (NodeId(*id), member.addr.clone())));
    let members = members.into_iter().map(|(id, member)| {
        (NodeId(id), MemberAddress { address: member.addr, http: member.http })
    });
    directory.set_members(members.collect());
}

/// Keeps the directory in step with the catalog group's membership.
pub(super) async fn follow_members(
    directory: Arc<Directory>,
    roster: Roster,
    catalog: Arc<Group>,
    stop: CancellationToken,
) {
    while tokio::time::timeout(MEMBERS_EVERY, stop.cancelled()).await.is_err() {
        set_members(&directory, &roster, &catalog);
    }
}

async fn serve_grpc(services: Arc<Services>, listener: Listener, supervisor: Supervisor) {
    if let Err(error) = services.serve_grpc(listener).await {
        supervisor.fail(format!("the gRPC server failed: {error}"));
    }
}

async fn serve_http(services: Arc<Services>, listener: Listener, supervisor: Supervisor) {
    if let Err(error) = services.serve_http(listener).await {
        supervisor.fail(format!("the HTTP server failed: {error}"));
    }
}
