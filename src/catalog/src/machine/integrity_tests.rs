//! Records that contradict each other are refused whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::*;
use keyviz_types::{GroupId, KeyRange, LayoutError, NodeId, RouteId, RouteSpec};

type Tree = BTreeMap<Vec<u8>, Vec<u8>>;

fn split(route: u64, key: &str) -> CatalogCommand {
    CatalogCommand::Split {
        route_id: RouteId::new(route).expect("not 0"),
        key: key.into(),
        expected_version: 0,
        request_id: format!("request {route}"),
        time_ms: route,
    }
}

/// Routes 4 ["", c), 5 [c, m), 6 [m, t), 7 [t, ..): versions 2, 3 and 4 are retained.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let plan = plan_bootstrap(&[NodeId(1)], 1, 1, &[]).expect("sound");
    catalog.apply(plan.command(ClusterId([9; 16]), 0)).expect("sound");
    for (route, key) in [(1, "m"), (2, "c"), (3, "t")] {
        catalog.apply(split(route, key)).expect("inside");
    }
    catalog
}

fn tree() -> Tree {
    catalog().records().collect()
}

fn load(tree: &Tree) -> Result<Catalog, LoadError> {
    Catalog::load(tree, Retention::DEFAULT)
}

fn numbered(prefix: u8, number: u64) -> Vec<u8> {
    [&[prefix], number.to_be_bytes().as_slice()].concat()
}

#[test]
fn a_missing_record_is_an_integrity_error_unless_only_memory_of_the_past_is_lost() {
    let whole = tree();
    for key in whole.keys() {
        let mut less = whole.clone();
        less.remove(key);
        let loaded = load(&less);
        let oldest_delta = numbered(b'd', 2);
        let memory = matches!(key[0], b'x' | b'q') || *key == oldest_delta;
        assert_eq!(loaded.is_ok(), memory, "without {key:02x?}: {:?}", loaded.err());
    }
}

#[test]
fn a_hole_in_the_retained_changes_is_reported_and_never_papered_over() {
    let mut holed = tree();
    holed.remove(&numbered(b'd', 3));
    assert_eq!(load(&holed).err(), Some(LoadError::Log(ChangesError::Hole { after: 2 })));
    let mut short = tree();
    short.remove(&numbered(b'd', 4));
    assert_eq!(load(&short).err(), Some(LoadError::Log(ChangesError::Hole { after: 3 })));
}

#[test]
fn a_record_under_another_key_and_an_unknown_record_are_refused() {
    let mut moved = tree();
    let route = moved.remove(&numbered(b'r', 5)).expect("live");
    let key = numbered(b'r', 6);
    moved.insert(key.clone(), route);
    assert_eq!(load(&moved).err(), Some(LoadError::Misplaced { key }));
    let mut unknown = tree();
    unknown.insert(b"z".to_vec(), b"?".to_vec());
    assert_eq!(load(&unknown).err(), Some(LoadError::UnknownRecord { key: b"z".to_vec() }));
}

#[test]
fn a_snapshot_with_any_byte_changed_is_refused() {
    let good = catalog().encode_snapshot().expect("small");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(Catalog::decode_snapshot(&bad, Retention::DEFAULT).is_err(), "byte {at}");
    }
    for len in 0..good.len() {
        assert!(Catalog::decode_snapshot(&good[..len], Retention::DEFAULT).is_err(), "{len} bytes");
    }
}

fn route(id: u64, start: &str, end: Option<&str>, version: u64) -> Route {
    let bytes = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    let range = KeyRange { start: bytes(start), end: end.map(bytes) };
    let id = RouteId::new(id).expect("not 0");
    let origin = Origin { parents: Kin::NONE, created_version: version, created_ms: 1 };
    Route { spec: RouteSpec { id, range, group: GroupId(1) }, origin }
}

#[test]
fn routes_with_a_gap_an_overlap_or_a_second_use_of_an_id_make_no_table() {
    let id = |id| RouteId::new(id).expect("not 0");
    let table = |routes: &[Route]| RouteTable::from_routes(1, routes.to_vec()).map(|_| ());
    let cover = |error: LayoutError| Err(TableError::Cover(error));
    let (first, last) = (route(1, "", Some("m"), 1), route(2, "m", None, 1));
    assert_eq!(table(&[first.clone(), last.clone()]), Ok(()));
    assert_eq!(table(std::slice::from_ref(&last)), cover(LayoutError::NoStart { first: id(2) }));
    assert_eq!(table(std::slice::from_ref(&first)), cover(LayoutError::NoEnd { last: id(1) }));
    for start in ["l", "n"] {
        let fault = LayoutError::NotContiguous { left: id(1), right: id(2) };
        assert_eq!(table(&[first.clone(), route(2, start, None, 1)]), cover(fault));
    }
    let twice = [first.clone(), route(1, "m", None, 1)];
    assert_eq!(table(&twice), cover(LayoutError::Duplicate { id: id(1) }));
    let inverted = [first.clone(), route(2, "m", Some("c"), 1), route(3, "c", None, 1)];
    assert_eq!(table(&inverted), Err(TableError::EmptyRange { id: id(2) }));
    let mut newer = last.clone();
    newer.origin.created_version = 2;
    let wrong = Err(TableError::WrongVersion { version: 1, newest: 2 });
    assert_eq!(table(&[first.clone(), newer]), wrong);
    let mut catalogs = last;
    catalogs.spec.group = GroupId::CATALOG;
    assert_eq!(table(&[first, catalogs]), Err(TableError::CatalogGroup { id: id(2) }));
}

#[test]
fn a_change_that_does_not_take_the_place_of_what_it_retires_is_refused_whole() {
    let catalog = catalog();
    let before = catalog.table().clone();
    let version = before.version();
    let mut next = catalog.clone();
    let good = next.apply(split(5, "g")).expect("inside").delta;
    let bad = |change: &dyn Fn(&mut Delta)| {
        let mut delta = Delta::clone(&good);
        change(&mut delta);
        let one = before.advance([&delta]).expect_err("must be refused");
        // The same among others.
        let mut after = Delta::clone(&good);
        after.version += 1;
        assert_eq!(before.advance([&delta, &after]), Err(one.clone()));
        one
    };
    let version = version + 1;
    let id = |id| RouteId::new(id).expect("not 0");
    let in_place = TableError::NotInPlace { version };
    assert_eq!(bad(&|d| d.created[0].spec.range.end = Some("f".into())), in_place);
    assert_eq!(bad(&|d| d.created[1].spec.range.start = "h".into()), in_place);
    assert_eq!(bad(&|d| d.created[1].spec.range.end = Some("z".into())), in_place);
    assert_eq!(bad(&|d| d.retired = vec![id(3)]), TableError::NotLive { version, id: id(3) });
    assert_eq!(bad(&|d| d.created[0].spec.id = id(7)), TableError::IdReused { version, id: id(7) });
    assert_eq!(
        bad(&|d| d.created[1].spec.group = GroupId(2)),
        TableError::GroupChanged { version }
    );
    assert_eq!(
        bad(&|d| d.kind = DeltaKind::Merge),
        TableError::WrongShape { version, kind: DeltaKind::Merge }
    );
    assert_eq!(bad(&|d| d.time_ms = 0), TableError::TimeBackwards { version });
    let right = good.created[1].id();
    assert_eq!(
        bad(&|d| d.created[1].origin.created_ms += 1),
        TableError::WrongOrigin { version, id: right }
    );
    assert_eq!(
        before.advance([&Delta { version: 9, ..Delta::clone(&good) }]),
        Err(TableError::Hole { have: version - 1, found: 9 })
    );
    assert_eq!(before.advance([Arc::as_ref(&good)]).as_ref(), Ok(next.table()));
}
