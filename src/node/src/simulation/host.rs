//! One simulated host: a disk that stays, and processes that come and go on a runtime of their own.
//!
//! A process is what `start.rs` assembles, without the edge: groups, catalog, coordinator, sampler
//! and history, over a simulated disk and wire. Killing it drops its runtime and with it every
//! task.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::disk::Disks;
use super::net::{APPENDS, Answer, Endpoint, Net, Work};
use super::peers::SimulatedPeers;
use super::world::{Bug, bug, mix, random_id, swap_random};
use crate::folder::archive::HistoryArchive;
use crate::folder::identity::simulated_start;
use crate::loops::disks::DiskWatcher;
use crate::loops::flusher::Flusher;
use crate::loops::mover::{Mover, Omission};
use crate::loops::pace::Pace;
use crate::loops::placement_reconciler::PlacementReconciler;
use crate::loops::supervisor::Supervisor;
use crate::start::{follow_members, know_members};
use crate::startup::first_start::FirstStart;
use crate::startup::founding as node_founding;
use keyviz_catalog::AppliedCatalog;
use keyviz_catalog::{BootstrapPlan, ClusterId};
use keyviz_catalog_group::{CatalogGroup, CatalogMachine};
use keyviz_core::{GroupId, History, HistoryConfig, Incarnation, NodeId, Sampler, SamplerConfig};
use keyviz_directory::Directory;
use keyviz_fanout::{Clock, LocalMatrix};
use keyviz_kv::{Consistency, Coordinator, CoordinatorParts, Ownerships};
use keyviz_peer::PeerClient;
use keyviz_raft::{
    Checks, GroupOptions, Groups, HandshakeLoop, Member, Peers, RaftMessage, RaftReply, Roster,
    Storage, StorageOptions, Wire, receive,
};
use keyviz_types::DiskId;

/// How long a request may take inside the cluster.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Unix time at the beginning of every run.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The database moves what was written to the system's page cache this often by itself, so that a
/// kill loses no more than that.
const BACKGROUND_FLUSH_MS: u64 = 1_000;

/// What a message meets.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) groups: Groups,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) changes: Arc<CatalogGroup>,
    pub(super) local: Arc<LocalMatrix>,
    pub(super) roster: Roster,
}

impl Parts {
    /// How a lease read is made here.
    pub(super) fn lease(&self, group: GroupId) -> Consistency {
        let leads = || self.groups.get(group).is_some_and(|group| group.is_leader());
        match bug() {
            Some(Bug::StaleLease) if leads() => Consistency::Stale,
            _ => Consistency::Lease,
        }
    }
}

/// The first members and what they are to form.
#[derive(Clone)]
pub(super) struct Founding {
    pub(super) members: std::collections::BTreeMap<u64, Member>,
    pub(super) plan: BootstrapPlan,
    pub(super) cluster_id: ClusterId,
}

struct Process {
    runtime: Runtime,
    ready: Arc<Mutex<Option<Parts>>>,
    /// Kept to see why it cannot start.
    failed: Arc<Mutex<Option<String>>>,
}

/// One host.
pub(super) struct Host {
    pub(super) id: u64,
    /// Where it is in the network. A copy of a host is elsewhere under the same id.
    slot: u64,
    pub(super) disk: Disks,
    life: u64,
    process: Option<Process>,
    random: u64,
    pub(super) paused: bool,
    /// Milliseconds that it was paused and has yet to notice.
    behind_ms: u64,
    /// The offset of its clock from the simulated time.
    pub(super) clock_offset_ms: Arc<AtomicI64>,
    /// Longest time of a sync.
    pub(super) sync_ms: Arc<AtomicU64>,
    /// One of so many of its milliseconds takes two: its clock runs that much faster. 0: none.
    fast: u64,
    net: Net,
    founding: Founding,
    /// Messages that came while it was paused.
    pub(super) waiting: Vec<Work>,
}

pub(super) fn group_options() -> GroupOptions {
    let election_max = Duration::from_millis(600);
    let lease = (bug() == Some(Bug::NoDriftMargin)).then_some(election_max);
    GroupOptions {
        heartbeat: Duration::from_millis(60),
        election_min: Duration::from_millis(300),
        election_max,
        compact_entries: 120,
        keep_entries: 40,
        proposal_timeout: Duration::from_millis(2_000),
        lease,
        overwrites_committed: bug() == Some(Bug::CommittedOverwritten),
        ..GroupOptions::default()
    }
}

impl Host {
    pub(super) fn new(id: u64, net: Net, founding: Founding, random: u64) -> Self {
        let offset_ms = (mix(random) % 120_000) as i64 - 60_000;
        let fast = [0, 5, 50, 97, 200][(mix(random ^ 1) % 5) as usize];
        Host {
            id,
            slot: id,
            disk: Disks::default(),
            life: 0,
            process: None,
            random,
            paused: false,
            behind_ms: 0,
            clock_offset_ms: Arc::new(AtomicI64::new(offset_ms)),
            sync_ms: Arc::new(AtomicU64::new(3)),
            fast,
            net,
            founding,
            waiting: Vec::new(),
        }
    }

    /// A machine at another address that runs under the same id, with an empty disk.
    pub(super) fn elsewhere(&self, slot: u64) -> Self {
        let (net, founding) = (self.net.clone(), self.founding.clone());
        let copy = Host::new(self.id, net, founding, mix(self.random ^ mix(slot)));
        Host { slot, life: self.life, ..copy }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.slot, life: self.life }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The parts of the process, once it has started.
    pub(super) fn parts(&self) -> Option<Parts> {
        self.process.as_ref()?.ready.lock().clone()
    }

    /// Why the process could not start.
    pub(super) fn failed(&self) -> Option<String> {
        self.process.as_ref()?.failed.lock().clone()
    }

    /// Starts a process on the contents of the disk.
    pub(super) fn start(&mut self) {
        assert!(self.process.is_none(), "one process a host");
        self.life += 1;
        self.behind_ms = 0;
        self.sync_ms.store(3, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread starts");
        let (ready, failed) = (Arc::<Mutex<Option<Parts>>>::default(), Arc::default());
        let assembly = Assembly {
            node: NodeId(self.id),
            endpoint: self.endpoint(),
            disk: self.disk.clone(),
            net: self.net.clone(),
            clock: self.clock(),
            founding: self.founding.clone(),
            sync_time: self.sync_time(),
        };
        runtime.spawn({
            let (ready, failed) =
                (Arc::clone(&ready), Arc::<Mutex<Option<String>>>::clone(&failed));
            async move {
                match assembly.run().await {
                    Ok(parts) => *ready.lock() = Some(parts),
                    Err(reason) => *failed.lock() = Some(reason),
                }
            }
        });
        self.process = Some(Process { runtime, ready, failed });
    }

    fn clock(&self) -> Clock {
        let (net, offset_ms) = (self.net.clone(), Arc::clone(&self.clock_offset_ms));
        Clock::of(move || {
            (EPOCH_MS + net.now_ms()).saturating_add_signed(offset_ms.load(Ordering::Relaxed))
        })
    }

    fn sync_time(&self) -> Box<dyn FnMut() -> Duration + Send> {
        let most_ms = Arc::clone(&self.sync_ms);
        let mut random = mix(self.random ^ self.life);
        Box::new(move || {
            random = mix(random.wrapping_add(1));
            Duration::from_millis(1 + random % most_ms.load(Ordering::Relaxed).max(1))
        })
    }

    /// kill -9. Of what the database had not passed on, `keep` of a thousand parts survive.
    pub(super) fn kill(&mut self, keep: u64) {
        self.disk.crash(keep);
        self.within(|host| host.process = None);
        self.paused = false;
        self.waiting.clear();
    }

    /// Runs a message.
    pub(super) fn run(&mut self, work: impl FnOnce(Parts) -> BoxFuture<'static, ()>) -> bool {
        let Some(parts) = self.parts() else { return false };
        let process = self.process.as_ref().expect("it has parts");
        process.runtime.spawn(work(parts));
        true
    }

    /// Goes on after a pause.
    pub(super) fn resume(&mut self) {
        self.paused = false;
        for work in std::mem::take(&mut self.waiting) {
            self.run(work);
        }
    }

    /// Whether the disk failed under the process, which then no longer serves.
    pub(super) fn storage_failed(&self) -> bool {
        self.parts().is_some_and(|parts| parts.groups.storage().fault().is_some())
    }

    /// Lets a millisecond pass.
    pub(super) fn tick(&mut self) {
        // Each database does it when it likes: the rows also while the journal has not.
        if self.is_up() {
            match self.net.now_ms() % BACKGROUND_FLUSH_MS {
                0 => self.disk.flush_in_the_background(),
                now if now == BACKGROUND_FLUSH_MS / 2 => self.disk.rows.flush_in_the_background(),
                _ => {}
            }
        }
        if self.paused {
            self.behind_ms += 1;
            return;
        }
        let extra = self.fast > 0 && self.net.now_ms().is_multiple_of(self.fast);
        let passed_ms = 1 + u64::from(extra) + std::mem::take(&mut self.behind_ms);
        let span = tracing::info_span!("host", id = self.id, now_ms = self.net.now_ms());
        let _entered = span.enter();
        self.within(|host| {
            let Some(process) = &host.process else { return };
            process.runtime.block_on(async {
                if passed_ms > 2 {
                    // The time that a stopped process has missed when it continues.
                    tokio::time::advance(Duration::from_millis(passed_ms - 1)).await;
                }
                tokio::time::sleep(Duration::from_millis(passed_ms.min(2))).await;
            });
        });
    }

    /// Does something with this host's random numbers.
    fn within(&mut self, work: impl FnOnce(&mut Self)) {
        let before = swap_random(self.random);
        work(self);
        self.random = swap_random(before);
    }
}

struct Assembly {
    node: NodeId,
    endpoint: Endpoint,
    disk: Disks,
    net: Net,
    clock: Clock,
    founding: Founding,
    sync_time: Box<dyn FnMut() -> Duration + Send>,
}

impl Assembly {
    async fn run(self) -> Result<Parts, String> {
        let Assembly { node, endpoint, disk, net, clock, founding, sync_time } = self;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let options = StorageOptions { log_cache_bytes: 64 * 1024, ..StorageOptions::default() };
        let storage = Storage::over(disk.open(sync_time), options).map_err(|e| text(&e))?;
        let sampler = SamplerConfig { resolution_slots: 64, shards: 4, ..SamplerConfig::default() };
        let sampler = Arc::new(Sampler::new(sampler).map_err(|e| text(&e))?);
        let history = HistoryConfig { step_ms: 1_000, columns: 4_096, ..HistoryConfig::default() };
        let incarnation = Incarnation(endpoint.life);
        let history =
            History::new(history, node, incarnation, clock.now_ms()).map_err(|e| text(&e))?;
        let local = Arc::new(LocalMatrix::new(
            Arc::clone(&sampler),
            Arc::new(history),
            clock.clone(),
            true,
        ));
        let directory = Directory::new();
        let stop = CancellationToken::new();
        let wire = Arc::new(HostWire { net: net.clone(), from: endpoint });
        let fresh = DiskId(random_id());
        let (disk_id, number) = simulated_start(&storage, fresh).await.map_err(|e| text(&e))?;
        let checks = Checks {
            disks: bug() != Some(Bug::IdentityNotChecked),
            positions: !matches!(bug(), Some(Bug::PositionNotCompared | Bug::CommittedOverwritten)),
            addresses: bug() != Some(Bug::AddressNotChecked),
        };
        let nonce = u64::from_be_bytes(*random_id().first_chunk().expect("16 bytes"));
        let roster = Roster::open(&storage, node, disk_id, number.0, nonce, checks).await;
        let roster = roster.map_err(|e| text(&e))?;
        let peers = Peers::over(node.0, wire, roster.clone());
        let groups = Groups::new(storage.clone(), peers.clone(), group_options());
        let catalog = AppliedCatalog::default();
        let catalog_group = groups
            .create(GroupId::CATALOG, CatalogMachine::of(&catalog))
            .await
            .map_err(|e| text(&e))?;
        let others = Arc::new(SimulatedPeers { net, from: endpoint });
        let ownerships = Arc::new(Ownerships::default());
        let coordinator = Coordinator::new(CoordinatorParts {
            node,
            sampler: Arc::clone(&sampler),
            groups: groups.clone(),
            ownerships: match bug() {
                // It does not hear what the machines refuse.
                Some(Bug::StaleOwnerAnswers) => Arc::default(),
                _ => Arc::clone(&ownerships),
            },
            directory: Arc::clone(&directory),
            peers: Arc::clone(&others) as _,
            timeout: REQUEST_TIMEOUT,
            queue_bytes: GroupOptions::QUEUE_BYTES,
        });
        let changes = {
            let (clock, groups, catalog) = (clock.clone(), groups.clone(), catalog.clone());
            CatalogGroup::new(node, groups, catalog, others, move || clock.now_ms())
        };
        know_members(&directory, &roster, &catalog_group).await;
        let disks = DiskWatcher {
            roster: roster.clone(),
            catalog: Arc::clone(&changes),
            directory: Arc::clone(&directory),
            stop: stop.clone(),
        };
        disks.take_over();
        tokio::spawn(disks.run());
        tokio::spawn(follow_members(
            Arc::clone(&directory),
            roster.clone(),
            Arc::clone(&catalog_group),
            stop.clone(),
        ));
        let first_start = FirstStart {
            node,
            folder: "/simulated".to_owned(),
            members: founding
                .members
                .iter()
                .map(|(id, at)| (NodeId(*id), at.addr.clone()))
                .collect(),
            peers: peers.clone(),
            roster: roster.clone(),
            asks: bug() != Some(Bug::FirstStartAsksNobody),
            checks,
        };
        let handshakes =
            HandshakeLoop { roster: roster.clone(), peers: peers.clone(), stop: stop.clone() };
        let reconciler = PlacementReconciler {
            node,
            storage: storage.clone(),
            catalog: catalog.clone(),
            groups: groups.clone(),
            directory: Arc::clone(&directory),
            ownerships,
            sampler,
            // No group leaves a node here, so nobody is asked.
            client: PeerClient::new(peers.clone(), directory, REQUEST_TIMEOUT),
            peers,
            changing: Arc::default(),
            leaving: Arc::default(),
            supervisor: Supervisor::default(),
            stop: stop.clone(),
        };
        reconciler.take_over().await;
        tokio::spawn(reconciler.run());
        let mover = Mover {
            catalog: Arc::clone(&changes),
            coordinator: Arc::clone(&coordinator),
            bytes_per_s: 0,
            pace: Pace::default(),
            omits: match bug() {
                Some(Bug::AdoptBeforeSeal) => Some(Omission::Seal),
                Some(Bug::LostTailOfMove) => Some(Omission::Tail),
                Some(Bug::ChunkTakenTwice) => Some(Omission::Order),
                Some(Bug::RowsLeftBehind) => Some(Omission::Clear),
                _ => None,
            },
            stop: stop.clone(),
        };
        tokio::spawn(Arc::new(mover).run());
        let archive = HistoryArchive::open(&storage, &local).map_err(|e| text(&e))?;
        let flusher = Arc::new(Flusher::new(Arc::clone(&local), Some(archive)));
        tokio::spawn(flusher.run(stop.clone()));
        let forming = node_founding::Founding {
            first_start,
            handshakes,
            members: founding.members,
            plan: founding.plan,
            cluster_id: founding.cluster_id,
            group: catalog_group,
            changes: Arc::clone(&changes),
            clock,
            supervisor: Supervisor::default(),
            stop,
        };
        tokio::spawn(forming.run());
        Ok(Parts { groups, coordinator, changes, local, roster })
    }
}

/// The wire of one process.
struct HostWire {
    net: Net,
    from: Endpoint,
}

impl Wire for HostWire {
    fn send(&self, to: u64, message: RaftMessage) -> BoxFuture<'static, Result<RaftReply, Status>> {
        let stream = match &message {
            RaftMessage::Append(_, append) => APPENDS + append.group,
            RaftMessage::Identify(_) => 0x9000,
            RaftMessage::Vote { request, .. } => 0x2000 + request.group,
            RaftMessage::Transfer(request) => 0x3000 + request.group,
            RaftMessage::Snapshot(_) => 0x4000,
        };
        let answer = self.net.call(self.from, to, stream, move |parts: Parts| {
            receive(parts.groups, message.clone()).boxed()
        });
        Box::pin(async move {
            match answer.await {
                Ok(Answer::Answered(reply)) => reply,
                Ok(Answer::Refused) | Err(_) => Err(Status::unavailable("nobody is there")),
            }
        })
    }
}
