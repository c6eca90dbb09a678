//! The status of all members and their groups at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;

use keyviz_catalog::{BalanceView, GroupView, NodeView, Placement};
use keyviz_directory::Directory;
use keyviz_proto as proto;
use keyviz_raft::{Group, Groups, Role};
use keyviz_types::{GroupId, NodeId};

use super::client::PeerClient;

/// Time limit for a member's status.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// The answers; members that are missing did not answer.
#[derive(Clone, Default, Debug)]
pub struct ClusterSnapshot {
    members: BTreeSet<NodeId>,
    said: BTreeMap<NodeId, Vec<proto::PeerGroupStatus>>,
}

impl ClusterSnapshot {
    /// Queries every other member, and adds this node's own status.
    pub async fn take(
        node: NodeId,
        groups: &Groups,
        directory: &Directory,
        peers: &PeerClient,
    ) -> Self {
        let members: BTreeSet<NodeId> = directory.members().keys().copied().collect();
        let asks = members.iter().filter(|id| **id != node).map(|id| async move {
            let said = peers.node_status(*id, STATUS_DEADLINE).await.ok()?;
            // A node that does not take part counts as silent.
            said.refused.is_empty().then_some((*id, said.groups))
        });
        let own = groups.list().iter().map(|group| group_to_wire(group)).collect();
        let said = join_all(asks).await.into_iter().flatten().chain([(node, own)]);
        ClusterSnapshot { said: said.collect(), members }
    }

    /// A snapshot from answers collected elsewhere.
    pub fn of<'a>(
        members: impl IntoIterator<Item = NodeId>,
        said: impl IntoIterator<Item = (u64, &'a proto::PeerStatusResponse)>,
    ) -> Self {
        let said = said.into_iter().map(|(node, said)| (NodeId(node), said.groups.clone()));
        ClusterSnapshot { members: members.into_iter().collect(), said: said.collect() }
    }

    /// Whether a member answered.
    pub fn answers(&self, node: NodeId) -> bool {
        self.said.contains_key(&node)
    }

    /// Members of the catalog group.
    pub fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.members
    }

    fn views(&self, group: GroupId) -> impl Iterator<Item = (NodeId, &proto::PeerGroupStatus)> {
        self.said.iter().filter_map(move |(node, views)| {
            Some((*node, views.iter().find(|view| view.group_id == group.0)?))
        })
    }

    /// The replica with the newest term.
    pub fn newest(&self, group: GroupId) -> Option<&proto::PeerGroupStatus> {
        let views = self.views(group).map(|(_, view)| view);
        views.max_by_key(|view| (view.term, view.applied_index))
    }

    /// The status of a node's replica.
    pub fn replica(&self, node: NodeId, group: GroupId) -> Option<&proto::PeerGroupStatus> {
        self.views(group).find(|(id, _)| *id == node).map(|(_, view)| view)
    }

    /// The node that claims to lead in the newest term.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leading = self.views(group).filter(|(_, view)| view.role == "leader");
        leading.max_by_key(|(_, view)| view.term).map(|(node, _)| node)
    }

    /// The last entry of the catalog group's leader, if a majority of the voters answered and none
    /// knows a later term. Everything that was committed before the snapshot is at or before this
    /// entry: a later leader would have needed the vote of one of those that answered.
    pub fn catalog_end(&self) -> Option<u64> {
        let leader = self.leader(GroupId::CATALOG)?;
        let leader = self.replica(leader, GroupId::CATALOG)?;
        let later = self.views(GroupId::CATALOG).any(|(_, view)| view.term > leader.term);
        let answered = leader.voters.iter().filter(|node| self.answers(NodeId(**node))).count();
        (!later && answered * 2 > leader.voters.len()).then_some(leader.last_log_index)
    }

    /// The voters.
    pub fn voters(&self, group: GroupId) -> BTreeSet<NodeId> {
        let newest = self.newest(group);
        newest.map(|view| view.voters.iter().copied().map(NodeId).collect()).unwrap_or_default()
    }

    /// Voters and learners.
    pub fn members(&self, group: GroupId) -> BTreeSet<NodeId> {
        let learners = self.newest(group).into_iter().flat_map(|view| &view.learners);
        self.voters(group).into_iter().chain(learners.copied().map(NodeId)).collect()
    }

    /// The cluster as the balancer looks at it. A group that moves is taken to have arrived.
    pub fn balance(&self, placement: &Placement) -> BalanceView {
        let node = |id: &NodeId| {
            let leaving = placement.departures().contains_key(id);
            (*id, NodeView { leaving, alive: self.answers(*id) })
        };
        let group = |group: &GroupId| {
            let replicas = placement.wanted(*group).unwrap_or_default().to_vec();
            (*group, GroupView { replicas, leader: self.leader(*group) })
        };
        BalanceView {
            nodes: self.members.iter().map(node).collect(),
            groups: placement.groups().keys().map(group).collect(),
            replication: placement.replication(),
        }
    }

    /// The move under way, and how far it is.
    pub fn moving(&self, placement: &Placement) -> Option<proto::Move> {
        let moving = placement.moving()?;
        let group = moving.group;
        let from = placement.groups().get(&group).map(Vec::as_slice).unwrap_or_default();
        let fresh = moving.to.iter().find(|node| !from.contains(node));
        let copied = fresh.and_then(|node| self.replica(*node, group));
        let leader = self.leader(group).and_then(|leader| self.replica(leader, group));
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        Some(proto::Move {
            group_id: group.0,
            from: ids(from),
            to: ids(&moving.to),
            copied_index: copied.map(|view| view.last_log_index),
            last_index: leader.map(|view| view.last_log_index),
            received_bytes: copied.map_or(0, |view| view.received_bytes),
        })
    }
}

/// The status of a replica as sent to others.
pub fn group_to_wire(group: &Group) -> proto::PeerGroupStatus {
    let status = group.status();
    let role = match status.role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Stopping => "stopping",
    };
    proto::PeerGroupStatus {
        group_id: status.group.0,
        role: role.to_owned(),
        term: status.term.0,
        leader: status.leader.as_ref().map_or(0, |(leader, _)| *leader),
        last_log_index: status.last_log.unwrap_or(0),
        applied_index: status.applied.map_or(0, |applied| applied.index),
        closed: String::new(),
        snapshot_rows: status.receiving.map(|progress| progress.rows),
        voters: status.voters.iter().copied().collect(),
        learners: status
            .members
            .keys()
            .filter(|node| !status.voters.contains(node))
            .copied()
            .collect(),
        received_bytes: group.received_bytes(),
        quorum_age_ms: match status.role {
            Role::Leader => {
                let age = group.quorum_age().unwrap_or(Duration::MAX).as_millis();
                Some(u64::try_from(age).unwrap_or(u64::MAX))
            }
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(role: &str, term: u64, last_log_index: u64) -> proto::PeerGroupStatus {
        let voters = vec![1, 2, 3];
        proto::PeerGroupStatus {
            role: role.into(),
            term,
            last_log_index,
            voters,
            ..Default::default()
        }
    }

    fn snapshot(said: &[(u64, proto::PeerGroupStatus)]) -> ClusterSnapshot {
        let said = said.iter().map(|(node, view)| (NodeId(*node), vec![view.clone()]));
        ClusterSnapshot { members: (1..=3).map(NodeId).collect(), said: said.collect() }
    }

    #[test]
    fn the_end_of_the_catalog_is_known_only_with_its_leader_and_a_majority() {
        let (leads, follows) = (view("leader", 4, 90), view("follower", 4, 70));
        let end = |said: &[_]| snapshot(said).catalog_end();
        assert_eq!(end(&[(1, leads.clone()), (3, follows.clone())]), Some(90));
        assert_eq!(end(&[(1, leads.clone())]), None, "the others may have another leader");
        assert_eq!(end(&[(2, follows.clone()), (3, follows)]), None, "nobody leads");
        let later = view("follower", 5, 70);
        assert_eq!(end(&[(1, leads), (3, later)]), None, "a leader that has been replaced");
    }
}
