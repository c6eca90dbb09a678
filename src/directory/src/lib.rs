//! The members of the cluster, the placement of groups, and hints about their leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use keyviz_types::{GroupId, NodeId};

/// Whether this node is a member, as far as it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MembershipState {
    /// It is a member, as far as it knows.
    #[default]
    Member,
    /// It was a member when it stopped, and is asking the others whether it still is.
    Asking,
    /// It left or was removed, as agreed by a majority.
    Removed,
    /// Its disk has lost acknowledged entries; see [`Directory::refusal`].
    Refused,
}

/// Members come from the catalog group's Raft membership, placement from the applied catalog;
/// leaders of groups without a local replica are hints taken from answers.
#[derive(Default)]
pub struct Directory {
    members: ArcSwap<BTreeMap<NodeId, MemberAddress>>,
    placement: ArcSwap<BTreeMap<GroupId, Vec<NodeId>>>,
    cluster_id: ArcSwap<String>,
    hints: Mutex<BTreeMap<GroupId, NodeId>>,
    standing: watch::Sender<MembershipState>,
    refusal: ArcSwap<String>,
}

/// The addresses of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAddress {
    /// gRPC, `host:port`.
    pub address: String,
    /// HTTP, `host:port`; empty if it serves no HTTP.
    pub http: String,
}

impl Directory {
    /// A directory without members.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether this node is a member.
    pub fn membership_state(&self) -> MembershipState {
        *self.standing.borrow()
    }

    /// As above, after the other members have answered or could not be reached.
    pub async fn probed_membership_state(&self) -> MembershipState {
        let mut standing = self.standing.subscribe();
        let asked = standing.wait_for(|standing| *standing != MembershipState::Asking).await;
        // The sender is dropped with the directory.
        asked.map_or(MembershipState::Member, |standing| *standing)
    }

    /// Sets whether this node is a member.
    pub fn set_membership_state(&self, standing: MembershipState) {
        self.standing.send_if_modified(|known| {
            *known != MembershipState::Refused && std::mem::replace(known, standing) != standing
        });
    }

    /// Why this node is excluded from the cluster; empty unless its standing is
    /// [`MembershipState::Refused`].
    pub fn refusal(&self) -> Arc<String> {
        self.refusal.load_full()
    }

    /// Excludes this node from the cluster until its process ends.
    pub fn refuse(&self, reason: String) {
        self.refusal.store(Arc::new(reason));
        self.standing.send_replace(MembershipState::Refused);
    }

    /// The id of the cluster; empty before it is known.
    pub fn cluster_id(&self) -> Arc<String> {
        self.cluster_id.load_full()
    }

    /// Sets the id of the cluster.
    pub fn set_cluster_id(&self, id: &str) {
        if self.cluster_id.load().as_str() != id {
            self.cluster_id.store(Arc::new(id.to_owned()));
        }
    }

    /// All members.
    pub fn members(&self) -> Arc<BTreeMap<NodeId, MemberAddress>> {
        self.members.load_full()
    }

    /// Replaces the members.
    pub fn set_members(&self, members: BTreeMap<NodeId, MemberAddress>) {
        if **self.members.load() != members {
            self.members.store(Arc::new(members));
        }
    }

    /// The addresses of a member; `None` for a node that is not a member.
    pub fn address(&self, node: NodeId) -> Option<MemberAddress> {
        self.members.load().get(&node).cloned()
    }

    /// The nodes that hold a group; empty if the group is unknown.
    pub fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        self.placement.load().get(&group).cloned().unwrap_or_default()
    }

    /// Whether `node` is a replica of a group.
    pub fn is_replica(&self, node: NodeId, group: GroupId) -> bool {
        self.placement.load().get(&group).is_some_and(|replicas| replicas.contains(&node))
    }

    /// All data groups and the nodes that hold them.
    pub fn placement(&self) -> Arc<BTreeMap<GroupId, Vec<NodeId>>> {
        self.placement.load_full()
    }

    /// Replaces the placement.
    pub fn set_placement(&self, placement: BTreeMap<GroupId, Vec<NodeId>>) {
        if **self.placement.load() != placement {
            self.placement.store(Arc::new(placement));
        }
    }

    /// The node that was last seen to lead a group.
    pub fn leader_hint(&self, group: GroupId) -> Option<NodeId> {
        self.hints.lock().get(&group).copied()
    }

    /// Sets the leader of a group; `None` if the last hint was wrong.
    pub fn hint_leader(&self, group: GroupId, leader: Option<NodeId>) {
        let mut hints = self.hints.lock();
        match leader {
            Some(leader) => hints.insert(group, leader),
            None => hints.remove(&group),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_needs_the_standing_waits_while_the_others_are_asked() {
        let directory = Directory::new();
        assert_eq!(
            directory.probed_membership_state().await,
            MembershipState::Member,
            "nobody is asked"
        );
        directory.set_membership_state(MembershipState::Asking);
        let waits = tokio::spawn({
            let directory = Arc::clone(&directory);
            async move { directory.probed_membership_state().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        directory.set_membership_state(MembershipState::Removed);
        assert_eq!(waits.await.expect("it does not panic"), MembershipState::Removed);
    }
}
