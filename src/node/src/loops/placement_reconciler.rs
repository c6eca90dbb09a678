//! Follows the applied catalog: opens the groups that are placed on this node, gives up those that
//! are placed elsewhere, and publishes the routes to the sampler, whose table the coordinator
//! routes by.
//!
//! The sampler receives routes only from here, so it never counts under a route that the catalog
//! has not applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use keyviz_catalog::AppliedCatalog;
use keyviz_catalog::{ClusterRecord, GroupPlacement, Placement, WatchEvent};
use keyviz_core::{GroupId, NodeId, Sampler};
use keyviz_directory::{Directory, MemberAddress, MembershipState};
use keyviz_kv::{KvMachine, Ownerships};
use keyviz_peer::PeerClient;
use keyviz_raft::{CreateError, Group, Groups, Member, Peers, Storage};

use super::leader_terms;
use super::supervisor::{ControlLoop, Supervisor};
use crate::folder::identity::Identity;

/// The interval between lookups of unknown members.
const MEMBERS_AGAIN: Duration = Duration::from_millis(20);

/// The interval between checks whether a group continues without this node.
const LEAVE_AGAIN: Duration = Duration::from_millis(500);

/// The loop that follows the catalog.
#[derive(Clone)]
pub(crate) struct PlacementReconciler {
    pub(crate) node: NodeId,
    pub(crate) storage: Storage,
    pub(crate) catalog: AppliedCatalog,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    /// Told what replicas of groups that routes moved to must have applied.
    pub(crate) ownerships: Arc<Ownerships>,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) peers: Peers,
    pub(crate) client: Arc<PeerClient>,
    /// Held while a group is opened or erased.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// Groups that are being given up.
    pub(crate) leaving: Arc<Mutex<BTreeSet<GroupId>>>,
    pub(crate) supervisor: Supervisor,
    pub(crate) stop: CancellationToken,
}

impl PlacementReconciler {
    /// Follows until stopped.
    pub(crate) async fn run(self) {
        let mut changes = match self.catalog.hub().subscribe(0) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "the catalog cannot be followed");
                return;
            }
        };
        let mut placements = self.catalog.placements();
        loop {
            let event = tokio::select! {
                biased;
                event = changes.next() => event,
                changed = placements.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_over_placement().await;
                    continue;
                }
                () = self.stop.cancelled() => return,
            };
            match event {
                // The newest table is taken over, whichever changes led to it.
                Some(WatchEvent::Snapshot { .. } | WatchEvent::Deltas(_)) => self.take_over().await,
                Some(WatchEvent::Progress(_)) => {}
                None => return,
            }
        }
    }

    /// Takes over the catalog as it is applied now. Groups first, so that a route that can be found
    /// leads to a group that is open.
    pub(crate) async fn take_over(&self) {
        if let Some(cluster) = self.catalog.cluster() {
            self.take_over_cluster(&cluster).await;
        }
        let table = self.catalog.table();
        if table.is_empty() {
            return;
        }
        // At least as new as the table, so that no route is found in a group whose replica here
        // does not have its rows yet.
        self.ownerships
            .set_adopted(&self.catalog.with(|catalog| catalog.moves().adopted().clone()));
        let published = self.sampler.publish_routes(table.version(), Arc::clone(table.specs()));
        if let Err(error) = published {
            tracing::error!(version = table.version(), %error, "the routes were not published");
        }
    }

    async fn take_over_cluster(&self, cluster: &ClusterRecord) {
        let id = cluster.cluster_id.to_string();
        if *self.directory.cluster_id() != id {
            self.directory.set_cluster_id(&id);
            self.peers.set_cluster_id(id.as_str());
            if let Err(error) = Identity::remember_cluster(&self.storage, &id).await {
                tracing::error!(%error, "the cluster id was not stored");
            }
        }
        self.take_over_placement().await;
    }

    /// Opens the groups placed here and gives up the others.
    async fn take_over_placement(&self) {
        let Some(cluster) = self.catalog.cluster() else { return };
        let placement = self.catalog.placement();
        self.directory.set_placement(placement.groups().clone());
        if placement.is_gone(self.node) {
            self.directory.set_membership_state(MembershipState::Removed);
        }
        let held = placement.groups().keys().filter(|group| placement.holds(self.node, **group));
        for group in held {
            let bootstrapped = cluster.groups.iter().find(|placed| placed.group == *group);
            // Members of a group that was moved are its leader's to name.
            let first = bootstrapped.filter(|_| !placement.was_moved(*group));
            let _changing = self.changing.lock().await;
            if self.groups.get(*group).is_none()
                && !self.groups.closed().contains_key(group)
                && let Err(error) = self.open_group(*group, first).await
            {
                let folder = self.storage.dir().display();
                tracing::error!(%group, %folder, %error, "this node does not serve a group");
            }
        }
        match self.groups.stored().await {
            Ok(stored) => self.leave_groups(&stored, &placement),
            Err(error) => tracing::error!(%error, "the groups of this node could not be listed"),
        }
    }

    async fn open_group(
        &self,
        group: GroupId,
        first: Option<&GroupPlacement>,
    ) -> Result<(), CreateError> {
        let machine = KvMachine::of(&self.ownerships, group);
        let group = self.groups.create(group, machine).await?;
        let (followed, sampler) = (Arc::clone(&group), Arc::clone(&self.sampler));
        let stop = self.stop.clone();
        self.supervisor.run(ControlLoop::Leadership, &self.stop, move || {
            leader_terms::follow(Arc::clone(&followed), Arc::clone(&sampler), stop.clone())
        });
        if let Some(first) = first {
            tokio::spawn(self.clone().start_group(group, first.clone()));
        }
        Ok(())
    }

    /// Gives up the groups that the catalog has placed elsewhere.
    fn leave_groups(&self, stored: &BTreeSet<GroupId>, placement: &Placement) {
        let elsewhere = |group: &&GroupId| {
            placement.groups().contains_key(group) && !placement.holds(self.node, **group)
        };
        for group in stored.iter().filter(elsewhere) {
            if self.leaving.lock().insert(*group) {
                tokio::spawn(self.clone().leave_group(*group));
            }
        }
    }

    /// Boxed, because giving up may end in taking over again.
    fn leave_group(self, group: GroupId) -> BoxFuture<'static, ()> {
        Box::pin(self.give_up(group))
    }

    /// Stops and erases a group once its leader, confirmed by a majority, answers that this node is
    /// not a member: the applied catalog may be stale, and the data of a member must never be
    /// erased.
    async fn give_up(self, group: GroupId) {
        loop {
            let placement = self.catalog.placement();
            if placement.holds(self.node, group) {
                break;
            }
            if self.goes_on_without_us(group, &placement).await {
                let _changing = self.changing.lock().await;
                if self.catalog.placement().holds(self.node, group) {
                    break;
                }
                match self.groups.erase(group).await {
                    Ok(()) => tracing::info!(%group, "this node gave up a group"),
                    Err(error) => tracing::error!(%group, %error, "a group was not erased"),
                }
                break;
            }
            if tokio::time::timeout(LEAVE_AGAIN, self.stop.cancelled()).await.is_ok() {
                return;
            }
        }
        self.leaving.lock().remove(&group);
        // It may have been placed here again in between.
        if self.catalog.placement().holds(self.node, group) {
            self.take_over_placement().await;
        }
    }

    async fn goes_on_without_us(&self, group: GroupId, placement: &Placement) -> bool {
        let replicas = placement.groups().get(&group).map(Vec::as_slice).unwrap_or_default();
        for replica in replicas.iter().filter(|replica| **replica != self.node) {
            if let Ok(Ok(member)) = self.client.is_member(*replica, group, self.node).await {
                return !member;
            }
        }
        false
    }

    /// Forms the group where it was never formed. Every replica may: they name the same members.
    async fn start_group(self, group: Arc<Group>, placement: GroupPlacement) {
        let Some(members) = self.members_of(&placement).await else { return };
        tokio::select! {
            biased;
            formed = group.initialize(members) => {
                if let Err(error) = formed {
                    tracing::error!(group = %placement.group, %error, "a group was not formed");
                }
            }
            () = self.stop.cancelled() => {}
        }
    }

    /// Where the replicas are. They are first members, which the catalog group lists shortly.
    async fn members_of(&self, placement: &GroupPlacement) -> Option<BTreeMap<u64, Member>> {
        while !self.stop.is_cancelled() {
            let members: BTreeMap<u64, Member> = placement
                .replicas
                .iter()
                .filter_map(|node| {
                    let MemberAddress { address, http } = self.directory.address(*node)?;
                    Some((node.0, Member { addr: address, http }))
                })
                .collect();
            if members.len() == placement.replicas.len() {
                return Some(members);
            }
            tokio::time::sleep(MEMBERS_AGAIN).await;
        }
        None
    }
}
