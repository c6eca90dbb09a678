use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::sampler::counts::{Counts, Segment};
use crate::sampler::layout::{Bucket, Layout, Slot};
use crate::sampler::table::Table;
use keyviz_types::{GroupId, KeyRange, RouteId};

fn routes(starts: &BTreeSet<u8>, first_id: u64, groups: u64) -> Arc<[RouteSpec]> {
    let key = |start: &u8| Bytes::copy_from_slice(&[*start]);
    let all: Vec<_> = std::iter::once(Bytes::new()).chain(starts.iter().map(key)).collect();
    (0..all.len())
        .map(|n| RouteSpec {
            id: RouteId::new(first_id + n as u64).expect("from 1"),
            range: KeyRange { start: all[n].clone(), end: all.get(n + 1).cloned() },
            group: GroupId(n as u64 % groups + 1),
        })
        .collect()
}

/// Checks all guarantees of a layout, and what an aggregate says of its members.
fn assert_right(table: &Table, config: &SamplerConfig) {
    let slots = &table.slots;
    let groups = table.routes.iter().map(|route| route.group).collect::<BTreeSet<_>>().len();
    assert!(slots.len() <= config.resolution_slots.max(groups), "{} slots", slots.len());
    assert!(slots[0].range.start.is_empty() && slots[slots.len() - 1].range.end.is_none());
    for pair in slots.windows(2) {
        let same = pair[0].range == pair[1].range && pair[0].group < pair[1].group;
        assert!(same || pair[0].range.end.as_ref() == Some(&pair[1].range.start));
    }
    let inside = |route: &&RouteSpec, slot: &Slot| slot.range.contains(&route.range.start);
    for slot in slots {
        match &slot.bucket {
            Bucket::Route(id) => {
                let route = table.routes.iter().find(|route| route.id == *id).expect("known");
                assert!(route.range == slot.range && route.group == slot.group);
            }
            Bucket::SubRange { route: id, index } => {
                let route = table.routes.iter().find(|route| route.id == *id).expect("known");
                assert!(route.range.contains(&slot.range.start) && route.group == slot.group);
                assert_eq!(*index == 0, route.range.start == slot.range.start);
            }
            Bucket::Aggregate(members) => {
                let ids = table.routes.iter().filter(|r| inside(r, slot)).map(|route| route.id);
                let ids: Vec<_> = ids.collect();
                assert_eq!(members.count, ids.len() as u64);
                let named = ids.len().min(config.max_member_routes_per_slot);
                assert_eq!(members.first, ids[..named]);
            }
        }
    }
    for key in (0..=255u8).flat_map(|byte| [vec![byte], vec![byte, 2]]).chain([vec![]]) {
        let place = table.place(&key).expect("there are routes");
        let (route, slot) = (&table.routes[place.route as usize], &slots[place.slot as usize]);
        assert!(route.range.contains(&key) && slot.range.contains(&key));
        assert_eq!(route.group, slot.group);
    }
    let rows: BTreeSet<_> = slots.iter().map(|slot| &slot.range.start).collect();
    let pieces = slots.iter().filter(|s| matches!(s.bucket, Bucket::SubRange { index: 1.., .. }));
    assert!(rows.len() - pieces.count() <= config.max_tracked_routes);
}

#[test]
fn a_route_that_is_split_leaves_its_cuts_to_its_children() {
    let config = SamplerConfig::default();
    let load = DecayedLoad::default();
    let mut plan = carried(&Plan::empty(), routes(&[100].into(), 1, 1), &load, &config);
    let cut = |byte: u8| Bytes::copy_from_slice(&[byte]);
    plan.spans[0].cuts = vec![cut(20), cut(40), cut(60)];
    let plan = carried(&plan, routes(&[40, 100].into(), 3, 1), &load, &config);
    let cuts: Vec<_> = plan.spans.iter().map(|span| span.cuts.clone()).collect();
    assert_eq!(cuts, [vec![cut(20)], vec![cut(60)], vec![]]);
    let merged = carried(&plan, routes(&[100].into(), 6, 1), &load, &config);
    assert_eq!(merged.spans[0].cuts, [cut(20), cut(60)]);
}

#[test]
fn samples_prove_which_member_of_an_aggregate_is_hot() {
    let config = SamplerConfig { max_tracked_routes: 8, ..SamplerConfig::default() };
    let starts: BTreeSet<u8> = (1..200).collect();
    let plan = carried(&Plan::empty(), routes(&starts, 1, 2), &DecayedLoad::default(), &config);
    assert!(plan.spans.iter().all(|span| span.routes.len() > 1));
    let table = Table::new(1, &plan, 4);
    let layout = Layout { catalog_version: 1, slots: table.slots };
    let layout = Arc::new(layout);
    let mut load = DecayedLoad::default();
    load.align(&layout);
    let counts = Counts { writes: 10_000, ..Default::default() };
    let hot = layout.slots.iter().position(|slot| slot.range.contains(&[77, 5])).expect("covers");
    load.add(&Segment { layout: Arc::clone(&layout), cells: vec![(hot as u32, counts)] });
    let key = Bytes::from_static(&[77, 5]);
    let samples = vec![Sample { key, weight: 100 }; 100];
    let next = relearned(&plan, &load, &samples, &config);
    let span = next.spans.iter().find(|span| span.routes.contains(&77)).expect("covers");
    assert_eq!(span.routes, 77..78);
    assert_right(
        &Table::new(1, &next, 4),
        &SamplerConfig { max_member_routes_per_slot: 4, ..config },
    );
}

#[derive(Clone, Debug)]
enum Step {
    Routes(BTreeSet<u8>),
    Load { keys: Vec<(u8, u8)>, ops: u64 },
    Replan,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::btree_set(1..=255u8, 0..80).prop_map(Step::Routes),
        (proptest::collection::vec((any::<u8>(), 0..4u8), 1..60), 1..5_000u64)
            .prop_map(|(keys, ops)| Step::Load { keys, ops }),
        Just(Step::Replan),
    ]
}

proptest! {
    /// After adding, removing and re-adding routes, with load and re-plans in between, layouts stay
    /// exact about their members and within budget.
    #[test]
    fn bounds_and_members_are_exact_under_any_churn(
        steps in proptest::collection::vec(step(), 1..25),
        max_tracked_routes in 1..40usize,
        resolution_slots in 4..60usize,
        groups in 1..4u64,
        max_member_routes_per_slot in 1..5usize,
    ) {
        let config = SamplerConfig {
            max_tracked_routes,
            resolution_slots,
            max_member_routes_per_slot,
            ..SamplerConfig::default()
        };
        let mut plan = carried(
            &Plan::empty(), routes(&BTreeSet::new(), 1, groups), &DecayedLoad::default(), &config,
        );
        let mut load = DecayedLoad::default();
        let mut samples = Vec::new();
        let mut next_id = 1_000;
        for step in steps {
            match step {
                Step::Routes(starts) => {
                    next_id += 256;
                    plan = carried(&plan, routes(&starts, next_id, groups), &load, &config);
                }
                Step::Load { keys, ops } => {
                    let starts: Vec<Bytes> =
                        (0..=255u8).map(|start| match start {
                            0 => Bytes::new(),
                            start => Bytes::copy_from_slice(&[start]),
                        }).collect();
                    let layout = Arc::new(Layout {
                        catalog_version: 1,
                        slots: (0..starts.len()).map(|n| Slot {
                            range: KeyRange {
                                start: starts[n].clone(),
                                end: starts.get(n + 1).cloned(),
                            },
                            bucket: Bucket::Route(RouteId::FIRST),
                            group: GroupId(1),
                            lead: None,
                        }).collect(),
                    });
                    let cells: std::collections::BTreeMap<u32, _> = keys.iter().map(|(key, _)| {
                        (u32::from(*key), Counts { reads: ops, ..Default::default() })
                    }).collect();
                    load.add(&Segment { layout, cells: cells.into_iter().collect() });
                    samples.extend(keys.iter().map(|&(key, tail)| Sample {
                        key: Bytes::copy_from_slice(&[key, tail]),
                        weight: ops,
                    }));
                }
                Step::Replan => {
                    samples.sort();
                    plan = relearned(&plan, &load, &samples, &config);
                    samples.clear();
                    load.halve();
                }
            }
            let table = Table::new(1, &plan, max_member_routes_per_slot);
            assert_right(&table, &config);
            load.align(&Arc::new(Layout { catalog_version: 1, slots: table.slots }));
        }
    }
}
