//! The coordinator of a node: it routes requests by the sampler's published table, serves those
//! that it can and forwards the others.
//!
//! ```text
//!             locate (one load of the published table)
//! request --> route, group --+-- this node leads the group --> write here, count, answer
//!                            +-- this node has a replica    --> confirm, read here, count, answer
//!                            +-- neither                    --> one peer does it and counts it
//! ```
//!
//! Routing and counting use the same table, so every count has a route. Only the node that proposes
//! or serves a request counts it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use keyviz_core::{GroupId, NodeId, Sampler};
use keyviz_raft::{Group, Groups, Rounds};

use super::admission::{Admission, Admitted};
use super::error::KvError;
use super::moves::Ownerships;
use super::peer::{PeerError, PeerKv, PeerOutcome};
use keyviz_directory::{Directory, MemberAddress, MembershipState};

/// The table is looked at this often by a request whose keys move.
const MOVED_PAUSE: Duration = Duration::from_millis(5);

/// A request whose keys move tries again after this time, whatever the table says.
const MOVED_AGAIN: Duration = Duration::from_millis(50);

/// Counters of requests since the start of the node.
#[derive(Default, Debug)]
pub struct KvCounters {
    /// Operations of writes proposed by this node as leader: as many as the matrix counts.
    pub proposed: AtomicU64,
    /// Writes forwarded to another node.
    pub forwarded_writes: AtomicU64,
    /// Reads served by this node.
    pub reads_served: AtomicU64,
    /// Reads sent on to another node.
    pub forwarded_reads: AtomicU64,
    /// Requests retried inside the server after a definite refusal.
    pub retries: AtomicU64,
    /// Requests that found their keys moved or on their way, and were retried.
    pub moved_keys: AtomicU64,
}

/// What the target of a move took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copied {
    /// Rows, each time that one was sent.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// What this node moved as the driver of moves, since its start.
#[derive(Default, Debug)]
pub struct MoveCounters {
    /// Rows that targets took.
    pub rows: AtomicU64,
    /// Bytes of their keys and values.
    pub bytes: AtomicU64,
    /// The same of each move under way that this node drives, by its number.
    pub of_moves: parking_lot::Mutex<std::collections::BTreeMap<u64, Copied>>,
    /// Routes that moved.
    pub moved: AtomicU64,
    /// Moves that were abandoned.
    pub abandoned: AtomicU64,
    /// Microseconds for which ranges were refused by both groups, until the catalog had them.
    pub sealed_us: AtomicU64,
    /// The longest such time.
    pub longest_sealed_us: AtomicU64,
}

/// The parts of a coordinator.
pub struct CoordinatorParts {
    /// This node.
    pub node: NodeId,
    /// The published table and its counters.
    pub sampler: Arc<Sampler>,
    /// The Raft groups that this node holds.
    pub groups: Groups,
    /// What the replicas of this node refuse, as the machines of `groups` say.
    pub ownerships: Arc<Ownerships>,
    /// Members, placement, leader hints.
    pub directory: Arc<Directory>,
    /// The other nodes.
    pub peers: Arc<dyn PeerKv>,
    /// Time limit of a request without a deadline of its client.
    pub timeout: Duration,
    /// Maximum bytes of keys and values in progress, of clients and separately of other nodes.
    pub queue_bytes: u64,
}

/// Serves and forwards requests. Cheap to share; holds no lock while a request runs.
pub struct Coordinator {
    pub(super) parts: CoordinatorParts,
    pub(super) counters: KvCounters,
    moves: MoveCounters,
    in_flight: TaskTracker,
    clients: Admission,
    nodes: Admission,
    answers: Admission,
    read_indexes: Mutex<ReadIndexes>,
}

type IndexAnswer = Result<PeerOutcome<u64>, PeerError>;

/// Rounds by group and leader.
type ReadIndexes = HashMap<(GroupId, NodeId), Arc<Rounds<IndexAnswer>>>;

/// Who can do it.
pub(super) enum Target {
    /// This node leads the group.
    Here(Arc<Group>),
    /// Another node is believed to.
    Peer(NodeId),
    /// No leader is known; try again shortly.
    Nobody,
}

impl Coordinator {
    /// A coordinator of these parts.
    pub fn new(parts: CoordinatorParts) -> Arc<Self> {
        Arc::new(Coordinator {
            counters: KvCounters::default(),
            moves: MoveCounters::default(),
            clients: Admission::new(parts.queue_bytes),
            nodes: Admission::new(parts.queue_bytes),
            answers: Admission::new(parts.queue_bytes),
            parts,
            in_flight: TaskTracker::new(),
            read_indexes: Mutex::default(),
        })
    }

    /// Counters of this node.
    pub fn counters(&self) -> &KvCounters {
        &self.counters
    }

    /// What this node moved so far.
    pub fn move_counters(&self) -> &MoveCounters {
        &self.moves
    }

    /// Admits a client's request with this many bytes, or refuses it.
    ///
    /// # Errors
    /// If the node is at its limits, or is no longer a member.
    pub fn admit(&self, bytes: usize) -> Result<Admitted, KvError> {
        self.is_member(self.parts.directory.membership_state())?;
        self.clients.request(bytes)
    }

    /// Takes on the answer to a client's request, which carries so many bytes, or refuses it.
    ///
    /// # Errors
    /// Too much waits for clients to take it.
    pub fn admit_answer(&self, bytes: usize) -> Result<Admitted, KvError> {
        self.answers.answer(bytes)
    }

    /// Admits a client's scan, or refuses it.
    ///
    /// # Errors
    /// If the node is at its limits, or is no longer a member.
    pub fn admit_scan(&self) -> Result<Admitted, KvError> {
        self.is_member(self.parts.directory.membership_state())?;
        self.clients.scan()
    }

    /// Admits a request of another node with this many bytes, or refuses it.
    ///
    /// # Errors
    /// If the node is at its limits, or is no longer a member.
    pub fn admit_node(&self, bytes: usize) -> Result<Admitted, KvError> {
        self.is_member(self.parts.directory.membership_state())?;
        self.nodes.request(bytes)
    }

    fn is_member(&self, standing: MembershipState) -> Result<(), KvError> {
        match standing {
            MembershipState::Member | MembershipState::Asking => Ok(()),
            MembershipState::Removed => Err(KvError::Removed { node: self.parts.node }),
            MembershipState::Refused => {
                let reason = self.parts.directory.refusal().as_str().to_owned();
                Err(KvError::Refused { reason })
            }
        }
    }

    /// The check before a stale read, which would not notice otherwise that this node was removed
    /// while it was down.
    pub(super) async fn may_read_stale(&self) -> Result<(), KvError> {
        self.is_member(self.parts.directory.probed_membership_state().await)
    }

    /// Requests under way, of clients and of other nodes.
    pub fn under_way(&self) -> (u64, u64) {
        (self.clients.under_way(), self.nodes.under_way())
    }

    /// To be held while a request is in flight, so that a stop can wait for it.
    pub fn enter(&self) -> TaskTrackerToken {
        self.in_flight.token()
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        self.in_flight.close();
        self.in_flight.wait().await;
    }

    /// Whether this node has routes; it publishes them shortly after the catalog has them.
    pub fn has_routes(&self) -> bool {
        self.group_of(&[]).is_ok()
    }

    /// The group that holds `key` now.
    pub(super) fn group_of(&self, key: &[u8]) -> Result<GroupId, KvError> {
        let epoch = self.parts.sampler.epoch();
        let located = epoch.locate(key).ok_or(KvError::NotReady)?;
        Ok(epoch.route(located).group)
    }

    /// The group that holds `start..end`, if that lies in one route.
    ///
    /// # Errors
    /// [`KvError::Moving`] if it does not: the caller looked at another table.
    pub(super) fn group_of_range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<GroupId, KvError> {
        let epoch = self.parts.sampler.epoch();
        let route = epoch.route(epoch.locate(start).ok_or(KvError::NotReady)?);
        let beyond = match (&route.range.end, end) {
            (Some(route_end), Some(end)) => end > route_end.as_ref(),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if beyond { Err(KvError::Moving { group: route.group }) } else { Ok(route.group) }
    }

    /// The leader of the group of `key`, if it is another node and known.
    pub fn led_elsewhere(&self, key: &[u8]) -> Option<MemberAddress> {
        match self.leader(self.group_of(key).ok()?, 0) {
            Target::Peer(leader) => self.parts.directory.address(leader),
            Target::Here(_) | Target::Nobody => None,
        }
    }

    /// The leader of `group`; if it is unknown, `attempt` iterates over the replicas.
    pub(super) fn leader(&self, group: GroupId, attempt: u32) -> Target {
        if let Some(local) = self.local(group) {
            return match local.leader() {
                Some(leader) if leader == self.parts.node => Target::Here(local),
                Some(leader) => Target::Peer(leader),
                None => Target::Nobody,
            };
        }
        if let Some(leader) = self.parts.directory.leader_hint(group) {
            return Target::Peer(leader);
        }
        self.replica(group, attempt).map_or(Target::Nobody, Target::Peer)
    }

    /// This node's replica, if it may serve: a replica that was just placed here may lack
    /// acknowledged writes, and one that was placed elsewhere receives no more entries.
    pub(super) fn local(&self, group: GroupId) -> Option<Arc<Group>> {
        let local = self.parts.groups.get(group)?;
        let placed = || self.parts.directory.is_replica(self.parts.node, group);
        (local.is_leader() || placed()).then_some(local)
    }

    /// Whether this node gave `group` up in between.
    pub(super) fn gave_up(&self, group: GroupId) -> bool {
        self.parts.groups.get(group).is_none()
    }

    /// Some node that holds `group`, another one at each attempt.
    pub(super) fn replica(&self, group: GroupId, attempt: u32) -> Option<NodeId> {
        let replicas = self.parts.directory.replicas(group);
        let turn = (attempt as usize).checked_rem(replicas.len())?;
        replicas.get(turn).copied()
    }

    /// The index that a linearizable read on a follower must wait for, requested from `leader` once
    /// for all waiting readers.
    pub(super) async fn index_from(&self, leader: NodeId, group: GroupId) -> IndexAnswer {
        let rounds =
            Arc::clone(self.read_indexes.lock().entry((group, leader)).or_insert_with(Rounds::new));
        let peers = Arc::clone(&self.parts.peers);
        let answer = rounds.join(move || peers.read_index(leader, group)).await;
        answer.unwrap_or(Err(PeerError::NotSent {
            node: leader,
            reason: "this node is shutting down".to_owned(),
        }))
    }

    /// Waits until `locate` leads elsewhere than to `group`, or it is time to look whether the
    /// group has the keys after all.
    pub(super) async fn wait_for_route(
        &self,
        group: GroupId,
        locate: impl Fn() -> Result<GroupId, KvError>,
        until: Instant,
    ) {
        let until = until.min(Instant::now() + MOVED_AGAIN);
        while Instant::now() < until && locate().is_ok_and(|now| now == group) {
            tokio::time::sleep(MOVED_PAUSE).await;
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.parts.timeout
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
