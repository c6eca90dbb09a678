//! A put that races a split and a merge by another node, at exactly the key of the split: every
//! interleaving of the coordinator's steps with those of the catalog, of leadership and of the
//! harvest, over the real sampler, catalog and proposal.
//!
//! A step is what nobody else can come between: an epoch is immutable, so all that a proposal
//! reads of it is one step with the load of it; publishing an epoch is one swap; a catalog
//! changes by one entry at a time. What happens inside the swap and the counters is loom's part.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use keyviz_catalog::{Catalog, CatalogCommand, ClusterId, plan_bootstrap};
use keyviz_core::sampler::{Bucket, Counts, Harvest};
use keyviz_core::{RouteId, SamplerConfig};

const GROUP: GroupId = GroupId(1);
const TERM: Term = Term(3);
const SPLIT_KEY: &[u8] = b"m";
const VALUE: &[u8] = b"value";

/// Who makes the next step. Each actor's own steps stay in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Actor {
    /// Looks the group up on another node, takes the proposal's table, proposes, counts.
    Put,
    /// Applies a split, publishes it at the leader, applies a merge, publishes that.
    Catalog,
    /// Publishes at the other node what is applied by then.
    OtherNode,
    /// Publishes at the leader that it leads, and then that it does not any more.
    Leads,
    /// Harvests the leader's counts in between.
    Harvest,
}

type Steps = [(Actor, usize); 4];

/// Every order of all steps.
fn schedules(steps: Steps) -> Vec<Vec<Actor>> {
    fn extend(so_far: &mut Vec<Actor>, left: &mut Steps, all: &mut Vec<Vec<Actor>>) {
        if left.iter().all(|(_, steps)| *steps == 0) {
            all.push(so_far.clone());
        }
        for at in 0..left.len() {
            if left[at].1 > 0 {
                left[at].1 -= 1;
                so_far.push(left[at].0);
                extend(so_far, left, all);
                so_far.pop();
                left[at].1 += 1;
            }
        }
    }
    let (mut all, mut left) = (Vec::new(), steps);
    extend(&mut Vec::new(), &mut left, &mut all);
    all
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let bootstrap = CatalogCommand::Bootstrap {
        cluster_id: ClusterId([7; 16]),
        groups: plan_bootstrap(&[NodeId(1)], 1, 1, &[]).expect("sound").groups,
        split_keys: Vec::new(),
        time_ms: 1,
    };
    catalog.apply(bootstrap).expect("a sound bootstrap");
    catalog
}

fn sampler(catalog: &Catalog) -> Sampler {
    let sampler =
        Sampler::new(SamplerConfig { shards: 1, hot_keys: false, ..SamplerConfig::default() });
    let sampler = sampler.expect("within the bounds");
    publish(&sampler, catalog);
    sampler
}

fn publish(sampler: &Sampler, catalog: &Catalog) {
    let routes = Arc::clone(catalog.table().specs());
    sampler.publish_routes(catalog.version(), routes).expect("the catalog's routes form a table");
}

fn split(catalog: &mut Catalog) {
    let split = CatalogCommand::Split {
        route_id: RouteId::FIRST,
        key: SPLIT_KEY.to_vec(),
        expected_version: 0,
        request_id: String::new(),
        time_ms: 2,
    };
    catalog.apply(split).expect("the key is inside");
}

fn merge(catalog: &mut Catalog) {
    let ids: Vec<RouteId> = catalog.table().specs().iter().map(|spec| spec.id).collect();
    let merge = CatalogCommand::Merge {
        left_id: ids[0],
        right_id: ids[1],
        expected_version: 0,
        request_id: String::new(),
        time_ms: 3,
    };
    catalog.apply(merge).expect("they are neighbours");
}

/// What was counted, with the route that each count is under.
fn counted(harvests: &[Harvest]) -> Vec<(RouteId, Option<Term>, Counts)> {
    let segments = harvests.iter().flat_map(|harvest| &harvest.segments);
    let cell = |segment: &keyviz_core::sampler::Segment, (slot, counts): &(u32, Counts)| {
        let slot = &segment.layout.slots[*slot as usize];
        let route = match &slot.bucket {
            Bucket::Route(route) | Bucket::SubRange { route, .. } => *route,
            Bucket::Aggregate(members) => panic!("{members:?} are tracked one by one"),
        };
        (route, slot.lead, *counts)
    };
    segments
        .flat_map(|segment| segment.cells.iter().map(move |counts| cell(segment, counts)))
        .collect()
}

/// Runs one schedule; the route that the put was counted under.
fn run(schedule: &[Actor], key: &[u8]) -> RouteId {
    let mut catalog = catalog();
    let (leader, other) = (sampler(&catalog), sampler(&catalog));
    let mut terms = [Some(TERM), None].into_iter();
    if !schedule.contains(&Actor::Leads) {
        leader.set_leader_terms(&[(GROUP, terms.next().flatten())]);
    }
    let command = KvCommand::Put { key, value: VALUE }.encode();
    let (mut put_step, mut catalog_step) = (0, 0);
    let (mut proposal, mut route, mut applied) = (None, None, 0);
    let mut harvests = Vec::new();
    for actor in schedule {
        match actor {
            Actor::Put => {
                match put_step {
                    0 => {
                        let epoch = other.epoch();
                        let located = epoch.locate(key).expect("a table is published");
                        assert_eq!(epoch.route(located).group, GROUP, "no change moves keys");
                    }
                    1 => {
                        let epoch = leader.epoch_full();
                        let located = epoch.locate(key).expect("a table is published");
                        route = Some(epoch.route(located).id);
                        let taken = Proposal::of(&leader, GROUP, &command);
                        proposal = taken.expect("a sound command");
                    }
                    2 => applied += 1,
                    _ => proposal.take().expect("it was taken before").accepted(TERM),
                }
                put_step += 1;
            }
            Actor::Catalog => {
                match catalog_step {
                    0 => split(&mut catalog),
                    2 => merge(&mut catalog),
                    _ => publish(&leader, &catalog),
                }
                catalog_step += 1;
            }
            Actor::OtherNode => publish(&other, &catalog),
            Actor::Leads => leader.set_leader_terms(&[(GROUP, terms.next().expect("two steps"))]),
            Actor::Harvest => harvests.push(leader.harvest()),
        }
    }
    harvests.push(leader.harvest());
    let route = route.expect("the put was proposed");
    let counts = Counts::of(Op::Write, 1, (key.len() + VALUE.len()) as u64);
    assert_eq!(applied, 1);
    assert_eq!(counted(&harvests), [(route, Some(TERM), counts)], "{schedule:?}");
    assert!(harvests.iter().all(|harvest| harvest.unattributed.is_zero()), "{schedule:?}");
    route
}

#[test]
fn once_a_put_at_the_key_of_a_split_is_counted_under_the_route_it_was_proposed_in() {
    let schedules = schedules([
        (Actor::Put, 4),
        (Actor::Catalog, 4),
        (Actor::OtherNode, 1),
        (Actor::Harvest, 1),
    ]);
    assert_eq!(schedules.len(), 6_300, "10! / (4! 4!)");
    for (key, child) in [(&b"lzz"[..], 2), (SPLIT_KEY, 3), (b"m\0", 3)] {
        let key = Bytes::copy_from_slice(key);
        let routes: BTreeSet<u64> =
            schedules.iter().map(|schedule| run(schedule, &key).get()).collect();
        // Before the split, in the child that has the key, and after the merge.
        assert_eq!(routes, BTreeSet::from([1, child, 4]));
    }
}

/// The group accepts the put in a term that this node may not have published yet, or no longer.
#[test]
fn once_a_put_at_the_key_of_a_split_is_counted_in_the_term_that_took_it() {
    let schedules =
        schedules([(Actor::Put, 4), (Actor::Catalog, 2), (Actor::Leads, 2), (Actor::Harvest, 1)]);
    assert_eq!(schedules.len(), 3_780, "9! / (4! 2! 2!)");
    let key = Bytes::copy_from_slice(SPLIT_KEY);
    let routes: BTreeSet<u64> =
        schedules.iter().map(|schedule| run(schedule, &key).get()).collect();
    assert_eq!(routes, BTreeSet::from([1, 3]));
}
