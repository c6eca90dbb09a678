//! The two axes of a matrix as nodes exchange them: rows are key ranges, columns are time spans.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{MAX_AXIS_ROWS, MAX_COLUMNS};
use crate::history::window::Window;
use keyviz_types::KeyRange;

/// One output column, a whole number of steps of Unix time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ColumnSpan {
    /// First millisecond.
    pub start_ms: u64,
    /// First millisecond after it.
    pub end_ms: u64,
    /// Whether the column is still in progress.
    pub open: bool,
}

/// The columns of a matrix: contiguous, oldest first, at most [`MAX_COLUMNS`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPlan {
    step_ms: u64,
    columns: Vec<ColumnSpan>,
}

/// The rows of a matrix as nodes need them in round two: the start of each row, the end of the last
/// one, and the known load of each. Nodes of earlier versions apportion the counts that a boundary
/// cuts by this load; this version reports them as blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowAxis {
    starts: Vec<Bytes>,
    end: Option<Bytes>,
    weights: Vec<u64>,
}

/// Why an axis is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AxisError {
    /// More than [`MAX_AXIS_ROWS`] rows.
    #[error("{rows} rows asked for, at most {MAX_AXIS_ROWS} are served")]
    TooManyRows {
        /// Rows asked for.
        rows: usize,
    },
    /// More than [`MAX_COLUMNS`] columns.
    #[error("{columns} columns asked for, at most {MAX_COLUMNS} are served")]
    TooManyColumns {
        /// Columns asked for.
        columns: usize,
    },
    /// A row or column that is empty or does not start after the one before it.
    #[error("boundary {index} of the axis is not after the one before it")]
    OutOfOrder {
        /// Index of the boundary.
        index: usize,
    },
    /// The number of weights is not the number of rows.
    #[error("{weights} weights for {rows} rows")]
    Weights {
        /// Rows.
        rows: usize,
        /// Weights.
        weights: usize,
    },
    /// A step of zero milliseconds.
    #[error("a column step of 0 ms")]
    ZeroStep,
}

impl RowAxis {
    /// Rows that start at `starts`, of which the last ends at `end` (`None`: unbounded). `weights`
    /// has the known load of each row.
    ///
    /// # Errors
    /// Too many rows, boundaries that do not ascend, or a wrong number of weights.
    pub fn new(
        starts: Vec<Bytes>,
        end: Option<Bytes>,
        weights: Vec<u64>,
    ) -> Result<Self, AxisError> {
        if starts.len() > MAX_AXIS_ROWS {
            return Err(AxisError::TooManyRows { rows: starts.len() });
        }
        if starts.len() != weights.len() {
            return Err(AxisError::Weights { rows: starts.len(), weights: weights.len() });
        }
        let bounds: Vec<&Bytes> = starts.iter().chain(end.as_ref()).collect();
        if let Some(index) = bounds.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(AxisError::OutOfOrder { index: index + 1 });
        }
        Ok(RowAxis { starts, end, weights })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// First key of each row, ascending.
    pub fn starts(&self) -> &[Bytes] {
        &self.starts
    }

    /// End of the last row; `None`: unbounded.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Identifies the boundaries: XXH3 of the length and the bytes of each, and of whether the last
    /// row has an end.
    pub fn id(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for key in self.starts.iter().chain(&self.end) {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key);
        }
        hasher.update(&[u8::from(self.end.is_some())]);
        hasher.digest()
    }

    /// The known load of each row.
    pub fn weights(&self) -> &[u64] {
        &self.weights
    }

    /// The keys of a run of rows.
    pub(crate) fn keys_of(&self, rows: std::ops::Range<usize>) -> KeyRange {
        KeyRange {
            start: self.starts[rows.start].clone(),
            end: self.row_end(rows.end - 1).cloned(),
        }
    }

    /// End of row `row`; `None`: unbounded.
    pub(crate) fn row_end(&self, row: usize) -> Option<&Bytes> {
        self.starts.get(row + 1).or(self.end.as_ref())
    }

    /// The rows that share keys with `range`: first, and one past the last.
    pub(crate) fn overlapping(&self, range: &KeyRange) -> std::ops::Range<usize> {
        if self.is_empty()
            || range.is_empty()
            || self.end.as_ref().is_some_and(|e| *e <= range.start)
        {
            return 0..0;
        }
        let after = self.starts.partition_point(|start| *start <= range.start);
        let to = match &range.end {
            None => self.len(),
            Some(end) => self.starts.partition_point(|start| start < end),
        };
        after.saturating_sub(1).min(to)..to
    }
}

impl ColumnPlan {
    /// Contiguous columns between `bounds`, in Unix milliseconds; fewer than two bounds make no
    /// column. `open` says whether the last column is in progress.
    ///
    /// # Errors
    /// A step of 0, bounds that do not ascend, or too many columns.
    pub fn new(step_ms: u64, bounds: &[u64], open: bool) -> Result<Self, AxisError> {
        if step_ms == 0 {
            return Err(AxisError::ZeroStep);
        }
        let count = bounds.len().saturating_sub(1);
        if count > MAX_COLUMNS {
            return Err(AxisError::TooManyColumns { columns: count });
        }
        if let Some(index) = bounds.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(AxisError::OutOfOrder { index: index + 1 });
        }
        let columns = bounds
            .windows(2)
            .enumerate()
            .map(|(i, pair)| ColumnSpan {
                start_ms: pair[0],
                end_ms: pair[1],
                open: open && i + 1 == count,
            })
            .collect();
        Ok(ColumnPlan { step_ms, columns })
    }

    /// The length in milliseconds that each column is a whole multiple of.
    pub fn step_ms(&self) -> u64 {
        self.step_ms
    }

    /// The columns, oldest first.
    pub fn columns(&self) -> &[ColumnSpan] {
        &self.columns
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no column, as for a window in the future.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The time that the columns cover; `None` without columns.
    pub fn window(&self) -> Option<Window> {
        let (first, last) = (self.columns.first()?, self.columns.last()?);
        Some(Window { from_ms: first.start_ms, to_ms: last.end_ms })
    }

    /// The columns that share time with `window`.
    pub(crate) fn overlapping(&self, window: Window) -> std::ops::Range<usize> {
        let from = self.columns.partition_point(|column| column.end_ms <= window.from_ms);
        let to = self.columns.partition_point(|column| column.start_ms < window.to_ms);
        from..to.max(from)
    }
}

/// Plans the columns for `window`: whole multiples of `step_ms` of Unix time, at most `max_columns`
/// (0: [`super::DEFAULT_COLUMNS`]) of them, up to the column in progress at `now_ms`, which is
/// open. A column that the window touches is included whole.
///
/// Over the budget, each k steps become one column, with boundaries at multiples of k steps of Unix
/// time, so that a window that moves on keeps its columns. If the shorter columns at the two edges
/// make one too many, the first two become one.
///
/// # Errors
/// A step of 0, or `max_columns` above [`MAX_COLUMNS`].
pub fn plan_columns(
    window: Window,
    step_ms: u64,
    max_columns: usize,
    now_ms: u64,
) -> Result<ColumnPlan, AxisError> {
    if step_ms == 0 {
        return Err(AxisError::ZeroStep);
    }
    if max_columns > MAX_COLUMNS {
        return Err(AxisError::TooManyColumns { columns: max_columns });
    }
    let budget = if max_columns == 0 { super::DEFAULT_COLUMNS } else { max_columns } as u64;
    let now = now_ms / step_ms;
    let first = window.from_ms / step_ms;
    let end = window.to_ms.div_ceil(step_ms).min(now + 1);
    if window.is_empty() || first >= end {
        return ColumnPlan::new(step_ms, &[], false);
    }
    let join = (end - first).div_ceil(budget);
    let mut bounds = vec![first];
    let mut next = (first / join + 1) * join;
    while next < end {
        bounds.push(next);
        next += join;
    }
    bounds.push(end);
    if bounds.len() as u64 > budget + 1 {
        bounds.remove(1);
    }
    for bound in &mut bounds {
        *bound = bound.saturating_mul(step_ms);
    }
    ColumnPlan::new(step_ms, &bounds, end == now + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_axis_out_of_order_or_too_long_is_refused() {
        let rows = |starts: &[&'static str]| {
            let starts: Vec<_> =
                starts.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
            let weights = vec![0; starts.len()];
            RowAxis::new(starts, Some(Bytes::from_static(b"m")), weights)
        };
        assert!(rows(&["", "a", "b"]).is_ok());
        assert_eq!(rows(&["", "b", "b"]), Err(AxisError::OutOfOrder { index: 2 }));
        assert_eq!(rows(&["", "z"]), Err(AxisError::OutOfOrder { index: 2 }));
        assert_eq!(
            RowAxis::new(vec![Bytes::new(); MAX_AXIS_ROWS + 1], None, vec![]),
            Err(AxisError::TooManyRows { rows: MAX_AXIS_ROWS + 1 })
        );
        assert_eq!(ColumnPlan::new(5, &[0, 5, 5], true), Err(AxisError::OutOfOrder { index: 2 }));
        assert_eq!(ColumnPlan::new(0, &[], true), Err(AxisError::ZeroStep));
    }

    #[test]
    fn overlapping_rows_are_found_at_every_edge() {
        let key = |key: &'static str| Bytes::from_static(key.as_bytes());
        let axis = RowAxis::new(vec![key("b"), key("d"), key("f")], Some(key("h")), vec![0; 3])
            .expect("rows in order");
        let range =
            |start, end: Option<&'static str>| KeyRange { start: key(start), end: end.map(key) };
        assert_eq!(axis.overlapping(&range("", None)), 0..3);
        assert_eq!(axis.overlapping(&range("", Some("b"))), 0..0);
        assert_eq!(axis.overlapping(&range("a", Some("c"))), 0..1);
        assert_eq!(axis.overlapping(&range("d", Some("f"))), 1..2);
        assert_eq!(axis.overlapping(&range("e", None)), 1..3);
        assert!(axis.overlapping(&range("h", None)).is_empty());
    }

    #[test]
    fn a_window_in_the_future_has_no_columns() {
        let future = Window { from_ms: 10_000, to_ms: 20_000 };
        assert!(plan_columns(future, 1_000, 0, 5_000).expect("a plan").is_empty());
        let empty = Window { from_ms: 10, to_ms: 10 };
        assert!(plan_columns(empty, 1_000, 0, 5_000).expect("a plan").is_empty());
    }

    #[test]
    fn a_day_of_minutes_fits_its_budget_exactly_at_any_phase() {
        for phase in 0..7 {
            let to_ms = 90_000_000 + phase * 60_000;
            let window = Window { from_ms: to_ms - 86_400_000, to_ms };
            let plan = plan_columns(window, 60_000, 480, to_ms - 1).expect("a plan");
            assert_eq!(plan.len(), 480, "phase {phase}");
            assert_eq!(plan.window(), Some(window));
        }
    }

    proptest! {
        #[test]
        fn aligned_time_columns_are_contiguous_and_cover_the_window(
            from_ms in 0u64..1u64 << 45, length in 1u64..1u64 << 36, step_ms in 1u64..4_000_000,
            max_columns in 1usize..=MAX_COLUMNS, ahead in -1_000_000i64..1_000_000,
        ) {
            let window = Window { from_ms, to_ms: from_ms + length };
            let now_ms = window.to_ms.saturating_add_signed(ahead);
            let plan = plan_columns(window, step_ms, max_columns, now_ms).expect("a plan");
            prop_assert!(plan.len() <= max_columns);
            for column in plan.columns() {
                prop_assert_eq!((column.start_ms % step_ms, column.end_ms % step_ms), (0, 0));
                prop_assert_eq!(column.open, column.end_ms > now_ms);
            }
            if let Some(covered) = plan.window() {
                prop_assert!(covered.from_ms <= from_ms);
                prop_assert!(covered.to_ms >= window.to_ms.min(now_ms));
                prop_assert!(covered.to_ms - window.to_ms.min(covered.to_ms) < step_ms);
            } else {
                prop_assert!(from_ms / step_ms > now_ms / step_ms);
            }
        }

        #[test]
        fn aligned_time_columns_of_a_window_that_moves_on_stay_the_same(
            from in 0u64..1_000_000, length in 10u64..5_000, max_columns in 3usize..600,
        ) {
            let at = |shift: u64| {
                let window = Window { from_ms: from + shift, to_ms: from + shift + length };
                plan_columns(window, 1, max_columns, u64::MAX - 1).expect("a plan")
            };
            let (before, after) = (at(0), at(1));
            // All columns but those at the edges stay.
            let inner = |plan: &ColumnPlan| {
                plan.columns().iter().skip(2).copied().collect::<Vec<_>>()
            };
            let both = inner(&after);
            for column in inner(&before).iter().rev().skip(1) {
                prop_assert!(
                    both.contains(column) || column.start_ms <= both[0].start_ms,
                    "{:?}", column
                );
            }
        }
    }
}
