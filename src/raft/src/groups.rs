//! The groups of one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::compaction;
use super::error::CreateError;
use super::group::admission::{GroupQueue, NodeQueue};
use super::group::options::GroupOptions;
use super::group::pulse::Pulse;
use super::group::{Group, Opened};
use super::log::GroupLog;
use super::machine::Machine;
use super::machine::apply::Applier;
use super::storage::{Keyspace, Storage};
use super::transport::{COMMIT_HOLD, GroupNetwork, Pace, Peers};
use super::types::RaftNodeId;
use keyviz_types::GroupId;

/// The interval between checks for the last user of a log.
const RELEASE_POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// The groups of one node: one database, one log writer and one connection a peer for all of them.
/// Clones share it.
#[derive(Clone)]
pub struct Groups {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Storage,
    peers: Peers,
    options: GroupOptions,
    pace: Arc<Pace>,
    queue: Arc<NodeQueue>,
    // Read on every message, changed when a group comes or goes.
    groups: ArcSwap<HashMap<GroupId, Arc<Group>>>,
    changing: Mutex<()>,
    /// Groups that were closed here, and why.
    closed: Mutex<BTreeMap<GroupId, String>>,
    /// Ends the streams of peers, so that the server they come in by can end.
    stopping: CancellationToken,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Groups {
    /// No groups yet, on this storage and with these peers.
    pub fn new(storage: Storage, peers: Peers, options: GroupOptions) -> Self {
        let inner = Inner {
            storage,
            peers,
            options,
            pace: Arc::new(Pace::new(options.move_bytes_per_s)),
            queue: NodeQueue::new(options.queue_bytes),
            groups: ArcSwap::default(),
            changing: Mutex::default(),
            closed: Mutex::default(),
            stopping: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The node this is.
    pub fn node(&self) -> RaftNodeId {
        self.inner.peers.node()
    }

    /// The node's storage.
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// Bytes of proposals made here that have no outcome yet, over all groups.
    pub fn queue_bytes(&self) -> u64 {
        self.inner.queue.bytes()
    }

    /// The bytes of one peer that may wait here to become durable.
    pub(crate) fn peer_bytes(&self) -> usize {
        usize::try_from(self.inner.options.queue_bytes).unwrap_or(usize::MAX)
    }

    /// The node's connections.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// Opens a group from this node's log and rows, which may be empty, and starts it. A group that
    /// has no members yet waits for [`Group::initialize`] or for its leader.
    pub fn create(
        &self,
        id: GroupId,
        machine: impl Machine,
    ) -> BoxFuture<'_, Result<Arc<Group>, CreateError>> {
        self.open(id, Box::new(machine)).boxed()
    }

    async fn open(
        &self,
        id: GroupId,
        machine: Box<dyn Machine>,
    ) -> Result<Arc<Group>, CreateError> {
        if self.get(id).is_some() {
            return Err(CreateError::Exists);
        }
        let inner = &self.inner;
        let config = inner.options.config()?;
        let (storage, overwrites) = (inner.storage.clone(), inner.options.overwrites_committed);
        if let Some(reason) = storage.closed_group(id)? {
            inner.closed.lock().insert(id, reason.clone());
            return Err(CreateError::Closed { reason });
        }
        let opening = super::blocking(move || {
            storage.finish_erasing(id)?;
            let log = storage.open_log(id)?.overwriting_committed(overwrites);
            let keyspace = storage.open_space(id)?;
            check_rows_reach_log(&log, &keyspace)?;
            let applier = Applier::open(storage, keyspace.clone(), machine)?;
            let applier = applier.behind(log.clone());
            Ok::<_, std::io::Error>((log, keyspace, applier))
        });
        let (log, keyspace, applier) = opening
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("opening the group panicked")))?;
        let applied = applier.watch_applied();
        let (peers, pace) = (inner.peers.clone(), inner.pace.clone());
        // Every node's routes follow the catalog: they do not wait.
        let hold = if id == GroupId::CATALOG { Duration::ZERO } else { COMMIT_HOLD };
        let pulse = Arc::<Pulse>::default();
        let told = pulse.clone();
        let network = GroupNetwork { peers: peers.clone(), group: id, pace, hold, pulse: told };
        let raft = openraft::Raft::new(self.node(), config, network, log.clone(), applier)
            .await
            .map_err(|fatal| CreateError::Raft(fatal.to_string()))?;
        pulse.attach(&raft);
        let queue = GroupQueue::new(inner.queue.clone(), inner.options.proposals);
        let storage = inner.storage.clone();
        let opened = Opened { log, keyspace, storage, applied, peers, pulse };
        let group = Group::new(id, raft, opened, queue, inner.options);
        let added = {
            let _changing = inner.changing.lock();
            let mut groups = HashMap::clone(&inner.groups.load());
            let added = groups.insert(id, group.clone()).is_none();
            if added {
                inner.groups.store(Arc::new(groups));
            }
            added
        };
        if !added {
            // Two callers raced; the other's group stands.
            group.shutdown().await;
            return Err(CreateError::Exists);
        }
        compaction::watch(&group, inner.options.compact_bytes, inner.storage.loops());
        Ok(group)
    }

    /// A group of this node.
    pub fn get(&self, id: GroupId) -> Option<Arc<Group>> {
        self.inner.groups.load().get(&id).cloned()
    }

    /// The groups of this node, by id.
    pub fn list(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.inner.groups.load().values().cloned().collect();
        groups.sort_by_key(|group| group.id());
        groups
    }

    /// Stops one group. Its data stays.
    pub fn stop(&self, id: GroupId) -> BoxFuture<'_, ()> {
        async move {
            let removed = {
                let _changing = self.inner.changing.lock();
                let mut groups = HashMap::clone(&self.inner.groups.load());
                let removed = groups.remove(&id);
                self.inner.groups.store(Arc::new(groups));
                removed
            };
            if let Some(group) = removed {
                group.shutdown().await;
            }
        }
        .boxed()
    }

    /// Stops one group for good: its data stays, and it is not opened here again. Without the
    /// catalog group the node does not take part at all.
    pub(crate) fn close(&self, id: GroupId, reason: String) -> BoxFuture<'_, ()> {
        async move {
            if self.inner.closed.lock().insert(id, reason.clone()).is_some() {
                return;
            }
            tracing::error!(group = %id, "this node closes a group permanently: {reason}");
            if let Err(error) = self.inner.storage.close_group(id, &reason).await {
                tracing::error!(group = %id, %error, "the next start will open the group again");
            }
            if id == GroupId::CATALOG
                && let Some(roster) = self.inner.peers.roster()
            {
                roster.refuse(format!("the catalog group is closed: {reason}"), true).await;
            }
            self.stop(id).await;
        }
        .boxed()
    }

    /// Groups that were closed on this node, and why.
    pub fn closed(&self) -> BTreeMap<GroupId, String> {
        self.inner.closed.lock().clone()
    }

    /// Groups of which this node has data, open or not.
    pub fn stored(&self) -> BoxFuture<'_, std::io::Result<std::collections::BTreeSet<GroupId>>> {
        async move {
            let storage = self.inner.storage.clone();
            let stored = super::blocking(move || storage.stored_groups());
            stored.await.unwrap_or_else(|_| Err(std::io::Error::other("listing groups panicked")))
        }
        .boxed()
    }

    /// Stops one group and removes its data from this node. Call it only if the group is known to
    /// continue without this node.
    pub fn erase(&self, id: GroupId) -> BoxFuture<'_, std::io::Result<()>> {
        async move {
            let log = self.get(id).map(|group| group.log().released());
            self.stop(id).await;
            self.inner.closed.lock().remove(&id);
            // A remaining reader or sweeper of the log would work on that of a group opened again.
            while log.as_ref().is_some_and(|log| !log.is_released()) {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            self.inner.storage.erase_group(id).await
        }
        .boxed()
    }

    /// Hands the groups that this node leads to other members, each to the one that is furthest, so
    /// that a planned stop costs no election. Groups not handed over within `limit` stay. Returns
    /// how many groups this node led and how many were handed over.
    pub fn hand_over(&self, limit: Duration) -> BoxFuture<'_, (usize, usize)> {
        async move {
            let led = self
                .list()
                .into_iter()
                .filter(|group| group.leadership().borrow().leading.is_some());
            let moves = led.map(|group| async move {
                let status = group.status();
                let others = status.voters.iter().filter(|voter| **voter != group.node());
                let furthest =
                    others.max_by_key(|voter| status.matched.get(voter).copied().flatten());
                match furthest {
                    Some(to) => group.transfer_leader(*to, limit).await.is_ok(),
                    None => false,
                }
            });
            let moved = futures::future::join_all(moves).await;
            (moved.len(), moved.iter().filter(|moved| **moved).count())
        }
        .boxed()
    }

    /// Hands each group that this node leads to one of `candidates` that votes in it and has all of
    /// its log: another could not be elected, and the group would be without a leader for a while.
    /// Returns how many were handed over.
    pub fn hand_over_to<'a>(
        &'a self,
        candidates: &'a BTreeSet<RaftNodeId>,
        limit: Duration,
    ) -> BoxFuture<'a, usize> {
        async move {
            let led = self
                .list()
                .into_iter()
                .filter(|group| group.leadership().borrow().leading.is_some());
            let moves = led.map(|group| async move {
                let status = group.status();
                let mut able = status.voters.intersection(candidates);
                let matched = |voter: &RaftNodeId| status.matched.get(voter).copied().flatten();
                match able.find(|voter| matched(voter) == status.last_log) {
                    Some(to) => group.transfer_leader(*to, limit).await.is_ok(),
                    None => false,
                }
            });
            let moved = futures::future::join_all(moves).await;
            moved.iter().filter(|moved| **moved).count()
        }
        .boxed()
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// Stops all groups and the streams of peers, then makes everything durable and closes the
    /// storage.
    pub fn shutdown(&self) -> BoxFuture<'_, std::io::Result<()>> {
        async move {
            self.inner.stopping.cancel();
            let stopping = self.list().into_iter().map(|group| {
                let id = group.id();
                drop(group);
                self.stop(id)
            });
            futures::future::join_all(stopping).await;
            self.inner.storage.close().await
        }
        .boxed()
    }
}

/// Purged entries must be in the rows. They are synced before it forgets, so rows that lack it were
/// lost.
fn check_rows_reach_log(log: &GroupLog, keyspace: &Keyspace) -> io::Result<()> {
    let (applied, purged) = (keyspace.applied().map(|at| at.index), log.purged_index());
    if applied >= purged {
        return Ok(());
    }
    let (applied, purged) = (applied.unwrap_or(0), purged.unwrap_or(0));
    let what = format!("its rows are at entry {applied}, its log begins after entry {purged}");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}
