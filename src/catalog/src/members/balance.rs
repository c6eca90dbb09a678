//! Which replica or leader to move next, decided from a picture of the cluster and nothing else.
//!
//! In this order: what leaves hands its replicas over; groups with too few replicas get more;
//! replicas are spread until no two nodes differ by more than one; then leaders are. A node that
//! does not answer neither gives nor takes, unless it leaves: then it is taken for dead, and what
//! it held is made again from the others. No move is chosen that the nodes that answer cannot
//! decide by majority, before and after.
//!
//! Leaders are spread along shortest chains of transfers from the nodes that lead most. Replicas
//! that differ by at most one a node allow leaders that do, whichever groups they are of: give each
//! replica an equal share of its group; whole leaders within the rounded shares exist, because
//! flows with whole bounds have whole solutions (Ford and Fulkerson 1956), and what stands between
//! the leaders that there are and those is a set of such chains.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keyviz_types::{GroupId, NodeId};

/// A node as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// It shall leave, or has left.
    pub leaving: bool,
    /// It answers.
    pub alive: bool,
}

/// A group as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupView {
    /// Who holds it.
    pub replicas: Vec<NodeId>,
    /// Who leads it, if that is known.
    pub leader: Option<NodeId>,
}

/// The cluster as it is now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BalanceView {
    /// Members.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Data groups.
    pub groups: BTreeMap<GroupId, GroupView>,
    /// Replicas that a group shall have, where there are as many nodes that stay.
    pub replication: usize,
}

/// A group is to be held by other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaMove {
    /// The group.
    pub group: GroupId,
    /// The nodes.
    pub to: Vec<NodeId>,
}

/// A group is to be led by another of its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderMove {
    /// The group.
    pub group: GroupId,
    /// Who shall lead it.
    pub to: NodeId,
}

impl BalanceView {
    /// The next move of replicas; `None`: nothing needs to move, or nothing can now.
    pub fn next_move(&self) -> Option<ReplicaMove> {
        self.next_departure().or_else(|| self.next_repair()).or_else(|| self.next_spread())
    }

    fn stays(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|view| !view.leaving)
    }

    fn alive(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|view| view.alive)
    }

    /// Those that stay and answer, with the replicas that they hold.
    fn takers(&self) -> BTreeMap<NodeId, usize> {
        let count = |node: &NodeId| {
            self.groups.values().filter(|group| group.replicas.contains(node)).count()
        };
        let takers = self.nodes.keys().filter(|node| self.stays(node) && self.alive(node));
        takers.map(|node| (*node, count(node))).collect()
    }

    /// The taker that holds least and none of `replicas`.
    fn taker(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let takers = self.takers().into_iter().filter(|(node, _)| !replicas.contains(node));
        takers.min_by_key(|(node, held)| (*held, *node)).map(|(node, _)| node)
    }

    fn factor(&self) -> usize {
        self.replication.min(self.nodes.keys().filter(|node| self.stays(node)).count()).max(1)
    }

    /// Whether both sets can decide by majority of those that answer.
    fn can_decide(&self, from: &[NodeId], to: &[NodeId]) -> bool {
        let majority =
            |set: &[NodeId]| set.iter().filter(|node| self.alive(node)).count() * 2 > set.len();
        majority(from) && majority(to)
    }

    fn checked(&self, group: GroupId, to: Vec<NodeId>) -> Option<ReplicaMove> {
        let from = &self.groups.get(&group)?.replicas;
        self.can_decide(from, &to).then_some(ReplicaMove { group, to })
    }

    /// Moves a replica off a node that leaves; dead ones first, since they protect nothing.
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
                // The last replica is not given up.
                if to.is_empty() { None } else { self.checked(*group, to) }
            })
        };
        departing(true).or_else(|| departing(false))
    }

    /// Gives a replica to a group that has too few, or takes one from a group that has too many.
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
            // A follower moves without a change of leader.
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
        // Breadth first from all that lead most: the first that leads little ends a shortest chain.
        let mut seen: BTreeSet<NodeId> =
            leads.iter().filter(|(_, leads)| **leads == most).map(|(node, _)| *node).collect();
        let mut next: VecDeque<NodeId> = seen.iter().copied().collect();
        while let Some(node) = next.pop_front() {
            let led = self.groups.iter().filter(|(_, view)| view.leader == Some(node));
            for (group, view) in led {
                for to in &view.replicas {
                    let Some(count) = leads.get(to) else { continue };
                    if *count <= enough {
                        // The last transfer of the chain first: nobody leads more meanwhile.
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

    /// How many moves of replicas are left, were each to succeed, and how many of them wait for
    /// members that do not answer.
    pub fn moves_left(&self) -> (u64, u64) {
        let (all, now) = (self.as_if_all_answer().moves(), self.moves());
        // Members that do not answer can also leave others with more to do.
        (all.max(now), all.saturating_sub(now))
    }

    /// Moves to do now, were each to succeed.
    fn moves(&self) -> u64 {
        let mut view = self.clone();
        let mut moves = 0;
        // Each move brings the cluster nearer to rest; the bound is for views that no cluster
        // makes.
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

/// Who shall vote in the catalog group: those that vote and stay, filled up to `most` with members
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
