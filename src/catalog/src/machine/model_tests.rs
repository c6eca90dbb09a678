//! Random histories against a model that is too simple to be wrong: a map from start keys to ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::machine::codec;
use crate::*;
use keyviz_types::{GroupId, NodeId, RouteId};

/// One step of a history. Numbers pick ids and keys, so that most steps make sense and some do not.
#[derive(Clone, Debug)]
enum Step {
    Split { route: u64, key: u8, version: Expect, request: u8 },
    Merge { left: u64, right: u64, version: Expect, request: u8 },
    MergeNeighbours { at: u64 },
    SplitInside { at: u64, key: u8 },
    Retry { which: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    Any,
    Current,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let expect = || prop_oneof![Just(Expect::Any), Just(Expect::Current), Just(Expect::Wrong)];
    prop_oneof![
        2 => (0..40u64, 0..=255u8, expect(), 0..6u8)
            .prop_map(|(route, key, version, request)| {
                Step::Split { route, key, version, request }
            }),
        1 => (0..40u64, 0..40u64, expect(), 0..6u8).prop_map(|(left, right, version, request)| {
            Step::Merge { left, right, version, request }
        }),
        3 => any::<u64>().prop_map(|at| Step::MergeNeighbours { at }),
        5 => (any::<u64>(), 1..=255u8).prop_map(|(at, key)| Step::SplitInside { at, key }),
        1 => any::<u64>().prop_map(|which| Step::Retry { which }),
    ]
}

/// Start, end, id, group.
type Row = (Vec<u8>, Option<Vec<u8>>, u64, u64);

#[derive(Clone)]
struct Model {
    /// Start key to id and group.
    live: BTreeMap<Vec<u8>, (u64, u64)>,
    version: u64,
    next_id: u64,
    /// Request id to the operation and the version that it made.
    requests: BTreeMap<String, (CatalogCommand, u64)>,
}

impl Model {
    fn new(split_keys: &[Vec<u8>], groups: u64) -> Self {
        let starts = std::iter::once(Vec::new()).chain(split_keys.iter().cloned());
        let live: BTreeMap<_, _> =
            starts.zip(0u64..).map(|(start, at)| (start, (at + 1, 1 + at % groups))).collect();
        let next_id = live.len() as u64 + 1;
        Model { live, version: 1, next_id, requests: BTreeMap::new() }
    }

    fn start_of(&self, id: RouteId) -> Option<Vec<u8>> {
        self.live.iter().find(|(_, (live, _))| *live == id.get()).map(|(start, _)| start.clone())
    }

    fn end_of(&self, start: &[u8]) -> Option<Vec<u8>> {
        self.live.keys().find(|key| key.as_slice() > start).cloned()
    }

    /// The version that the command makes (or made, where it is a retry); `None` where it must be
    /// refused.
    fn apply(&mut self, command: &CatalogCommand) -> Option<u64> {
        let (expected, request) = match command {
            CatalogCommand::Bootstrap { .. } => return None,
            CatalogCommand::Split { expected_version, request_id, .. }
            | CatalogCommand::Merge { expected_version, request_id, .. } => {
                (*expected_version, request_id.clone())
            }
        };
        if let Some((first, version)) = self.requests.get(&request) {
            return same_change(first, command).then_some(*version);
        }
        if expected != 0 && expected != self.version {
            return None;
        }
        match command {
            CatalogCommand::Split { route_id, key, .. } => self.split(*route_id, key)?,
            CatalogCommand::Merge { left_id, right_id, .. } => self.merge(*left_id, *right_id)?,
            CatalogCommand::Bootstrap { .. } => return None,
        }
        self.version += 1;
        if !request.is_empty() {
            self.requests.insert(request, (command.clone(), self.version));
        }
        Some(self.version)
    }

    fn split(&mut self, id: RouteId, key: &[u8]) -> Option<()> {
        let start = self.start_of(id)?;
        let inside =
            key > start.as_slice() && self.end_of(&start).is_none_or(|end| key < end.as_slice());
        if !inside || key[0] == 0 {
            return None;
        }
        let group = self.live[&start].1;
        self.live.insert(start, (self.next_id, group));
        self.live.insert(key.to_vec(), (self.next_id + 1, group));
        self.next_id += 2;
        Some(())
    }

    fn merge(&mut self, left: RouteId, right: RouteId) -> Option<()> {
        let (left, right) = (self.start_of(left)?, self.start_of(right)?);
        let neighbours = self.end_of(&left).as_ref() == Some(&right);
        if !neighbours || self.live[&left].1 != self.live[&right].1 {
            return None;
        }
        self.live.remove(&right);
        self.live.get_mut(&left)?.0 = self.next_id;
        self.next_id += 1;
        Some(())
    }

    fn rows(&self) -> Vec<Row> {
        let row = |(start, (id, group)): (&Vec<u8>, &(u64, u64))| {
            (start.clone(), self.end_of(start), *id, *group)
        };
        self.live.iter().map(row).collect()
    }
}

fn same_change(a: &CatalogCommand, b: &CatalogCommand) -> bool {
    use CatalogCommand::{Merge, Split};
    match (a, b) {
        (Split { route_id: a, key: x, .. }, Split { route_id: b, key: y, .. }) => a == b && x == y,
        (Merge { left_id: a, right_id: x, .. }, Merge { left_id: b, right_id: y, .. }) => {
            a == b && x == y
        }
        _ => false,
    }
}

fn rows(table: &RouteTable) -> Vec<Row> {
    let row = |route: Route| {
        let end = route.range().end.as_ref().map(|end| end.to_vec());
        (route.range().start.to_vec(), end, route.id().get(), route.group().0)
    };
    table.iter().map(row).collect()
}

/// A catalog, its model, and everything that was sent to it.
struct ModelRun {
    catalog: Catalog,
    model: Model,
    sent: Vec<CatalogCommand>,
    time_ms: u64,
}

const RETENTION: Retention =
    Retention { deltas: 5, requests: 64, retired: 1_000, retired_bytes: 1 << 20 };

impl ModelRun {
    fn new(split_keys: &[&[u8]], groups: u64, retention: Retention) -> Self {
        let split_keys: Vec<Vec<u8>> = split_keys.iter().map(|key| key.to_vec()).collect();
        let plan = plan_bootstrap(&[NodeId(1)], groups as usize, 1, &split_keys).expect("sound");
        let mut catalog = Catalog::new(retention);
        catalog.apply(plan.command(ClusterId([3; 16]), 1)).expect("sound");
        ModelRun { catalog, model: Model::new(&split_keys, groups), sent: Vec::new(), time_ms: 1 }
    }

    fn command(&mut self, step: &Step) -> CatalogCommand {
        // Clocks of changing leaders: now and then one that is behind.
        self.time_ms = if self.sent.len() % 5 == 4 { 1 } else { self.time_ms + 3 };
        let time_ms = self.time_ms;
        let table = self.catalog.table();
        let pick = |at: u64| table.get(at as usize % table.len()).expect("never empty");
        let id = |id: u64| RouteId::new(id.max(1)).expect("not 0");
        let expected = |version| match version {
            Expect::Any => 0,
            Expect::Current => table.version(),
            Expect::Wrong => table.version() + 1,
        };
        let request =
            |request: u8| if request == 0 { String::new() } else { format!("r{request}") };
        match *step {
            Step::Split { route, key, version, request: r } => CatalogCommand::Split {
                route_id: id(route),
                key: vec![key],
                expected_version: expected(version),
                request_id: request(r),
                time_ms,
            },
            Step::Merge { left, right, version, request: r } => CatalogCommand::Merge {
                left_id: id(left),
                right_id: id(right),
                expected_version: expected(version),
                request_id: request(r),
                time_ms,
            },
            Step::SplitInside { at, key } => {
                let route = pick(at);
                let mut inside = route.range().start.to_vec();
                inside.push(key);
                CatalogCommand::Split {
                    route_id: route.id(),
                    key: inside,
                    expected_version: 0,
                    request_id: String::new(),
                    time_ms,
                }
            }
            Step::MergeNeighbours { at } => CatalogCommand::Merge {
                left_id: pick(at).id(),
                right_id: pick((at as usize % table.len()) as u64 + 1).id(),
                expected_version: 0,
                request_id: String::new(),
                time_ms,
            },
            Step::Retry { which } if !self.sent.is_empty() => {
                self.sent[which as usize % self.sent.len()].clone()
            }
            Step::Retry { .. } => CatalogCommand::Split {
                route_id: RouteId::FIRST,
                key: b"retry".to_vec(),
                expected_version: 1,
                request_id: "first".into(),
                time_ms,
            },
        }
    }

    /// Applies one step and compares; gives back the change where there was one.
    fn step(&mut self, step: &Step) -> Option<Applied> {
        let command = self.command(step);
        self.sent.push(command.clone());
        let before = self.catalog.table().clone();
        let expected = self.model.apply(&command);
        let applied = self.catalog.apply(command.clone());
        match (&applied, expected) {
            (Ok(applied), Some(version)) => assert_eq!(applied.delta.version, version),
            (Err(_), None) => assert_eq!(self.catalog.table(), &before),
            _ => panic!("{command:?}: the model says {expected:?}, the catalog {applied:?}"),
        }
        assert_eq!(rows(self.catalog.table()), self.model.rows());
        assert_eq!(self.catalog.version(), self.model.version);
        applied.ok()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn order_and_cover_are_those_of_the_model_after_every_history(
        steps in prop::collection::vec(step(), 1..60), groups in 1..4u64,
    ) {
        let mut run = ModelRun::new(&[b"\x40", b"\x80", b"\xc0"], groups, RETENTION);
        for step in &steps {
            run.step(step);
        }
        // A boundary, or any other key, is found in exactly the route that holds it.
        for key in 0..=255u8 {
            let at = run.catalog.table().locate(&[key]).expect("covered");
            prop_assert!(run.catalog.table().specs()[at].range.contains(&[key]));
        }
    }

    #[test]
    fn durable_identity_every_id_lives_once_and_has_a_full_ancestry(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = ModelRun::new(&[b"\x80"], 1, RETENTION);
        let mut given: BTreeSet<RouteId> =
            run.catalog.table().iter().map(|route| route.id()).collect();
        for step in &steps {
            let Some(applied) = run.step(step).filter(|applied| !applied.replayed) else {
                continue;
            };
            for route in &applied.delta.created {
                prop_assert!(given.insert(route.id()), "id {} was given out twice", route.id());
            }
        }
        let table = run.catalog.table();
        for id in given {
            let live = table.by_id(id);
            let retired = run.catalog.retired(id);
            prop_assert!(live.is_some() != retired.is_some(), "{id} is neither or both");
            let origin = live.as_ref().map(|r| r.origin).or(retired.map(|r| r.route.origin));
            for parent in origin.expect("one of them").parents.iter() {
                let parent = run.catalog.retired(parent).expect("a parent is retired");
                prop_assert!(parent.children.iter().any(|child| child == id));
                prop_assert!(parent.retired_ms >= parent.route.origin.created_ms);
            }
        }
    }

    #[test]
    fn no_lost_write_records_and_snapshots_rebuild_the_same_catalog_at_every_version(
        steps in prop::collection::vec(step(), 1..40),
        deltas in 0..4usize, requests in 0..3usize, retired in 0..4usize,
    ) {
        // The model remembers all requests: retries are left out where the catalog forgets some.
        let steps = steps.iter().filter(|step| !matches!(step,
            Step::Retry { .. }
                | Step::Split { request: 1.., .. }
                | Step::Merge { request: 1.., .. }));
        let retention = Retention { deltas, requests, retired, retired_bytes: 40 };
        let mut run = ModelRun::new(&[b"\x80"], 1, retention);
        let mut tree: BTreeMap<Vec<u8>, Vec<u8>> = run.catalog.records().collect();
        for step in steps {
            let Some(applied) = run.step(step) else { continue };
            for record in applied.records {
                match record.value {
                    Some(value) => drop(tree.insert(record.key, value)),
                    None => drop(tree.remove(&record.key)),
                }
            }
            let all: BTreeMap<_, _> = run.catalog.records().collect();
            prop_assert_eq!(&tree, &all);
            let loaded = Catalog::load(&tree, retention).expect("whole");
            prop_assert_eq!(loaded.table(), run.catalog.table());
            let snapshot = run.catalog.encode_snapshot().expect("small");
            let copy = Catalog::decode_snapshot(&snapshot, retention).expect("whole");
            prop_assert_eq!(copy.records().collect::<BTreeMap<_, _>>(), all);
        }
    }

    #[test]
    fn many_changes_at_once_and_one_by_one_make_the_same_table(
        steps in prop::collection::vec(step(), 2..40), cut in any::<prop::sample::Index>(),
    ) {
        let mut run = ModelRun::new(&[b"\x80"], 1, RETENTION);
        let first = run.catalog.table().clone();
        let mut deltas = Vec::new();
        for step in &steps {
            deltas.extend(run.step(step).filter(|applied| !applied.replayed).map(|a| a.delta));
        }
        let at = cut.index(deltas.len() + 1);
        let (head, tail) = deltas.split_at(at);
        let middle = first.advance(head.iter().map(Arc::as_ref)).expect("contiguous");
        let end = middle.advance(tail.iter().map(Arc::as_ref)).expect("contiguous");
        prop_assert_eq!(&end, run.catalog.table());
        let routes = end.iter().collect();
        prop_assert_eq!(&RouteTable::from_routes(end.version(), routes).expect("whole"), &end);
        if let [skipped, rest @ ..] = &deltas[..] && !rest.is_empty() {
            let hole = TableError::Hole { have: 1, found: skipped.version + 1 };
            prop_assert_eq!(first.advance(rest.iter().map(Arc::as_ref)), Err(hole));
        }
    }

    #[test]
    fn subscribers_started_stopped_cut_off_and_resumed_all_end_with_the_same_table(
        retained in 1..7usize,
        script in prop::collection::vec((step(), 0..5usize, 0..4u8), 1..60),
    ) {
        let retention = Retention { deltas: retained, ..RETENTION };
        let mut run = ModelRun::new(&[b"\x80"], 1, retention);
        let mut hub = WatchHub::new(retained);
        hub.replace(run.catalog.table().clone(), &[]).expect("newer");
        let subscribe = |hub: &WatchHub, after| hub.subscribe(after).expect("not ahead");
        let mut watchers: Vec<(Subscription, RouteTableReplica)> =
            (0..5).map(|_| (subscribe(&hub, 0), RouteTableReplica::new())).collect();
        for (step, who, what) in &script {
            if let Some(applied) = run.step(step).filter(|applied| !applied.replayed) {
                hub.publish(run.catalog.table().clone(), &[applied.delta]).expect("in order");
            }
            match what {
                // One takes an event, one is cut off and resumes, and one time in four the node
                // starts anew from its snapshot: everybody is cut off.
                0 | 1 => {
                    let (subscription, replica) = &mut watchers[*who];
                    subscription.try_next().iter().for_each(|event| {
                        replica.apply(event).expect("fits");
                    });
                }
                2 => {
                    let after = watchers[*who].1.version();
                    watchers[*who].0 = subscribe(&hub, after);
                }
                _ => {
                    let bytes = run.catalog.encode_snapshot().expect("small");
                    run.catalog = Catalog::decode_snapshot(&bytes, retention).expect("whole");
                    let log: Vec<_> = run.catalog.log().cloned().collect();
                    hub = WatchHub::new(retained);
                    hub.replace(run.catalog.table().clone(), &log).expect("newer");
                    for (subscription, replica) in &mut watchers {
                        *subscription = subscribe(&hub, replica.version());
                    }
                }
            }
        }
        watchers.push((subscribe(&hub, 0), RouteTableReplica::new()));
        for (subscription, replica) in &mut watchers {
            while let Some(event) = subscription.try_next() {
                replica.apply(&event).expect("fits");
            }
            prop_assert_eq!(replica.table(), run.catalog.table());
            prop_assert!(replica.is_ready());
        }
    }

    #[test]
    fn bounds_no_bytes_make_the_decoders_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = CatalogCommand::decode(&bytes);
        let _ = Catalog::decode_snapshot(&bytes, RETENTION);
        let _ = Catalog::load([(&bytes, &bytes)], RETENTION);
        // The same behind a header that fits.
        for kind in [codec::Kind::Command, codec::Kind::Snapshot, codec::Kind::Record] {
            let sealed = codec::seal(kind, |sealed| sealed.extend_from_slice(&bytes));
            let _ = CatalogCommand::decode(&sealed);
            let _ = Catalog::decode_snapshot(&sealed, RETENTION);
            for key in [vec![b'm'], vec![b'c'], [b"r".as_slice(), &[0; 8]].concat()] {
                let _ = Catalog::load([(key, &sealed)], RETENTION);
            }
        }
    }
}

#[test]
fn a_retention_edge_is_exact() {
    // With n changes retained, a cursor n back gets changes and one further back the table.
    let mut run = ModelRun::new(&[], 1, Retention { deltas: 3, ..RETENTION });
    for key in 1..=6 {
        run.step(&Step::SplitInside { at: u64::from(key) - 1, key }).expect("inside");
    }
    assert_eq!(run.catalog.version(), 7);
    assert!(matches!(run.catalog.changes_since(4), Ok(Changes::Deltas(d)) if d.len() == 3));
    assert!(matches!(run.catalog.changes_since(3), Ok(Changes::Snapshot(_))));
    assert_eq!(run.model.live.len(), 7);
    assert!(run.catalog.table().specs().iter().all(|spec| spec.group == GroupId(1)));
}
