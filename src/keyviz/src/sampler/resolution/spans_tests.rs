use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use keyviz_types::{KeyRange, RouteId};

/// Routes that begin at the empty key and at each of `starts`, in groups 1 to `groups` in turn.
fn routes(starts: &[u16], groups: u64) -> Vec<RouteSpec> {
    let key = |start: &u16| Bytes::copy_from_slice(&start.to_be_bytes());
    let all: Vec<_> = std::iter::once(Bytes::new()).chain(starts.iter().map(key)).collect();
    (0..all.len())
        .map(|n| RouteSpec {
            id: RouteId::new(n as u64 + 1).expect("from 1"),
            range: KeyRange { start: all[n].clone(), end: all.get(n + 1).cloned() },
            group: GroupId(n as u64 % groups + 1),
        })
        .collect()
}

fn numbered(count: u16) -> Vec<u16> {
    (1..count).collect()
}

fn budget(rows: usize, slots: usize) -> Budget {
    Budget { rows, slots, all_alone: false }
}

#[test]
fn hot_routes_stay_alone_and_cold_ones_spread_evenly() {
    let routes = routes(&numbered(12), 1);
    let mut load = vec![0; 12];
    load[5] = 1_000_000;
    let budget = budget(5, 100);
    let packing = RowPacking::new(&routes, &load, budget);
    assert_eq!(packing.fresh(budget), [0..3, 3..5, 5..6, 6..9, 9..12]);
}

#[test]
fn without_heat_rows_have_equal_numbers() {
    let routes = routes(&numbered(12), 1);
    let budget = budget(4, 100);
    let packing = RowPacking::new(&routes, &[0; 12], budget);
    assert_eq!(packing.fresh(budget), [0..3, 3..6, 6..9, 9..12]);
}

#[test]
fn a_shared_row_takes_a_slot_for_each_group() {
    let routes = routes(&numbered(12), 3);
    let budget = budget(12, 7);
    let packing = RowPacking::new(&routes, &[0; 12], budget);
    let rows = packing.fresh(budget);
    assert_eq!(rows, [0..6, 6..12]);
    assert_eq!(packing.size(&rows), Size { rows: 2, slots: 6 });
}

#[test]
fn fitting_joins_the_coldest_neighbours_only() {
    let routes = routes(&numbered(6), 1);
    let load = [500, 0, 0, 500, 20, 500];
    let budget = budget(5, 100);
    let packing = RowPacking::new(&routes, &load, budget);
    let alone: Vec<_> = (0..6).map(|route| route..route + 1).collect();
    assert_eq!(packing.fit(alone, budget), [0..1, 1..3, 3..4, 4..5, 5..6]);
}

#[test]
fn fitting_falls_back_to_a_fresh_packing_where_no_pair_frees_a_slot() {
    let routes = routes(&numbered(12), 3);
    let budget = budget(12, 7);
    let packing = RowPacking::new(&routes, &[0; 12], budget);
    let rows = vec![0..1, 1..2, 2..3, 3..6, 6..7, 7..8, 8..9, 9..12];
    let fitted = packing.fit(rows, budget);
    assert!(packing.size(&fitted).slots <= 7, "{fitted:?}");
}

#[test]
fn relieving_packs_a_row_anew_only_when_a_member_is_hot() {
    let routes = routes(&numbered(16), 1);
    let budget = budget(5, 100);
    let rows = vec![0..4, 4..8, 8..12, 12..16];
    let mut load = vec![100; 16];
    let calm = RowPacking::new(&routes, &load, budget);
    assert_eq!(calm.relieve(rows.clone(), budget), rows);
    load[6] = 50_000;
    let hot = RowPacking::new(&routes, &load, budget);
    assert_eq!(hot.relieve(rows, budget), [0..4, 4..6, 6..7, 7..8, 8..12, 12..16]);
}

#[test]
fn a_split_leaves_the_other_rows_as_they_are() {
    let old = routes(&[10, 20, 30, 40, 50], 1);
    // Rows: alone, a shared one, alone, a shared one.
    let rows = [0..1, 1..3, 3..4, 4..6];
    // Split inside the first, the shared and the second lone one.
    let new = routes(&[5, 10, 15, 20, 30, 35, 40, 50], 1);
    assert_eq!(carried(&old, &rows, &new), [0..1, 1..2, 2..5, 5..6, 6..7, 7..9]);
}

#[test]
fn a_merge_over_a_border_keeps_what_comes_after_apart() {
    let old = routes(&[10, 20, 30], 1);
    let rows = [0..1, 1..4];
    // The first two became one.
    let new = routes(&[20, 30], 1);
    assert_eq!(carried(&old, &rows, &new), [0..1, 1..3]);
}

proptest! {
    #[test]
    fn bounds_rows_fit_and_cover_whatever_the_heat(
        load in proptest::collection::vec(
            prop_oneof![Just(0u64), 0..1_000u64, 0..1_000_000u64],
            1..200,
        ),
        rows in 1..60usize,
        slots in 8..80usize,
        groups in 1..8u64,
        cuts in proptest::collection::btree_set(1..200usize, 0..60),
    ) {
        let routes = routes(&numbered(load.len() as u16), groups);
        let budget = budget(rows, slots);
        let packing = RowPacking::new(&routes, &load, budget);
        let heads: Vec<_> =
            std::iter::once(0).chain(cuts.into_iter().filter(|&cut| cut < load.len())).collect();
        let any = ranges(&heads, load.len());
        for rows in [
            packing.fresh(budget),
            packing.fit(any.clone(), budget),
            packing.fit(packing.relieve(any, budget), budget),
        ] {
            prop_assert!(budget.holds(packing.size(&rows)));
            prop_assert_eq!((rows[0].start, rows[rows.len() - 1].end), (0, load.len()));
            prop_assert!(rows.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(rows.iter().all(|row| !row.is_empty()));
        }
    }
}
