//! The balancer against every cluster that chance makes.

use proptest::prelude::*;

use super::*;

fn node(alive: bool, leaving: bool) -> NodeView {
    NodeView { leaving, alive }
}

/// Groups of `replication` replicas on the first members, as bootstrap places them.
fn cluster(members: u64, groups: u64, replication: usize) -> BalanceView {
    let replication = replication.min(members as usize);
    let place = |group: u64| {
        let replicas: Vec<NodeId> =
            (0..replication as u64).map(|at| NodeId(1 + (group + at) % members)).collect();
        GroupView { leader: replicas.first().copied(), replicas }
    };
    BalanceView {
        nodes: (1..=members).map(|id| (NodeId(id), node(true, false))).collect(),
        groups: (0..groups).map(|group| (GroupId(group + 1), place(group))).collect(),
        replication,
    }
}

/// Carries moves out until none is left, checking each; how many there were.
fn run(view: &mut BalanceView) -> usize {
    let mut moves = 0;
    while let Some(next) = view.next_move() {
        assert_eq!(view.next_move(), Some(next.clone()), "deterministic");
        let ReplicaMove { group, to } = next;
        let from = view.groups[&group].replicas.clone();
        let distinct: BTreeSet<_> = to.iter().collect();
        assert_eq!(distinct.len(), to.len(), "one replica a node");
        assert!(to.len() <= view.replication.max(from.len()), "never over the factor");
        assert!(to.len() + 1 >= from.len(), "one replica at a time");
        let added = to.iter().filter(|node| !from.contains(node));
        assert!(added.clone().count() <= 1);
        added.for_each(|node| assert!(view.stays(node) && view.alive(node)));
        assert!(view.can_decide(&from, &to), "a majority answers before and after");
        let staying = |set: &[NodeId]| set.iter().filter(|node| view.stays(node)).count();
        assert!(
            staying(&to) >= staying(&from).min(view.factor()),
            "no replica that counts is lost"
        );
        let held = view.groups.get_mut(&group).expect("a group of the view");
        held.leader = held.leader.filter(|leader| to.contains(leader)).or(to.first().copied());
        held.replicas = to;
        moves += 1;
        assert!(moves <= 10 * view.groups.len() * (view.replication + 1) + 10, "it ends");
    }
    moves
}

fn run_leaders(view: &mut BalanceView) -> usize {
    let mut moves = 0;
    while let Some(LeaderMove { group, to }) = view.next_lead() {
        let held = view.groups.get_mut(&group).expect("a group of the view");
        assert!(held.replicas.contains(&to) && held.leader != Some(to));
        held.leader = Some(to);
        moves += 1;
        assert!(moves <= 10 * (view.groups.len() + 1) * (view.nodes.len() + 1), "it ends");
    }
    moves
}

fn spread(counts: impl Iterator<Item = usize> + Clone) -> usize {
    counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
}

fn assert_balanced(view: &BalanceView) {
    let held = view.takers();
    assert!(spread(held.values().copied()) <= 1, "replicas within one: {held:?}");
    for (group, held) in &view.groups {
        assert_eq!(held.replicas.len(), view.factor(), "group {group} has its factor");
        assert!(held.replicas.iter().all(|node| view.stays(node)), "nothing on a leaver");
    }
    let led =
        |node: &NodeId| view.groups.values().filter(|group| group.leader == Some(*node)).count();
    let led: Vec<usize> = held.keys().map(led).collect();
    assert!(spread(led.iter().copied()) <= 1, "leaders within one: {led:?}");
}

#[test]
fn a_bootstrapped_cluster_is_at_rest() {
    for (members, groups, replication) in [(1, 4, 3), (3, 4, 3), (4, 5, 3), (5, 64, 3), (7, 7, 5)] {
        let view = cluster(members, groups, replication);
        assert_eq!(view.next_move(), None, "{members} members, {groups} groups");
        assert_eq!(view.next_lead(), None);
    }
}

#[test]
fn two_more_nodes_take_their_share_and_give_it_back() {
    let mut view = cluster(3, 10, 3);
    for id in [4, 5] {
        view.nodes.insert(NodeId(id), node(true, false));
    }
    let (planned, waiting) = view.moves_left();
    assert_eq!((run(&mut view) as u64, waiting), (planned, 0));
    run_leaders(&mut view);
    assert_balanced(&view);
    for id in [2, 4] {
        view.nodes.insert(NodeId(id), node(true, true));
    }
    run(&mut view);
    run_leaders(&mut view);
    assert_balanced(&view);
    assert_eq!(view.takers().into_keys().collect::<Vec<_>>(), [NodeId(1), NodeId(3), NodeId(5)]);
}

#[test]
fn moves_that_wait_for_a_member_that_does_not_answer_are_left_and_said_to_wait() {
    let mut view = cluster(3, 8, 3);
    view.nodes.insert(NodeId(4), node(true, false));
    assert_eq!(view.moves_left(), (6, 0));
    // A node that has just started and has reached nobody yet.
    let mut alone = view.clone();
    for id in 1..=3 {
        alone.nodes.insert(NodeId(id), node(false, false));
    }
    assert_eq!(alone.next_move(), None);
    assert_eq!(alone.moves_left(), (6, 6));
    // What two of three can do is done; the rest is left.
    view.nodes.insert(NodeId(3), node(false, false));
    run(&mut view);
    let (left, waiting) = view.moves_left();
    assert!(left > 0 && left == waiting, "{left} left, {waiting} of them wait");
    view.nodes.insert(NodeId(3), node(true, false));
    assert_eq!(run(&mut view) as u64, left);
    assert_eq!(view.moves_left(), (0, 0));
}

#[test]
fn a_dead_node_that_leaves_is_replaced_and_one_that_stays_keeps_its_place() {
    let mut view = cluster(3, 4, 3);
    view.nodes.insert(NodeId(3), node(false, false));
    assert_eq!(view.next_move(), None, "it may come back");
    view.nodes.insert(NodeId(3), node(false, true));
    // Nobody to take over: what is left are two.
    let mut without = view.clone();
    assert_eq!(run(&mut without), 4);
    assert!(without.groups.values().all(|group| group.replicas.len() == 2));
    without.nodes.insert(NodeId(4), node(true, false));
    assert_eq!(run(&mut without), 4, "a new one fills the groups up");
    view.nodes.insert(NodeId(4), node(true, false));
    assert_eq!(run(&mut view), 4);
    let whole = [NodeId(1), NodeId(2), NodeId(4)].into();
    for group in view.groups.values() {
        assert_eq!(group.replicas.iter().copied().collect::<BTreeSet<_>>(), whole);
    }
}

#[test]
fn nothing_moves_that_could_not_be_decided() {
    let mut view = cluster(3, 4, 3);
    view.nodes.insert(NodeId(2), node(false, true));
    view.nodes.insert(NodeId(3), node(false, false));
    view.nodes.insert(NodeId(4), node(true, false));
    assert_eq!(view.next_move(), None, "one of three answers");
}

#[test]
fn voters_of_the_catalog_stay_and_are_filled_up_to_five() {
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    let voters = |voters: &[u64], stay: &[u64], ready: &[u64]| {
        catalog_voters(&set(voters), &set(stay), &set(ready), 5)
    };
    assert_eq!(voters(&[1, 2, 3], &[1, 2, 3, 4], &[4]), set(&[1, 2, 3, 4]));
    assert_eq!(voters(&[1, 2, 3], &[1, 2, 3, 4], &[]), set(&[1, 2, 3]));
    assert_eq!(voters(&[1, 2, 3, 4, 5], &[1, 2, 4, 5, 6, 7], &[6, 7]), set(&[1, 2, 4, 5, 6]));
    assert_eq!(voters(&[3, 4, 5, 6, 7], &[1, 3, 4, 5, 6, 7], &[1]), set(&[3, 4, 5, 6, 7]));
}

/// Replicas and leaders anywhere, nodes in any state.
fn any_view() -> impl Strategy<Value = BalanceView> {
    let nodes = prop::collection::vec((any::<bool>(), prop::bool::weighted(0.3)), 1..8);
    let groups = prop::collection::vec(any::<[u8; 4]>(), 1..24);
    (nodes, groups, 1..5_usize).prop_map(|(nodes, groups, replication)| {
        let count = nodes.len() as u64;
        let place = |seed: [u8; 4]| {
            let picked = seed.iter().take(replication);
            let replicas: BTreeSet<NodeId> =
                picked.map(|at| NodeId(1 + u64::from(*at) % count)).collect();
            let replicas: Vec<NodeId> = replicas.into_iter().collect();
            let leader = replicas.get(usize::from(seed[3]) % (replicas.len() + 1)).copied();
            GroupView { replicas, leader }
        };
        let nodes = (1..).map(NodeId).zip(nodes.into_iter().map(|(up, go)| node(up || !go, go)));
        let groups = (1..).map(GroupId).zip(groups.into_iter().map(place));
        BalanceView { nodes: nodes.collect(), groups: groups.collect(), replication }
    })
}

proptest! {
    #[test]
    fn it_ends_balanced_within_one_whatever_it_starts_from(mut view in any_view()) {
        prop_assume!(view.nodes.values().any(|node| !node.leaving));
        view.nodes.values_mut().for_each(|node| node.alive = true);
        run(&mut view);
        for group in view.groups.values_mut() {
            group.leader = group.leader.or(group.replicas.first().copied());
        }
        run_leaders(&mut view);
        assert_balanced(&view);
    }

    #[test]
    fn it_ends_and_keeps_every_promise_while_nodes_are_down(
        mut view in any_view(),
        down: [bool; 8],
    ) {
        for ((_, node), down) in view.nodes.iter_mut().zip(down) {
            node.alive = !down;
        }
        run(&mut view);
        run_leaders(&mut view);
    }
}
