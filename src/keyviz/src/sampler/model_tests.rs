//! Random histories of one sampler, checked against a plain list of events.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Record { write: bool, key: u8, ops: u64, bytes: u64 },
    Keep,
    RecordKept { key: u8, bytes: u64 },
    Late { key: u8, term: u64 },
    Publish { cuts: Vec<u8> },
    Lead { group: u64, term: u64 },
    Harvest,
    Replan,
    Peek,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), any::<u8>(), prop_oneof![0..3u64, 0..9_000u64], 0..100u64)
            .prop_map(|(write, key, ops, bytes)| Step::Record { write, key, ops, bytes }),
        1 => Just(Step::Keep),
        3 => (any::<u8>(), 0..100u64).prop_map(|(key, bytes)| Step::RecordKept { key, bytes }),
        1 => (any::<u8>(), 0..4u64).prop_map(|(key, term)| Step::Late { key, term }),
        1 => proptest::collection::btree_set(1..=255u8, 0..12)
            .prop_map(|cuts| Step::Publish { cuts: cuts.into_iter().collect() }),
        1 => (1..4u64, 0..4u64).prop_map(|(group, term)| Step::Lead { group, term }),
        1 => Just(Step::Harvest),
        1 => Just(Step::Replan),
        1 => Just(Step::Peek),
    ]
}

fn byte_table(cuts: &[u8], first_id: u64) -> Vec<RouteSpec> {
    let key = |byte: &u8| Bytes::copy_from_slice(&[*byte]);
    let starts: Vec<_> = std::iter::once(Bytes::new()).chain(cuts.iter().map(key)).collect();
    (0..starts.len())
        .map(|n| RouteSpec {
            id: RouteId::new(first_id + n as u64).expect("ids are above 0"),
            range: KeyRange { start: starts[n].clone(), end: starts.get(n + 1).cloned() },
            group: GroupId(n as u64 % 3 + 1),
        })
        .collect()
}

/// The expected contents of the sampler: a plain list of events, by group and leader term.
#[derive(Default)]
struct Model(BTreeMap<(GroupId, Option<Term>), Counts>);

impl Model {
    fn count(&mut self, epoch: &Epoch, key: &[u8], late: Option<Term>, counts: &Counts) {
        let route = epoch
            .routes()
            .iter()
            .find(|route| route.range.contains(key))
            .expect("a route is published");
        let lead = late.or_else(|| epoch.lead(route.group));
        self.0.entry((route.group, lead)).or_default().add(counts);
    }
}

fn by_lead(harvest: &Harvest, into: &mut BTreeMap<(GroupId, Option<Term>), Counts>) {
    for ((_, group, lead), counts) in cells(harvest) {
        into.entry((group, lead)).or_default().add(&counts);
    }
}

proptest! {
    #[test]
    fn conservation_over_random_histories(
        steps in proptest::collection::vec(step(), 1..60),
        max_tracked_routes in 1..8usize,
    ) {
        let sampler = sampler(SamplerConfig { max_tracked_routes, ..small() });
        sampler.publish_routes(1, byte_table(&[], 1)).unwrap();
        let mut version = 1;
        let mut kept = sampler.epoch_full();
        let mut model = Model::default();
        let mut handed = BTreeMap::new();
        for step in steps {
            match step {
                Step::Record { write, key, ops, bytes } => {
                    let op = if write { Op::Write } else { Op::Read };
                    let epoch = sampler.epoch();
                    let located = epoch.locate(&[key]).unwrap();
                    prop_assert!(epoch.route(located).range.contains(&[key]));
                    epoch.record(op, located, &[key], ops, bytes);
                    model.count(&epoch, &[key], None, &Counts::of(op, ops, bytes));
                }
                Step::Keep => kept = sampler.epoch_full(),
                Step::RecordKept { key, bytes } => {
                    let located = kept.locate(&[key]).unwrap();
                    sampler.record_write(&kept, located, &[key], 1, bytes);
                    model.count(&kept, &[key], None, &Counts::of(Op::Write, 1, bytes));
                }
                Step::Late { key, term } => {
                    let term = Some(Term(term));
                    let located = kept.locate(&[key]).unwrap();
                    sampler.record_late(Op::Write, &kept, located, &[key], term, 1, 1);
                    model.count(&kept, &[key], term, &Counts::of(Op::Write, 1, 1));
                }
                Step::Publish { cuts } => {
                    version += 1;
                    sampler.publish_routes(version, byte_table(&cuts, version * 256)).unwrap();
                }
                Step::Lead { group, term } => {
                    let term = (term > 0).then_some(Term(term));
                    sampler.set_leader_terms(&[(GroupId(group), term)]);
                }
                Step::Replan => {
                    sampler.replan();
                }
                Step::Harvest => by_lead(&sampler.harvest(), &mut handed),
                Step::Peek => {
                    let mut seen = handed.clone();
                    by_lead(&sampler.peek(), &mut seen);
                    let nonzero = model.0.iter().filter(|(_, counts)| !counts.is_zero());
                    prop_assert!(seen.iter().eq(nonzero));
                }
            }
        }
        drop(kept);
        sampler.rest();
        by_lead(&sampler.harvest(), &mut handed);
        model.0.retain(|_, counts| !counts.is_zero());
        prop_assert_eq!(&handed, &model.0);
        prop_assert_eq!(sampler.stats().draining, 0);
    }
}
