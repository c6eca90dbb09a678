use bytes::Bytes;
use proptest::prelude::*;

use super::super::MatrixJson;
use super::*;

fn row(start: &[u8], end: Option<&[u8]>, values: Vec<u64>) -> proto::Row {
    proto::Row {
        bucket_id: format!("route:{}", values.len()),
        start: Bytes::copy_from_slice(start),
        end: end.map(Bytes::copy_from_slice),
        route_ids: (1..=20).collect(),
        route_count: 20,
        roles: Some(proto::RoleTotals { leader_write: sum(&values), ..Default::default() }),
        group_id: Some(3),
        values,
        ..proto::Row::default()
    }
}

fn sum(values: &[u64]) -> u64 {
    values.iter().fold(0, |sum, value| sum.saturating_add(*value))
}

fn matrix(rows: Vec<proto::Row>, width: u64) -> proto::Matrix {
    let column = |at| proto::Column {
        start_ms: 60_000 * at,
        end_ms: 60_000 * (at + 1),
        open: at + 1 == width,
    };
    proto::Matrix {
        series: proto::Series::Writes.into(),
        catalog_version: 7,
        columns: (0..width).map(column).collect(),
        total: rows.iter().fold(0, |all: u64, row| all.saturating_add(sum(&row.values))),
        rows,
        responded: 3,
        expected: 3,
        ..proto::Matrix::default()
    }
}

fn unpack_z85(text: &str) -> Vec<u8> {
    let place = |c| Z85.iter().position(|each| *each == c).expect("a character of Z85") as u32;
    let number = |five: &[u8]| five.iter().fold(0, |all: u32, c| all * 85 + place(*c));
    text.as_bytes().chunks(5).flat_map(|five| number(five).to_be_bytes()).collect()
}

fn unpack_leb128(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn unpack(cells: &Data, count: usize) -> Vec<u64> {
    let bytes = unpack_z85(&cells.data);
    if cells.form == "rounded" {
        let value = |half: u16| match half >> 10 {
            0 => u64::from(half),
            shift => (1_024 + u64::from(half & 1_023)) << (shift - 1),
        };
        let halves = bytes.chunks(2).map(|two| value(u16::from_le_bytes([two[0], two[1]])));
        return halves.take(count).collect();
    }
    let (mut values, mut at) = (Vec::new(), 0);
    while values.len() < count {
        match unpack_leb128(&bytes, &mut at) {
            0 => {
                let zeros = unpack_leb128(&bytes, &mut at);
                values.extend((0..zeros).map(|_| 0));
            }
            value => values.push(value),
        }
    }
    values
}

fn unpack_marks(marks: &Option<Data>, count: usize) -> Vec<bool> {
    let Some(marks) = marks else { return vec![false; count] };
    let bytes = unpack_z85(&marks.data);
    if marks.form == "bits" {
        return (0..count).map(|at| bytes[at / 8] >> (at % 8) & 1 == 1).collect();
    }
    let (mut all, mut at, mut marked) = (Vec::new(), 0, false);
    while all.len() < count {
        let run = unpack_leb128(&bytes, &mut at);
        all.extend((0..run).map(|_| marked));
        marked = !marked;
    }
    all
}

#[test]
fn z85_is_that_of_its_specification() {
    assert_eq!(z85(vec![0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b]), "HelloWorld");
}

#[test]
fn blocks_are_packed_and_those_that_straddle_keep_their_keys() {
    let rows = vec![row(b"", Some(b"m"), vec![1, 2]), row(b"m", None, vec![3, 4])];
    let block = |value, straddling| proto::Block {
        row_count: 2,
        column: 1,
        column_count: 1,
        value,
        start: Bytes::from_static(b"b"),
        straddling,
        conflict: !straddling,
        ..proto::Block::default()
    };
    let matrix = proto::Matrix {
        blocks: vec![block(300, false), block(800, true)],
        straddling_total: 800,
        ..matrix(rows, 2)
    };
    let packed = PackedJson::from(&matrix);
    let blocks = packed.blocks.as_ref().expect("one does not straddle");
    let (bytes, mut at) = (unpack_z85(&blocks.data), 0);
    let numbers: Vec<u64> = (0..6).map(|_| unpack_leb128(&bytes, &mut at)).collect();
    assert_eq!((blocks.count, &numbers[..]), (1, &[1, 0, 2, 1, 300, 1][..]));
    let json = serde_json::to_value(&packed).expect("it is JSON");
    assert_eq!(
        (&json["straddling"][0]["value"], &json["straddling"][0]["start"]),
        (&800.into(), &"b".into())
    );
    assert_eq!(json["straddling_total"], 800);
}

proptest! {
    #[test]
    fn conservation_exact_cells_are_what_was_counted(
        rows in prop::collection::vec(prop::collection::vec(
            prop_oneof![Just(0), 1..200u64, any::<u64>()], 7), 0..9),
    ) {
        let all: Vec<u64> = rows.concat();
        let matrix = matrix(rows.into_iter().map(|values| row(b"k", None, values)).collect(), 7);
        let packed = PackedJson::from(&matrix);
        prop_assert_eq!(packed.cells.form, "exact");
        prop_assert_eq!(unpack(&packed.cells, all.len()), all);
    }

    #[test]
    fn conservation_rounded_cells_are_near_and_their_sums_exact(
        values in prop::collection::vec(prop_oneof![Just(0), 1..5_000u64, 0..u64::MAX / 100], 12),
    ) {
        let rows = values.chunks(4).map(|values| row(b"k", None, values.to_vec())).collect();
        let matrix = matrix(rows, 4);
        let packed = PackedJson::within(&matrix, 0);
        prop_assert_eq!(packed.cells.form, "rounded");
        for (near, value) in unpack(&packed.cells, 12).into_iter().zip(&values) {
            prop_assert_eq!(near == 0, *value == 0);
            prop_assert!(near.abs_diff(*value) <= value / 2_048, "{} for {}", near, value);
        }
        let down = |at: usize| (0..3usize).map(|row| values[4 * row + at]).sum();
        prop_assert_eq!(packed.column_sums, Some((0..4).map(down).collect()));
    }

    #[test]
    fn honest_partiality_marks_stay_where_they_are(
        rows in prop::collection::vec(prop::collection::btree_set(0..40u32, 0..40), 1..6),
    ) {
        let count = rows.len() * 40;
        let marked = rows.iter().map(|marks| proto::Row {
            partial: marks.iter().copied().collect(),
            ..row(b"k", None, vec![1; 40])
        });
        let matrix = matrix(marked.collect(), 40);
        let packed = PackedJson::from(&matrix);
        let expected: Vec<bool> =
            rows.iter().flat_map(|marks| (0..40).map(|at| marks.contains(&at))).collect();
        prop_assert_eq!(unpack_marks(&packed.marks.partial, count), expected);
        prop_assert!(packed.marks.conflict.is_none());
    }
}

#[test]
fn rounding_keeps_small_numbers_and_the_largest() {
    for (value, near) in [
        (0, 0),
        (1_023, 1_023),
        (1_024, 1_024),
        (2_047, 2_047),
        (4_095, 4_096),
        (u64::MAX, 0),
        (1 << 63, 1 << 63),
    ] {
        let matrix = matrix(vec![row(b"", None, vec![value])], 1);
        let unpacked = unpack(&PackedJson::within(&matrix, 0).cells, 1)[0];
        // 2^64 itself, which only a number of 64 bits cannot hold.
        let expected = if value == u64::MAX { 0 } else { near };
        assert_eq!(unpacked, expected, "{value}");
    }
    assert_eq!(half(u64::MAX), (55 << 10));
}

/// Dense, with large numbers: the worst case.
#[test]
fn bounds_a_matrix_of_1024_rows_and_1440_columns_takes_at_most_4_mib() {
    let mut seed = 1u64;
    let mut number = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 20
    };
    let key = |at: usize| format!("tenant/{:03}/user/{at:012}", at % 1_000);
    let rows = (0..1_024).map(|at| proto::Row {
        bucket_id: format!("virtual:{at}00-0123456789abcdef"),
        end: Some(key(at + 1).into()),
        partial: (0..1_440).filter(|column| column % 3 != at as u32 % 3).collect(),
        ..row(key(at).as_bytes(), None, (0..1_440).map(|_| number()).collect())
    });
    let matrix = matrix(rows.collect(), 1_440);
    let packed = serde_json::to_vec(&PackedJson::from(&matrix)).expect("it serializes");
    assert!(packed.len() <= 4 << 20, "{} bytes", packed.len());
}

/// A sample of all forms; tests/browser checks the reader of the page against this file.
#[test]
fn the_example_for_the_page_is_up_to_date() {
    let mut rows = vec![
        row(b"", Some(b"b"), vec![0, 0, 5, 0, 1_000_000_007]),
        row(b"b", Some(b"c\xff"), vec![1, 127, 128, 3_000, 70_000]),
        row(b"c\xff", Some(b"d"), vec![0; 5]),
    ];
    rows[1].partial = vec![0, 1, 2, 3, 4];
    rows[2].apportioned = vec![1, 3];
    rows[2].conflict = vec![4];
    rows[2].group_id = None;
    let matrix = matrix(rows, 5);
    let example = serde_json::json!({
        "plain": MatrixJson::from(&matrix),
        "packed": PackedJson::from(&matrix),
        "rounded": PackedJson::within(&matrix, 0),
    });
    let text = serde_json::to_string_pretty(&example).expect("it serializes") + "\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/browser/packed.json");
    if std::env::var_os("KEYVIZ_UPDATE").is_some() {
        std::fs::write(file, &text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(kept, text, "run this test with KEYVIZ_UPDATE=1 and look at what changed");
}
