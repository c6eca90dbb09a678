//! The past is told from the lineage exactly as it was.

use crate::{Catalog, CatalogCommand, ClusterId, DeltaKind, Retention, plan_bootstrap};
use keyviz_types::{KeyRange, NodeId, RouteId, RouteSpec};

fn catalog(retention: Retention) -> Catalog {
    let mut catalog = Catalog::new(retention);
    let bootstrap = CatalogCommand::Bootstrap {
        cluster_id: ClusterId([7; 16]),
        groups: plan_bootstrap(&[NodeId(1)], 1, 1, &[]).expect("sound").groups,
        split_keys: vec![b"m".to_vec()],
        time_ms: 1_000,
    };
    catalog.apply(bootstrap).expect("a sound bootstrap");
    catalog
}

fn id(id: u64) -> RouteId {
    RouteId::new(id).expect("not 0")
}

fn split(catalog: &mut Catalog, route: RouteId, key: &[u8], time_ms: u64) {
    let split = CatalogCommand::Split {
        route_id: route,
        key: key.to_vec(),
        expected_version: 0,
        request_id: String::new(),
        time_ms,
    };
    catalog.apply(split).expect("a sound split");
}

fn merge(catalog: &mut Catalog, left_id: RouteId, right_id: RouteId, time_ms: u64) {
    let merge = CatalogCommand::Merge {
        left_id,
        right_id,
        expected_version: 0,
        request_id: String::new(),
        time_ms,
    };
    catalog.apply(merge).expect("a sound merge");
}

/// A catalog after `changes` pseudo-random changes, 10 ms apart, two of them at one time; and its
/// routes after each.
fn history(changes: u64, retention: Retention) -> (Catalog, Vec<(u64, u64, Vec<RouteSpec>)>) {
    let mut catalog = catalog(retention);
    let mut seen = vec![(1_000, 1, catalog.table().specs().to_vec())];
    let mut state = 9u64;
    for at in 0..changes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let time_ms = 2_000 + at / 2 * 20;
        let routes = catalog.table().specs().to_vec();
        let pick = (state >> 33) as usize;
        let position = pick % routes.len();
        if routes.len() > 2 && pick.is_multiple_of(3) {
            let left = position.min(routes.len() - 2);
            merge(&mut catalog, routes[left].id, routes[left + 1].id, time_ms);
        } else {
            let mut key = routes[position].range.start.to_vec();
            key.extend_from_slice(if key.is_empty() { b"a" } else { b"\x01" });
            if !routes[position].range.contains(&key) {
                // The next route starts right there.
                continue;
            }
            split(&mut catalog, routes[position].id, &key, time_ms);
        }
        seen.push((time_ms, catalog.version(), catalog.table().specs().to_vec()));
    }
    (catalog, seen)
}

#[test]
fn the_routes_of_every_instant_are_told_as_they_were() {
    let (catalog, seen) = history(200, Retention::DEFAULT);
    for time_ms in (900..5_000).step_by(5) {
        let was = seen.iter().rfind(|(at, ..)| *at <= time_ms).unwrap_or(&seen[0]);
        let past = catalog.routes_at(time_ms);
        assert_eq!((past.version, past.routes.to_vec()), (was.1, was.2.clone()), "at {time_ms}");
    }
}

#[test]
fn a_forgotten_past_gives_way_to_the_oldest_that_is_known() {
    for retired in [0, 1, 2, 7, 30] {
        let (catalog, seen) = history(100, Retention { retired, ..Retention::DEFAULT });
        for time_ms in (900..3_100).step_by(10) {
            let past = catalog.routes_at(time_ms);
            let was = seen.iter().find(|(_, version, _)| *version == past.version);
            assert_eq!(was.map(|was| &was.2), Some(&past.routes.to_vec()), "at {time_ms}");
        }
    }
}

#[test]
fn events_name_what_ended_what_began_and_where() {
    let mut catalog = catalog(Retention::DEFAULT);
    split(&mut catalog, id(1), b"c", 2_000);
    split(&mut catalog, id(2), b"t", 2_000);
    merge(&mut catalog, id(3), id(4), 3_000);
    let all = catalog.events(0, u64::MAX, &KeyRange::all(), 10);
    let told: Vec<_> = all
        .events
        .iter()
        .map(|event| {
            let ids = |kin: crate::Kin| kin.iter().map(RouteId::get).collect::<Vec<_>>();
            (event.kind, event.version, ids(event.retired), ids(event.created), &event.key[..])
        })
        .collect();
    assert_eq!(
        told,
        [
            (DeltaKind::Split, 2, vec![1], vec![3, 4], &b"c"[..]),
            (DeltaKind::Split, 3, vec![2], vec![5, 6], &b"t"[..]),
            (DeltaKind::Merge, 4, vec![3, 4], vec![7], &b"c"[..]),
        ]
    );
    assert!(!all.truncated);
    let count = |from, to, range: &KeyRange| catalog.events(from, to, range, 10).events.len();
    let left = KeyRange { start: "".into(), end: Some("b".into()) };
    assert_eq!(count(0, u64::MAX, &left), 2, "the split of route 2 touches none of these keys");
    assert_eq!(count(2_001, 3_000, &KeyRange::all()), 0, "the end of the window is exclusive");
    assert_eq!(count(2_000, 3_000, &KeyRange::all()), 2);
    let newest = catalog.events(0, u64::MAX, &KeyRange::all(), 1);
    assert!(newest.truncated && newest.events[0].version == 4);
}
