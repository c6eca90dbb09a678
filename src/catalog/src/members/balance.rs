//! Decides which replica or leader to move next, as a pure function of a view of the cluster.
//!
//! The order is: nodes that leave hand over their replicas; groups with too few replicas get more;
//! replicas are spread until no two nodes differ by more than one; then leaders are spread. A node
//! that does not answer neither loses nor receives replicas, unless it leaves: then it is treated
//! as dead, and its replicas are rebuilt from the others. A move is chosen only if the answering
//! nodes have a majority before and after it.
//!
//! Leaders are spread along shortest chains of transfers from the nodes that lead most groups. If
//! the numbers of replicas of all nodes differ by at most one, so can the numbers of leaders: give
//! each replica an equal share of its group; an integral assignment within the rounded shares
//! exists, because flows with integral bounds have integral solutions (Ford and Fulkerson 1956),
//! and the difference between the current leaders and that assignment is a set of such chains.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keyviz_types::{GroupId, NodeId};

/// A node as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// It is leaving, or has left.
    pub leaving: bool,
    /// It answers.
    pub alive: bool,
}

/// A group as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupView {
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
}

/// A view of the cluster.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BalanceView {
    /// Members.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Data groups.
    pub groups: BTreeMap<GroupId, GroupView>,
    /// The number of replicas of a group, if as many nodes stay.
    pub replication: usize,
}

/// A move of a replica to another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaMove {
    /// The group.
    pub group: GroupId,
    /// The nodes.
    pub to: Vec<NodeId>,
}

/// A transfer of a leadership to another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderMove {
    /// The group.
    pub group: GroupId,
    /// The node that shall lead it.
    pub to: NodeId,
}

impl BalanceView {
    /// The next move of replicas; `None`: nothing needs to move, or no move is possible now.
    pub fn next_move(&self) -> Option<ReplicaMove> {
        self.next_departure().or_else(|| self.next_repair()).or_else(|| self.next_spread())
    }

    fn stays(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|view| !view.leaving)
    }

    fn alive(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|view| view.alive)
    }

    /// The nodes that stay and answer, with the number of their replicas.
    fn takers(&self) -> BTreeMap<NodeId, usize> {
        let count = |node: &NodeId| {
            self.groups.values().filter(|group| group.replicas.contains(node)).count()
        };
        let takers = self.nodes.keys().filter(|node| self.stays(node) && self.alive(node));
        takers.map(|node| (*node, count(node))).collect()
    }

    /// The receiver with the fewest replicas that is not in `replicas`.
    fn taker(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let takers = self.takers().into_iter().filter(|(node, _)| !replicas.contains(node));
        takers.min_by_key(|(node, held)| (*held, *node)).map(|(node, _)| node)
    }

    fn factor(&self) -> usize {
        self.replication.min(self.nodes.keys().filter(|node| self.stays(node)).count()).max(1)
    }

    /// Whether the answering nodes are a majority of both sets.
    fn can_decide(&self, from: &[NodeId], to: &[NodeId]) -> bool {
        let majority =
            |set: &[NodeId]| set.iter().filter(|node| self.alive(node)).count() * 2 > set.len();
        majority(from) && majority(to)
    }

    fn checked(&self, group: GroupId, to: Vec<NodeId>) -> Option<ReplicaMove> {
        let from = &self.groups.get(&group)?.replicas;
        self.can_decide(from, &to).then_some(ReplicaMove { group, to })
    }

    /// Moves a replica off a node that leaves; dead nodes first, because their replicas protect no
    /// data.
    fn next_departure(&self) -> Option<ReplicaMove> {
        let departing = |dead: bool| {
            self.groups.iter().find_map(|(group, view)| {
                let replicas = &view.replicas;
                let goes = |node: &&NodeId| !self.stays(node) && (!dead || !self.alive(node));
                let leaver = *replicas.iter().find(goes)?;
                let staying = replicas.iter().filter(|node| self.stays(node)).count();
                let heir = (staying < self.factor()).then(|| self.taker(replicas)).flatten();
                let keep = |node: &NodeId| {
                    if *node == leaver { heir } else { Some(*node) }
                };
                let to: Vec<NodeId> = replicas.iter().filter_map(keep).collect();
                // The last replica stays.
                if to.is_empty() { None } else { self.checked(*group, to) }
            })
        };
        departing(true).or_else(|| departing(false))
    }

    /// Adds a replica to a group that has too few, or removes one from a group that has too many.
    fn next_repair(&self) -> Option<ReplicaMove> {
        let factor = self.factor();
        self.groups.iter().find_map(|(group, GroupView { replicas, leader })| {
            let mut to = replicas.clone();
            if replicas.len() < factor {
                to.push(self.taker(replicas)?);
            } else if replicas.len() > self.replication.max(1) {
                let held = self.takers();
                let load = |at: &usize| held.get(&replicas[*at]).copied().unwrap_or(usize::MAX);
                let spare = (0..replicas.len()).filter(|at| Some(replicas[*at]) != *leader);
                to.remove(spare.max_by_key(|at| (load(at), *at))?);
            } else {
                return None;
            }
            self.checked(*group, to)
        })
    }

    /// Moves a replica from the node that holds most to the one that holds least.
    fn next_spread(&self) -> Option<ReplicaMove> {
        let held = self.takers();
        let most = held.values().max()?;
        let (to, least) = held.iter().min_by_key(|(node, held)| (**held, **node))?;
        if most.saturating_sub(*least) < 2 {
            return None;
        }
        let givers = held.iter().filter(|(_, held)| *held == most).map(|(node, _)| node);
        givers.into_iter().find_map(|giver| {
            let movable = |leads: bool| {
                self.groups.iter().find_map(|(group, view)| {
                    let GroupView { replicas, leader } = view;
                    let here = replicas.contains(giver) && !replicas.contains(to);
                    if !here || (*leader == Some(*giver)) != leads {
                        return None;
                    }
                    let swap = |node: &NodeId| if node == giver { *to } else { *node };
                    self.checked(*group, replicas.iter().map(swap).collect())
                })
            };
            // A replica moves without a change of leader.
            movable(false).or_else(|| movable(true))
        })
    }

    /// The next transfer of a leader; `None`: leaders are spread as far as replicas allow.
    pub fn next_lead(&self) -> Option<LeaderMove> {
        let mut leads: BTreeMap<NodeId, usize> =
            self.takers().into_keys().map(|node| (node, 0)).collect();
        for leader in self.groups.values().filter_map(|group| group.leader) {
            leads.entry(leader).and_modify(|leads| *leads += 1);
        }
        let most = *leads.values().max()?;
        let enough = most.checked_sub(2)?;
        // Breadth-first search from the nodes that lead most: the first node that leads few ends a
        // shortest chain.
        let mut seen: BTreeSet<NodeId> =
            leads.iter().filter(|(_, leads)| **leads == most).map(|(node, _)| *node).collect();
        let mut next: VecDeque<NodeId> = seen.iter().copied().collect();
        while let Some(node) = next.pop_front() {
            let led = self.groups.iter().filter(|(_, view)| view.leader == Some(node));
            for (group, view) in led {
                for to in &view.replicas {
                    let Some(count) = leads.get(to) else { continue };
                    if *count <= enough {
                        // The last transfer of the chain comes first, so that no node leads more in
                        // between.
                        return Some(LeaderMove { group: *group, to: *to });
                    }
                    if seen.insert(*to) {
                        next.push_back(*to);
                    }
                }
            }
        }
        None
    }

    /// The same cluster with every member answering.
    pub fn as_if_all_answer(&self) -> BalanceView {
        let mut view = self.clone();
        view.nodes.values_mut().for_each(|node| node.alive = true);
        view
    }

    /// The number of remaining moves of replicas if each succeeds, and how many of them wait for
    /// members that do not answer.
    pub fn moves_left(&self) -> (u64, u64) {
        let (all, now) = (self.as_if_all_answer().moves(), self.moves());
        // Members that do not answer can also leave others with more to do.
        (all.max(now), all.saturating_sub(now))
    }

    /// The moves that can be made now if each succeeds.
    fn moves(&self) -> u64 {
        let mut view = self.clone();
        let mut moves = 0;
        // Each move brings the cluster nearer to balance; the bound is for impossible views.
        while let Some(ReplicaMove { group, to }) = view.next_move() {
            moves += 1;
            if moves >= 100_000 {
                break;
            }
            if let Some(group) = view.groups.get_mut(&group) {
                group.leader = group.leader.filter(|leader| to.contains(leader));
                group.replicas = to;
            }
        }
        moves
    }
}

/// The voters of the catalog group: the current voters that stay, filled up to `most` with members
/// that are ready to vote.
pub fn catalog_voters(
    voters: &BTreeSet<NodeId>,
    stay: &BTreeSet<NodeId>,
    ready: &BTreeSet<NodeId>,
    most: usize,
) -> BTreeSet<NodeId> {
    let keep = voters.intersection(stay);
    let more = stay.intersection(ready).filter(|node| !voters.contains(node));
    keep.chain(more).take(most).copied().collect()
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
