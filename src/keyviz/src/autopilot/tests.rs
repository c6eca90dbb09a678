//! The control loop on generated loads, and what it must leave alone.

use super::simulated::{ALL_KEYS, COLUMN_MS, World, splittable, spot};
use super::*;
use keyviz_types::{GroupId, NodeId, RouteId};

/// Ticks of a time.
fn ticks(seconds: u64) -> u64 {
    seconds * 1_000 / COLUMN_MS
}

/// `KEYVIZ_LOADS` loads, or as many as are promised; in debug, fewer. Not `KEYVIZ_CASES`, which
/// asks for thousands: a load is two minutes of a cluster.
fn cases(most: u64) -> u64 {
    let most = if cfg!(debug_assertions) { most.div_ceil(8) } else { most };
    let asked = std::env::var("KEYVIZ_LOADS").ok().and_then(|loads| loads.parse().ok());
    asked.unwrap_or(most)
}

#[test]
fn acts_bounded_and_proven_500_loads_that_can_be_divided_become_even_within_a_minute() {
    let (mut late, mut uneven, mut acts) = (Vec::new(), 0, 0);
    let (mut most, mut slowest) = (0, 0);
    let all = cases(500);
    for seed in 0..all {
        let mut world = World::new(seed);
        let kind = splittable(&mut world);
        let before = world.imbalance();
        uneven += u64::from(before > 1.3);
        let mut even_at = None;
        for tick in 1..=ticks(120) {
            world.tick();
            assert!(world.moves_under_way() <= world.policy.moves as usize, "seed {seed}");
            let now = world.imbalance();
            if now > 1.3 {
                even_at = None;
            } else if even_at.is_none() {
                even_at = Some(tick * COLUMN_MS);
            }
        }
        acts += world.journal.len();
        most = most.max(world.journal.len());
        slowest = slowest.max(even_at.unwrap_or(u64::MAX));
        if even_at.is_none_or(|at_ms| at_ms > 60_000) {
            let (now, last) = (world.imbalance(), &world.last.reasons);
            late.push(format!("{seed} {kind}: {before:.2} {now:.2} {even_at:?} {last:?}"));
        }
        assert!(world.busiest_minute() <= world.policy.acts_per_minute as usize, "seed {seed}");
        assert_eq!(world.moved_twice(), Vec::<String>::new(), "seed {seed}");
        assert!(world.journal.len() <= 24, "seed {seed}: {} acts", world.journal.len());
    }
    println!(
        "{all} loads, {uneven} of them uneven; {acts} acts, {most} at most; after {slowest} ms"
    );
    println!("late: {late:#?}");
    assert!(late.is_empty(), "{} of {all}", late.len());
}

#[test]
fn acts_bounded_and_proven_a_hot_spot_that_jumps_for_an_hour_causes_no_flapping() {
    for seed in 0..cases(8) {
        let mut world = World::new(1_000 + seed);
        let first = world.topology.routes.len();
        let mut places = Vec::new();
        let mut most = first;
        for jump in 0..12 {
            let width = world.random.whole(60, 250);
            let from = world.random.whole(0, ALL_KEYS - width);
            spot(&mut world, from, width, 20_000.0);
            places.push(world.journal.len());
            for _ in 0..ticks(300) {
                world.tick();
                most = most.max(world.topology.routes.len());
            }
            let imbalance = world.imbalance();
            assert!(imbalance <= 1.3, "seed {seed}, jump {jump}: {imbalance}");
        }
        // Every jump is answered once: at most three splits, moves and merges for each node, and
        // those that bring together and merge what an earlier jump has left cold.
        let acts = world.journal.len();
        assert!(acts <= 12 * 6 * world.topology.nodes.len(), "seed {seed}: {acts} acts");
        assert_eq!(world.moved_twice(), Vec::<String>::new(), "seed {seed}");
        // The load ceases, and what was split for the jumps is cold. (What a spot that stays keeps
        // apart is not.)
        world.rates.fill(0.0);
        for _ in 0..ticks(2 * 3_600) {
            world.tick();
        }
        let left = world.topology.routes.len();
        println!("seed {seed}: {first} routes, at most {most}, then {left}; {acts} acts");
        assert!(left <= 2 * first.max(3), "seed {seed}: {left} routes left of {most}");
        assert_eq!(world.moved_twice(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn acts_bounded_and_proven_one_hot_key_is_left_alone() {
    for seed in 0..cases(40) {
        let mut world = World::new(2_000 + seed);
        world.rates.fill(0.5);
        let hot = world.random.whole(1, ALL_KEYS);
        world.rates[hot] = 30_000.0;
        for _ in 0..ticks(60) {
            world.tick();
        }
        assert!(world.journal.is_empty(), "seed {seed}: {:?}", world.journal);
        let says = |reason: &Reason| {
            matches!(reason, Reason::OneKey { .. } | Reason::Coarse { .. })
                && reason.to_string().contains("one key")
        };
        assert!(world.last.reasons.iter().any(says), "{:?}", world.last.reasons);
    }
}

#[test]
fn acts_bounded_and_proven_an_even_load_and_an_idle_cluster_cause_nothing() {
    for seed in 0..cases(40) {
        let mut world = World::new(3_000 + seed);
        // As much on each node, by any routes.
        for (at, route) in world.topology.routes.clone().iter().enumerate() {
            let nodes = world.topology.nodes.len();
            assert_eq!(route.id, RouteId::new(at as u64 + 1).expect("not 0"));
            world.topology.groups[at].leader = Some(world.topology.groups[at].replicas[0]);
            let led = world.topology.groups.iter();
            let leader = world.topology.groups[at].leader;
            let count = led.filter(|place| place.leader == leader).count();
            let from = if at == 0 { 0 } else { start(&route.range.start) };
            let to = route.range.end.as_ref().map_or(ALL_KEYS, start);
            let each = 30_000.0 / nodes as f64 / count as f64 / (to - from) as f64;
            world.rates[from..to].fill(each);
        }
        for _ in 0..ticks(120) {
            world.tick();
        }
        assert!(world.journal.is_empty(), "seed {seed}: {:?}", world.journal);
        world.rates.fill(0.0);
        world.rates[7] = 20.0;
        for _ in 0..ticks(60) {
            world.tick();
        }
        assert!(world.journal.is_empty(), "seed {seed}: {:?}", world.journal);
        assert!(matches!(world.last.reasons[..], [Reason::Quiet { .. }]));
    }
}

fn start(key: &bytes::Bytes) -> usize {
    std::str::from_utf8(&key[4..]).expect("text").parse().expect("a number")
}

#[test]
fn acts_bounded_and_proven_nothing_is_done_while_something_is_wrong() {
    type Break = fn(&mut Health);
    let trouble: [(&str, Break); 7] = [
        ("node 2 does not answer", |health| health.missing.push(NodeId(2))),
        ("group 3 is without a leader", |health| health.leaderless.push(GroupId(3))),
        ("groups 1, 2 are with a replica", |health| {
            health.lagging.extend([GroupId(1), GroupId(2)]);
        }),
        ("node 1 has little space", |health| health.scarce.push(NodeId(1))),
        ("replicas", |health| health.replicas_move = true),
        ("may miss counts", |health| health.partial = true),
        ("move has ended", |health| health.other_moves = 9),
    ];
    for (said, spoil) in trouble {
        let mut world = World::new(7);
        world.failures = 0.0;
        // All in one route: only splits with moves help.
        let first = world.topology.routes[0].clone();
        world.topology.routes = vec![RouteSpec { range: KeyRange::all(), ..first }];
        spot(&mut world, 300, 400, 20_000.0);
        spoil(&mut world.health);
        for _ in 0..ticks(30) {
            world.tick();
        }
        let reasons: Vec<String> = world.last.reasons.iter().map(Reason::to_string).collect();
        let moved = world.journal.iter().any(|past| input::moves(&past.act));
        assert!(!moved, "{said}: {:?}", world.journal);
        assert!(reasons.iter().any(|reason| reason.contains(said)), "{said}: {reasons:?}");
        world.health = Health::default();
        for _ in 0..ticks(60) {
            world.tick();
        }
        assert!(world.imbalance() <= 1.3, "{said}: {}", world.imbalance());
    }
}

#[test]
fn acts_bounded_and_proven_an_operator_is_not_fought() {
    for seed in 0..cases(40) {
        let mut world = World::new(4_000 + seed);
        splittable(&mut world);
        for tick in 0..ticks(600) {
            // Somebody splits and moves at random meanwhile.
            if tick % 20 == 0 {
                let at = world.random.whole(0, world.topology.routes.len());
                let route = world.topology.routes[at].clone();
                let busy = world.journal.iter().any(|past| past.ended_ms.is_none());
                let group = GroupId(world.random.whole(1, world.topology.groups.len() + 1) as u64);
                if !busy && group != route.group {
                    world.begin(By::Operator, Act::Move { range: route.range, to: group });
                }
            }
            world.tick();
        }
        // What an operator has moved stays there for the cool-down.
        let own = |id: u64| world.journal[id as usize - 1].by == By::Operator;
        let operated: Vec<_> = world
            .journal
            .iter()
            .filter(|past| own(past.id) && past.state == State::Done)
            .filter_map(|past| match &past.act {
                Act::Move { range, .. } => Some((past.ended_ms?, range.clone())),
                _ => None,
            })
            .collect();
        for past in world.journal.iter().filter(|past| past.by == By::Autopilot) {
            let (Act::Move { range, .. } | Act::SplitAndMove { range, .. }) = &past.act else {
                continue;
            };
            let soon = operated.iter().find(|(at_ms, of)| {
                let cool_ms = world.policy.cool_down_ms();
                (*at_ms..at_ms + cool_ms).contains(&past.started_ms)
                    && crate::insight::overlap(of, range)
            });
            assert!(soon.is_none(), "seed {seed}: {past:?} after {soon:?}");
        }
    }
}

#[test]
fn acts_bounded_and_proven_what_is_worse_is_taken_back_after_the_cool_down() {
    let mut world = World::new(11);
    world.failures = 0.0;
    world.policy.acts_per_minute = 1_000;
    let act = Act::Move { range: world.topology.routes[0].range.clone(), to: GroupId(2) };
    let past = Past {
        id: 1,
        by: By::Autopilot,
        act,
        from_group: Some(GroupId(1)),
        from_node: Some(NodeId(1)),
        state: State::Done,
        started_ms: world.now_ms,
        ended_ms: Some(world.now_ms),
        worse: true,
        undone: false,
    };
    let back = past.reverse();
    assert_eq!(
        back,
        Some(Act::Move { range: world.topology.routes[0].range.clone(), to: GroupId(1) })
    );
    world.topology.routes[0].group = GroupId(2);
    world.journal.push(past);
    // Node 2 leads all that there is load on.
    let to = world.topology.routes[1].range.end.as_ref().map_or(ALL_KEYS, start);
    world.rates[..to].fill(40.0);
    world.policy.act_above = 99.0;
    world.policy.until = 98.0;
    for _ in 0..ticks(world.policy.cool_down.as_secs() - 4) {
        world.tick();
        assert_eq!(world.journal.len(), 1);
    }
    for _ in 0..ticks(12) {
        world.tick();
    }
    assert_eq!(world.journal.get(1).map(|past| Some(past.act.clone())), Some(back));
}

#[test]
fn bad_input_of_nothing_nothing_follows() {
    let (load, topology, health) = (Load::default(), Topology::default(), Health::default());
    let (cold, policy) = (Cold::default(), Policy::default());
    let input = Input {
        load: &load,
        topology: &topology,
        health: &health,
        journal: &[],
        cold: &cold,
        policy: &policy,
        now_ms: 0,
    };
    let decision = decide(&input);
    assert_eq!(decision.acts, []);
    assert_eq!(decision.reasons, [Reason::FewColumns { columns: 0 }]);
    assert_eq!(decision.imbalance, 0.0);
}

use keyviz_types::{KeyRange, RouteSpec};
