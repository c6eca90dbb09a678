//! The load as rates: operations a second by row and by those columns that can be compared.

use super::load::{Load, Topology};
use crate::query::ColumnSpan;
use keyviz_types::{GroupId, KeyRange};

/// Rates by row and column.
pub(super) type Grid = Vec<Vec<f64>>;

/// A load that is ready to be looked at. Columns are those that count: complete ones, or all where
/// most are partial.
pub(super) struct Frame<'a> {
    pub load: &'a Load,
    pub topology: &'a Topology,
    /// The columns that count, by their index in the load.
    pub columns: Vec<usize>,
    /// All operations.
    pub rates: Grid,
    /// What no finding has explained yet.
    pub left: Grid,
    pub reads: Grid,
    pub totals: Vec<f64>,
    /// The last columns, which are the present.
    pub recent: usize,
    /// Share of columns that may miss counts.
    pub partial: f64,
    pub groups: Vec<Option<GroupId>>,
    /// The part of the key space that each row has, as its keys suggest.
    pub widths: Vec<f64>,
    /// Of each column of the load, the time that has passed.
    seconds: Vec<f64>,
}

impl<'a> Frame<'a> {
    /// `None` where nothing was counted.
    pub fn new(
        load: &'a Load,
        widths: Vec<f64>,
        topology: &'a Topology,
        now_ms: u64,
    ) -> Option<Self> {
        let seconds: Vec<f64> = load.columns.iter().map(|column| seconds(column, now_ms)).collect();
        let complete = |at: usize| !load.partial.contains(at as u32);
        let ended = |at: &usize| {
            let column = &load.columns[*at];
            let length = (column.end_ms - column.start_ms) as f64 / 1e3;
            seconds[*at] * 2.0 >= length
        };
        let all: Vec<usize> = (0..load.columns.len()).filter(ended).collect();
        let sound: Vec<usize> = all.iter().copied().filter(|&at| complete(at)).collect();
        let partial = match all.len() {
            0 => 1.0,
            len => (len - sound.len()) as f64 / len as f64,
        };
        let columns = if partial > 0.5 { all } else { sound };
        let recent = (columns.len() / 12).clamp(3, 5).min(columns.len());
        let rate = |values: &[u64], at: usize| -> f64 {
            values.get(at).map_or(0.0, |&value| value as f64 / seconds[at])
        };
        let grid = |row: &dyn Fn(usize, usize) -> f64| -> Grid {
            let of_row = |index| columns.iter().map(|&at| row(index, at)).collect();
            (0..load.rows.len()).map(of_row).collect()
        };
        let reads = grid(&|row, at| rate(&load.rows[row].reads, at));
        let rates =
            grid(&|row, at| rate(&load.rows[row].reads, at) + rate(&load.rows[row].writes, at));
        let sum = |at: usize| rates.iter().map(|row| row[at]).sum();
        let totals: Vec<f64> = (0..columns.len()).map(sum).collect();
        let groups =
            load.rows.iter().map(|row| row.group.or_else(|| topology.group_of(&row.range)));
        let groups = groups.collect();
        let left = rates.clone();
        let frame = Frame {
            load,
            topology,
            columns,
            rates,
            left,
            reads,
            totals,
            recent,
            partial,
            groups,
            widths,
            seconds,
        };
        (frame.recent > 0 && frame.total() > 0.0).then_some(frame)
    }

    /// Operations a second at present.
    pub fn total(&self) -> f64 {
        self.now(&self.totals)
    }

    /// The mean of the last columns.
    pub fn now(&self, series: &[f64]) -> f64 {
        mean(&series[series.len().saturating_sub(self.recent)..])
    }

    /// The sum of some rows by column.
    pub fn sum(&self, grid: &Grid, rows: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let mut sums = vec![0.0; self.columns.len()];
        for row in rows {
            sums.iter_mut().zip(&grid[row]).for_each(|(sum, value)| *sum += value);
        }
        sums
    }

    /// A list of counts by row as a rate by column, summed.
    pub fn count(
        &self,
        rows: impl IntoIterator<Item = usize>,
        list: impl Fn(usize) -> &'a [u64],
    ) -> Vec<f64> {
        let mut sums = vec![0.0; self.columns.len()];
        for row in rows {
            let list = list(row);
            for (sum, &at) in sums.iter_mut().zip(&self.columns) {
                *sum += list.get(at).copied().unwrap_or(0) as f64 / self.seconds[at];
            }
        }
        sums
    }

    /// The keys of some rows.
    pub fn keys(&self, rows: &std::ops::Range<usize>) -> KeyRange {
        let (first, last) = (&self.load.rows[rows.start].range, &self.load.rows[rows.end - 1]);
        KeyRange { start: first.start.clone(), end: last.range.end.clone() }
    }

    /// The part of the key space that some rows have.
    pub fn width(&self, rows: &std::ops::Range<usize>) -> f64 {
        self.widths[rows.clone()].iter().sum()
    }

    /// Whether an excess in one column is more than chance, beside a usual rate.
    pub fn certain(&self, column: usize, excess: f64, usual: f64) -> bool {
        let seconds = self.seconds[self.columns[column]];
        excess * seconds >= 5.0 * (usual * seconds).sqrt() + 10.0
    }

    /// The same, of the present.
    pub fn certain_now(&self, excess: f64, usual: f64) -> bool {
        let recent = self.columns.iter().rev().take(self.recent);
        let seconds: f64 = recent.map(|&column| self.seconds[column]).sum();
        excess * seconds >= 5.0 * (usual * seconds).sqrt() + 10.0
    }

    /// Whether rows have much more for their keys than the middle of their group's other rows: else
    /// the whole group is so. So, too, where there is nothing to compare with.
    pub fn beyond_group(&self, rows: &std::ops::Range<usize>, rates: &[f64], times: f64) -> bool {
        let group = self.groups[rows.start];
        if group.is_none() || rows.clone().any(|row| self.groups[row] != group) {
            return true;
        }
        let density = |row: usize| rates[row] / self.widths[row];
        let other = |row: &usize| self.groups[*row] == group && !rows.contains(row);
        let known = |row: &usize| self.widths[*row] > 0.0;
        let others: Vec<f64> = (0..self.rows()).filter(other).filter(known).map(density).collect();
        let own: Vec<f64> = rows.clone().filter(known).map(density).collect();
        others.len() < 2 || own.is_empty() || mean(&own) >= times * median(&others)
    }

    pub fn span(&self, column: usize) -> &ColumnSpan {
        &self.load.columns[self.columns[column]]
    }

    pub fn rows(&self) -> usize {
        self.rates.len()
    }

    /// The first column of the last stretch in which a series is above the middle between what it
    /// was and what it is. One column below does not end the stretch.
    pub fn onset(&self, series: &[f64]) -> usize {
        let base = quantile(series, 0.1);
        let now = self.now(series);
        if now <= base * 1.5 {
            return 0;
        }
        last_stretch(series, (base + now) / 2.0)
    }
}

fn last_stretch(series: &[f64], level: f64) -> usize {
    let mut first = series.len() - 1;
    for at in (0..series.len()).rev() {
        if series[at] >= level {
            first = at;
        } else if first > at + 1 {
            break;
        }
    }
    first
}

impl Frame<'_> {
    /// As [`Frame::onset`], of a part between 0 and 1 that need not have grown many times over.
    pub fn onset_of_part(&self, parts: &[f64]) -> usize {
        let base = quantile(parts, 0.1);
        let now = self.now(parts);
        if now - base < 0.1 {
            return 0;
        }
        last_stretch(parts, (base + now) / 2.0)
    }
}

/// The seconds of a column that have passed.
fn seconds(column: &ColumnSpan, now_ms: u64) -> f64 {
    let end_ms = if column.open { column.end_ms.min(now_ms) } else { column.end_ms };
    (end_ms.saturating_sub(column.start_ms) as f64 / 1e3).max(1e-3)
}

pub(super) fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        len => values.iter().sum::<f64>() / len as f64,
    }
}

/// The value below which a part of the values lies; 0 of none.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Runs of rows for which something holds; one row in between does not end a run.
pub(super) fn runs(rows: usize, holds: impl Fn(usize) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for row in (0..rows).filter(|&row| holds(row)) {
        match found.last_mut() {
            Some(run) if row <= run.end + 1 => run.end = row + 1,
            _ => found.push(row..row + 1),
        }
    }
    found
}
