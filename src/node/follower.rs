//! Follows the applied catalog: opens the groups that are placed on this node, and publishes the
//! routes to the sampler, whose table the coordinator routes by.
//!
//! The sampler hears of routes from here and nowhere else, so it never counts under a route that
//! the catalog has not applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::{ClusterRecord, GroupPlacement, WatchEvent};
use crate::keyviz::{NodeId, Sampler};
use crate::kv::{Directory, KvMachine, MemberAddress};
use crate::raft::{AppliedCatalog, CreateError, Group, Groups, Member, Peers, Storage};

use super::identity::Identity;
use super::leads;

/// Members that are not known yet are looked for again this often.
const MEMBERS_AGAIN: Duration = Duration::from_millis(20);

/// What following the catalog needs.
#[derive(Clone)]
pub(super) struct Follower {
    pub(super) node: NodeId,
    pub(super) storage: Storage,
    pub(super) catalog: AppliedCatalog,
    pub(super) groups: Groups,
    pub(super) directory: Arc<Directory>,
    pub(super) sampler: Arc<Sampler>,
    pub(super) peers: Peers,
    pub(super) stop: CancellationToken,
}

impl Follower {
    /// Follows until stopped.
    pub(super) async fn run(self) {
        let mut changes = match self.catalog.hub().subscribe(0) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "the catalog cannot be followed");
                return;
            }
        };
        loop {
            let event = tokio::select! {
                biased;
                event = changes.next() => event,
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
    pub(super) async fn take_over(&self) {
        if let Some(cluster) = self.catalog.cluster() {
            self.take_over_cluster(&cluster).await;
        }
        let table = self.catalog.table();
        if table.is_empty() {
            return;
        }
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
        let placement: BTreeMap<_, _> =
            cluster.groups.iter().map(|group| (group.group, group.replicas.clone())).collect();
        self.directory.set_placement(placement);
        for placement in &cluster.groups {
            let ours = placement.replicas.contains(&self.node);
            if ours
                && self.groups.get(placement.group).is_none()
                && let Err(error) = self.open_group(placement).await
            {
                let (group, file) = (placement.group, self.storage.dir().join("db"));
                let file = file.display();
                tracing::error!(%group, %file, %error, "this node does not serve a group");
            }
        }
    }

    async fn open_group(&self, placement: &GroupPlacement) -> Result<(), CreateError> {
        let group = self.groups.create(placement.group, KvMachine).await?;
        let follow =
            leads::follow(Arc::clone(&group), Arc::clone(&self.sampler), self.stop.clone());
        tokio::spawn(follow);
        tokio::spawn(self.clone().start_group(group, placement.clone()));
        Ok(())
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
    /// Where the replicas are. They are first members, whom the catalog group knows at any moment now.
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
