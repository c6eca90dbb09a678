//! What the catalog does and refuses, command by command.

use crate::*;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId, RouteSpec};

pub(crate) fn id(id: u64) -> RouteId {
    RouteId::new(id).expect("not 0")
}

fn bootstrap(groups: usize, split_keys: &[&str]) -> CatalogCommand {
    let split_keys: Vec<Vec<u8>> = split_keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    CatalogCommand::Bootstrap {
        cluster_id: ClusterId([7; 16]),
        groups: plan_bootstrap(&[NodeId(1)], groups, 1, &[]).expect("sound").groups,
        split_keys,
        time_ms: 1_000,
    }
}

fn catalog(groups: usize, split_keys: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(bootstrap(groups, split_keys)).expect("a sound bootstrap");
    catalog
}

fn split(route: u64, key: impl Into<Vec<u8>>) -> CatalogCommand {
    split_as("", 0, route, key)
}

fn split_as(request: &str, version: u64, route: u64, key: impl Into<Vec<u8>>) -> CatalogCommand {
    CatalogCommand::Split {
        route_id: id(route),
        key: key.into(),
        expected_version: version,
        request_id: request.into(),
        time_ms: 2_000,
    }
}

fn merge(left: u64, right: u64) -> CatalogCommand {
    CatalogCommand::Merge {
        left_id: id(left),
        right_id: id(right),
        expected_version: 0,
        request_id: String::new(),
        time_ms: 3_000,
    }
}

/// (id, start, end, group) of every route.
fn rows(catalog: &Catalog) -> Vec<(u64, String, Option<String>, u64)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let row = |spec: &RouteSpec| {
        let KeyRange { start, end } = &spec.range;
        (spec.id.get(), text(start), end.as_deref().map(text), spec.group.0)
    };
    catalog.table().specs().iter().map(row).collect()
}

fn row(id: u64, start: &str, end: Option<&str>, group: u64) -> (u64, String, Option<String>, u64) {
    (id, start.into(), end.map(Into::into), group)
}

fn refused(catalog: &mut Catalog, command: CatalogCommand) -> CatalogError {
    let before: Vec<_> = catalog.records().collect();
    let error = catalog.apply(command).expect_err("must be refused");
    assert_eq!(catalog.records().collect::<Vec<_>>(), before, "a refusal changed something");
    error
}

#[test]
fn bootstrap_gives_routes_to_groups_in_turn() {
    let catalog = catalog(2, &["g", "p"]);
    assert_eq!(
        rows(&catalog),
        [row(1, "", Some("g"), 1), row(2, "g", Some("p"), 2), row(3, "p", None, 1)]
    );
    assert_eq!(catalog.version(), 1);
    assert_eq!(catalog.cluster().map(|cluster| cluster.cluster_id), Some(ClusterId([7; 16])));
}

#[test]
fn a_split_retires_one_route_and_creates_two_with_lineage() {
    let mut catalog = catalog(1, &[]);
    let applied = catalog.apply(split(1, "m")).expect("inside the route");
    assert_eq!((applied.delta.version, applied.replayed), (2, false));
    assert_eq!(rows(&catalog), [row(2, "", Some("m"), 1), row(3, "m", None, 1)]);
    let retired = catalog.retired(id(1)).expect("remembered");
    assert_eq!(retired.children, Kin::two(id(2), id(3)));
    assert_eq!((retired.retired_version, retired.retired_ms), (2, 2_000));
    let left = catalog.table().by_id(id(2)).expect("live");
    let origin = Origin { parents: Kin::one(id(1)), created_version: 2, created_ms: 2_000 };
    assert_eq!(left.origin, origin);
}

#[test]
fn a_merge_retires_two_routes_and_creates_one() {
    let mut catalog = catalog(1, &["m"]);
    let applied = catalog.apply(merge(1, 2)).expect("neighbours");
    assert_eq!(applied.delta.retired, [id(1), id(2)]);
    assert_eq!(rows(&catalog), [row(3, "", None, 1)]);
    let merged = catalog.table().by_id(id(3)).expect("live");
    assert_eq!(merged.origin.parents, Kin::two(id(1), id(2)));
}

#[test]
fn every_bad_command_is_refused_with_its_reason_and_changes_nothing() {
    let mut none = Catalog::default();
    assert_eq!(refused(&mut none, split(1, "m")), CatalogError::NotBootstrapped);

    let mut it = catalog(2, &["g", "p"]);
    it.apply(split(1, "c")).expect("now 4 [..c) and 5 [c..g)");
    let route_id = id(2);
    let key = CatalogError::Key;
    let cases: Vec<(CatalogCommand, CatalogError)> = vec![
        (bootstrap(1, &[]), CatalogError::AlreadyBootstrapped { cluster_id: ClusterId([7; 16]) }),
        (split(2, "p"), CatalogError::KeyOutside { route_id, in_route: id(3) }),
        (split(2, "a"), CatalogError::KeyOutside { route_id, in_route: id(4) }),
        (split(2, "g"), CatalogError::KeyAtStart { route_id }),
        (split(2, ""), key(KeyError::Empty)),
        (split(2, vec![b'h'; 4_097]), key(KeyError::TooLong { len: 4_097 })),
        (split(4, vec![0, 1]), key(KeyError::Reserved)),
        (split(6, "m"), CatalogError::UnknownRoute { route_id: id(6) }),
        (
            split(1, "b"),
            CatalogError::RetiredRoute { route_id: id(1), successors: vec![id(4), id(5)], more: 0 },
        ),
        (split_as("", 1, 2, "m"), CatalogError::WrongVersion { expected: 1, current: 2 }),
        (split_as("", 3, 2, "m"), CatalogError::WrongVersion { expected: 3, current: 2 }),
        (split_as(&"r".repeat(129), 0, 2, "m"), CatalogError::RequestIdTooLong { len: 129 }),
        (merge(2, 2), CatalogError::SameRoute { route_id }),
        (merge(5, 4), CatalogError::NotNeighbours { left_id: id(5), right_id: id(4) }),
        (merge(4, 2), CatalogError::NotNeighbours { left_id: id(4), right_id: id(2) }),
        (
            merge(2, 3),
            CatalogError::AcrossGroups {
                left_id: id(2),
                left_group: GroupId(2),
                right_id: id(3),
                right_group: GroupId(1),
            },
        ),
    ];
    for (command, error) in cases {
        assert_eq!(refused(&mut it, command.clone()), error, "{command:?}");
    }
    let late = CatalogCommand::Merge {
        left_id: id(4),
        right_id: id(5),
        expected_version: 0,
        request_id: String::new(),
        time_ms: MAX_TIME_MS + 1,
    };
    let time_ms = MAX_TIME_MS + 1;
    assert_eq!(refused(&mut it, late), CatalogError::TimeOutOfRange { time_ms });
}

#[test]
fn a_bad_bootstrap_is_refused_and_a_good_one_may_follow() {
    let mut it = Catalog::default();
    let bad = [
        (bootstrap(1, &["b", "a"]), CatalogError::SplitKeysOrder { index: 1 }),
        (bootstrap(1, &["a", "a"]), CatalogError::SplitKeysOrder { index: 1 }),
        (bootstrap(1, &[""]), CatalogError::Key(KeyError::Empty)),
        (bootstrap(1, &["\0"]), CatalogError::Key(KeyError::Reserved)),
    ];
    for (command, error) in bad {
        assert_eq!(refused(&mut it, command), error);
    }
    it.apply(bootstrap(1, &["a", "b"])).expect("sound");
}

#[test]
fn once_a_retry_gets_the_first_answer_and_changes_nothing() {
    let mut it = catalog(1, &[]);
    let first = it.apply(split_as("r1", 1, 1, "m")).expect("inside");
    let before: Vec<_> = it.records().collect();
    let again = it.apply(split_as("r1", 1, 1, "m")).expect("the same request");
    assert_eq!(again.delta, first.delta);
    assert!(again.replayed && again.records.is_empty());
    assert_eq!(it.records().collect::<Vec<_>>(), before);
    assert_eq!(
        refused(&mut it, split_as("r1", 0, 2, "c")),
        CatalogError::RequestIdReused { version: 2 }
    );
}

#[test]
fn durable_identity_no_id_is_given_out_twice_even_after_merging_everything_away() {
    let mut it = catalog(1, &[]);
    it.apply(split(1, "m")).expect("2, 3");
    it.apply(merge(2, 3)).expect("4");
    it.apply(split(4, "m")).expect("5, 6");
    assert_eq!(rows(&it), [row(5, "", Some("m"), 1), row(6, "m", None, 1)]);
    assert!(matches!(
        refused(&mut it, split(3, "z")),
        CatalogError::RetiredRoute { successors, .. } if successors == [id(6)]
    ));
}

#[test]
fn time_never_runs_backwards_whatever_the_leaders_clocks_say() {
    let mut it = catalog(1, &[]);
    let at = |route: u64, key: &str, time_ms| CatalogCommand::Split {
        route_id: id(route),
        key: key.into(),
        expected_version: 0,
        request_id: String::new(),
        time_ms,
    };
    assert_eq!(it.apply(at(1, "m", 9_000)).expect("inside").delta.time_ms, 9_000);
    assert_eq!(it.apply(at(2, "c", 5)).expect("inside").delta.time_ms, 9_000);
}

#[test]
fn the_100_001st_route_is_refused() {
    let keys: Vec<String> = (1..MAX_ROUTES).map(|at| format!("{at:06}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut it = catalog(3, &keys);
    assert_eq!(it.table().len(), MAX_ROUTES);
    let error = it.apply(split(MAX_ROUTES as u64, "a")).expect_err("full");
    assert_eq!(error, CatalogError::TooManyRoutes);
    it.apply(CatalogCommand::Split {
        route_id: id(1),
        key: b"!".to_vec(),
        expected_version: 0,
        request_id: String::new(),
        time_ms: 0,
    })
    .expect_err("full");
}

#[test]
fn bounds_boundary_keys_have_a_budget_that_a_merge_gives_back() {
    let mut it = catalog(1, &["k"]);
    it.boundary_bytes = MAX_BOUNDARY_BYTES;
    assert_eq!(refused(&mut it, split(1, "c")), CatalogError::TooManyBoundaryBytes);
    it.apply(merge(1, 2)).expect("a merge needs no room");
    it.apply(split(3, "c")).expect("the byte of the merged boundary is free again");
}

#[test]
fn the_records_of_every_change_rebuild_the_catalog() {
    let mut it = Catalog::new(Retention { deltas: 2, requests: 1, retired: 3, retired_bytes: 64 });
    let mut tree = std::collections::BTreeMap::new();
    let commands = [
        bootstrap(1, &["m"]),
        split_as("a", 0, 1, "c"),
        split_as("b", 0, 2, "t"),
        merge(3, 4),
        split_as("c", 0, 7, "k"),
    ];
    for command in commands {
        for record in it.apply(command).expect("sound").records {
            match record.value {
                Some(value) => drop(tree.insert(record.key, value)),
                None => drop(tree.remove(&record.key)),
            }
        }
        let all: std::collections::BTreeMap<_, _> = it.records().collect();
        assert_eq!(tree, all);
        let loaded = Catalog::load(&tree, it.retention).expect("whole");
        assert_eq!(loaded.records().collect::<std::collections::BTreeMap<_, _>>(), all);
        assert_eq!(loaded.table(), it.table());
        assert_eq!(loaded.boundary_bytes, it.boundary_bytes);
    }
    assert_eq!(it.log().len(), 2);
    assert_eq!(it.lineage().count(), 3, "the oldest is forgotten");
    assert_eq!(it.retired(id(1)), None);
}

#[test]
fn a_snapshot_carries_everything() {
    let mut it = catalog(1, &["m"]);
    it.apply(split_as("a", 0, 1, "c")).expect("inside");
    let bytes = it.encode_snapshot().expect("small");
    let mut copy = Catalog::decode_snapshot(&bytes, Retention::DEFAULT).expect("whole");
    assert_eq!(copy.records().collect::<Vec<_>>(), it.records().collect::<Vec<_>>());
    assert!(copy.apply(split_as("a", 0, 1, "c")).expect("a retry").replayed);
}

#[test]
fn commands_survive_the_round_trip() {
    for command in [bootstrap(2, &["a", "b"]), split_as("r", 3, 1, "m"), merge(1, 2)] {
        let bytes = command.encode().expect("small");
        assert_eq!(CatalogCommand::decode(&bytes), Ok(command));
    }
    assert!(CatalogCommand::decode(b"").is_err());
}

#[test]
fn changes_since_gives_deltas_or_the_table_and_refuses_a_cursor_ahead() {
    let mut it = Catalog::new(Retention { deltas: 2, ..Retention::DEFAULT });
    assert_eq!(it.changes_since(0), Ok(Changes::Deltas(vec![])));
    it.apply(bootstrap(1, &[])).expect("sound");
    for (route, key) in [(1, "m"), (3, "p"), (5, "t")] {
        it.apply(split(route, key)).expect("inside");
    }
    let versions = |changes| -> Vec<u64> {
        match changes {
            Ok(Changes::Deltas(deltas)) => deltas.iter().map(|delta| delta.version).collect(),
            other => panic!("expected deltas, found {other:?}"),
        }
    };
    let snapshot = Ok(Changes::Snapshot(it.table().clone()));
    assert_eq!(it.changes_since(0), snapshot);
    assert_eq!(it.changes_since(1), snapshot, "2 is no longer retained");
    assert_eq!(versions(it.changes_since(2)), vec![3, 4]);
    assert_eq!(versions(it.changes_since(3)), vec![4]);
    assert_eq!(versions(it.changes_since(4)), Vec::<u64>::new());
    let ahead = ChangesError::CursorAhead { cursor: 5, version: 4 };
    assert_eq!(it.changes_since(5), Err(ahead));
}
