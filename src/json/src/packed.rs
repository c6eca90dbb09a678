//! A matrix as compact JSON, for the page: `encoding=packed`.
//!
//! The plain encoding takes two bytes for every empty cell and up to 21 for the others: 1,024 x
//! 1,440 cells can take 30 MiB. In the packed encoding the cells are one string of [Z85][z85], row
//! by row:
//!
//! ```text
//! cells  { "form": "exact",   "data": z85 }  n > 0: n in LEB128; k zeros: a byte 0, then k in
//!                                            LEB128
//!        { "form": "rounded", "data": z85 }  u16, little-endian, a cell: below 1,024 the value
//!                                            itself, else e << 10 | m for (1,024 + m) << (e - 1)
//! marks  { "partial": { "form": "runs", "data": z85 }, ... }
//!                                            LEB128: cells without the mark, cells with it, and so
//!                                            on; "bits": one bit a cell, lowest first
//! ```
//!
//! Cells are exact unless they then take more than [`EXACT_BYTES`]: large numbers in every cell
//! carry more information than the page may send. Rounded cells are right to one part in 2,048;
//! nothing that counted becomes 0, and the sums are exact: `column_sums`, and of a row its roles.
//! Columns are `[start_ms, end_ms, open]`; a row's `end` is the start of the next, that of the last
//! is `end` beside the rows; roles that are 0 are left out; at most [`ROW_ROUTE_IDS`] routes are
//! named, and `route_count` is exact.
//!
//! [z85]: https://rfc.zeromq.org/spec/32/

use serde::Serialize;

use super::list::List;
use super::names::{axis_name, series_name};
use super::text::Key;
use keyviz_proto as proto;

/// Maximum size of exact cells: 4 MiB minus 10 % for the rest of the matrix.
pub const EXACT_BYTES: usize = 3_700_000;

/// Maximum number of routes that a row names; tables find the others by their ranges.
pub const ROW_ROUTE_IDS: usize = 12;

/// A [`proto::Matrix`] in packed JSON.
#[derive(Serialize)]
pub struct PackedJson<'a> {
    encoding: &'static str,
    series: &'static str,
    catalog_version: u64,
    columns: Vec<(u64, u64, u8)>,
    rows: Vec<PackedRow<'a>>,
    end: Option<Key<'a>>,
    cells: Data,
    marks: Marks,
    #[serde(skip_serializing_if = "Option::is_none")]
    column_sums: Option<Vec<u64>>,
    total: u64,
    unattributed: u64,
    nodes: List<'a, proto::NodeStatus>,
    conflicts: List<'a, proto::Conflict>,
    responded: u32,
    expected: u32,
    saturated: bool,
    events: List<'a, proto::RouteEvent>,
    events_truncated: bool,
    axis: &'static str,
}

#[derive(Serialize)]
struct PackedRow<'a> {
    bucket_id: &'a str,
    start: Key<'a>,
    route_ids: &'a [u64],
    route_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<u64>,
    roles: PackedRoles,
}

#[derive(Serialize)]
struct PackedRoles {
    #[serde(skip_serializing_if = "is_zero")]
    leader_write: u64,
    #[serde(skip_serializing_if = "is_zero")]
    leader_read: u64,
    #[serde(skip_serializing_if = "is_zero")]
    follower_read: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Data {
    form: &'static str,
    data: String,
}

#[derive(Serialize)]
struct Marks {
    #[serde(skip_serializing_if = "Option::is_none")]
    apportioned: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<Data>,
}

impl<'a> From<&'a proto::Matrix> for PackedJson<'a> {
    fn from(matrix: &'a proto::Matrix) -> Self {
        PackedJson::within(matrix, EXACT_BYTES)
    }
}

impl<'a> PackedJson<'a> {
    /// As `from`, with another limit for exact cells.
    pub(super) fn within(matrix: &'a proto::Matrix, exact_bytes: usize) -> Self {
        let width = matrix.columns.len();
        let exact = exact(&matrix.rows, width, exact_bytes);
        let rounds = exact.is_none();
        let marks = |of: fn(&proto::Row) -> &Vec<u32>| marks(&matrix.rows, width, of);
        PackedJson {
            encoding: "packed",
            series: series_name(matrix.series()),
            catalog_version: matrix.catalog_version,
            columns: matrix
                .columns
                .iter()
                .map(|column| (column.start_ms, column.end_ms, column.open.into()))
                .collect(),
            rows: matrix.rows.iter().map(PackedRow::from).collect(),
            end: matrix.rows.last().and_then(|row| row.end.as_deref()).map(Key),
            cells: exact.unwrap_or_else(|| rounded(&matrix.rows, width)),
            marks: Marks {
                apportioned: marks(|row| &row.apportioned),
                partial: marks(|row| &row.partial),
                conflict: marks(|row| &row.conflict),
            },
            column_sums: rounds.then(|| column_sums(&matrix.rows, width)),
            total: matrix.total,
            unattributed: matrix.unattributed,
            nodes: List(&matrix.nodes),
            conflicts: List(&matrix.conflicts),
            responded: matrix.responded,
            expected: matrix.expected,
            saturated: matrix.saturated,
            events: List(&matrix.events),
            events_truncated: matrix.events_truncated,
            axis: axis_name(matrix.axis()),
        }
    }
}

impl<'a> From<&'a proto::Row> for PackedRow<'a> {
    fn from(row: &'a proto::Row) -> Self {
        let roles = row.roles.unwrap_or_default();
        PackedRow {
            bucket_id: &row.bucket_id,
            start: Key(&row.start),
            route_ids: &row.route_ids[..row.route_ids.len().min(ROW_ROUTE_IDS)],
            route_count: row.route_count,
            group_id: row.group_id,
            roles: PackedRoles {
                leader_write: roles.leader_write,
                leader_read: roles.leader_read,
                follower_read: roles.follower_read,
            },
        }
    }
}

fn column_sums(rows: &[proto::Row], width: usize) -> Vec<u64> {
    let mut sums = vec![0u64; width];
    for row in rows {
        for (sum, value) in sums.iter_mut().zip(&row.values) {
            *sum = sum.saturating_add(*value);
        }
    }
    sums
}

/// The cells of a row, padded with zeros if some are missing.
fn cells(row: &proto::Row, width: usize) -> impl Iterator<Item = u64> {
    row.values.iter().copied().chain(std::iter::repeat(0)).take(width)
}

fn exact(rows: &[proto::Row], width: usize, most: usize) -> Option<Data> {
    let most = most / 5 * 4;
    let mut bytes = Vec::with_capacity((rows.len() * width).min(most) + 64);
    let mut zeros = 0;
    for row in rows {
        for value in cells(row, width) {
            if value == 0 {
                zeros += 1;
                continue;
            }
            end_zeros(&mut bytes, &mut zeros);
            leb128(&mut bytes, value);
        }
        if bytes.len() > most {
            return None;
        }
    }
    end_zeros(&mut bytes, &mut zeros);
    (bytes.len() <= most).then(|| Data { form: "exact", data: z85(bytes) })
}

fn end_zeros(bytes: &mut Vec<u8>, zeros: &mut u64) {
    if *zeros > 0 {
        bytes.push(0);
        leb128(bytes, *zeros);
        *zeros = 0;
    }
}

fn leb128(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn rounded(rows: &[proto::Row], width: usize) -> Data {
    let mut bytes = Vec::with_capacity(rows.len() * width * 2 + 4);
    for row in rows {
        bytes.extend(cells(row, width).flat_map(|value| half(value).to_le_bytes()));
    }
    Data { form: "rounded", data: z85(bytes) }
}

/// A number in 16 bits: 11 significant bits and a shift.
fn half(value: u64) -> u16 {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(11);
    if shift == 0 && value < 1_024 {
        return value as u16;
    }
    let nearest = (u128::from(value) + ((1 << shift) >> 1)) >> shift;
    // 2,047.5 and above round to the next power of two.
    let (shift, nearest) = if nearest == 2_048 { (shift + 1, 1_024) } else { (shift, nearest) };
    (shift as u16 + 1) << 10 | (nearest as u16 - 1_024)
}

/// The cells with a mark, in the shorter of two forms; `None` if there is none.
fn marks(rows: &[proto::Row], width: usize, of: fn(&proto::Row) -> &Vec<u32>) -> Option<Data> {
    let count = rows.len() * width;
    let mut bits = vec![0u8; count.div_ceil(8)];
    let mut any = false;
    for (at, row) in rows.iter().enumerate() {
        for &column in of(row) {
            if (column as usize) < width {
                let cell = at * width + column as usize;
                bits[cell / 8] |= 1 << (cell % 8);
                any = true;
            }
        }
    }
    if !any {
        return None;
    }
    let mut runs = Vec::new();
    let (mut marked, mut run) = (false, 0);
    for cell in 0..count {
        let now = bits[cell / 8] >> (cell % 8) & 1 == 1;
        if now != marked {
            leb128(&mut runs, run);
            (marked, run) = (now, 0);
        }
        run += 1;
        if runs.len() > bits.len() {
            return Some(Data { form: "bits", data: z85(bits) });
        }
    }
    leb128(&mut runs, run);
    Some(Data { form: "runs", data: z85(runs) })
}

const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Five characters for four bytes, padded with zeros.
fn z85(mut bytes: Vec<u8>) -> String {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut text = String::with_capacity(bytes.len() / 4 * 5);
    for four in bytes.chunks_exact(4) {
        let number = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        for power in [52_200_625, 614_125, 7_225, 85, 1] {
            text.push(Z85[(number / power % 85) as usize].into());
        }
    }
    text
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
