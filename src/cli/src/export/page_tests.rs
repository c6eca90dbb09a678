use super::*;

fn key(key: &'static str) -> Bytes {
    Bytes::from_static(key.as_bytes())
}

fn scope(start: &'static str, end: Option<&'static str>) -> Scope {
    Scope {
        from_ms: 0,
        to_ms: 40,
        start: key(start),
        end: end.map(key),
        axis: proto::Axis::Then,
        dedup: true,
        routes: 3,
    }
}

fn place(from_ms: u64, start: &'static str) -> Place {
    Place { from_ms, to_ms: from_ms + 20, start: key(start) }
}

/// Rows of single routes that begin at these keys; the last one is of so many routes.
fn matrix(from_ms: u64, starts: &[&'static str], last: u64) -> proto::Matrix {
    let ends = starts[1..].iter().map(|start| Some(key(start))).chain([None]);
    let row = |(at, (start, end)): (usize, (&&'static str, Option<Bytes>))| proto::Row {
        start: key(start),
        end,
        route_ids: vec![at as u64 + 1],
        route_count: if at + 1 == starts.len() { last } else { 1 },
        group_id: Some(7),
        values: vec![0; 2],
        ..Default::default()
    };
    let column = |start_ms| proto::Column { start_ms, end_ms: start_ms + 10, open: false };
    proto::Matrix {
        by_route: true,
        rows: starts.iter().zip(ends).enumerate().map(row).collect(),
        columns: vec![column(from_ms), column(from_ms + 10)],
        ..Default::default()
    }
}

fn block(
    first_row: u32,
    row_count: u32,
    start: &'static str,
    end: Option<&'static str>,
) -> proto::Block {
    proto::Block {
        first_row,
        row_count,
        column_count: 1,
        value: 5,
        start: key(start),
        end: end.map(key),
        ..Default::default()
    }
}

fn rows(scope: &Scope, place: &Place, reads: proto::Matrix) -> Page {
    let mut others = reads.clone();
    others.blocks.clear();
    others.rows.iter_mut().for_each(|row| row.values.fill(0));
    let matrices = [reads, others.clone(), others.clone(), others];
    Rows::new(scope, place, &matrices).page().expect("it is sound")
}

fn kinds(page: &Page) -> Vec<(Kind, Bytes)> {
    let of = |record: &Record| (record.kind, record.keys.clone().expect("keys").0);
    page.records.iter().map(of).collect()
}

#[test]
fn once_what_reaches_over_the_edge_of_a_page_is_taken_where_it_begins() {
    let all = scope("", None);
    // Of the first page: its two routes; the third row is all the others.
    let mut first = matrix(0, &["", "d", "h"], 2);
    first.rows[0].values[1] = 3;
    first.rows[2].values[1] = 9;
    first.blocks =
        vec![block(0, 2, "", Some("h")), block(1, 2, "d", Some("k")), block(2, 1, "h", Some("k"))];
    let first = rows(&all, &place(0, ""), first);
    assert_eq!(first.next, Some(key("h")));
    assert_eq!(
        kinds(&first),
        [(Kind::Block, key("")), (Kind::Block, key("d")), (Kind::Cell, key(""))]
    );
    assert_eq!(first.records[2].counts, Some([3, 0, 0, 0]));
    // Of the second page: the block that began before it straddles there.
    let mut second = matrix(0, &["h", "m"], 1);
    let over = proto::Block { straddling: true, ..block(0, 1, "d", Some("k")) };
    second.blocks = vec![over.clone(), block(0, 2, "h", Some("p"))];
    let second_page = rows(&all, &place(0, "h"), second.clone());
    assert_eq!((kinds(&second_page), second_page.next), (vec![(Kind::Block, key("h"))], None));
    // Where the export itself begins there, it straddles.
    let from_h = rows(&scope("h", Some("n")), &place(0, "h"), second);
    let straddling = vec![(Kind::Straddling, key("d")), (Kind::Straddling, key("h"))];
    assert_eq!(kinds(&from_h), straddling);
}

#[test]
fn once_what_reaches_over_the_edge_of_a_piece_is_taken_where_it_begins() {
    let all = scope("", None);
    let reach = |start_ms, end_ms| proto::Block {
        straddling: true,
        start_ms: Some(start_ms),
        end_ms: Some(end_ms),
        column_count: 2,
        ..block(0, 1, "", Some("d"))
    };
    let of = |from_ms, block| {
        let mut matrix = matrix(from_ms, &["", "d"], 1);
        matrix.blocks = vec![block];
        rows(&all, &place(from_ms, ""), matrix)
    };
    let first = of(0, reach(0, 40));
    assert_eq!(kinds(&first), [(Kind::Block, key(""))]);
    assert_eq!((first.records[0].from_ms, first.records[0].to_ms), (0, 40));
    assert!(of(20, reach(0, 40)).records.is_empty());
    assert_eq!(kinds(&of(20, reach(20, 60))), [(Kind::Straddling, key(""))]);
}

#[test]
fn honest_partiality_times_that_may_lack_counts_are_rows() {
    let mut reads = matrix(0, &["", "d"], 1);
    reads.rows.iter_mut().for_each(|row| row.partial = vec![0, 1]);
    reads.rows[1].values[0] = 2;
    let page = rows(&scope("", None), &place(0, ""), reads);
    assert_eq!(kinds(&page), [(Kind::Cell, key("d")), (Kind::Gap, key(""))]);
    assert!(page.records.iter().all(|record| record.partial));
    assert_eq!((page.records[1].from_ms, page.records[1].to_ms), (0, 20));
}

#[test]
fn sources_have_a_row_for_each_node_and_term_and_reads_the_group_of_their_route() {
    let mut reads = matrix(0, &["", "d"], 1);
    let write = |node_id, term, value| proto::SourceCount {
        node_id,
        row: Some(0),
        role: proto::Role::LeaderWrite.into(),
        group_id: Some(3),
        term: Some(term),
        value,
        ..Default::default()
    };
    let read = proto::SourceCount {
        node_id: 2,
        row: Some(1),
        role: proto::Role::FollowerRead.into(),
        value: 4,
        ..Default::default()
    };
    // The same source in two lives of a node.
    reads.sources = vec![write(1, 5, 1), write(1, 5, 2), write(2, 6, 8), read];
    let each = Scope { dedup: false, ..scope("", None) };
    let page = rows(&each, &place(0, ""), reads.clone());
    let found: Vec<_> = page.records.iter().map(|r| (r.by.node, r.by.term, r.by.group)).collect();
    let expected =
        [(Some(1), Some(5), Some(3)), (Some(2), Some(6), Some(3)), (Some(2), None, Some(7))];
    assert_eq!(found, expected);
    let bad = proto::SourceCount { row: Some(9), ..reads.sources[0] };
    reads.sources = vec![bad];
    let matrices = [reads.clone(), reads.clone(), reads.clone(), reads];
    assert!(Rows::new(&each, &place(0, ""), &matrices).page().is_err(), "it is damaged");
}
