//! Checks whether a node may leave: its groups must keep a majority without it.

use std::collections::BTreeSet;

use super::balance::{BalanceView, NodeView};
use keyviz_types::{GroupId, NodeId};

/// Why a node may not leave now, for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaveError {
    /// Nobody would be left.
    #[error("node {node} is the last node that stays; a cluster needs one")]
    Last {
        /// The node.
        node: NodeId,
    },
    /// A group has no majority now.
    #[error(
        "{} cannot agree on anything now: {answering} of its {members} members answer and a \
         majority is {}; bring the others back first", named(*group), members / 2 + 1
    )]
    NoQuorum {
        /// The group.
        group: GroupId,
        /// Members that answer.
        answering: usize,
        /// Members.
        members: usize,
    },
    /// A group would have no majority without the node.
    #[error(
        "without node {node} {} would lose its quorum: {answering} of {members} members would \
         answer and a majority is {}; add a node, or bring back those that do not answer, first",
        named(*group), members / 2 + 1
    )]
    LosesQuorum {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// Members that would answer.
        answering: usize,
        /// Members that there would be.
        members: usize,
    },
    /// A working node would be removed at the cost of replicas.
    #[error(
        "groups keep {replication} replicas and without node {node} only {left} nodes would stay; \
         add a node first"
    )]
    TooFew {
        /// The node.
        node: NodeId,
        /// Replicas that groups keep.
        replication: usize,
        /// Nodes that would stay.
        left: usize,
    },
}

fn named(group: GroupId) -> String {
    if group == GroupId::CATALOG { "the catalog group".into() } else { format!("group {group}") }
}

impl BalanceView {
    /// Whether `node` may leave; `voters` are those of the catalog group. A node that does not
    /// answer may leave even if fewer replicas than configured remain, because its replicas protect
    /// no data.
    ///
    /// # Errors
    /// The reason why it may not.
    pub fn may_leave(&self, node: NodeId, voters: &BTreeSet<NodeId>) -> Result<(), LeaveError> {
        let alive = |node: &NodeId| self.nodes.get(node).is_some_and(|view| view.alive);
        let stay: BTreeSet<NodeId> = self
            .nodes
            .iter()
            .filter(|(id, view)| **id != node && !view.leaving)
            .map(|(id, _)| *id)
            .collect();
        if stay.is_empty() {
            return Err(LeaveError::Last { node });
        }
        let voters: Vec<NodeId> = voters.iter().copied().collect();
        let sets = std::iter::once((GroupId::CATALOG, &voters))
            .chain(self.groups.iter().map(|(group, view)| (*group, &view.replicas)));
        for (group, set) in sets {
            let answering = set.iter().filter(|node| alive(node)).count();
            if answering * 2 <= set.len() {
                return Err(LeaveError::NoQuorum { group, answering, members: set.len() });
            }
            let mut left: Vec<NodeId> = set.iter().copied().filter(|id| *id != node).collect();
            if left.len() < set.len() {
                left.extend(stay.iter().copied().find(|id| alive(id) && !set.contains(id)));
            }
            let answering = left.iter().filter(|node| alive(node)).count();
            if answering * 2 <= left.len() {
                let members = left.len();
                return Err(LeaveError::LosesQuorum { node, group, answering, members });
            }
        }
        if alive(&node) && stay.len() < self.replication {
            let (replication, left) = (self.replication, stay.len());
            return Err(LeaveError::TooFew { node, replication, left });
        }
        Ok(())
    }

    /// Whether `node`, which does not answer, may be removed without being asked: as by
    /// [`BalanceView::may_leave`], and the others that answer can hold every replica.
    ///
    /// # Errors
    /// The reason why it may not.
    pub fn may_be_replaced(
        &self,
        node: NodeId,
        voters: &BTreeSet<NodeId>,
    ) -> Result<(), LeaveError> {
        self.may_leave(node, voters)?;
        let can_hold =
            |(id, view): &(&NodeId, &NodeView)| **id != node && view.alive && !view.leaving;
        let left = self.nodes.iter().filter(can_hold).count();
        if left < self.replication {
            return Err(LeaveError::TooFew { node, replication: self.replication, left });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::balance::GroupView;

    fn view(nodes: &[(u64, bool)], replicas: &[u64]) -> (BalanceView, BTreeSet<NodeId>) {
        let replicas: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        let voters = replicas.iter().copied().collect();
        let group = GroupView { leader: None, replicas };
        let node =
            |(id, alive): &(u64, bool)| (NodeId(*id), NodeView { leaving: false, alive: *alive });
        let nodes = nodes.iter().map(node).collect();
        (BalanceView { nodes, groups: [(GroupId(1), group)].into(), replication: 3 }, voters)
    }

    #[test]
    fn a_node_leaves_where_the_others_can_take_over() {
        let (five, voters) = view(&[(1, true), (2, true), (3, true), (4, true)], &[1, 2, 3]);
        assert_eq!(five.may_leave(NodeId(2), &voters), Ok(()));
        let (dead, voters) = view(&[(1, true), (2, true), (3, false)], &[1, 2, 3]);
        assert_eq!(dead.may_leave(NodeId(3), &voters), Ok(()), "the dead one may go");
        let (spare, voters) = view(&[(1, true), (2, true), (3, false), (4, true)], &[1, 2, 3]);
        assert_eq!(spare.may_leave(NodeId(2), &voters), Ok(()), "4 takes its place");
    }

    #[test]
    fn a_dead_node_is_replaced_only_where_the_others_can_hold_all_replicas() {
        let (three, voters) = view(&[(1, true), (2, true), (3, false)], &[1, 2, 3]);
        let few = LeaveError::TooFew { node: NodeId(3), replication: 3, left: 2 };
        assert_eq!(three.may_be_replaced(NodeId(3), &voters), Err(few));
        let (spare, voters) = view(&[(1, true), (2, true), (3, false), (4, true)], &[1, 2, 3]);
        assert_eq!(spare.may_be_replaced(NodeId(3), &voters), Ok(()));
        let (two, voters) = view(&[(1, true), (2, false), (3, false), (4, true)], &[1, 2, 3]);
        let refused = two.may_be_replaced(NodeId(3), &voters).expect_err("no quorum");
        assert!(matches!(refused, LeaveError::NoQuorum { .. }), "{refused}");
    }

    #[test]
    fn what_would_lose_the_quorum_is_refused_with_the_reason() {
        let (two, voters) = view(&[(1, true), (2, true), (3, false)], &[1, 2, 3]);
        let refused = two.may_leave(NodeId(2), &voters).expect_err("one of two live nodes");
        let (node, group) = (NodeId(2), GroupId::CATALOG);
        assert_eq!(refused, LeaveError::LosesQuorum { node, group, answering: 1, members: 2 });
        assert!(refused.to_string().contains("a majority is 2"), "{refused}");
        let (one, voters) = view(&[(1, true), (2, false), (3, false)], &[1, 2, 3]);
        let none = LeaveError::NoQuorum { group, answering: 1, members: 3 };
        assert_eq!(one.may_leave(NodeId(3), &voters), Err(none));
        let (last, voters) = view(&[(1, true)], &[1]);
        assert_eq!(last.may_leave(NodeId(1), &voters), Err(LeaveError::Last { node: NodeId(1) }));
        let (three, voters) = view(&[(1, true), (2, true), (3, true)], &[1, 2, 3]);
        let few = LeaveError::TooFew { node: NodeId(3), replication: 3, left: 2 };
        assert_eq!(three.may_leave(NodeId(3), &voters), Err(few));
    }
}
