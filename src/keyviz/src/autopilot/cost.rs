//! The load as cost.
//!
//! An operation costs 1, and so do 4 KiB that it reads or writes: a value of 1 MiB occupies a node
//! as long as some hundred small ones. Processor time is not counted by range; it follows from both
//! on one machine.

use crate::insight::{Load, LoadRow};
use keyviz_types::KeyRange;

/// Bytes that cost as much as an operation.
pub const BYTES_OF_ONE: f64 = 4_096.0;

/// Columns that are the present: the last ones that ended, and the open one once half of it has.
const RECENT: usize = 4;

/// The cost of one range at present, a second.
#[derive(Clone, PartialEq, Debug)]
pub struct RangeCost {
    /// Keys; the smallest range that was counted.
    pub range: KeyRange,
    /// What its leader serves.
    pub led: f64,
    /// What other replicas serve.
    pub followed: f64,
    /// Operations.
    pub operations: f64,
}

impl RangeCost {
    /// All of it.
    pub fn cost(&self) -> f64 {
        self.led + self.followed
    }
}

/// The present, and whether some of it may be missing.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Present {
    /// In key order.
    pub ranges: Vec<RangeCost>,
    /// Columns that were used.
    pub columns: usize,
    /// Some of them may miss counts.
    pub partial: bool,
}

impl Present {
    /// Cost a second of all ranges.
    pub fn cost(&self) -> f64 {
        self.ranges.iter().map(RangeCost::cost).sum()
    }

    /// Operations a second.
    pub fn operations(&self) -> f64 {
        self.ranges.iter().map(|range| range.operations).sum()
    }
}

/// The mean of the last columns.
pub fn present(load: &Load, now_ms: u64) -> Present {
    let passed = |at: &usize| {
        let column = &load.columns[*at];
        let end_ms = if column.open { column.end_ms.min(now_ms) } else { column.end_ms };
        end_ms.saturating_sub(column.start_ms)
    };
    let counts = |at: &usize| {
        let column = &load.columns[*at];
        passed(at) * 2 >= column.end_ms - column.start_ms
    };
    let recent: Vec<usize> = (0..load.columns.len()).rev().filter(counts).take(RECENT).collect();
    let seconds = recent.iter().map(passed).sum::<u64>() as f64 / 1e3;
    if seconds <= 0.0 {
        return Present::default();
    }
    let of_row = |row: &LoadRow| {
        let sum = |list: &[u64]| -> f64 {
            recent.iter().map(|&at| list.get(at).copied().unwrap_or(0) as f64).sum()
        };
        let (reads, writes) = (sum(&row.reads), sum(&row.writes));
        let follower = sum(&row.follower_reads).min(reads);
        let (read_bytes, write_bytes) = (sum(&row.read_bytes), sum(&row.write_bytes));
        let of_reads = reads + read_bytes / BYTES_OF_ONE;
        let followed = if reads > 0.0 { of_reads * follower / reads } else { 0.0 };
        let led = of_reads - followed + writes + write_bytes / BYTES_OF_ONE;
        RangeCost {
            range: row.range.clone(),
            led: led / seconds,
            followed: followed / seconds,
            operations: (reads + writes) / seconds,
        }
    };
    Present {
        ranges: load.rows.iter().map(of_row).collect(),
        columns: recent.len(),
        partial: recent.iter().any(|&at| load.partial.contains(at as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{ColumnSet, ColumnSpan};

    #[test]
    fn cost_is_operations_and_bytes_by_who_serves_them() {
        let column = |at: u64, open| ColumnSpan { start_ms: at, end_ms: at + 1_000, open };
        let mut row = LoadRow::new(KeyRange::all());
        row.reads = vec![9, 40, 20];
        row.follower_reads = vec![9, 10, 5];
        row.writes = vec![9, 6, 2];
        row.read_bytes = vec![0, 40_960, 0];
        row.write_bytes = vec![0, 0, 8_192];
        let columns = vec![column(1_000, false), column(2_000, false), column(3_000, true)];
        let partial = ColumnSet::default();
        let load = Load { columns, partial, rows: vec![row] };
        // The open column is too young, then it counts by the time that has passed.
        assert_eq!(present(&load, 3_100).columns, 2);
        let now = present(&load, 3_500);
        assert_eq!((now.columns, now.partial), (3, false));
        let of = &now.ranges[0];
        assert!((of.operations - (18.0 + 46.0 + 22.0) / 2.5).abs() < 1e-9, "{of:?}");
        let (reads, writes) = (69.0 + 10.0, 17.0 + 2.0);
        assert!((of.cost() - (reads + writes) / 2.5).abs() < 1e-9, "{of:?}");
        assert!((of.followed - reads * 24.0 / 69.0 / 2.5).abs() < 1e-9, "{of:?}");
        assert_eq!(present(&Load::default(), 5), Present::default());
    }
}
