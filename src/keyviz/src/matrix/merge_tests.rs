//! Merges contributions that nodes should never send, and valid ones that they rarely send.

use bytes::Bytes;
use proptest::prelude::*;

use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::wire::*;
use crate::*;

fn rows() -> RowPlan {
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    let route = |id, start, end: Option<&'static str>| RouteSpec {
        id: RouteId::new(id).expect("above 0"),
        range: KeyRange { start: key(start), end: end.map(key) },
        group: GroupId(1),
    };
    let routes = [route(1, "", Some("m")), route(2, "m", None)];
    let range = KeyRange::all();
    let request = PlanRequest {
        routes: &routes,
        catalog_version: 4,
        range: &range,
        max_rows: 0,
        max_route_ids: 8,
        boundaries: None,
    };
    plan(&request, &[]).expect("the routes cover all keys")
}

fn columns() -> ColumnPlan {
    ColumnPlan::new(1_000, &[0, 1_000, 2_000, 3_000], true).expect("in order")
}

fn query() -> Query {
    let window = Window { from_ms: 0, to_ms: 3_000 };
    Query { window, range: KeyRange::all(), series: Series::Writes, role: None }
}

fn led(row: u32, group: u64, term: u64) -> CellKey {
    let source = Source::LeaderWrite { group: GroupId(group), term: Some(Term(term)) };
    CellKey { place: Place::Row(row), source }
}

/// Rows from `first` on, with the keys that they share with the whole key space or a part of it.
fn span(first: u32, rows: u32) -> BlockSpan {
    let end = (first + rows < 2).then(|| Bytes::from_static(b"m"));
    let start = if first == 0 { Bytes::new() } else { Bytes::from_static(b"m") };
    let range = KeyRange { start, end };
    BlockSpan { first_row: first, rows, columns: 1, range, reach: None }
}

/// One cell in column 1.
fn claim(node: u64, keys: Vec<CellKey>, values: Vec<u64>) -> NodeColumns {
    let part = ColumnPart {
        column: 1,
        incarnation: Incarnation(1),
        partial: false,
        unattributed: 0,
        keys: (0..keys.len() as u32).collect(),
        values,
        apportioned: vec![],
    };
    NodeColumns {
        node: NodeId(node),
        held_by: NodeId(node),
        incarnation: Incarnation(1),
        covers: 0..3,
        held: ColumnSet::of(0..3),
        incomplete: ColumnSet::new(),
        forgotten_before_ms: 0,
        spans: vec![],
        keys,
        parts: vec![part],
    }
}

fn ok(node: u64) -> NodeStatus {
    NodeStatus { node: Some(NodeId(node)), ok: true, ..NodeStatus::default() }
}

fn merged(contributions: Vec<NodeColumns>) -> Matrix {
    let mut statuses: Vec<NodeStatus> =
        contributions.iter().map(|contribution| ok(contribution.node.0)).collect();
    statuses.dedup();
    merge(rows(), columns(), &query(), contributions, statuses)
}

#[test]
fn once_two_leaders_of_one_term_are_a_conflict_and_the_larger_claim_counts() {
    let claims = vec![
        claim(3, vec![led(0, 1, 7)], vec![10]),
        claim(1, vec![led(0, 1, 7), led(1, 2, 7)], vec![25, 1]),
        claim(2, vec![led(0, 1, 7)], vec![20]),
    ];
    let matrix = merged(claims);
    assert_eq!(matrix.rows[0].values, [0, 25, 0]);
    assert_eq!(matrix.rows[0].conflict, ColumnSet::of(1..2));
    assert!(matrix.rows[1].conflict.is_empty());
    let nodes = vec![NodeId(1), NodeId(2), NodeId(3)];
    assert_eq!(matrix.conflicts, [Conflict { group: GroupId(1), term: Term(7), nodes }]);
    assert_eq!(matrix.total, 26);
    let share = |share: &NodeShare| (share.node.0, share.total, share.rows.clone());
    let shares: Vec<_> = matrix.by_node.iter().map(share).collect();
    assert_eq!(shares, [(1, 26, vec![25, 1]), (2, 0, vec![0, 0]), (3, 0, vec![0, 0])]);
}

#[test]
fn once_a_block_that_two_leaders_claim_is_a_conflict_too() {
    let block = |node: u64, value: u64| {
        let place = CellKey { place: Place::Block(0), ..led(0, 1, 7) };
        NodeColumns {
            spans: vec![span(0, 2)],
            ..claim(node, vec![led(0, 2, 1), place], vec![4, value])
        }
    };
    let matrix = merged(vec![
        block(1, 10),
        NodeColumns { keys: vec![led(0, 3, 1), block(2, 1).keys[1]], ..block(2, 25) },
    ]);
    assert_eq!((matrix.rows[0].values[1], matrix.total, matrix.straddling_total), (8, 33, 0));
    let [block] = &matrix.blocks[..] else { panic!("{:?}", matrix.blocks) };
    assert_eq!((block.first_row, block.row_count, block.column, block.value), (0, 2, 1, 25));
    assert!(block.conflict && !block.straddling && block.range == KeyRange::all());
    assert_eq!(matrix.conflicts.len(), 1);
    let shares: Vec<_> = matrix.by_node.iter().map(|share| (share.total, share.blocks)).collect();
    assert_eq!(shares, [(4, 0), (29, 25)]);
    let mut spread = matrix.clone();
    spread.spread();
    assert_eq!((spread.rows[0].values[1], spread.rows[1].values[1]), (8 + 13, 12));
    assert!(spread.blocks.is_empty() && spread.rows[1].apportioned == ColumnSet::of(1..2));
    assert_eq!((spread.total, spread.rows[1].conflict.len()), (33, 1));
}

#[test]
fn once_terms_add_and_so_do_lives_of_one_node() {
    let mut again = claim(1, vec![led(0, 1, 7)], vec![5]);
    again.parts[0].incarnation = Incarnation(2);
    let claims =
        vec![claim(1, vec![led(0, 1, 7)], vec![10]), again, claim(2, vec![led(0, 1, 8)], vec![20])];
    let matrix = merged(claims);
    assert_eq!(matrix.rows[0].values, [0, 35, 0]);
    assert!(matrix.conflicts.is_empty());
}

#[test]
fn conservation_writes_of_no_known_term_and_reads_add_over_nodes() {
    let place = Place::Row(0);
    let unknown = CellKey { place, source: Source::LeaderWrite { group: GroupId(1), term: None } };
    let read = CellKey { place, source: Source::LeaderRead };
    let follower = CellKey { place, source: Source::FollowerRead };
    let keys = || vec![unknown, read, follower];
    let matrix =
        merged(vec![claim(1, keys(), vec![1, 10, 100]), claim(2, keys(), vec![2, 20, 200])]);
    let roles = RoleTotals { leader_write: 3, leader_read: 30, follower_read: 300 };
    assert_eq!((matrix.rows[0].roles, matrix.rows[0].values[1]), (roles, 333));
}

#[test]
fn honest_partiality_a_sum_that_overflows_saturates_and_says_so() {
    let claims = vec![
        claim(1, vec![led(0, 1, 7)], vec![u64::MAX - 1]),
        claim(2, vec![led(0, 1, 8)], vec![5]),
    ];
    let matrix = merged(claims);
    assert_eq!((matrix.rows[0].values[1], matrix.total), (u64::MAX, u64::MAX));
    assert!(matrix.saturated);
    assert!(!merged(vec![claim(1, vec![led(0, 1, 7)], vec![9])]).saturated);
}

#[test]
fn honest_partiality_what_a_node_forgot_is_partial() {
    let mut forgetful = claim(1, vec![led(0, 1, 7)], vec![9]);
    forgetful.forgotten_before_ms = 1_500;
    let matrix = merged(vec![forgetful, claim(2, vec![], vec![])]);
    assert!(matrix.rows.iter().all(|row| row.partial == ColumnSet::of(0..2)));
    let told = |status: &NodeStatus| (status.past_history, status.forgotten_before_ms);
    assert_eq!(matrix.nodes.iter().map(told).collect::<Vec<_>>(), [(true, 1_500), (false, 0)]);
}

#[test]
fn bad_contributions_are_refused_named_and_do_no_harm() {
    use ContributionError as Error;
    let good = || claim(1, vec![led(0, 1, 7), led(1, 1, 7)], vec![3, 4]);
    let with = |change: fn(&mut NodeColumns)| {
        let mut bad = good();
        change(&mut bad);
        bad
    };
    let cases = [
        (with(|bad| bad.covers = 0..4), Error::Covers { from: 0, to: 4, columns: 3 }),
        (with(|bad| bad.held = ColumnSet::of(2..9)), Error::Covers { from: 0, to: 3, columns: 3 }),
        (with(|bad| bad.keys[1].place = Place::Row(2)), Error::Key { index: 1, row: 2, rows: 2 }),
        (with(|bad| bad.keys.swap(0, 1)), Error::Key { index: 1, row: 0, rows: 2 }),
        (with(|bad| bad.keys[1].place = Place::Block(0)), Error::Key { index: 1, row: 0, rows: 0 }),
        (with(|bad| bad.spans = vec![span(0, 1)]), Error::Span { index: 0 }),
        (with(|bad| bad.spans = vec![span(0, 2); 2]), Error::Span { index: 1 }),
        (
            with(|bad| {
                bad.spans = vec![BlockSpan { columns: 3, ..span(0, 2) }];
                bad.keys[1].place = Place::Block(0);
            }),
            Error::Part { index: 0, column: 1 },
        ),
        (with(|bad| bad.parts[0].column = 3), Error::Part { index: 0, column: 3 }),
        (with(|bad| bad.parts.push(bad.parts[0].clone())), Error::Part { index: 1, column: 1 }),
        (with(|bad| bad.parts[0].keys[1] = 2), Error::Cells { index: 0 }),
        (with(|bad| bad.parts[0].values.truncate(1)), Error::Cells { index: 0 }),
        (with(|bad| bad.parts[0].values[0] = 0), Error::Cells { index: 0 }),
        (with(|bad| bad.parts[0].apportioned = vec![2]), Error::Apportioned { index: 0 }),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.check(&rows().axis(), &columns()), Err(error));
        let other = claim(2, vec![led(0, 2, 1)], vec![50]);
        let matrix = merged(vec![bad, other]);
        assert_eq!((matrix.total, matrix.responded, matrix.expected), (50, 1, 2));
        assert_eq!(matrix.nodes[0].error, Some(error.to_string()));
        assert!(matrix.rows.iter().all(|row| row.partial.len() == 3));
    }
    let keys = (0..=MAX_KEYS as u64).map(|group| led(0, group, 1)).collect();
    let many = NodeColumns { keys, ..good() };
    let error = Error::TooManyKeys { keys: MAX_KEYS + 1 };
    assert_eq!(many.check(&rows().axis(), &columns()), Err(error));
}

#[test]
fn a_matrix_without_columns_or_rows_is_an_empty_success() {
    let none = ColumnPlan::new(1_000, &[], false).expect("no columns");
    let mut nothing = claim(1, vec![], vec![]);
    (nothing.covers, nothing.held, nothing.parts) = (0..0, ColumnSet::new(), vec![]);
    let matrix = merge(rows(), none, &query(), vec![nothing], vec![ok(1)]);
    assert_eq!((matrix.rows.len(), matrix.columns.len(), matrix.total), (2, 0, 0));
    assert!(matrix.rows.iter().all(|row| row.values.is_empty() && row.partial.is_empty()));
    let range = KeyRange::all();
    let request = PlanRequest {
        routes: &[],
        catalog_version: 0,
        range: &range,
        max_rows: 0,
        max_route_ids: 8,
        boundaries: None,
    };
    let rows = plan(&request, &[]).expect("no routes and no load");
    assert!(merge(rows, columns(), &query(), vec![], vec![]).rows.is_empty());
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    let route = |id, start, end: Option<&'static str>| RouteSpec {
        id: RouteId::new(id).expect("above 0"),
        range: KeyRange { start: key(start), end: end.map(key) },
        group: GroupId(id),
    };
    let refused = |routes: &[RouteSpec], range: &KeyRange, max_rows| {
        let request = PlanRequest {
            routes,
            catalog_version: 1,
            range,
            max_rows,
            max_route_ids: 8,
            boundaries: None,
        };
        plan(&request, &[]).expect_err("a plan that cannot be")
    };
    let all = KeyRange::all();
    let empty = KeyRange { start: key("m"), end: Some(key("m")) };
    let whole = [route(1, "", None)];
    assert_eq!(refused(&whole, &all, 1025), PlanError::TooManyRows { rows: 1025 });
    assert_eq!(refused(&whole, &empty, 0), PlanError::EmptyRange);
    let first = RouteId::FIRST;
    let gap = [route(1, "", Some("g")), route(2, "m", None)];
    assert_eq!(refused(&gap, &all, 0), PlanError::Gap { after: first });
    assert_eq!(refused(&[route(1, "", Some("g"))], &all, 0), PlanError::Gap { after: first });
    assert_eq!(refused(&[route(1, "g", None)], &all, 0), PlanError::Gap { after: first });
}

#[test]
fn totals_that_cannot_be_are_refused() {
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    let range = |start, end: Option<&'static str>| RangeTotal {
        range: KeyRange { start: key(start), end: end.map(key) },
        total: 1,
        aggregate: false,
        cut: 0,
    };
    let asked = KeyRange { start: key("b"), end: Some(key("y")) };
    let check = |ranges| {
        let totals = NodeTotals {
            node: NodeId(1),
            incarnation: Incarnation(1),
            catalog_version: 1,
            columns: 1,
            oldest_ms: 0,
            open_ms: 0,
            newest_ms: 0,
            forgotten_before_ms: 0,
            unattributed: 0,
            ranges,
        };
        totals.check(&asked)
    };
    assert_eq!(check(vec![range("b", Some("c")), range("d", Some("y"))]), Ok(()));
    assert_eq!(check(vec![range("a", Some("c"))]), Err(TotalsError::Outside { index: 0 }));
    assert_eq!(check(vec![range("c", None)]), Err(TotalsError::Outside { index: 0 }));
    assert_eq!(check(vec![range("c", Some("c"))]), Err(TotalsError::OutOfOrder { index: 0 }));
    let overlap = vec![range("b", Some("e")), range("d", Some("f"))];
    assert_eq!(check(overlap), Err(TotalsError::OutOfOrder { index: 1 }));
    let many = vec![range("b", Some("c")); MAX_TOTALS + 1];
    assert_eq!(check(many), Err(TotalsError::TooMany { ranges: MAX_TOTALS + 1 }));
}

/// Any answer of one of two nodes, in one of two incarnations, asked at any time.
fn answer() -> impl Strategy<Value = NodeColumns> {
    let part = (0u32..3, 1u64..3, any::<bool>(), 0u64..3, 1u64..4, 1u64..4, any::<bool>());
    let part =
        part.prop_map(|(column, life, partial, unattributed, first, second, cut)| ColumnPart {
            column,
            incarnation: Incarnation(life),
            partial,
            unattributed,
            keys: vec![0, 1],
            values: vec![first, second],
            apportioned: if cut { vec![1] } else { vec![] },
        });
    let parts = prop::collection::vec(part, 0..4).prop_map(|mut parts| {
        parts.sort_by_key(|part| (part.column, part.incarnation));
        parts.dedup_by_key(|part| (part.column, part.incarnation));
        parts
    });
    (1u64..3, 1u64..3, 0u64..2_000, parts).prop_map(|(node, term, forgotten_before_ms, parts)| {
        NodeColumns {
            forgotten_before_ms,
            parts,
            ..claim(node, vec![led(0, 1, term), led(1, 1, 7)], vec![1, 1])
        }
    })
}

proptest! {
    #[test]
    fn once_merging_is_associative_commutative_and_idempotent(
        answers in prop::collection::vec(answer(), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let in_order = |answers: &mut dyn Iterator<Item = &NodeColumns>| {
            let mut merge = Merge::new(rows(), columns());
            answers.for_each(|answer| merge.add(answer.clone()).expect("fits the axes"));
            merge.finish(&query(), vec![ok(1), ok(2)])
        };
        let once = in_order(&mut answers.iter());
        let mixed = order.iter().map(|index| index.get(&answers));
        let twice = in_order(&mut mixed.chain(answers.iter().rev()));
        let shares = once.by_node.iter().map(|share| share.total).sum::<u64>();
        prop_assert_eq!(shares, once.total);
        let of_row = |row: usize| once.by_node.iter().map(|share| share.rows[row]).sum::<u64>();
        for (index, row) in once.rows.iter().enumerate() {
            prop_assert_eq!(of_row(index), row.values.iter().sum::<u64>());
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn conservation_sources_add_up_to_the_matrix_where_there_is_no_conflict(
        answers in prop::collection::vec(answer(), 1..6),
    ) {
        let mut merge = Merge::new(rows(), columns());
        answers.iter().for_each(|answer| merge.add(answer.clone()).expect("fits the axes"));
        let sources = merge.sources();
        let matrix = merge.finish(&query(), vec![ok(1), ok(2)]);
        let mut sums = vec![vec![0; 3]; 2];
        for SourceCount { column, key, value, .. } in &sources.counts {
            let Place::Row(row) = key.place else { panic!("there are no blocks") };
            sums[row as usize][*column as usize] += value;
        }
        for (row, sums) in matrix.rows.iter().zip(sums) {
            for (column, (value, sum)) in row.values.iter().zip(sums).enumerate() {
                match row.conflict.iter().any(|conflict| conflict as usize == column) {
                    true => prop_assert!(*value < sum, "all claims are listed"),
                    false => prop_assert_eq!(*value, sum),
                }
            }
        }
    }
}
