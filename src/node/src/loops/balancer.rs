//! Carries out what the placement says, and decides what it shall say next, on the node that leads
//! the catalog group.
//!
//! Everything that it knows is recorded in the catalog or asked of the groups anew at each step, so
//! it can be killed anywhere and the next leader's goes on. The decisions are [`BalanceView`]'s.
//!
//! ```text
//!   each step, the first of these that there is to do:
//!     the catalog group's own members: voters up to five, without those that have left
//!     the move under way: one step of Raft membership at the group's leader; settled when done
//!     a group whose members are not those that are settled (a step of a predecessor came late)
//!     a node that leaves and holds nothing: it is recorded as gone
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
use keyviz_peer::{ClusterSnapshot, PeerClient};
use keyviz_raft::{Groups, Member, Reshaped, Shape};
use keyviz_types::{GroupId, NodeId};

/// Most voters of the catalog group: more make it slower and hardly safer.
const MOST_VOTERS: usize = 5;

/// The pause after a step that did something, or that waits for a replica to catch up.
const NEXT_STEP: Duration = Duration::from_millis(100);

/// The pause while there is nothing to do, or after a step that could not be done.
const IDLE: Duration = Duration::from_millis(500);

/// A step of the catalog group's membership takes so long at most.
const STEP_WITHIN: Duration = Duration::from_secs(4);

/// A new replica's node that does not answer for so long is given up, and the move taken back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A transfer of a leader is tried so often before it is left where it is.
const LEADER_TRIES: u32 = 10;

/// A hand-over of columns is tried so often before the node is let go without.
const BEQUEST_TRIES: u32 = 20;

/// What balancing needs.
pub(crate) struct Balancer {
    pub(crate) node: NodeId,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) client: Arc<PeerClient>,
    pub(crate) stop: CancellationToken,
}

/// What one leader of the catalog group remembers between its steps; nothing depends on it.
#[derive(Default)]
struct Memory {
    /// The members of all groups were compared with the placement.
    compared: bool,
    /// Since when nodes do not answer.
    silent: BTreeMap<NodeId, Instant>,
    /// Transfers of leaders that failed in a row.
    failed_transfers: u32,
    /// Hand-overs of columns that failed in a row.
    failed_bequests: u32,
}

/// What a step came to.
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
        let mut said = String::new();
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
            // Said once, not with each attempt.
            let trouble = step.err().unwrap_or_default();
            if !trouble.is_empty() && trouble != said {
                tracing::warn!("balancing waits: {trouble}");
            }
            said = trouble;
        }
    }

    async fn step(&self, memory: &mut Memory) -> Result<Step, String> {
        let applied = self.catalog.applied();
        if applied.cluster().is_none() || memory.compared && self.is_at_rest(&applied.placement()) {
            return Ok(Step::Rest);
        }
        self.catalog.confirm_leading().await.map_err(|error| error.to_string())?;
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

    /// Whether nothing is left to do if every member answers, as far as this node knows by itself.
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

    async fn record(&self, placement: &Placement, change: PlaceChange) -> Result<Step, String> {
        match self.catalog.place_at(placement.revision(), change).await {
            Ok(()) => Ok(Step::Did),
            // Somebody asked for something meanwhile, or leads now: look again.
            Err(PlacementChangeError::Refused(_) | PlacementChangeError::NotLeader(_)) => {
                Ok(Step::Waits)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Brings the catalog group itself to the members that it shall have.
    async fn shape_catalog(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
    ) -> Result<Option<Step>, String> {
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
                return Err(format!(
                    "the members of the catalog group cannot be changed while {answering} of {} \
                     answer",
                    set.len()
                ));
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
            Err(error) => Err(error.to_string()),
        }
    }

    /// One step of the move under way.
    async fn advance(
        &self,
        moving: &Moving,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &Memory,
    ) -> Result<Step, String> {
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
    ) -> Result<bool, String> {
        let members = self.directory.members();
        let address = |node: &NodeId| {
            let at = members.get(node).ok_or_else(|| format!("node {node} is no member"))?;
            Ok((node.0, Member { addr: at.address.clone(), http: at.http.clone() }))
        };
        let voters = to.iter().map(address).collect::<Result<BTreeMap<_, _>, String>>()?;
        let now = snapshot.voters(group);
        let to: BTreeSet<NodeId> = to.iter().copied().collect();
        for set in [&now, &to] {
            let answering = set.iter().filter(|node| snapshot.answers(**node)).count();
            if answering * 2 <= set.len() {
                return Err(format!(
                    "group {group} cannot change its members while {answering} of {} answer",
                    set.len()
                ));
            }
        }
        let leader =
            snapshot.leader(group).ok_or_else(|| format!("group {group} has no leader"))?;
        let shape = Shape { voters, learners: BTreeMap::new() };
        let answer = self.client.reshape(leader, group, placement.revision(), &shape).await;
        match answer.map_err(|error| format!("group {group}: {error}"))? {
            Ok(Reshaped::Done) => Ok(true),
            Ok(Reshaped::CatchingUp { .. } | Reshaped::HandedOver { .. }) | Err(_) => Ok(false),
        }
    }

    /// Puts groups right whose members are not those that are settled.
    async fn compare(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &mut Memory,
    ) -> Result<Option<Step>, String> {
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

    /// Records as gone what leaves and holds nothing any more, once it has left what it counted to
    /// one that stays. Nothing is counted any more where nothing is held.
    async fn let_go(
        &self,
        placement: &Placement,
        snapshot: &ClusterSnapshot,
        memory: &mut Memory,
    ) -> Result<Option<Step>, String> {
        let mut leaving = placement.departures().keys().filter(|node| placement.is_leaving(**node));
        let Some(node) = leaving.find(|node| placement.held_by(**node).is_none()) else {
            return Ok(None);
        };
        let stays =
            |heir: &&NodeId| snapshot.answers(**heir) && !placement.departures().contains_key(heir);
        // The first, so that the next leader would ask the same one.
        let heir = snapshot.nodes().iter().find(stays).copied();
        if let Some(heir) = heir.filter(|_| snapshot.answers(*node)) {
            let handed_off = self.client.hand_off_history(*node, heir).await;
            match handed_off {
                Ok(records) => tracing::info!(%node, %heir, records, "columns were handed over"),
                Err(error) if memory.failed_bequests < BEQUEST_TRIES => {
                    memory.failed_bequests += 1;
                    return Err(format!(
                        "node {node} could not leave its columns to {heir}: {error}"
                    ));
                }
                // The store matters more than what is known of its past.
                Err(error) => {
                    let what = "the columns of a node that left are lost";
                    tracing::error!(%node, %heir, %error, "{what}");
                }
            }
            memory.failed_bequests = 0;
        }
        tracing::info!(%node, "a node has left");
        self.record(placement, PlaceChange::Gone(*node)).await.map(Some)
    }

    async fn spread_leaders(
        &self,
        view: &BalanceView,
        placement: &Placement,
        memory: &mut Memory,
    ) -> Result<Step, String> {
        let next = view.next_lead().filter(|_| memory.failed_transfers < LEADER_TRIES);
        let Some(LeaderMove { group, to }) = next else {
            memory.failed_transfers = 0;
            return self.record(placement, PlaceChange::LeadersSpread).await;
        };
        let leader = view.groups.get(&group).and_then(|group| group.leader);
        let leader = leader.ok_or_else(|| format!("group {group} has no leader"))?;
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
