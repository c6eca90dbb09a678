//! A matrix as CSV.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;

use keyviz_json::key_text;
use keyviz_proto as proto;

/// The header of the fields that describe a row.
pub(super) const ROW_HEADER: [&str; 6] =
    ["bucket_id", "start", "end", "group_id", "route_count", "total"];

/// The fields that describe a row.
pub(super) fn row_head(row: &proto::Row) -> [String; 6] {
    let total = row.values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
    [
        key_text(row.bucket_id.as_bytes()).into_owned(),
        key_text(&row.start).into_owned(),
        row.end.as_deref().map(key_text).unwrap_or_default().into_owned(),
        row.group_id.map(|group| group.to_string()).unwrap_or_default(),
        row.route_count.to_string(),
        total.to_string(),
    ]
}

/// One line per row, then one per key range of blocks; the header names each column by its start in
/// Unix milliseconds. The value of a block of several columns is in the first of them.
pub(super) fn print(out: &mut impl Write, matrix: &proto::Matrix) -> io::Result<()> {
    let mut csv = ::csv::WriterBuilder::new().flexible(true).from_writer(out);
    let starts = matrix.columns.iter().map(|column| column.start_ms.to_string());
    csv.write_record(ROW_HEADER.map(str::to_owned).into_iter().chain(starts))?;
    for row in &matrix.rows {
        csv.write_record(row_head(row).into_iter().chain(row.values.iter().map(u64::to_string)))?;
    }
    for ((start, end, columns, straddling), values) in block_lines(matrix) {
        let name = if straddling { "straddling" } else { "block" };
        let total = values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        let head = [
            if columns == 1 { name.to_owned() } else { format!("{name}:{columns}") },
            key_text(&start).into_owned(),
            end.as_deref().map(key_text).unwrap_or_default().into_owned(),
            String::new(),
            String::new(),
            total.to_string(),
        ];
        csv.write_record(head.into_iter().chain(values.iter().map(u64::to_string)))?;
    }
    csv.flush()
}

/// Keys, number of columns and kind of blocks.
type BlockLine = (Bytes, Option<Bytes>, u32, bool);

/// The values of blocks by column.
fn block_lines(matrix: &proto::Matrix) -> BTreeMap<BlockLine, Vec<u64>> {
    let mut lines: BTreeMap<BlockLine, Vec<u64>> = BTreeMap::new();
    for block in &matrix.blocks {
        let line = (block.start.clone(), block.end.clone(), block.column_count, block.straddling);
        let values = lines.entry(line).or_insert_with(|| vec![0; matrix.columns.len()]);
        if let Some(value) = values.get_mut(block.column as usize) {
            *value = value.saturating_add(block.value);
        }
    }
    lines
}
