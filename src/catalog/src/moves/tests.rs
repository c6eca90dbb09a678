//! Moves in the catalog: what is recorded, what is refused, and that a catalog of records goes on
//! as the one that wrote them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::MoveCommand;
use super::error::MoveError;
use super::record::{MAX_MOVES, MovePhase};
use crate::{
    Catalog, CatalogCommand, CatalogError, ClusterId, DeltaKind, Retention, RouteTable,
    plan_bootstrap,
};
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId};

const GROUPS: usize = 3;

fn catalog(routes: u8) -> Catalog {
    let mut catalog = Catalog::default();
    let bootstrap = CatalogCommand::Bootstrap {
        cluster_id: ClusterId([7; 16]),
        groups: plan_bootstrap(&[NodeId(1)], GROUPS, 1, &[]).expect("sound").groups,
        split_keys: (1..routes).map(|at| vec![b'a' + at]).collect(),
        time_ms: 1_000,
    };
    catalog.apply(bootstrap).expect("a sound bootstrap");
    catalog
}

fn id(id: u64) -> RouteId {
    RouteId::new(id).expect("not 0")
}

fn start(route: u64, to: u64) -> MoveCommand {
    MoveCommand::Start {
        route_id: id(route),
        to: GroupId(to),
        expected_version: 0,
        request_id: format!("move {route} {to}"),
        time_ms: 2_000,
    }
}

fn split(route: u64, key: &str, time_ms: u64) -> CatalogCommand {
    CatalogCommand::Split {
        route_id: id(route),
        key: key.into(),
        expected_version: 0,
        request_id: String::new(),
        time_ms,
    }
}

fn made(catalog: &mut Catalog, command: MoveCommand) -> u64 {
    catalog.apply_move(&command).expect("a sound command").id
}

/// Moves a route all the way.
fn moved(catalog: &mut Catalog, route: u64, to: u64, time_ms: u64) {
    let id = made(catalog, start(route, to));
    made(catalog, MoveCommand::Seal { id });
    made(catalog, MoveCommand::Commit { id, adopted_at: time_ms, time_ms });
    made(catalog, MoveCommand::Finish { id, time_ms });
}

#[test]
fn durable_identity_a_route_that_moves_keeps_its_id_keys_and_origin() {
    let mut catalog = catalog(3);
    let before = catalog.table().by_id(id(1)).expect("live");
    let version = catalog.version();
    let table = catalog.table().clone();
    moved(&mut catalog, 1, 2, 5_000);
    let after = catalog.table().by_id(id(1)).expect("it lives on");
    assert_eq!((after.group(), before.group()), (GroupId(2), GroupId(1)));
    assert_eq!((after.range(), after.origin), (before.range(), before.origin));
    assert_eq!(catalog.version(), version + 1);
    assert!(catalog.retired(id(1)).is_none());
    let delta = catalog.log().last().expect("retained").clone();
    assert_eq!((delta.kind, delta.retired.as_slice()), (DeltaKind::Move, &[id(1)][..]));
    let followed = table.advance([delta.as_ref()]).expect("it follows");
    assert_eq!(followed, *catalog.table());
    let split = catalog.apply(split(2, "bb", 1)).expect("inside").delta;
    assert_eq!(split.time_ms, 5_000, "time does not run back past a move");
    assert_eq!(split.created[0].id(), id(4), "a move uses no id");
    let both = table.advance([delta.as_ref(), split.as_ref()]).expect("they follow");
    assert_eq!(both, *catalog.table());
    let all = catalog.events(0, u64::MAX, &KeyRange::all(), 9).events;
    let kinds: Vec<DeltaKind> = all.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [DeltaKind::Move, DeltaKind::Split]);
    assert_eq!(all[0].groups, Some((GroupId(1), GroupId(2))));
}

#[test]
fn a_catalog_of_records_goes_on_as_the_one_that_wrote_them() {
    let mut catalog = catalog(3);
    moved(&mut catalog, 1, 2, 5_000);
    made(&mut catalog, start(2, 3));
    let records: BTreeMap<_, _> = catalog.records().collect();
    let mut loaded = Catalog::load(&records, Retention::DEFAULT).expect("sound records");
    assert_eq!(loaded.table(), catalog.table());
    assert_eq!(loaded.moves(), catalog.moves());
    let snapshot = catalog.encode_snapshot().expect("small");
    let other = Catalog::decode_snapshot(&snapshot, Retention::DEFAULT).expect("sound");
    assert_eq!(other.moves(), catalog.moves());
    for catalog in [&mut loaded, &mut catalog] {
        made(catalog, MoveCommand::Seal { id: 2 });
        made(catalog, MoveCommand::Commit { id: 2, adopted_at: 9, time_ms: 3 });
    }
    assert_eq!(loaded.table(), catalog.table());
    assert_eq!(loaded.table().changed_ms(), 5_000);
    assert_eq!(loaded.moves().adopted(), &BTreeMap::from([(GroupId(2), 5_000), (GroupId(3), 9)]));
    let mut without = records;
    without.remove(&b"v"[..]);
    assert!(Catalog::load(&without, Retention::DEFAULT).is_err(), "its version has no author");
}

#[test]
fn a_move_can_be_abandoned_until_it_seals_and_only_completed_after() {
    let mut catalog = catalog(3);
    let first = made(&mut catalog, start(1, 2));
    made(&mut catalog, MoveCommand::Cancel { route_id: id(1) });
    let seal = catalog.apply_move(&MoveCommand::Seal { id: first });
    assert!(matches!(seal, Err(MoveError::OutOfOrder { id: 1, .. })), "{seal:?}");
    let commit = MoveCommand::Commit { id: first, adopted_at: 1, time_ms: 1 };
    assert!(matches!(catalog.apply_move(&commit), Err(MoveError::OutOfOrder { .. })));
    made(&mut catalog, MoveCommand::Finish { id: first, time_ms: 1 });
    made(&mut catalog, MoveCommand::Finish { id: first, time_ms: 1 });
    assert_eq!(catalog.moves().ended().next().expect("remembered").reason, "it was cancelled");
    assert_eq!(catalog.table().by_id(id(1)).expect("live").group(), GroupId(1));
    let again = catalog.apply_move(&start(1, 2)).expect("the same request").id;
    assert_eq!(again, first, "a retry starts nothing");
    let second = MoveCommand::Start {
        route_id: id(1),
        to: GroupId(2),
        expected_version: 1,
        request_id: String::new(),
        time_ms: 1,
    };
    let second = made(&mut catalog, second);
    made(&mut catalog, MoveCommand::Seal { id: second });
    let late = catalog.apply_move(&MoveCommand::Cancel { route_id: id(1) });
    assert!(matches!(late, Err(MoveError::TooLate { id: 2, .. })), "{late:?}");
    let stale = MoveCommand::Abandon { id: second, reason: String::new(), unsealable: false };
    let late = catalog.apply_move(&stale);
    assert!(matches!(late, Err(MoveError::TooLate { id: 2, .. })), "{late:?}");
    let finish = catalog.apply_move(&MoveCommand::Finish { id: second, time_ms: 1 });
    assert!(matches!(finish, Err(MoveError::OutOfOrder { .. })));
}

#[test]
fn what_cannot_move_is_refused_with_the_reason_and_changes_nothing() {
    let mut catalog = catalog(3);
    let refused = |catalog: &mut Catalog, command: MoveCommand| {
        let before = (catalog.moves().clone(), catalog.table().clone());
        let refused = catalog.apply_move(&command).expect_err("it is refused");
        assert_eq!(before, (catalog.moves().clone(), catalog.table().clone()));
        refused
    };
    let same = refused(&mut catalog, start(1, 1));
    assert_eq!(same, MoveError::SameGroup { route_id: id(1), group: GroupId(1) });
    let nowhere = refused(&mut catalog, start(1, 9));
    assert_eq!(nowhere, MoveError::UnknownGroup { group: GroupId(9) });
    let catalog_group = refused(&mut catalog, start(1, 0));
    assert_eq!(catalog_group, MoveError::UnknownGroup { group: GroupId(0) });
    let unknown = refused(&mut catalog, start(9, 2));
    assert_eq!(unknown, MoveError::Route(CatalogError::UnknownRoute { route_id: id(9) }));
    let mut versioned = start(1, 2);
    if let MoveCommand::Start { expected_version, .. } = &mut versioned {
        *expected_version = 7;
    }
    let wrong = refused(&mut catalog, versioned);
    assert!(matches!(wrong, MoveError::Route(CatalogError::WrongVersion { expected: 7, .. })));
    made(&mut catalog, start(1, 2));
    let moving = refused(&mut catalog, start(1, 3));
    assert!(matches!(moving, MoveError::Moving { id: 1, .. }), "{moving:?}");
    let mut reused = start(2, 3);
    if let MoveCommand::Start { request_id, .. } = &mut reused {
        "move 1 2".clone_into(request_id);
    }
    assert_eq!(refused(&mut catalog, reused), MoveError::RequestIdReused { id: 1 });
    let idle = refused(&mut catalog, MoveCommand::Cancel { route_id: id(2) });
    assert_eq!(idle, MoveError::NotMoving { route_id: id(2) });
    let held = catalog.apply(split(1, "aa", 1));
    assert_eq!(held, Err(CatalogError::Moving { route_id: id(1), move_id: 1 }));
    let merge = CatalogCommand::Merge {
        left_id: id(1),
        right_id: id(2),
        expected_version: 0,
        request_id: String::new(),
        time_ms: 1,
    };
    let held = catalog.apply(merge);
    assert_eq!(held, Err(CatalogError::Moving { route_id: id(1), move_id: 1 }));
    catalog.apply(split(2, "bb", 1)).expect("another route is free");
}

#[test]
fn bounds_so_many_moves_are_under_way_and_no_more() {
    let mut catalog = catalog(30);
    for route in 0..MAX_MOVES as u64 {
        made(&mut catalog, start(1 + 3 * route, 2));
    }
    assert_eq!(catalog.apply_move(&start(2, 3)), Err(MoveError::TooMany));
    let reason = "ü".repeat(700);
    made(&mut catalog, MoveCommand::Abandon { id: 3, reason, unsealable: false });
    assert_eq!(catalog.apply_move(&start(2, 3)), Err(MoveError::TooMany), "it is not over yet");
    let phase = &catalog.moves().get(3).expect("under way").phase;
    assert!(matches!(phase, MovePhase::Abandoning { reason } if reason.len() <= 512));
    made(&mut catalog, MoveCommand::Finish { id: 3, time_ms: 1 });
    made(&mut catalog, start(2, 3));
}

#[test]
fn a_route_that_left_cannot_move_again_before_its_rows_are_gone() {
    let mut catalog = catalog(3);
    let first = made(&mut catalog, start(1, 2));
    made(&mut catalog, MoveCommand::Seal { id: first });
    made(&mut catalog, MoveCommand::Commit { id: first, adopted_at: 1, time_ms: 1 });
    catalog.apply(split(1, "aa", 1)).expect("it has moved, so it can change");
    let back = catalog.apply_move(&start(4, 1));
    assert!(matches!(back, Err(MoveError::Moving { id: 1, .. })), "{back:?}");
    made(&mut catalog, MoveCommand::Finish { id: first, time_ms: 1 });
    made(&mut catalog, start(4, 1));
}

#[test]
fn a_forged_move_is_refused_by_followers_of_the_table() {
    let mut catalog = catalog(3);
    let table: RouteTable = catalog.table().clone();
    moved(&mut catalog, 1, 2, 5_000);
    let sound = catalog.log().last().expect("retained").clone();
    assert!(table.advance([sound.as_ref()]).is_ok());
    let forge = |change: &dyn Fn(&mut crate::Delta)| {
        let mut forged = crate::Delta::clone(&sound);
        change(&mut forged);
        table.advance([&forged])
    };
    assert!(forge(&|delta| delta.created[0].spec.group = GroupId(1)).is_err());
    assert!(forge(&|delta| delta.created[0].spec.group = GroupId(0)).is_err());
    assert!(forge(&|delta| delta.created[0].spec.id = id(9)).is_err());
    assert!(forge(&|delta| delta.created[0].spec.range.end = None).is_err());
    assert!(forge(&|delta| delta.kind = DeltaKind::Merge).is_err());
    assert!(forge(&|delta| delta.created.clear()).is_err());
    let _: Arc<crate::Delta> = sound;
}
