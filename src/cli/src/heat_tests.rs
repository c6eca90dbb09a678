use super::*;

fn query() -> Query {
    Query {
        series: proto::Series::Reads,
        role: proto::Role::Unspecified,
        last: Some(Duration::from_secs(60)),
        from_ms: None,
        to_ms: None,
        start: Bytes::new(),
        end: None,
        rows: None,
        columns: None,
        scope: Scope::Cluster,
        axis: proto::Axis::Now,
        by_node: false,
        boundaries: vec![],
        spread: false,
    }
}

#[test]
fn a_query_without_a_drawing_leaves_budgets_to_the_server() {
    let request = query().request(100_000, None);
    assert_eq!((request.max_rows, request.max_columns), (0, 0));
    assert_eq!((request.from_ms, request.to_ms), (Some(40_000), None));
    let request = Query { last: None, ..query() }.request(100_000, None);
    assert_eq!((request.from_ms, request.to_ms), (None, None));
}

#[test]
fn a_drawing_asks_for_what_fits_unless_told_otherwise() {
    let drawing = Drawing { width: 100, height: 40, color: ColorDepth::None };
    let request = query().request(0, Some(&drawing));
    assert_eq!((request.max_rows, request.max_columns), (30, 54));
    let request = Query { rows: Some(8), columns: Some(9), ..query() }.request(0, Some(&drawing));
    assert_eq!((request.max_rows, request.max_columns), (8, 9));
    let request = Query { rows: Some(0), columns: Some(0), ..query() }.request(0, Some(&drawing));
    assert_eq!((request.max_rows, request.max_columns), (0, 0), "the server's own");
    let drawing = Drawing { width: 100_000, height: 100_000, ..drawing };
    let request = query().request(0, Some(&drawing));
    assert_eq!((request.max_rows, request.max_columns), (1024, 2048));
}

#[test]
fn a_drawing_begins_where_something_was_counted_or_may_have_been() {
    let row = |values: &[u64], partial: &[u32]| proto::Row {
        values: values.to_vec(),
        partial: partial.to_vec(),
        ..proto::Row::default()
    };
    let matrix = |rows| proto::Matrix {
        columns: vec![proto::Column::default(); 4],
        rows,
        ..proto::Matrix::default()
    };
    assert_eq!(first_counted(&matrix(vec![row(&[0, 0, 3, 0], &[])])), Some(2));
    assert_eq!(first_counted(&matrix(vec![row(&[0; 4], &[]), row(&[0, 0, 3, 0], &[1])])), Some(1));
    assert_eq!(first_counted(&matrix(vec![row(&[0; 4], &[])])), None);
}

#[test]
fn a_single_node_is_named() {
    let node = proto::NodeStatus { id: 2, address: "a:1\x1b".into(), ..Default::default() };
    let matrix = proto::Matrix { nodes: vec![node], ..Default::default() };
    assert_eq!(counted_by(&matrix).as_deref(), Some("counted by node 2 (a:1\\x1b) alone"));
}

#[test]
fn csv_has_one_line_a_row() {
    let matrix = proto::Matrix {
        columns: vec![
            proto::Column { start_ms: 1000, end_ms: 2000, open: false },
            proto::Column { start_ms: 2000, end_ms: 3000, open: true },
        ],
        rows: vec![proto::Row {
            bucket_id: "route:1".into(),
            end: Some(Bytes::from_static(b"m,\x00")),
            group_id: Some(2),
            route_count: 1,
            values: vec![5, 7],
            ..proto::Row::default()
        }],
        ..proto::Matrix::default()
    };
    let mut out = Vec::new();
    csv::print(&mut out, &matrix).expect("a vector takes everything");
    let expected = "bucket_id,start,end,group_id,route_count,total,1000,2000\n\
        route:1,,hex:6d2c00,2,1,12,5,7\n";
    assert_eq!(String::from_utf8(out).expect("output is text"), expected);
}
