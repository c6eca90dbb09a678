//! Blocks: counts that cover more than one cell.
//!
//! A count goes into a cell only if its slot lies in the row and its column of the history lies in
//! the column. Otherwise (several rows share the slot, the slot reaches beyond the queried range,
//! or the column is of an older tier and longer than a column of the matrix) it goes into a
//! *block*: the smallest run of rows and columns that covers it. Nothing inside a block is
//! estimated. The obvious alternative, to divide the count among the rows by their load of today,
//! would project that load into the past and give another number at each zoom.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::axis::RowAxis;
use crate::history::window::Window;
use keyviz_types::KeyRange;

/// The maximum number of distinct spans in one contribution. From half of it on, new spans are
/// widened to the keys of their rows; from three quarters on, to the whole axis.
pub const MAX_SPANS: usize = 65_536;

/// Keys and columns whose operations were counted together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BlockSpan {
    /// The first row that shares keys with it.
    pub first_row: u32,
    /// Number of rows that do; at least 1.
    pub rows: u32,
    /// Number of columns that share time with it, from the column of its part on; at least 1.
    pub columns: u32,
    /// The keys that were counted together.
    pub range: KeyRange,
    /// The time that was counted together, if it reaches beyond the queried columns.
    pub reach: Option<Window>,
}

impl BlockSpan {
    /// Whether it reaches beyond the queried keys or columns.
    pub fn straddles(&self, rows: &RowAxis) -> bool {
        self.reach.is_some() || !is_inside(&self.range, rows)
    }

    /// Whether it is valid on these axes: it has exactly the rows that share its keys, it has no
    /// more columns than there are, and it is not a single cell.
    pub(crate) fn fits(&self, rows: &RowAxis, columns: usize) -> bool {
        let run = rows.overlapping(&self.range);
        let one_cell = run.len() == 1 && self.columns == 1 && !self.straddles(rows);
        !run.is_empty()
            && !one_cell
            && run == (self.first_row as usize..self.first_row as usize + self.rows as usize)
            && (1..=columns).contains(&(self.columns as usize))
            && self.reach.is_none_or(|reach| !reach.is_empty())
    }
}

impl Ord for BlockSpan {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |span: &Self| {
            let reach = span.reach.map(|reach| (reach.from_ms, reach.to_ms));
            (span.first_row, span.rows, span.columns, reach)
        };
        let by_keys = || {
            let (left, right) = (&self.range, &other.range);
            let unbounded = |range: &KeyRange| range.end.is_none();
            (&left.start, unbounded(left), &left.end).cmp(&(
                &right.start,
                unbounded(right),
                &right.end,
            ))
        };
        place(self).cmp(&place(other)).then_with(by_keys)
    }
}

impl PartialOrd for BlockSpan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether all keys of `range` are keys of `rows`.
pub(crate) fn is_inside(range: &KeyRange, rows: &RowAxis) -> bool {
    let ends = match (&range.end, rows.end()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(end), Some(last)) => end <= last,
    };
    ends && rows.starts().first().is_some_and(|first| *first <= range.start)
}

/// Distinct spans, numbered in the order of their first use.
#[derive(Default, Debug)]
pub(crate) struct SpanTable {
    spans: Vec<BlockSpan>,
    index: HashMap<BlockSpan, u32>,
}

impl SpanTable {
    /// The number of a span, or of a wider one once the table is half full.
    pub fn number(&mut self, span: BlockSpan, rows: &RowAxis) -> u32 {
        if let Some(&number) = self.index.get(&span) {
            return number;
        }
        let span = match self.spans.len() {
            0..HALF => span,
            HALF..MOST => widened(span, rows, false),
            MOST.. => widened(span, rows, true),
        };
        let next = u32::try_from(self.spans.len()).expect("spans are bounded");
        *self.index.entry(span).or_insert_with_key(|span| {
            self.spans.push(span.clone());
            next
        })
    }

    pub fn into_spans(self) -> Vec<BlockSpan> {
        self.spans
    }
}

const HALF: usize = MAX_SPANS / 2;
const MOST: usize = MAX_SPANS / 4 * 3;

/// Widens a span to the keys of its rows or, with `all`, to the whole axis: there are far fewer
/// distinct spans of these kinds.
fn widened(span: BlockSpan, rows: &RowAxis, all: bool) -> BlockSpan {
    let count = u32::try_from(rows.len()).expect("an axis has few rows");
    let (first_row, run) = if all { (0, count) } else { (span.first_row, span.rows) };
    let range = if is_inside(&span.range, rows) {
        rows.keys_of(first_row as usize..(first_row + run) as usize)
    } else {
        KeyRange::all()
    };
    // A span of all keys covers all rows.
    let straddles = !is_inside(&range, rows);
    let (first_row, run) = if straddles { (0, count) } else { (first_row, run) };
    BlockSpan { first_row, rows: run, range, ..span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn axis() -> RowAxis {
        let starts = ["b", "d", "f"].map(|key| Bytes::from_static(key.as_bytes())).to_vec();
        RowAxis::new(starts, Some(Bytes::from_static(b"h")), vec![0; 3]).expect("in order")
    }

    fn span(first_row: u32, rows: u32, start: &'static str, end: &'static str) -> BlockSpan {
        let range = KeyRange::from(start.as_bytes()..end.as_bytes());
        BlockSpan { first_row, rows, columns: 1, range, reach: None }
    }

    #[test]
    fn a_span_is_the_run_of_rows_that_shares_its_keys_and_no_cell() {
        let rows = axis();
        assert!(span(0, 2, "c", "e").fits(&rows, 9));
        assert!(!span(0, 3, "c", "e").fits(&rows, 9), "a row that shares no key");
        assert!(!span(0, 1, "b", "d").fits(&rows, 9), "that is a cell");
        assert!(span(0, 1, "a", "d").fits(&rows, 9), "it begins before the range asked for");
        let longer = BlockSpan { columns: 2, ..span(0, 1, "b", "d") };
        assert!(longer.fits(&rows, 2) && !longer.fits(&rows, 1));
        assert!(span(0, 1, "a", "d").straddles(&rows) && !span(0, 2, "c", "e").straddles(&rows));
        assert!(span(2, 1, "g", "i").straddles(&rows));
    }

    #[test]
    fn bounds_a_table_of_spans_becomes_coarser_and_still_covers_each() {
        let rows = axis();
        let mut table = SpanTable::default();
        for number in 0..MAX_SPANS as u64 * 2 {
            let mut start = b"c".to_vec();
            start.extend(number.to_be_bytes());
            let end = Some(Bytes::from_static(b"e\x01"));
            let range = KeyRange { start: start.into(), end };
            let span = BlockSpan { range, ..span(0, 2, "", "") };
            let placed = table.number(span.clone(), &rows);
            let placed = &table.spans[placed as usize];
            assert!(placed.range.start <= span.range.start && placed.fits(&rows, 1));
        }
        assert!(table.into_spans().len() <= MAX_SPANS);
    }
}
