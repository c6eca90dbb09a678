use super::*;
use bytes::Bytes;

const NOON_MS: u64 = 1_767_182_400_000;
const MINUTE_MS: u64 = 60_000;

fn columns(count: u64, step_ms: u64) -> Vec<proto::Column> {
    let column = |at| proto::Column {
        start_ms: NOON_MS + at * step_ms,
        end_ms: NOON_MS + (at + 1) * step_ms,
        open: at + 1 == count,
    };
    (0..count).map(column).collect()
}

fn row(start: &[u8], values: Vec<u64>) -> proto::Row {
    proto::Row {
        start: Bytes::copy_from_slice(start),
        route_count: 1,
        values,
        ..proto::Row::default()
    }
}

fn node(id: u64, error: &str) -> proto::NodeStatus {
    proto::NodeStatus {
        id,
        address: format!("127.0.0.1:740{id}"),
        ok: error.is_empty(),
        error: error.into(),
        ..proto::NodeStatus::default()
    }
}

fn matrix(columns: Vec<proto::Column>, rows: Vec<proto::Row>) -> proto::Matrix {
    let total =
        rows.iter().flat_map(|row| &row.values).fold(0, |sum: u64, v| sum.saturating_add(*v));
    let mut rows = rows;
    let starts: Vec<_> = rows.iter().skip(1).map(|row| row.start.clone()).collect();
    rows.iter_mut().zip(starts).for_each(|(row, next)| row.end = Some(next));
    proto::Matrix {
        series: proto::Series::Writes.into(),
        catalog_version: 7,
        columns,
        rows,
        total,
        nodes: vec![node(1, ""), node(2, ""), node(3, "")],
        responded: 3,
        expected: 3,
        ..proto::Matrix::default()
    }
}

/// A hot spot in the third row that cools down, over a quiet neighbourhood.
fn hot() -> proto::Matrix {
    let starts: [&[u8]; 5] = [b"", b"key/0020", b"key/0040", b"key/0060", b"key/0080"];
    let rows = starts.iter().enumerate().map(|(at, start)| {
        let values = (0..8).map(|column| match at {
            2 => 5_000 >> column,
            4 => 0,
            _ => (column + at as u64) % 4,
        });
        row(start, values.collect())
    });
    matrix(columns(8, MINUTE_MS), rows.collect())
}

fn drawn(matrix: &proto::Matrix, width: usize, height: usize) -> String {
    let picture = render(matrix, &Drawing { width, height, color: ColorDepth::None });
    for line in picture.lines() {
        assert!(text::width(line) <= width, "{} of {width}: {line:?}", text::width(line));
    }
    picture
}

#[test]
fn a_piped_heatmap_has_everything() {
    insta::assert_snapshot!(drawn(&hot(), 100, 40));
}

#[test]
fn a_heatmap_fits_forty_columns() {
    insta::assert_snapshot!(drawn(&hot(), 40, 24));
}

#[test]
fn colours_are_the_same_picture() {
    let color = |color| render(&hot(), &Drawing { width: 60, height: 40, color });
    let plain = |text: String| {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            out.push_str(before);
            rest = after.split_once('m').expect("a colour ends in m").1;
        }
        out + rest
    };
    insta::assert_snapshot!(color(ColorDepth::Ansi256).replace('\x1b', "ESC"));
    insta::assert_snapshot!(color(ColorDepth::Truecolor).replace('\x1b', "ESC"));
    assert_eq!(plain(color(ColorDepth::Ansi256)), plain(color(ColorDepth::Truecolor)));
}

#[test]
fn honest_partiality_everything_uncertain_is_marked_and_explained() {
    let mut matrix = hot();
    matrix.rows[0].apportioned = vec![0, 1];
    matrix.rows[1].partial = vec![5, 6, 7, 99];
    matrix.rows[2].conflict = vec![3];
    matrix.rows[2].partial = vec![3];
    matrix.rows[3].route_count = 12;
    matrix.rows[3].aggregate = true;
    matrix.unattributed = 5;
    matrix.saturated = true;
    matrix.nodes[2] = node(3, "connect: connection refused\x1b[31m");
    matrix.responded = 2;
    insta::assert_snapshot!(drawn(&matrix, 80, 40));
    let many = (0..200).map(|at| row(format!("k{at:03}").as_bytes(), vec![at; 300]));
    let mut narrow = super::tests::matrix(columns(300, MINUTE_MS), many.collect());
    narrow.rows[9].partial = vec![7];
    insta::assert_snapshot!(drawn(&narrow, 60, 20));
}

#[test]
fn a_mark_that_a_column_shares_is_shown_once() {
    let mut matrix = hot();
    for row in &mut matrix.rows {
        row.partial = vec![2, 3];
    }
    matrix.rows[1].conflict = vec![3];
    insta::assert_snapshot!(drawn(&matrix, 80, 40));
}

#[test]
fn hostile_keys_are_inert() {
    let starts: [&[u8]; 6] = [
        b"",
        b"\x1b[2J\x07",
        "a\u{202e}b".as_bytes(),
        "שלום".as_bytes(),
        b"\xff\xfe\n",
        "鍵".as_bytes(),
    ];
    let rows = starts.iter().map(|start| row(start, vec![1, 2])).collect();
    let mut matrix = matrix(columns(2, MINUTE_MS), rows);
    matrix.nodes[0] = node(1, "\u{9b}2J\r\n");
    matrix.nodes[0].address = "\x1b]0;title\x07".into();
    let picture = drawn(&matrix, 80, 40);
    assert!(picture.chars().all(|c| c == '\n' || !c.is_control()), "{picture:?}");
    insta::assert_snapshot!(picture);
}

#[test]
fn keys_that_begin_alike_stay_apart() {
    let starts = ["", "tenant/0000000000000001/users/aa", "tenant/0000000000000001/users/ab"];
    let rows = starts.iter().map(|start| row(start.as_bytes(), vec![1, 2, 3])).collect();
    insta::assert_snapshot!(drawn(&matrix(columns(3, MINUTE_MS), rows), 60, 20));
}

#[test]
fn a_row_of_one_key_says_so() {
    let mut matrix = matrix(columns(2, MINUTE_MS), vec![row(b"", vec![1, 2]); 3]);
    for (row, (start, end)) in matrix.rows.iter_mut().zip([("", "k"), ("k", "k\0"), ("k\0", "m")]) {
        row.start = start.as_bytes().to_vec().into();
        row.end = Some(end.as_bytes().to_vec().into());
    }
    let picture = drawn(&matrix, 80, 40);
    for label in ["(begin) → k ", "k (one key) ", "k\\x00 → m "] {
        assert!(picture.contains(label), "{label}: {picture}");
    }
}

#[test]
fn conservation_joined_rows_and_columns_keep_their_sum() {
    let rows: Vec<_> =
        (0..100).map(|at| row(format!("{at:03}").as_bytes(), vec![at; 500])).collect();
    let matrix = matrix(columns(500, 2_000), rows);
    for (rows, columns) in [(1, 1), (7, 13), (100, 500), (33, 499), (1_000, 1_000)] {
        let grid = Grid::rows_of(&matrix, rows).columns_of(&matrix, columns);
        assert!(grid.rows.len() <= rows && grid.columns.len() <= columns);
        let cells: u64 = grid.rows.iter().flat_map(|row| &row.cells).map(|cell| cell.value).sum();
        assert_eq!(cells, matrix.total);
        assert_eq!(grid.rows.iter().map(|row| row.sum).sum::<u64>(), matrix.total);
    }
}

#[test]
fn a_window_in_which_nothing_happened_says_so() {
    let mut empty = matrix(columns(3, MINUTE_MS), vec![row(b"", vec![0, 0, 0])]);
    empty.nodes[1] = node(2, "deadline");
    empty.responded = 2;
    insta::assert_snapshot!(drawn(&empty, 80, 40));
    let none = matrix(vec![], vec![]);
    insta::assert_snapshot!(drawn(&none, 80, 40));
}

#[test]
fn bounds_no_matrix_and_no_size_breaks_the_drawing() {
    let mut odd = hot();
    odd.rows[0].values = vec![u64::MAX; 3];
    odd.rows[1].values = vec![u64::MAX; 30];
    odd.rows[2].route_count = u64::MAX;
    odd.columns[0].end_ms = 0;
    odd.columns[7].start_ms = u64::MAX;
    odd.columns[7].end_ms = 5;
    odd.total = u64::MAX;
    for width in [0, 1, 24, 39, 40, 41, 55, 56, 80, 200, 5_000] {
        for height in [0, 1, 10, 24, 500] {
            for color in [ColorDepth::None, ColorDepth::Ansi256, ColorDepth::Truecolor] {
                for matrix in [&odd, &hot()] {
                    assert!(!render(matrix, &Drawing { width, height, color }).is_empty());
                }
            }
        }
    }
    let tall = drawn(&hot(), 100, 15);
    assert!(tall.lines().count() <= 15, "{tall}");
}

#[test]
fn bytes_have_byte_units_and_days_have_dates() {
    let mut matrix = hot();
    matrix.series = proto::Series::WriteBytes.into();
    matrix.columns = columns(8, 6 * 3_600_000);
    insta::assert_snapshot!(drawn(&matrix, 80, 40));
}
