use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::picture::{Layout, Picture};
use super::slide::{slide, wider_end, wider_start};
use super::view::{Act, Around, View};
use crate::heat::{Query, Scope};
use crate::terminal::output::ColorDepth;
use keyviz_proto as proto;

const STEP_MS: u64 = 1_000;
const NOON_MS: u64 = 1_767_182_400_000;

fn columns(from_ms: u64, count: u64) -> Vec<proto::Column> {
    let column = |at| proto::Column {
        start_ms: from_ms + at * STEP_MS,
        end_ms: from_ms + (at + 1) * STEP_MS,
        open: at + 1 == count,
    };
    (0..count).map(column).collect()
}

/// Rows of the same length; the last column is open.
fn matrix(from_ms: u64, rows: &[(&str, &[u64])]) -> proto::Matrix {
    let row = |at: usize| proto::Row {
        start: Bytes::copy_from_slice(rows[at].0.as_bytes()),
        end: rows.get(at + 1).map(|row| Bytes::copy_from_slice(row.0.as_bytes())),
        route_ids: vec![at as u64 + 1],
        route_count: 1,
        group_id: Some(at as u64 % 2 + 1),
        values: rows[at].1.to_vec(),
        ..proto::Row::default()
    };
    proto::Matrix {
        series: proto::Series::Writes.into(),
        catalog_version: 1,
        columns: columns(from_ms, rows[0].1.len() as u64),
        total: rows.iter().flat_map(|row| row.1).sum(),
        rows: (0..rows.len()).map(row).collect(),
        responded: 3,
        expected: 3,
        ..proto::Matrix::default()
    }
}

fn values(matrix: &proto::Matrix) -> Vec<Vec<u64>> {
    matrix.rows.iter().map(|row| row.values.clone()).collect()
}

#[test]
fn conservation_what_is_told_again_is_replaced_and_what_is_old_goes_out() {
    let shown = matrix(10_000, &[("", &[1, 2, 3]), ("m", &[4, 5, 6])]);
    let told = matrix(12_000, &[("", &[30, 7]), ("m", &[1, 2]), ("p", &[10, 20])]);
    let next = slide(&shown, &told, 11_000).expect("it fits");
    assert_eq!(values(&next), [[2, 30, 7], [5, 11, 22]]);
    let times: Vec<_> = next.columns.iter().map(|each| (each.start_ms, each.open)).collect();
    assert_eq!(times, [(11_000, false), (12_000, false), (13_000, true)]);
    assert_eq!(next.total, 77);
}

#[test]
fn honest_partiality_marks_slide_along() {
    let mut shown = matrix(10_000, &[("", &[1, 2, 3])]);
    shown.rows[0].partial = vec![0, 1];
    let mut told = matrix(12_000, &[("", &[3, 4])]);
    told.rows[0].conflict = vec![1];
    let next = slide(&shown, &told, 11_000).expect("it fits");
    assert_eq!((&next.rows[0].partial[..], &next.rows[0].conflict[..]), (&[0][..], &[2][..]));
}

#[test]
fn what_would_be_a_guess_is_refused() {
    let shown = matrix(10_000, &[("", &[1, 2]), ("m", &[3, 4])]);
    let across = |values: &[u64]| matrix(11_000, &[("", values)]);
    assert_eq!(slide(&shown, &across(&[1, 0]), 0), None, "a count that lies across two rows");
    assert!(slide(&shown, &across(&[0, 0]), 0).is_some(), "nothing there is nothing in both");
    let late = matrix(12_000, &[("", &[1]), ("m", &[1])]);
    assert_eq!(slide(&shown, &late, 0), None, "the open column was never finished");
    let mut other = matrix(11_000, &[("", &[1]), ("m", &[1])]);
    other.catalog_version = 2;
    assert_eq!(slide(&shown, &other, 0), None, "other routes");
    let mut wide = matrix(11_000, &[("", &[1]), ("m", &[1])]);
    wide.columns[0].end_ms += STEP_MS;
    assert_eq!(slide(&shown, &wide, 0), None, "a wider column");
    let mut closed = shown.clone();
    closed.columns[1].open = false;
    let gap = matrix(13_000, &[("", &[1]), ("m", &[1])]);
    assert_eq!(slide(&closed, &gap, 0), None, "a gap");
    assert_eq!(slide(&proto::Matrix::default(), &gap, 0), None, "nothing shown");
}

#[test]
fn ranges_widen_by_routes_up_to_the_ends() {
    let bounds = ["", "g", "m", "t"].map(|key| Bytes::copy_from_slice(key.as_bytes()));
    let start = |from: &'static str, by| wider_start(&Bytes::from(from), by, &bounds);
    assert_eq!([start("m", 1), start("h", 1), start("m", 9), start("", 1)], ["g", "g", "", ""]);
    let end = |to: &'static str, by| wider_end(&Some(Bytes::from(to)), by, &bounds);
    assert_eq!([end("g", 1), end("h", 1), end("t", 1)], [Some("m".into()), Some("m".into()), None]);
    assert_eq!(wider_end(&None, 1, &bounds), None);
    assert_eq!(wider_start(&"x".into(), 1, &[]), "");
}

fn query() -> Query {
    Query {
        series: proto::Series::Writes,
        role: proto::Role::Unspecified,
        last: Some(Duration::from_secs(8)),
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

/// Four routes of eight columns; the third is hot.
fn hot() -> proto::Matrix {
    let rows: [(&str, &[u64]); 4] = [
        ("", &[0, 0, 1, 0, 0, 2, 0, 0]),
        ("g", &[1, 0, 1, 1, 0, 0, 1, 0]),
        ("m", &[90, 80, 95, 99, 70, 60, 50, 20]),
        ("t", &[0, 3, 0, 0, 2, 0, 0, 0]),
    ];
    matrix(NOON_MS, &rows)
}

struct Hand {
    view: View,
    layout: Layout,
    bounds: Vec<Bytes>,
}

impl Hand {
    fn new() -> Self {
        let matrix = hot();
        let bounds = matrix.rows.iter().map(|row| row.start.clone()).collect();
        Hand { view: View::new(query()), layout: Layout::new(&matrix, 80, 24), bounds }
    }

    fn press(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Act {
        let around =
            Around { grid: &self.layout.grid, bounds: &self.bounds, now_ms: NOON_MS + 8 * STEP_MS };
        self.view.key(KeyEvent::new(code, modifiers), around)
    }

    fn keys(&mut self, keys: &str) -> Vec<Act> {
        keys.chars().map(|key| self.press(KeyCode::Char(key), KeyModifiers::NONE)).collect()
    }
}

#[test]
fn the_cursor_begins_at_the_hottest_row_and_stays_within_the_picture() {
    let mut hand = Hand::new();
    assert_eq!(hand.press(KeyCode::Down, KeyModifiers::NONE), Act::Draw);
    assert_eq!(hand.view.cell(&hand.layout.grid), Some((2, 7)));
    for _ in 0..20 {
        hand.press(KeyCode::Left, KeyModifiers::NONE);
        hand.press(KeyCode::Down, KeyModifiers::NONE);
    }
    assert_eq!(hand.view.cell(&hand.layout.grid), Some((3, 0)));
    hand.press(KeyCode::PageUp, KeyModifiers::NONE);
    assert_eq!(hand.view.cell(&hand.layout.grid), Some((0, 0)));
    assert_eq!(hand.press(KeyCode::Esc, KeyModifiers::NONE), Act::Draw);
    assert_eq!(hand.view.cursor, None);
}

#[test]
fn series_scale_pause_help_and_the_end_are_one_key_each() {
    let mut hand = Hand::new();
    assert_eq!(hand.keys("12"), [Act::Nothing, Act::Ask]);
    assert_eq!(hand.view.query.series, proto::Series::Reads);
    assert_eq!(hand.keys("34l"), [Act::Ask, Act::Ask, Act::Draw]);
    assert_eq!((hand.view.query.series, hand.view.linear), (proto::Series::ReadBytes, true));
    assert_eq!(hand.keys(" "), [Act::Draw]);
    assert!(hand.view.paused);
    assert_eq!(hand.keys("p?x"), [Act::Ask, Act::Draw, Act::Draw]);
    assert!(!hand.view.paused && !hand.view.help);
    assert_eq!(hand.keys("q"), [Act::Quit]);
    assert_eq!(hand.press(KeyCode::Char('c'), KeyModifiers::CONTROL), Act::Quit);
}

#[test]
fn zoom_keeps_the_cursor_in_view_and_back_and_reset_return() {
    let mut hand = Hand::new();
    hand.press(KeyCode::Down, KeyModifiers::NONE);
    assert_eq!(hand.keys("+"), [Act::Ask]);
    // Two of four rows with the hot one, half of the window up to now.
    let query_now = hand.view.query.clone();
    assert_eq!((&query_now.start[..], query_now.end.as_deref()), (&b"g"[..], Some(&b"t"[..])));
    assert_eq!((query_now.last, query_now.to_ms), (Some(Duration::from_secs(4)), None));
    assert!(hand.view.is_live());
    assert_eq!(hand.press(KeyCode::Backspace, KeyModifiers::NONE), Act::Ask);
    assert_eq!(hand.view.query, query());
    assert_eq!(hand.press(KeyCode::Backspace, KeyModifiers::NONE), Act::Nothing);

    // Back in time the window stands still; Home is live again.
    for _ in 0..7 {
        hand.press(KeyCode::Left, KeyModifiers::NONE);
    }
    assert_eq!(hand.keys("]"), [Act::Ask]);
    assert!(!hand.view.is_live());
    let (from, to) = (hand.view.query.from_ms.unwrap(), hand.view.query.to_ms.unwrap());
    assert!((NOON_MS..NOON_MS + STEP_MS).contains(&from));
    assert_eq!(to - from, 4 * STEP_MS);
    assert_eq!(hand.press(KeyCode::Home, KeyModifiers::NONE), Act::Ask);
    assert_eq!(hand.view.query, query());
}

#[test]
fn panning_stops_at_both_ends_of_the_key_space_and_at_now() {
    let mut hand = Hand::new();
    assert_eq!(hand.press(KeyCode::Up, KeyModifiers::SHIFT), Act::Nothing);
    assert_eq!(hand.press(KeyCode::Down, KeyModifiers::SHIFT), Act::Nothing);
    assert_eq!(hand.press(KeyCode::Right, KeyModifiers::SHIFT), Act::Nothing);
    assert_eq!(hand.press(KeyCode::Left, KeyModifiers::SHIFT), Act::Ask);
    assert_eq!(hand.view.query.to_ms, Some(NOON_MS + 6 * STEP_MS));
    hand.view.query = Query { end: Some("t".into()), ..query() };
    assert_eq!(hand.press(KeyCode::Down, KeyModifiers::SHIFT), Act::Ask);
    assert_eq!((&hand.view.query.start[..], &hand.view.query.end), (&b"g"[..], &None));
}

fn drawn(view: &View, matrix: &proto::Matrix, width: u16, height: u16) -> String {
    let layout = Layout::new(matrix, width.into(), height.into());
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    let leaders = HashMap::from([(1, 3)]);
    let status = "live: columns come as they close";
    let found = "1 hot-range: m → t, 71/s, 98%, since 12:00:01Z, node 3";
    let (leaders, color) = (&leaders, ColorDepth::None);
    let picture = Picture { matrix, view, status, found, leaders, hot: "", color };
    picture.draw(&layout, area, &mut buffer);
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol().to_owned());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_cell_under_the_cursor_is_told_in_words() {
    let mut hand = Hand::new();
    hand.press(KeyCode::Down, KeyModifiers::NONE);
    insta::assert_snapshot!(drawn(&hand.view, &hot(), 80, 18));
}

#[test]
fn help_lists_the_keys_over_the_picture() {
    let mut hand = Hand::new();
    hand.keys("?");
    insta::assert_snapshot!(drawn(&hand.view, &hot(), 80, 24));
}

#[test]
fn bounds_no_size_and_no_matrix_breaks_the_picture() {
    let mut hand = Hand::new();
    hand.press(KeyCode::Down, KeyModifiers::NONE);
    let mut odd = hot();
    odd.rows[0].values.clear();
    odd.rows[1].route_count = u64::MAX;
    odd.rows[2].values = vec![u64::MAX; 30];
    odd.rows[3].partial = vec![99];
    for matrix in [&hot(), &odd, &proto::Matrix::default()] {
        for (width, height) in [(0, 0), (1, 1), (20, 5), (40, 12), (300, 80)] {
            for help in [false, true] {
                hand.view.help = help;
                drawn(&hand.view, matrix, width, height);
            }
        }
    }
}
