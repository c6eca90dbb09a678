//! The laws over the sampler and the history together, through the public API: random histories of
//! three nodes, and beside them a plain list of what happened.
//!
//! `KEYVIZ_CASES` says how many histories each law is tried on; a long run takes 10,000 in release.

mod actions;
mod hot_keys;
mod measured;
mod world;

use std::collections::BTreeMap;

use actions::{GROUPS, NODES, actions, key, setup};
use bytes::Bytes;
use keyviz_core::{history::*, query::*, sampler::*, *};
use measured::view;
use proptest::prelude::*;
use world::{Event, World, within};

fn series() -> impl Strategy<Value = Series> {
    prop::sample::select(Series::ALL.to_vec())
}

fn role() -> impl Strategy<Value = Option<Role>> {
    prop::option::weighted(0.3, prop::sample::select(Role::ALL.to_vec()))
}

fn config() -> ProptestConfig {
    let cases = std::env::var("KEYVIZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(64),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// Whether a block has a part of a cell.
fn covered(matrix: &Matrix, row: u32, column: u32) -> bool {
    matrix.blocks.iter().any(|block| {
        (block.first_row..block.first_row + block.row_count).contains(&row)
            && (block.column..block.column + block.column_count).contains(&column)
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn law_1_conservation_of_every_count_in_any_answer(
        setup in setup(), actions in actions(), series in series(), role in role(),
        rows in 1usize..12, columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let query = Query { role, ..world.everything(series) };
        let matrix = world.matrix(&query, rows, columns);
        let of_role = |event: &Event| role.is_none_or(|role| role == event.role);
        let all = world.sum(series, of_role);
        prop_assert_eq!((matrix.total, matrix.straddling_total), (all, 0));
        let cells = matrix.rows.iter().flat_map(|row| &row.values).sum::<u64>();
        prop_assert_eq!(cells + matrix.in_blocks().0, all);
        let mut grid = matrix.clone();
        grid.spread();
        prop_assert_eq!(grid.rows.iter().flat_map(|row| &row.values).sum::<u64>(), all);
        prop_assert_eq!((matrix.unattributed, matrix.saturated), (0, false));
        prop_assert!(matrix.conflicts.is_empty(), "{:?}", matrix.conflicts);
        for role in Role::ALL {
            let roles = matrix.rows.iter().map(|row| row.roles);
            let roles = roles.chain(matrix.blocks.iter().map(|block| block.roles));
            let shown: u64 = roles.map(|roles| match role {
                Role::LeaderWrite => roles.leader_write,
                Role::LeaderRead => roles.leader_read,
                Role::FollowerRead => roles.follower_read,
            }).sum();
            let served = world.sum(series, |event| of_role(event) && event.role == role);
            prop_assert_eq!(shown, served, "{:?}", role);
        }
        // Zoomed to two halves of the keys, nothing is lost or doubled at the cut: what straddles
        // it is told by both, and counts once.
        let cut = Bytes::from_static(b"b\x00");
        let below = KeyRange { start: Bytes::new(), end: Some(cut.clone()) };
        let above = KeyRange { start: cut, end: None };
        let half = |range| world.matrix(&Query { range, ..query.clone() }, rows, columns);
        let (below, above) = (half(below), half(above));
        prop_assert_eq!(below.straddling_total, above.straddling_total);
        prop_assert_eq!(below.total + above.total + below.straddling_total, all);
    }

    #[test]
    fn law_3_durable_identity_of_every_cell_and_row(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
    ) {
        // What is flushed is checked on the way, see `World::assert_identities`.
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        for column in world.nodes.iter().flat_map(|node| node.history.inspect(query.window)) {
            for cell in column.cells() {
                let route = world.ever.get(&cell.route);
                let known = |route: &RouteSpec| cell.aggregate || route.group == cell.group;
                prop_assert!(route.is_some_and(known), "{:?}", cell);
            }
            prop_assert_eq!(column.unattributed(), Counts::ZERO);
        }
        let matrix = world.matrix(&query, rows, 9);
        let named = matrix.rows.iter().flat_map(|row| &row.route_ids);
        for id in named {
            prop_assert!(world.routes.iter().any(|route| route.id == *id));
        }
        let mut ids: Vec<_> = matrix.rows.iter().map(|row| &row.bucket_id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), matrix.rows.len(), "no id twice");
    }

    #[test]
    fn law_4_aligned_time_of_every_column_on_every_node(
        setup in setup(), actions in actions(), series in series(), columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        let step_ms = setup.history.step_ms;
        for node in &world.nodes {
            let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
            for column in node.history.inspect(query.window) {
                prop_assert_eq!((column.start_ms() % step_ms, column.end_ms() % step_ms), (0, 0));
                let length_ms = column.end_ms() - column.start_ms();
                prop_assert!(!world.unfolded() || length_ms == step_ms);
                kept.insert(column.start_ms(), column.end_ms());
            }
        }
        let matrix = world.matrix(&query, 6, columns);
        for pair in matrix.columns.windows(2) {
            prop_assert_eq!(pair[0].end_ms, pair[1].start_ms);
        }
        for (index, span) in matrix.columns.iter().enumerate() {
            prop_assert_eq!((span.start_ms % step_ms, span.end_ms % step_ms), (0, 0));
            prop_assert_eq!(span.open, index + 1 == matrix.columns.len());
            if world.unfolded() {
                let all = world.sum(series, |event| within(event, span));
                prop_assert_eq!(matrix.column_total(index), all, "{:?}", span);
            }
        }
    }

    #[test]
    fn law_5_order_of_rows_without_gap_or_overlap_and_the_same_each_time(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
        start in key(), end in prop::option::of(key()),
    ) {
        let start = Bytes::from(start);
        let end = end.map(Bytes::from).filter(|end| *end > start);
        let world = World::of(&setup, &actions);
        let query = Query { range: KeyRange { start, end }, ..world.everything(series) };
        let matrix = world.matrix(&query, rows, 5);
        prop_assert_eq!(&matrix.rows[0].range.start, &query.range.start);
        prop_assert_eq!(&matrix.rows[matrix.rows.len() - 1].range.end, &query.range.end);
        for pair in matrix.rows.windows(2) {
            prop_assert_eq!(pair[0].range.end.as_ref(), Some(&pair[1].range.start));
        }
        prop_assert!(matrix.rows.iter().all(|row| !row.range.is_empty()));
        prop_assert_eq!(world.matrix(&query, rows, 5), matrix.clone(), "the same again");
        let reversed = world.answer(&query, rows, 5, &[2, 1, 0]);
        prop_assert_eq!(reversed, matrix, "whoever answers first");
    }

    #[test]
    fn law_6_bounds_of_slots_rows_columns_and_bytes(
        setup in setup(), actions in actions(), rows in 1usize..12, columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let matrix = world.matrix(&world.everything(Series::Reads), rows, columns);
        prop_assert!(matrix.rows.len() <= rows && matrix.columns.len() <= columns);
        prop_assert!(matrix.rows.iter().all(|row| row.route_ids.len() <= 3));
        for node in &world.nodes {
            let _ = node.sampler.harvest();
            let stats = node.sampler.stats();
            let slots = setup.sampler.resolution_slots.max(GROUPS as usize);
            prop_assert!(stats.slots <= slots, "{} slots of {}", stats.slots, slots);
            // One that is held, one that this thread loaded last.
            prop_assert!(stats.draining <= 2, "{:?}", stats);
            // A block a shard and the overflow, each of 32 bytes a slot in whole pages of 128.
            let blocks = (stats.draining + 1) * (setup.sampler.shards + 1);
            prop_assert!(stats.counter_bytes <= blocks * (32 * slots + 128), "{:?}", stats);
            prop_assert!(node.history.holdings().bytes <= setup.history.bytes);
            let everything = world.everything(Series::Reads).window;
            let raw = node.history.inspect(everything).iter()
                .filter(|column| column.end_ms() - column.start_ms() == setup.history.step_ms)
                .count();
            let tiered = setup.history.step_ms < LAST_TIER_MS;
            prop_assert!(!tiered || raw <= setup.history.columns + 2, "{} raw columns", raw);
        }
    }

    #[test]
    fn law_7_honest_partiality_of_what_died_was_estimated_or_did_not_answer(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
        columns in 1usize..20, silent in 0..NODES,
    ) {
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        let matrix = world.matrix(&query, rows, columns);
        for (index, span) in (0u32..).zip(&matrix.columns) {
            let lost = world.events.iter().any(|event| event.lost && within(event, span));
            for (number, row) in (0u32..).zip(&matrix.rows) {
                prop_assert!(!lost || row.partial.contains(index), "a loss that is not shown");
                // What no block covers is exact.
                if !covered(&matrix, number, index) {
                    let exact = world.sum(series, |event| {
                        within(event, span) && row.range.contains(&event.key)
                    });
                    let value = row.values[index as usize];
                    prop_assert_eq!(value, exact, "{} {:?}", row.bucket_id, span);
                }
            }
        }
        let whole = matrix.rows.iter().all(|row| row.partial.is_empty());
        prop_assert!(world.deaths > 0 || whole, "partial, and nobody died");
        prop_assert_eq!((matrix.responded, matrix.expected), (3, 3));
        let asked: Vec<usize> = (0..NODES).filter(|node| *node != silent).collect();
        let torn = world.answer(&query, rows, columns, &asked);
        prop_assert_eq!((torn.responded, torn.expected), (2, 3));
        // Another may answer for a node that has handed over.
        let all = torn.rows.iter().all(|row| row.partial.len() == torn.columns.len());
        prop_assert!(all || world.handed.contains(&silent));
    }

    #[test]
    fn law_11_measured_never_invented_the_same_number_in_every_view_or_a_block(
        setup in setup(), actions in actions(), series in series(), role in role(),
        views in prop::collection::vec(view(), 2), spread in any::<bool>(),
    ) {
        let world = World::of(&setup, &actions);
        for view in &views {
            let query = view.query(&world, series, role);
            let matrix = view.matrix(&world, &query);
            measured::check(&world, &query, &matrix)?;
            if spread {
                let mut grid = matrix.clone();
                grid.spread();
                let cells: u64 = grid.rows.iter().flat_map(|row| &row.values).sum();
                prop_assert_eq!(cells, matrix.total, "a full grid");
                prop_assert!(grid.blocks.iter().all(|block| block.straddling));
            }
        }
        // A range and a time that both views have, and no block in either, has one number.
        let [one, other] = [&views[0], &views[1]].map(|view| {
            view.matrix(&world, &view.query(&world, series, role))
        });
        for (number, row) in (0u32..).zip(&one.rows) {
            let Some(same) = other.rows.iter().position(|other| other.range == row.range) else {
                continue;
            };
            for (index, span) in (0u32..).zip(&one.columns) {
                let same_time = |other: &ColumnSpan| {
                    (other.start_ms, other.end_ms) == (span.start_ms, span.end_ms)
                };
                let Some(column) = other.columns.iter().position(same_time) else { continue };
                let is_block = covered(&one, number, index)
                    || covered(&other, same as u32, column as u32);
                let (mine, theirs) = (row.values[index as usize], other.rows[same].values[column]);
                prop_assert!(is_block || mine == theirs, "{} and {}", mine, theirs);
            }
        }
    }
}
