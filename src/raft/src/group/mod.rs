//! One group on this node.

pub(crate) mod admission;
pub(crate) mod attempts;
pub(crate) mod batcher;
mod confirm;
pub(crate) mod contradiction;
mod members;
pub(crate) mod options;
mod plausible;
mod proposals;
pub(crate) mod pulse;
pub(crate) mod reshape;
pub(crate) mod served;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::error::{InitializeError, KnownLeader, ProposeError, ReadError, ReplicasFull};
use super::log::GroupLog;
use super::storage::{Keyspace, NoSpace, Storage};
use super::transport::Peers;
use super::transport::held::Incoming;
use super::types::{Command, Member, RaftNodeId, SnapshotMeta, Types, Vote};
use crate::rounds::Rounds;
use admission::{Admitted, GroupQueue};
use contradiction::Contradiction;
use keyviz_types::{GroupId, Term};
use options::{GroupOptions, MAX_COMMAND_BYTES};
use proposals::{Proposals, Raft, WriteResult};
use pulse::Pulse;
use status::{GroupStatus, Leadership};

/// Rounds that confirm the index of a read.
type ReadRounds = Rounds<Result<u64, ReadError>>;

/// Between attempts of a leader that has no lease yet: about a round on a LAN.
const LEASE_RETRY: Duration = Duration::from_millis(5);

/// How much a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadGuarantee {
    /// Everything acknowledged before the read arrived, whatever the clocks do.
    Linearizable,
    /// The same as long as no clock of the quorum runs more than a quarter faster than the
    /// leader's; saves the round. Falls back to a round when the lease is stale.
    Lease,
    /// What this node has.
    Stale,
}

/// A proposal that took effect.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Its place in the log.
    pub log_index: u64,
    /// The term in which it was proposed.
    pub term: Term,
    /// The reply of the state machine.
    pub reply: Bytes,
}

/// One group on this node.
pub struct Group {
    id: GroupId,
    node: RaftNodeId,
    raft: Raft,
    log: GroupLog,
    keyspace: Keyspace,
    storage: Storage,
    pub(super) options: GroupOptions,
    pub(super) applied: Arc<watch::Sender<Option<u64>>>,
    leadership: watch::Receiver<Leadership>,
    waiting: Proposals,
    pub(super) queue: Arc<GroupQueue>,
    peers: Peers,
    incoming: Arc<Incoming>,
    pulse: Arc<Pulse>,
    quorum_rounds: Arc<ReadRounds>,
    lease_rounds: Arc<ReadRounds>,
    votes_from: Instant,
    /// Bytes of rows that leaders sent since the group was opened.
    received_bytes: std::sync::atomic::AtomicU64,
}

/// The parts of a group on this node's disk.
pub(crate) struct Opened {
    pub(crate) log: GroupLog,
    pub(crate) keyspace: Keyspace,
    pub(crate) storage: Storage,
    pub(crate) applied: Arc<watch::Sender<Option<u64>>>,
    pub(crate) peers: Peers,
    pub(crate) pulse: Arc<Pulse>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

pub(crate) fn known_leader(forward: ForwardToLeader<Types>) -> KnownLeader {
    forward.leader_id.zip(forward.leader_node)
}

impl Group {
    pub(crate) fn new(
        id: GroupId,
        raft: Raft,
        opened: Opened,
        queue: Arc<GroupQueue>,
        options: GroupOptions,
    ) -> Arc<Self> {
        let Opened { log, keyspace, storage, applied, peers, pulse } = opened;
        let node = *raft.node_id();
        // Before the restart this node may have promised a leader not to vote for others during its
        // lease. The promise was in memory only, so the longest possible one is kept.
        let promised =
            log.vote().is_some_and(|vote| vote.committed && vote.leader_id.voted_for != node);
        let hold = if promised { options.election_max } else { Duration::ZERO };
        Arc::new(Self {
            id,
            node,
            leadership: {
                let (log, pulse) = (log.clone(), pulse.clone());
                status::watch_leadership(&raft, log, pulse, storage.loops())
            },
            raft,
            log,
            keyspace,
            storage,
            applied,
            waiting: Proposals::default(),
            queue,
            peers,
            incoming: Arc::default(),
            pulse,
            quorum_rounds: Rounds::new(),
            lease_rounds: Rounds::new(),
            votes_from: Instant::now() + hold,
            received_bytes: Default::default(),
            options,
        })
    }

    /// Its id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The node this is.
    pub fn node(&self) -> RaftNodeId {
        self.node
    }

    /// Its rows, for reading. What a read may assume follows from
    /// [`confirm_read`](Group::confirm_read).
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The current status of the group.
    pub fn status(&self) -> GroupStatus {
        GroupStatus { receiving: self.incoming.progress(), ..status::status(self.id, &self.raft) }
    }

    /// The leader; changes with the leader, its address and the term.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// The leader as this node knows it.
    pub fn leader(&self) -> Option<keyviz_types::NodeId> {
        let leadership = self.leadership.borrow();
        leadership.leader.as_ref().map(|(leader, _)| keyviz_types::NodeId(*leader))
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leadership.borrow().leading.is_some()
    }

    /// Gives a new group its first members. Every one of them may call this with the same list, at
    /// any time and again: one starts, the others find it started.
    ///
    /// The members of different groups start in turn, so that leaders spread over the nodes.
    pub fn initialize(
        &self,
        members: BTreeMap<RaftNodeId, Member>,
    ) -> BoxFuture<'_, Result<(), InitializeError>> {
        async move {
            if !members.contains_key(&self.node) {
                return Err(InitializeError::NotAMember(self.node));
            }
            let turn = usize::try_from(self.id.0).unwrap_or(0) % members.len();
            let first = members.keys().nth(turn) == Some(&self.node);
            let patience = if first { Duration::ZERO } else { self.options.election_max * 2 };
            let started = Instant::now();
            loop {
                if self.raft.is_initialized().await.map_err(stopped_initialize)? {
                    return Ok(());
                }
                if started.elapsed() >= patience {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            match self.raft.initialize(members).await {
                // Not allowed: it was started meanwhile.
                Ok(())
                | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {
                    Ok(())
                }
                Err(RaftError::APIError(openraft::errors::InitializeError::NotInMembers(_))) => {
                    Err(InitializeError::NotAMember(self.node))
                }
                Err(RaftError::Fatal(fatal)) => Err(stopped_initialize(fatal)),
            }
        }
        .boxed()
    }

    /// Whether the group has members here, from [`initialize`](Group::initialize) or from its
    /// leader.
    pub fn is_initialized(&self) -> BoxFuture<'_, bool> {
        async move { self.raft.is_initialized().await.unwrap_or(false) }.boxed()
    }

    /// Proposes a command and waits until it is durable on a majority and applied here.
    ///
    /// Dropping the future does not take the proposal back.
    pub fn propose(&self, command: Bytes) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        async move {
            let bytes = command.len();
            if bytes > MAX_COMMAND_BYTES {
                return Err(ProposeError::TooLong { bytes });
            }
            let admitted = self.queue.admit(bytes).ok_or(ProposeError::Overloaded)?;
            self.storage.accept(bytes as u64, self.queue.bytes_on_node()).map_err(|no_space| {
                match no_space {
                    NoSpace::Full(full) => ProposeError::DiskFull(full),
                    NoSpace::Busy => ProposeError::Overloaded,
                }
            })?;
            admitted.count();
            let limit = self.options.election_min;
            let write = write(self.waiting.clone(), self.raft.clone(), Command(command), limit);
            let mut under_way = UnderWay(Some((Box::pin(write), admitted)));
            match tokio::time::timeout(self.options.proposal_timeout, under_way.outcome()).await {
                Err(_) => Err(ProposeError::Unknown),
                Ok(Ok(written)) => Ok(Proposed {
                    log_index: written.log_id.index,
                    term: Term(written.log_id.leader_id.term),
                    reply: written.reply.0,
                }),
                Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped(fatal.to_string())),
                Ok(Err(RaftError::APIError(error))) => Err(match error {
                    ClientWriteError::ForwardToLeader(forward) => {
                        ProposeError::NotLeader { leader: known_leader(forward) }
                    }
                    ClientWriteError::LogEntryDiscarded(_)
                    | ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
                }),
            }
        }
        .boxed()
    }

    /// Fails if so many replicas have reported full disks to this leader that no majority has
    /// space: a proposal would get no answer. Changes of the catalog skip this check, since they
    /// may add a replica with space.
    pub fn check_replicas_space(&self) -> Result<(), ReplicasFull> {
        let full = self.peers.full();
        if full.is_empty() || !self.is_leader() {
            return Ok(());
        }
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        for voters in metrics.membership_config.membership().get_joint_config() {
            let without: Vec<RaftNodeId> = voters.intersection(&full).copied().collect();
            if (voters.len() - without.len()) * 2 <= voters.len() {
                return Err(ReplicasFull { full: without });
            }
        }
        Ok(())
    }

    /// Bytes of rows that leaders sent since the group was opened here.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
    }

    /// Proposals made here that have no answer yet.
    pub fn proposals_under_way(&self) -> u64 {
        self.queue.proposals()
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn incoming(&self) -> &Arc<Incoming> {
        &self.incoming
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn log(&self) -> &GroupLog {
        &self.log
    }

    pub(crate) async fn answer_vote(
        &self,
        request: VoteRequest<Types>,
        pre_vote: bool,
    ) -> Result<VoteResponse<Types>, Status> {
        if !request.leadership_transfer && Instant::now() < self.votes_from {
            return Err(Status::unavailable("this node has restarted and does not vote yet"));
        }
        let answered = if pre_vote {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        };
        answered.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Whether an append agrees with what is committed here.
    pub(crate) fn check_append(
        &self,
        append: &AppendEntriesRequest<Types>,
    ) -> Result<(), Contradiction> {
        if self.options.overwrites_committed {
            return Ok(());
        }
        let committed = self.raft.data_metrics().borrow_watched().local_committed;
        contradiction::find(&self.log, committed, append)
    }

    /// openraft asserts these conditions, and a peer must not be able to trigger an assertion.
    pub(crate) fn check_snapshot(
        &self,
        vote: &Vote,
        meta: &SnapshotMeta,
    ) -> Result<Result<(), Contradiction>, Status> {
        let invalid = |what: &str| Status::invalid_argument(what.to_owned());
        if !vote.committed {
            return Err(invalid("only a leader sends a snapshot, and its vote is not committed"));
        }
        let Some(last) = meta.last_log_id else { return Err(invalid("a snapshot of nothing")) };
        if last.leader_id.term > vote.leader_id.term {
            return Err(invalid("the snapshot is from a later term than its sender"));
        }
        let committed = self.raft.data_metrics().borrow_watched().local_committed;
        match committed {
            Some(committed) if last > committed && last.index <= committed.index => {
                let current = self.log.vote().is_none_or(|known| known <= *vote);
                let contradiction = Contradiction::new(committed, last, vote.leader_id.term);
                if current { Ok(Err(contradiction)) } else { Err(invalid("of an earlier leader")) }
            }
            _ => Ok(Ok(())),
        }
    }

    pub(crate) async fn shutdown(&self) {
        if self.raft.shutdown().await.is_err() {
            tracing::warn!(group = %self.id, "the group's task had panicked before its shutdown");
        }
    }
}

/// A leader refuses proposals while no quorum has confirmed it lately, which is so for some
/// milliseconds at the start of its term. Such a proposal was not made, so it is made again.
async fn write(waiting: Proposals, raft: Raft, command: Command, limit: Duration) -> WriteResult {
    let started = Instant::now();
    loop {
        let written = waiting.write(&raft, command.clone()).await;
        match &written {
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))
                if forward.reason == ForwardReason::LeaseExpired && started.elapsed() < limit =>
            {
                tokio::time::sleep(LEASE_RETRY).await;
            }
            _ => return written,
        }
    }
}

type Write = Pin<Box<dyn Future<Output = WriteResult> + Send>>;

/// A proposal and its admission. If its caller goes away, it continues until its outcome is known,
/// and counts as under way until then.
struct UnderWay(Option<(Write, Admitted)>);

impl UnderWay {
    async fn outcome(&mut self) -> WriteResult {
        let (write, _) = self.0.as_mut().expect("it is taken only here, at the end, and in drop");
        let outcome = write.await;
        self.0 = None;
        outcome
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some((write, admitted)) = self.0.take() else { return };
        // Without a runtime the node is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // No caller waits for it.
                let _ = write.await;
                drop(admitted);
            });
        }
    }
}

fn stopped_initialize(fatal: Fatal<Types>) -> InitializeError {
    InitializeError::Stopped(fatal.to_string())
}
