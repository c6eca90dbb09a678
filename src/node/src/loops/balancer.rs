//! Carries out the placement and decides its next change, on the leader of the catalog group.
//!
//! Its whole state is recorded in the catalog or queried from the groups at each step, so after a
//! crash at any point the next leader's balancer resumes. The decisions are [`BalanceView`]'s.
//!
//! ```text
//!   each step, the first of these that there is to do:
//!     the catalog group's own members: voters up to five, without those that have left
//!     the move under way: one step of Raft membership at the group's leader; settled when done
//!     a group whose members are not those that are settled (a step of a predecessor came late)
//!     a node that leaves and holds nothing: it is recorded as gone
//!     a member that has not answered for `replace_after`: recorded as leaving, where others can
//!     hold its replicas
//!     the next move of a replica: recorded
//!     the next transfer of a leader, after moves
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use keyviz_catalog::{
    BalanceView, GroupView, LeaderMove, Moving, NodeView, PlaceChange, Placement, ReplicaMove,
    catalog_voters,
};
use keyviz_catalog_group::{CatalogGroup, PlacementChangeError};
use keyviz_directory::Directory;
use keyviz_peer::{CallError, ClusterSnapshot, PeerClient};
use keyviz_raft::{ChangeError, Groups, Member, Reshaped, Shape};
use keyviz_types::{GroupId, NodeId};

/// Most voters of the catalog group: more make it slower and hardly safer.
const MOST_VOTERS: usize = 5;

/// The pause after a step that did something, or that waits for a replica to catch up.
const NEXT_STEP: Duration = Duration::from_millis(100);

/// The pause while there is nothing to do, or after a failed step.
const IDLE: Duration = Duration::from_millis(500);

/// A step of the catalog group's membership takes so long at most.
const STEP_WITHIN: Duration = Duration::from_secs(4);

/// A new replica's node that does not answer for so long is given up, and the move taken back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// Members are probed this many times within `replace_after`, at most [`LOOK_EVERY`] apart.
const LOOKS: u32 = 20;

/// The shortest and the longest pause between two looks.
const LOOK_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Attempts to transfer a leader before it is left where it is.
const LEADER_TRIES: u32 = 10;

/// Attempts at handing over columns before the node is released without.
const HANDOFF_TRIES: u32 = 20;

/// What balancing needs.
pub(crate) struct Balancer {
    pub(crate) node: NodeId,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) client: Arc<PeerClient>,
    /// A member that has not answered for so long is let go; zero: never.
    pub(crate) replace_after: Duration,
    pub(crate) stop: CancellationToken,
}

/// State of one leader of the catalog group between its steps; nothing depends on it.
#[derive(Default)]
struct Memory {
    /// The members of all groups were compared with the placement.
    compared: bool,
    /// Since when nodes do not answer.
    silent: BTreeMap<NodeId, Instant>,
    /// The time of the last probe of the members.
    looked: Option<Instant>,
    /// Why a dead member was not let go, as the log has it.
    kept: Option<String>,
    /// Transfers of leaders that failed in a row.
    failed_transfers: u32,
    /// Hand-overs of columns that failed in a row.
    failed_handoffs: u32,
}

/// Why a step was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Placement(#[from] PlacementChangeError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(
        "the members of the catalog group cannot be changed while {answering} of {members} answer"
    )]
    CatalogQuorum { answering: usize, members: usize },
    #[error("group {group} cannot change its members while {answering} of {members} answer")]
    Quorum { group: GroupId, answering: usize, members: usize },
    #[error("node {0} is no member")]
    NotAMember(NodeId),
    #[error("group {0} has no leader")]
    NoLeader(GroupId),
    #[error("group {group}: {reason}")]
    Call { group: GroupId, reason: String },
    #[error("node {node} could not leave its columns to {heir}: {reason}")]
    Handoff { node: NodeId, heir: NodeId, reason: String },
}

/// The result of a step.
enum Step {
    /// Something was done; there may be more.
    Did,
    /// A replica catches up, or the outcome of something is awaited.
    Waits,
    /// Nothing to do.
    Rest,
}

impl Balancer {
    /// Runs until stopped. On a node that does not lead the catalog group it only waits.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut pause = IDLE;
        let mut said = None;
        while tokio::time::timeout(pause, self.stop.cancelled()).await.is_err() {
            if !self.catalog.group().is_some_and(|group| group.is_leader()) {
                (memory, pause) = (Memory::default(), IDLE);
                continue;
            }
            let step = tokio::select! {
                step = self.step(&mut memory) => step,
                () = self.stop.cancelled() => return,
            };
            pause = match &step {
                Ok(Step::Did | Step::Waits) => NEXT_STEP,
                Ok(Step::Rest) | Err(_) => IDLE,
            };
            // Logged once, not with each attempt.
            let trouble = step.err();
            if let Some(error) = trouble.as_ref().filter(|_| trouble != said) {
                tracing::warn!("balancing waits: {error}");
            }
            said = trouble;
        }
    }

    async fn step(&self, memory: &mut Memory) -> Result<Step, StepError> {
        let applied = self.catalog.applied();
        let rests =
            memory.compared && !self.is_due(memory) && self.is_at_rest(&applied.placement());
        if applied.cluster().is_none() || rests {
            return Ok(Step::Rest);
        }
        memory.looked = Some(Instant::now());
        self.catalog.confirm_leading().await?;
        let placement = applied.placement();
        let snapshot =
            ClusterSnapshot::take(self.node, &self.groups, &self.directory, &self.client).await;
        memory.notice(&snapshot);
        if let Some(step) = self.shape_catalog(&placement, &snapshot).await? {
            return Ok(step);
        }
        if let Some(moving) = placement.moving() {
            return self.advance(moving, &placement, &snapshot, memory).await;
        }
        if let Some(step) = self.compare(&placement, &snapshot, memory).await? {
            return Ok(step);
        }
        if let Some(step) = self.let_go(&placement, &snapshot, memory).await? {
            return Ok(step);
        }
        if let Some(step) = self.replace_dead(&placement, &snapshot, memory).await? {
            return Ok(step);
        }
        let view = snapshot.balance(&placement);
        if let Some(ReplicaMove { group, to }) = view.next_move() {
            tracing::info!(%group, ?to, "a group begins to move");
            return self.record(&placement, PlaceChange::Move(Moving { group, to })).await;
        }
        if placement.leaders_due() {
            return self.spread_leaders(&view, &placement, memory).await;
        }
        Ok(Step::Rest)
    }

    /// Whether nothing is left to do if every member answers, from local knowledge only.
    fn is_at_rest(&self, placement: &Placement) -> bool {
        let Some(catalog) = self.catalog.group() else { return true };
        let status = catalog.status();
        let members: BTreeSet<NodeId> = status.members.keys().copied().map(NodeId).collect();
        let leaving = |node: &NodeId| placement.departures().contains_key(node);
        let voters = status.voters.len() == members.len().min(MOST_VOTERS);
        let view = BalanceView {
            nodes: members
                .iter()
                .map(|node| (*node, NodeView { leaving: leaving(node), alive: true }))
                .collect(),
            groups: placement
                .groups()
                .iter()
                .map(|(group, replicas)| {
                    (*group, GroupView { replicas: replicas.clone(), leader: None })
                })
                .collect(),
            replication: placement.replication(),
        };
        let departing = placement.departures().keys().any(|node| placement.is_leaving(*node));
        placement.moving().is_none()
            && !placement.leaders_due()
            && !departing
            && !members.iter().any(leaving)
            && voters
            && view.next_move().is_none()
    }

    async fn record(&self, placement: &Placement, change: PlaceChange) -> Result<Step, StepError> {
        match self.catalog.place_at(placement.revision(), change).await {
            Ok(()) => Ok(Step::Did),
            // The placement or the leader changed concurrently: look again.
            Err(PlacementChangeError::Refused(_) | PlacementChangeError::NotLeader(_)) => {
                Ok(Step::Waits)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Brings the catalog group itself to its intended members.
    async fn shape_catalog(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
    ) -> Result<Option<Step>, StepError> {
        let Some(group) = self.catalog.group() else { return Ok(None) };
        let status = group.status();
        let all: BTreeSet<NodeId> = status.members.keys().copied().map(NodeId).collect();
        let stay: BTreeSet<NodeId> =
            all.iter().copied().filter(|node| !placement.is_gone(*node)).collect();
        let now: BTreeSet<NodeId> = status.voters.iter().copied().map(NodeId).collect();
        let answers = |node: &NodeId| snapshot.answers(*node);
        let ready: BTreeSet<NodeId> = stay
            .iter()
            .copied()
            .filter(|node| answers(node) && !placement.is_leaving(*node))
            .collect();
        let voters = catalog_voters(&now, &stay, &ready, MOST_VOTERS);
        if voters == now && stay == all {
            return Ok(None);
        }
        for set in [&now, &voters] {
            let answering = set.iter().filter(|node| answers(node)).count();
            if answering * 2 <= set.len() {
                return Err(StepError::CatalogQuorum { answering, members: set.len() });
            }
        }
        let member = |node: &NodeId| Some((node.0, status.members.get(&node.0)?.clone()));
        let shape = Shape {
            learners: stay.difference(&voters).filter_map(member).collect(),
            voters: voters.iter().filter_map(member).collect(),
        };
        match group.reshape(&shape, STEP_WITHIN).await {
            // Others need not wait for a learner that catches up.
            Ok(Reshaped::CatchingUp { .. }) => Ok(None),
            Ok(Reshaped::Done | Reshaped::HandedOver { .. }) => Ok(Some(Step::Did)),
            Err(error) => Err(error.into()),
        }
    }

    /// One step of the move under way.
    async fn advance(
        &self,
        moving: &Moving,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &Memory,
    ) -> Result<Step, StepError> {
        let group = moving.group;
        let settled = placement.groups().get(&group).map(Vec::as_slice).unwrap_or_default();
        let lost = |node: &NodeId| {
            let fresh = !settled.contains(node);
            fresh && (placement.departures().contains_key(node) || memory.has_lost(*node))
        };
        let back = moving.to.iter().any(lost);
        let to = if back { settled.to_vec() } else { moving.to.clone() };
        if !self.shape_group(group, &to, placement, snapshot).await? {
            return Ok(Step::Waits);
        }
        tracing::info!(%group, ?to, "a group has {}", if back { "moved back" } else { "moved" });
        self.record(placement, PlaceChange::Settle(Moving { group, to })).await
    }

    /// One step of a group towards these members; whether it has them.
    async fn shape_group(
        &self,
        group: GroupId,
        to: &[NodeId],
        placement: &Placement,
        snapshot: &ClusterSnapshot,
    ) -> Result<bool, StepError> {
        let members = self.directory.members();
        let address = |node: &NodeId| {
            let at = members.get(node).ok_or(StepError::NotAMember(*node))?;
            Ok((node.0, Member { addr: at.address.clone(), http: at.http.clone() }))
        };
        let voters = to.iter().map(address).collect::<Result<BTreeMap<_, _>, StepError>>()?;
        let now = snapshot.voters(group);
        let to: BTreeSet<NodeId> = to.iter().copied().collect();
        for set in [&now, &to] {
            let answering = set.iter().filter(|node| snapshot.answers(**node)).count();
            if answering * 2 <= set.len() {
                return Err(StepError::Quorum { group, answering, members: set.len() });
            }
        }
        let leader = snapshot.leader(group).ok_or(StepError::NoLeader(group))?;
        let shape = Shape { voters, learners: BTreeMap::new() };
        let answer = self.client.reshape(leader, group, placement.revision(), &shape).await;
        let failed = |error: CallError| StepError::Call { group, reason: error.to_string() };
        match answer.map_err(failed)? {
            Ok(Reshaped::Done) => Ok(true),
            Ok(Reshaped::CatchingUp { .. } | Reshaped::HandedOver { .. }) | Err(_) => Ok(false),
        }
    }

    /// Repairs groups whose members differ from the settled ones.
    async fn compare(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &mut Memory,
    ) -> Result<Option<Step>, StepError> {
        if memory.compared {
            return Ok(None);
        }
        for (group, settled) in placement.groups() {
            let members = snapshot.members(*group);
            let same = members == settled.iter().copied().collect();
            // A group that was not formed yet has no members.
            if !members.is_empty() && !same {
                self.shape_group(*group, settled, placement, snapshot).await?;
                return Ok(Some(Step::Waits));
            }
        }
        memory.compared = true;
        Ok(None)
    }

    /// Records a leaving node as gone once it holds no group and has handed its counts to a node
    /// that stays. A node that holds no group counts nothing.
    async fn let_go(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &mut Memory,
    ) -> Result<Option<Step>, StepError> {
        let mut leaving = placement.departures().keys().filter(|node| placement.is_leaving(**node));
        let Some(node) = leaving.find(|node| placement.held_by(**node).is_none()) else {
            return Ok(None);
        };
        let stays =
            |heir: &&NodeId| snapshot.answers(**heir) && !placement.departures().contains_key(heir);
        // The first one, so that the next leader picks the same.
        let heir = snapshot.nodes().iter().find(stays).copied();
        if let Some(heir) = heir.filter(|_| snapshot.answers(*node)) {
            let handed_off = self.client.hand_off_history(*node, heir).await;
            match handed_off {
                Ok(records) => tracing::info!(%node, %heir, records, "columns were handed over"),
                Err(error) if memory.failed_handoffs < HANDOFF_TRIES => {
                    memory.failed_handoffs += 1;
                    let (node, reason) = (*node, error.to_string());
                    return Err(StepError::Handoff { node, heir, reason });
                }
                // The store matters more than its history.
                Err(error) => {
                    let what = "the columns of a node that left are lost";
                    tracing::error!(%node, %heir, %error, "{what}");
                }
            }
            memory.failed_handoffs = 0;
        }
        tracing::info!(%node, "a node has left");
        self.record(placement, PlaceChange::Gone(*node)).await.map(Some)
    }

    /// Whether the members are due to be probed, even if there is nothing to move.
    fn is_due(&self, memory: &Memory) -> bool {
        let every = (self.replace_after / LOOKS).clamp(LOOK_EVERY[0], LOOK_EVERY[1]);
        !self.replace_after.is_zero() && memory.looked.is_none_or(|at| at.elapsed() >= every)
    }

    /// Lets a member go that has not answered for `replace_after`, one at a time, where the others
    /// have a majority and room for its replicas.
    async fn replace_dead(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &mut Memory,
    ) -> Result<Option<Step>, StepError> {
        let departures = placement.departures();
        let one_leaves = departures.keys().any(|node| placement.is_leaving(*node));
        if self.replace_after.is_zero() || one_leaves {
            return Ok(None);
        }
        let dead = memory.silent.iter().filter(|(node, _)| !departures.contains_key(node));
        let dead = dead.min_by_key(|(_, since)| **since);
        let dead = dead.filter(|(_, since)| since.elapsed() >= self.replace_after);
        let Some((node, since)) = dead.map(|(node, since)| (*node, since.elapsed())) else {
            memory.kept = None;
            return Ok(None);
        };
        let Some(group) = self.catalog.group() else { return Ok(None) };
        let voters = group.status().voters.into_iter().map(NodeId).collect();
        if let Err(why) = snapshot.balance(placement).may_be_replaced(node, &voters) {
            let why = why.to_string();
            if memory.kept.as_ref() != Some(&why) {
                tracing::warn!(%node, "a member that does not answer is not replaced yet: {why}");
                memory.kept = Some(why);
            }
            return Ok(None);
        }
        memory.kept = None;
        let seconds = since.as_secs();
        let what = "(--replace-after): it is removed, and its replicas are made again on others";
        tracing::warn!(%node, "no answer for {seconds} s {what}");
        self.record(placement, PlaceChange::Leave(node)).await.map(Some)
    }

    async fn spread_leaders(
        &self,
        view: &BalanceView,
        placement: &Placement,
        memory: &mut Memory,
    ) -> Result<Step, StepError> {
        let next = view.next_lead().filter(|_| memory.failed_transfers < LEADER_TRIES);
        let Some(LeaderMove { group, to }) = next else {
            memory.failed_transfers = 0;
            return self.record(placement, PlaceChange::LeadersSpread).await;
        };
        let leader = view.groups.get(&group).and_then(|group| group.leader);
        let leader = leader.ok_or(StepError::NoLeader(group))?;
        let handed = self.client.hand_over(leader, group, to).await;
        let done = matches!(handed, Ok(Ok(())));
        memory.failed_transfers = if done { 0 } else { memory.failed_transfers + 1 };
        Ok(if done { Step::Did } else { Step::Waits })
    }
}

impl Memory {
    fn notice(&mut self, snapshot: &ClusterSnapshot) {
        let silent = |node: &&NodeId| !snapshot.answers(**node);
        let now: BTreeSet<NodeId> = snapshot.nodes().iter().filter(silent).copied().collect();
        self.silent.retain(|node, _| now.contains(node));
        for node in now {
            self.silent.entry(node).or_insert_with(Instant::now);
        }
    }

    fn has_lost(&self, node: NodeId) -> bool {
        self.silent.get(&node).is_some_and(|since| since.elapsed() >= GIVE_UP_AFTER)
    }
}
