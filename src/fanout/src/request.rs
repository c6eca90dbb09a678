//! The request, the answer, and the errors of a cluster matrix.

use std::sync::Arc;

use bytes::Bytes;

use keyviz_catalog::RouteEvents;
use keyviz_core::matrix::SourceCounts;
use keyviz_core::query::{
    DEFAULT_COLUMNS, DEFAULT_ROWS, MAX_COLUMNS, MAX_ROWS, PlanError, check_boundaries,
};
use keyviz_core::{KeyRange, Matrix, NodeId, Query, Role, Series, Window};

use super::work::{Busy, WorkError};

/// Default window of a matrix.
pub(super) const DEFAULT_WINDOW_MS: u64 = 3_600_000;

/// A window without an end reaches at most this far beyond the asker's now, where members hold
/// columns there: one clock that is a year ahead must not make every column a day wide.
pub const MAX_AHEAD_MS: u64 = 24 * 3_600_000;

/// Columns end before this time, some 280,000 years from now.
const MAX_TIME_MS: u64 = 1 << 53;

/// Most splits and merges that an answer lists.
pub(super) const MAX_EVENTS: usize = 1_024;

/// Most cells of a matrix whose sources are asked for.
pub const MAX_SOURCE_CELLS: usize = 262_144;

/// Which routes the rows of a matrix are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Axis {
    /// Those of today: what a retired route counted is shown at its descendants.
    #[default]
    Now,
    /// Those of the first instant of the window: what their descendants counted is added up.
    Then,
}

/// A matrix and the changes of its routes in its window.
#[derive(Clone, PartialEq, Debug)]
pub struct MatrixAnswer {
    /// The counts.
    pub matrix: Matrix,
    /// Splits and merges of its window and keys, as this node has applied them.
    pub events: RouteEvents,
    /// Which routes the rows are.
    pub axis: Axis,
    /// Its blocks are spread.
    pub spread: bool,
    /// Its rows are routes.
    pub by_route: bool,
    /// What each node counted, if that was asked for.
    pub sources: SourceCounts,
}

/// The request as received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MatrixRequest {
    /// Which of the four numbers.
    pub series: Series,
    /// Only operations of this role; `None`: all.
    pub role: Option<Role>,
    /// Unix milliseconds, inclusive; `None`: an hour before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: now, with the column in progress.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Row budget; 0: the default.
    pub max_rows: u32,
    /// Column budget; 0: the default.
    pub max_columns: u32,
    /// Which routes the rows are.
    pub axis: Axis,
    /// Blocks are divided evenly over their cells.
    pub spread: bool,
    /// The keys between which the rows lie; none: rows are planned.
    pub boundaries: Arc<[Bytes]>,
    /// One row for each of the first routes; the last row is all the others.
    pub by_route: bool,
    /// Also what each node counted, by group and term.
    pub sources: bool,
}

/// Why there is no matrix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MatrixError {
    /// The sampler is off.
    #[error(
        "keyviz is disabled on this node (--keyviz-enabled=false); ask a node where it is enabled"
    )]
    Disabled,
    /// No catalog was applied yet, so there are no rows.
    #[error("this node has not applied a route catalog yet; try again or ask another node")]
    NotReady,
    /// This node is no longer a member of the cluster.
    #[error(
        "node {node} has left the cluster or was removed from it, and asks the others nothing any \
         more; ask another node"
    )]
    Removed {
        /// This node.
        node: NodeId,
    },
    /// This node has lost acknowledged entries, and is excluded.
    #[error("this node answers nothing: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// The window ends before it starts.
    #[error("from_ms ({from_ms}) is not before to_ms ({to_ms})")]
    EmptyWindow {
        /// Start asked for.
        from_ms: u64,
        /// End asked for.
        to_ms: u64,
    },
    /// The range ends before it starts.
    #[error("the end of the key range is not after its start")]
    EmptyRange,
    /// Boundaries that make no rows.
    #[error("the boundaries of the rows are refused: {0}")]
    Boundaries(PlanError),
    /// A boundary over the limit.
    #[error(
        "boundary {index} of the rows has {bytes} bytes; keys have at most {}",
        keyviz_types::MAX_KEY_BYTES
    )]
    BoundaryTooLong {
        /// Its index, from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// A key over the limit.
    #[error(
        "a bound of the key range has {bytes} bytes; keys have at most {}",
        keyviz_types::MAX_KEY_BYTES
    )]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many rows.
    #[error("max_rows is {asked}; a matrix has at most {MAX_ROWS} rows")]
    TooManyRows {
        /// Asked for.
        asked: u32,
    },
    /// Too many columns.
    #[error("max_columns is {asked}; a matrix has at most {MAX_COLUMNS} columns")]
    TooManyColumns {
        /// Asked for.
        asked: u32,
    },
    /// Rows that are routes and lie between other keys.
    #[error("by_route makes the rows; leave out the boundaries")]
    RoutesAndBoundaries,
    /// Too many cells for their sources.
    #[error(
        "sources are asked for of {cells} cells (rows times columns); ask for at most \
         {MAX_SOURCE_CELLS} at once"
    )]
    TooManySourceCells {
        /// Asked for.
        cells: usize,
    },
    /// The node has enough to do.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// A fault of this program.
    #[error("the matrix could not be put together: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

impl From<WorkError> for MatrixError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Busy(busy) => MatrixError::Busy(busy),
            WorkError::Failed { reason } => MatrixError::Internal { reason },
        }
    }
}

impl MatrixRequest {
    /// The question of round one: without an end it is for the newest column too that anybody
    /// holds, by whatever clock.
    pub(super) fn first_query(&self, now_ms: u64) -> Result<Query, MatrixError> {
        let mut query = self.query(now_ms)?;
        if self.to_ms.is_none() {
            query.window.to_ms = u64::MAX;
        }
        Ok(query)
    }

    /// The question where members hold columns up to `newest_ms`; the time up to which there are
    /// columns. A window without an end follows clocks that are ahead, [`MAX_AHEAD_MS`] at most.
    pub(super) fn query_up_to(
        &self,
        now_ms: u64,
        newest_ms: u64,
    ) -> Result<(Query, u64), MatrixError> {
        let mut query = self.query(now_ms)?;
        let ahead_ms = match self.to_ms {
            Some(_) => newest_ms.min(MAX_TIME_MS),
            None => newest_ms.min(now_ms.saturating_add(MAX_AHEAD_MS)),
        };
        let reach_ms = now_ms.max(ahead_ms.saturating_sub(1));
        if self.to_ms.is_none() {
            query.window.to_ms = query.window.to_ms.max(ahead_ms);
        }
        Ok((query, reach_ms))
    }

    fn check_source_cells(&self) -> Result<(), MatrixError> {
        let given = |asked: u32, default| if asked == 0 { default } else { asked as usize };
        let rows = given(self.max_rows, DEFAULT_ROWS).max(self.boundaries.len());
        let cells = rows * given(self.max_columns, DEFAULT_COLUMNS);
        match cells > MAX_SOURCE_CELLS {
            true => Err(MatrixError::TooManySourceCells { cells }),
            false => Ok(()),
        }
    }

    /// The question at a moment.
    pub(super) fn query(&self, now_ms: u64) -> Result<Query, MatrixError> {
        if self.max_rows as usize > MAX_ROWS {
            return Err(MatrixError::TooManyRows { asked: self.max_rows });
        }
        if self.max_columns as usize > MAX_COLUMNS {
            return Err(MatrixError::TooManyColumns { asked: self.max_columns });
        }
        for key in std::iter::once(&self.start).chain(&self.end) {
            if key.len() > keyviz_types::MAX_KEY_BYTES {
                return Err(MatrixError::KeyTooLong { bytes: key.len() });
            }
        }
        if self.by_route && !self.boundaries.is_empty() {
            return Err(MatrixError::RoutesAndBoundaries);
        }
        if self.sources {
            self.check_source_cells()?;
        }
        // Without an end the column in progress belongs to the answer, so the window ends after
        // now.
        let to_ms = self.to_ms.unwrap_or(now_ms.saturating_add(1));
        let from_ms = self.from_ms.unwrap_or(to_ms.saturating_sub(DEFAULT_WINDOW_MS));
        let window = Window { from_ms, to_ms };
        if window.is_empty() {
            return Err(MatrixError::EmptyWindow { from_ms, to_ms });
        }
        let range = KeyRange { start: self.start.clone(), end: self.end.clone() };
        if range.is_empty() {
            return Err(MatrixError::EmptyRange);
        }
        let too_long = |(_, key): &(usize, &Bytes)| key.len() > keyviz_types::MAX_KEY_BYTES;
        if let Some((index, key)) = self.boundaries.iter().enumerate().find(too_long) {
            return Err(MatrixError::BoundaryTooLong { index, bytes: key.len() });
        }
        check_boundaries(&range, &self.boundaries).map_err(MatrixError::Boundaries)?;
        Ok(Query { window, range, series: self.series, role: self.role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> MatrixRequest {
        MatrixRequest {
            series: Series::Writes,
            role: None,
            from_ms: None,
            to_ms: None,
            start: Bytes::new(),
            end: None,
            max_rows: 0,
            max_columns: 0,
            axis: Axis::Now,
            spread: false,
            boundaries: Arc::default(),
            by_route: false,
            sources: false,
        }
    }

    #[test]
    fn a_request_without_a_window_is_for_the_last_hour_and_the_open_column() {
        let query = request().query(10_000_000).expect("the defaults are sound");
        assert_eq!(query.window, Window { from_ms: 6_400_001, to_ms: 10_000_001 });
        assert_eq!(query.range, KeyRange::all());
    }

    #[test]
    fn a_window_without_an_end_reaches_the_newest_column_of_clocks_that_are_ahead() {
        let now_ms = 100 * 3_600_000;
        let ended = |newest_ms| {
            let (query, reach_ms) = request().query_up_to(now_ms, newest_ms).expect("it is sound");
            (query.window.to_ms - now_ms, reach_ms - now_ms)
        };
        assert_eq!(ended(now_ms - 1), (1, 0));
        assert_eq!(ended(now_ms + 60_000), (60_000, 59_999));
        assert_eq!(ended(u64::MAX), (MAX_AHEAD_MS, MAX_AHEAD_MS - 1));
        let bounded = MatrixRequest { to_ms: Some(now_ms + 5), ..request() };
        let (query, _) = bounded.query_up_to(now_ms, now_ms + 60_000).expect("it is sound");
        assert_eq!(query.window.to_ms, now_ms + 5, "an end that is asked for stays");
    }

    #[test]
    fn bad_requests_are_refused_by_name_with_the_limit() {
        let refuse = |change: fn(&mut MatrixRequest)| {
            let mut request = request();
            change(&mut request);
            request.query(1).expect_err("refused").to_string()
        };
        assert!(refuse(|r| r.max_rows = 1_025).contains("1024"));
        assert!(refuse(|r| r.max_columns = 2_049).contains("2048"));
        assert!(refuse(|r| (r.from_ms, r.to_ms) = (Some(5), Some(5))).contains("from_ms"));
        let wide = refuse(|r| (r.sources, r.max_rows, r.max_columns) = (true, 1_024, 257));
        assert!(wide.contains("263168") && wide.contains("262144"), "{wide}");
        let both = |r: &mut MatrixRequest| {
            (r.by_route, r.boundaries) = (true, Arc::new([Bytes::from("k")]));
        };
        assert!(refuse(both).contains("by_route"));
        assert!(refuse(|r| r.start = Bytes::from(vec![1; 4_097])).contains("4096"));
        assert!(refuse(|r| r.end = Some(Bytes::new())).contains("range"));
        let keys = |keys: &[&'static str]| keys.iter().map(|key| Bytes::from(*key)).collect();
        let bounded = |keys: Arc<[Bytes]>| {
            let (start, end) = (Bytes::from("b"), Some(Bytes::from("m")));
            let refused = MatrixRequest { boundaries: keys, start, end, ..request() }.query(1);
            refused.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(bounded(keys(&["b", "c", "m"])), Ok(()), "both ends may be named");
        for (given, said) in [
            (keys(&["d", "c"]), "boundary 1 is not after"),
            (keys(&["c", "c"]), "boundary 1 is not after"),
            (keys(&["a", "c"]), "boundary 0 is outside"),
            (keys(&["c", "n"]), "boundary 1 is outside"),
            ((0..1_025u32).map(|n| n.to_be_bytes().to_vec().into()).collect(), "at most 1024"),
            (Arc::new([Bytes::from(vec![b'c'; 4_097])]), "boundary 0 of the rows has 4097 bytes"),
        ] {
            let error = bounded(given).expect_err("refused");
            assert!(error.contains(said), "{error}");
        }
    }
}
