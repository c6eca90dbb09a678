//! The laws, on whole clusters of histories, checked against a list of all operations.

use bytes::Bytes;
use proptest::prelude::*;

use super::model::*;
use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::*;

fn world(actions: &[Action]) -> World {
    world_of(1440, actions)
}

/// With few columns, most of them are folded into coarser ones.
fn world_of(columns: usize, actions: &[Action]) -> World {
    let mut world =
        World::new(HistoryConfig { step_ms: STEP_MS, columns, ..HistoryConfig::default() });
    world.run(actions);
    world
}

/// The operations of the model in a key range and a time span.
fn expected(world: &World, query: &Query, range: &KeyRange, span: &ColumnSpan) -> u64 {
    world
        .events
        .iter()
        .filter(|event| !event.lost && range.contains(&event.key))
        .filter(|event| (span.start_ms..span.end_ms).contains(&event.at_ms))
        .filter(|event| query.role.is_none_or(|role| role == event.role))
        .map(|event| event.counts.get(query.series))
        .sum()
}

/// Whether a node died in a column of the answer over nine columns.
fn torn_by_death(world: &World, query: &Query, column: u32) -> bool {
    world.matrix(query, 6, 9).rows.iter().all(|row| row.partial.contains(column))
}

/// Whether a block covers the cell.
fn covered(matrix: &Matrix, row: u32, column: u32) -> bool {
    matrix.blocks.iter().any(|block| {
        (block.first_row..block.first_row + block.row_count).contains(&row)
            && (block.column..block.column + block.column_count).contains(&column)
    })
}

fn series() -> impl Strategy<Value = Series> {
    prop::sample::select(Series::ALL.to_vec())
}

fn role() -> impl Strategy<Value = Option<Role>> {
    prop::option::weighted(0.3, prop::sample::select(Role::ALL.to_vec()))
}

/// The number of cases per property; `PROPTEST_CASES` sets it for a long run.
fn cases() -> ProptestConfig {
    ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn conservation_of_every_column_and_of_every_measured_cell(
        actions in actions(80), series in series(), role in role(),
        max_rows in 1usize..12, max_columns in 1usize..20,
        columns in prop_oneof![Just(1440), 1usize..20],
    ) {
        let world = world_of(columns, &actions);
        let query = Query { role, ..world.everything(series) };
        let matrix = world.matrix(&query, max_rows, max_columns);
        for (index, span) in matrix.columns.iter().enumerate() {
            let all = expected(&world, &query, &KeyRange::all(), span);
            if columns == 1440 {
                prop_assert_eq!(matrix.column_total(index), all, "{:?}", span);
            }
            for (number, row) in (0..).zip(&matrix.rows) {
                let exact = expected(&world, &query, &row.range, span);
                prop_assert!(row.values[index] <= exact, "{} {:?}", row.bucket_id, span);
                if !covered(&matrix, number, index as u32) {
                    prop_assert_eq!(row.values[index], exact, "{} {:?}", row.bucket_id, span);
                }
            }
        }
        prop_assert_eq!(matrix.straddling_total, 0, "the window is whole, and all keys are asked");
        let all: u64 = world.events.iter()
            .filter(|event| !event.lost && role.is_none_or(|role| role == event.role))
            .map(|event| event.counts.get(series)).sum();
        prop_assert_eq!(matrix.total, all);
        prop_assert_eq!(matrix.unattributed, 0);
        let roles = matrix.rows.iter().map(|row| row.roles);
        let roles: u64 = roles.chain(matrix.blocks.iter().map(|block| block.roles))
            .map(|roles| roles.leader_write + roles.leader_read + roles.follower_read)
            .sum();
        let shares: u64 = matrix.by_node.iter().map(|share| share.total).sum();
        prop_assert_eq!(shares, all);
        let mut spread = matrix.clone();
        spread.spread();
        let cells: u64 = spread.rows.iter().flat_map(|row| &row.values).sum();
        prop_assert_eq!((cells, spread.blocks.len()), (all, 0), "a full grid");
        prop_assert_eq!(roles, all);
        prop_assert!(matrix.conflicts.is_empty(), "{:?}", matrix.conflicts);
        prop_assert!(!matrix.saturated);
        // Honest partiality: a cell is marked if and only if counts were lost.
        for event in world.events.iter().filter(|event| event.lost) {
            let column = matrix.columns.iter().position(
                |span| (span.start_ms..span.end_ms).contains(&event.at_ms));
            let column = column.expect("a window over everything") as u32;
            prop_assert!(matrix.rows.iter().all(|row| row.partial.contains(column)));
        }
        let died = actions.iter().any(|action| matches!(action, Action::Kill { .. }));
        prop_assert!(died || matrix.rows.iter().all(|row| row.partial.is_empty()));
        // Durable identity: no cell without a route, ever.
        for column in world.nodes.iter().flat_map(|node| node.history.inspect(query.window)) {
            let columns: u64 = column.cells().map(|cell| cell.counts.get(series)).sum();
            prop_assert_eq!(columns, column.total().get(series));
            prop_assert!(column.cells().all(|cell| cell.route.get() < world.next_route()));
        }
    }

    #[test]
    fn conservation_of_any_zoom_in_keys_and_time(
        actions in actions(60), series in series(), max_rows in 1usize..12, key in key(),
        steps in 0u64..40, columns in prop_oneof![Just(1440), 1usize..20],
    ) {
        let world = world_of(columns, &actions);
        let query = world.everything(series);
        let key = Bytes::from(key);
        let below = KeyRange { start: Bytes::new(), end: Some(key.clone()) };
        let above = KeyRange { start: key, end: None };
        let totals = |query: &Query| {
            let matrix = world.matrix(query, max_rows, 7);
            (matrix.total, matrix.straddling_total)
        };
        let all = totals(&query).0;
        // A block that straddles one half straddles the other too, and counts once.
        let adjacent = |one: Query, other: Query| {
            let ((one, over), (other, under)) = (totals(&one), totals(&other));
            prop_assert_eq!((one + other + over, over), (all, under));
            Ok(())
        };
        adjacent(Query { range: below, ..query.clone() }, Query { range: above, ..query.clone() })?;
        let middle_ms = world.now_ms.saturating_sub(steps * STEP_MS) / STEP_MS * STEP_MS;
        let before = Window { to_ms: middle_ms, ..query.window };
        let after = Window { from_ms: middle_ms, ..query.window };
        let [before, after] = [before, after].map(|window| Query { window, ..query.clone() });
        adjacent(before, after)?;
    }

    #[test]
    fn once_however_often_and_in_whatever_order_nodes_are_merged(
        actions in actions(50), series in series(), max_rows in 1usize..12,
        order in prop::collection::vec((0..NODES as usize, 0usize..4, 1usize..200), 3..20),
    ) {
        let world = world(&actions);
        let query = world.everything(series);
        let (rows, columns) = world.plan(&query, max_rows, 9);
        let contributions = world.contributions(&query, &rows, &columns);
        let once = merge(
            rows.clone(), columns.clone(), &query, contributions.clone(), world.statuses());
        let mut merging = Merge::new(rows, columns);
        // Some chunks of some nodes, in any order and repeatedly, then all in reverse.
        for (node, chunk, size) in order {
            let chunks = contributions[node].clone().chunks(size);
            let chunk = chunks[chunk % chunks.len()].clone();
            merging.add(chunk).expect("a chunk of a good contribution is good");
        }
        for contribution in contributions.into_iter().rev() {
            merging.add(contribution).expect("a node's own contribution is good");
        }
        let mut statuses = world.statuses();
        statuses.push(NodeStatus { address: "alias".into(), ..statuses[0].clone() });
        let twice = merging.finish(&query, statuses);
        let expected = Matrix { nodes: twice.nodes.clone(), ..once };
        prop_assert_eq!(twice, expected);
    }

    #[test]
    fn order_of_rows_that_cover_the_range_asked_for(
        actions in actions(60), series in series(), max_rows in 1usize..12,
        start in key(), end in prop::option::of(key()),
    ) {
        let world = world(&actions);
        let (start, end) = match end {
            Some(end) if end <= start => (end, Some([start, vec![0]].concat())),
            end => (start, end),
        };
        let (start, end) = (Bytes::from(start), end.map(Bytes::from));
        let query = Query { range: KeyRange { start, end }, ..world.everything(series) };
        let matrix = world.matrix(&query, max_rows, 5);
        let rows = &matrix.rows;
        prop_assert!(rows.len() <= max_rows, "bounds");
        prop_assert_eq!(&rows[0].range.start, &query.range.start);
        prop_assert_eq!(&rows[rows.len() - 1].range.end, &query.range.end);
        for pair in rows.windows(2) {
            prop_assert_eq!(pair[0].range.end.as_ref(), Some(&pair[1].range.start));
        }
        for row in rows {
            prop_assert!(!row.range.is_empty());
            let members: Vec<_> = world.routes.iter().filter(|route| {
                let past =
                    |end: &Option<Bytes>, key: &Bytes| end.as_ref().is_none_or(|end| end > key);
                past(&route.range.end, &row.range.start) && past(&row.range.end, &route.range.start)
            }).map(|route| route.id).collect();
            prop_assert_eq!(row.route_count, members.len() as u64);
            prop_assert_eq!(&row.route_ids[..], &members[..members.len().min(3)]);
            prop_assert_eq!(row.aggregate, members.len() > 1);
            prop_assert_eq!(row.route_ids_truncated, members.len() > 3);
        }
        let mut ids: Vec<_> = rows.iter().map(|row| &row.bucket_id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), rows.len(), "durable identity: no id twice");
        prop_assert_eq!(world.matrix(&query, max_rows, 5), matrix, "the same query, the same rows");
    }

    #[test]
    fn honest_partiality_of_every_member_that_did_not_answer(
        actions in actions(40), series in series(), silent in 0..NODES as usize,
        chunk in 1usize..50,
    ) {
        let world = world(&actions);
        let query = world.everything(series);
        let (rows, columns) = world.plan(&query, 6, 9);
        let mut contributions = world.contributions(&query, &rows, &columns);
        let broken = contributions.remove(silent);
        let mut statuses = world.statuses();
        statuses[silent].ok = false;
        let absent =
            merge(rows.clone(), columns.clone(), &query, contributions.clone(), statuses.clone());
        let died = |column: u32| actions.iter().any(|action| matches!(action, Action::Kill { .. }))
            && torn_by_death(&world, &query, column);
        prop_assert!(absent.rows.iter().all(|row| row.partial.len() == columns.len()));
        prop_assert_eq!((absent.responded, absent.expected), (2, 3));
        // A member that breaks off has answered for the columns before.
        let first = broken.chunks(chunk).swap_remove(0);
        let answered = first.covers.clone();
        contributions.push(first);
        let torn = merge(rows, columns.clone(), &query, contributions, statuses);
        for row in &torn.rows {
            for column in 0..columns.len() as u32 {
                let partial = !answered.contains(&column) || died(column);
                prop_assert_eq!(row.partial.contains(column), partial);
            }
        }
        for column in answered {
            let span = &torn.columns[column as usize];
            let all = expected(&world, &query, &KeyRange::all(), span);
            prop_assert_eq!(torn.column_total(column as usize), all);
        }
    }
}

/// A hot spot that moves every five columns of two seconds: the share of operations counted in
/// blocks, from the third column at each place on.
#[test]
fn bounds_at_most_a_tenth_of_a_moving_spot_is_in_blocks_after_two_columns() {
    const KEYS: u64 = 100_000;
    let sampler = Sampler::new(SamplerConfig::default()).expect("valid");
    let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
    sampler.publish_routes(1, [route]).expect("one route covers all keys");
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
    let start_ms = 1_800_000_000_000;
    let config = HistoryConfig { step_ms: 2_000, ..HistoryConfig::default() };
    let history = History::new(config, NodeId(1), Incarnation(1), start_ms).expect("valid");
    let mut random = 88_172_645_463_325_252u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let (dwell, columns) = (5, 40);
    for column in 0..columns {
        let spot = 10_000 + column / dwell * 2_000;
        for half in 1..=2 {
            for _ in 0..2_000 {
                let number = if below(10) == 0 { below(KEYS) } else { spot + below(500) };
                let key = format!("key/{number:08}");
                sampler.with_epoch(|epoch| {
                    let located = epoch.locate(key.as_bytes()).expect("published");
                    epoch.record(Op::Write, located, key.as_bytes(), 1, 100);
                });
            }
            let now_ms = start_ms + column * 2_000 + half * 1_000;
            let closed = !history.add(now_ms, sampler.harvest()).closed.is_empty();
            if closed {
                sampler.replan()
            } else {
                sampler.refine()
            };
        }
    }
    let end_ms = start_ms + columns * 2_000;
    let query = Query {
        window: Window { from_ms: start_ms, to_ms: end_ms },
        range: KeyRange::all(),
        series: Series::Writes,
        role: None,
    };
    // With 1,024 rows, every boundary is that of a row, and some 15 of 100 operations are in
    // blocks.
    for rows in [64, 256] {
        let size = MatrixSize { rows, columns: 0 };
        let matrix = Matrix::local(&sampler, &history, &query, size, end_ms - 1).expect("planned");
        assert_eq!(matrix.total, columns * 4_000);
        let later = |column: u32| u64::from(column) % dwell >= 2;
        let blocks = matrix.blocks.iter().filter(|block| later(block.column));
        let blocks: u64 = blocks.map(|block| block.value).sum();
        let share = blocks * 1_000 / (columns / dwell * 3 * 4_000);
        let all = matrix.in_blocks().0 * 1_000 / matrix.total;
        println!("{rows} rows: {share} thousandths in blocks after two columns, {all} in all");
        assert!(share <= 100, "{share} thousandths in blocks with {rows} rows");
    }
}
