//! The hottest ranges of a window, by any series or by cost.
//!
//! Rows are planned for reads and for writes, and the bounds of both are the axis on which every
//! series is asked, of the window and of the one before it, which is as long. What was counted for
//! several rows together is a candidate of its own: no number is a guess.

mod ranking;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use keyviz_core::matrix::NodeStatus;
use keyviz_core::{GroupId, KeyRange, RouteId, Series, Window};

use super::cluster::Fanout;
use super::loads::SERIES;
use super::request::{Axis, MatrixAnswer, MatrixError, MatrixRequest};
use super::work::{Busy, off_the_runtime};
use ranking::ranked;

/// Most ranges of an answer.
pub const MAX_TOP: usize = 256;
/// Ranges where the question does not say.
pub const DEFAULT_TOP: usize = 20;
/// The window where the question does not say.
pub const DEFAULT_TOP_WINDOW_MS: u64 = 300_000;
/// Rows that are planned for reads, and for writes.
const ROWS: u32 = 384;
/// Columns of the window, by which the beginning of a load is found.
const COLUMNS: u32 = 120;
/// Answers under way.
const RUNNING: usize = 2;
/// How long a question waits for those before it.
const WAIT: Duration = Duration::from_secs(5);

/// What ranges are ranked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// Request units, see [`cost`].
    Cost,
    /// A series.
    Of(Series),
}

/// Request units: 1 for 8 reads, for 64 KiB read, for a write and for 1 KiB written. `counts` are
/// in the order of [`SERIES`].
pub fn cost(counts: [f64; 4]) -> f64 {
    let [reads, writes, read_bytes, write_bytes] = counts;
    reads / 8.0 + read_bytes / 65_536.0 + writes + write_bytes / 1_024.0
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopRequest {
    /// What ranges are ranked by.
    pub rank: Rank,
    /// Unix milliseconds, inclusive; `None`: five minutes before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: now, with the column in progress.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Most ranges; 0: the default.
    pub limit: u32,
    /// Whole routes instead of parts of them.
    pub routes: bool,
}

/// Of reads, writes, read bytes and write bytes, a second.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Rates(pub [f64; 4]);

impl Rates {
    /// The cost a second.
    pub fn cost(&self) -> f64 {
        cost(self.0)
    }
}

/// One range.
#[derive(Clone, PartialEq, Debug)]
pub struct TopRange {
    /// Its keys.
    pub range: KeyRange,
    /// A preview of the first key.
    pub label: String,
    /// Its first routes.
    pub route_ids: Vec<RouteId>,
    /// Number of its routes.
    pub route_count: u64,
    /// The group of all its routes.
    pub group: Option<GroupId>,
    /// In the window.
    pub rates: Rates,
    /// In the window before.
    pub before: Rates,
    /// Share of what all ranges have, of what they are ranked by.
    pub share: f64,
    /// Divided by the rate before.
    pub trend: Option<f64>,
    /// Start of the first column from which on there is at least half of the present rate.
    pub since_ms: u64,
    /// It may have begun earlier.
    pub since_earlier: bool,
    /// Counted for the whole range together.
    pub together: bool,
}

/// The hottest ranges.
#[derive(Clone, PartialEq, Debug)]
pub struct TopAnswer {
    /// The window, in whole columns.
    pub window: Window,
    /// Start of the window before.
    pub before_from_ms: u64,
    /// The hottest first.
    pub ranges: Vec<TopRange>,
    /// Of all keys that were asked.
    pub total: Rates,
    /// The same before.
    pub before: Rates,
    /// More ranges with load.
    pub omitted: u64,
    /// The version of the routes.
    pub catalog_version: u64,
    /// Counts may be missing.
    pub partial: bool,
    /// The status of each member.
    pub nodes: Vec<NodeStatus>,
    /// Members that answered every question.
    pub responded: u32,
    /// Members that were asked.
    pub expected: u32,
}

/// Why there is no ranking.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopError {
    /// There is no matrix.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Too many ranges.
    #[error("limit is {asked}; an answer has at most {MAX_TOP} ranges")]
    TooMany {
        /// Asked for.
        asked: u32,
    },
}

/// The matrices of one answer.
struct Measured {
    now: Vec<Arc<MatrixAnswer>>,
    before: Vec<Arc<MatrixAnswer>>,
    window: Window,
    before_from_ms: u64,
    now_ms: u64,
}

/// Ranks ranges.
pub struct Top {
    fanout: Arc<Fanout>,
    places: Semaphore,
}

impl Top {
    /// Of the cluster that `fanout` asks.
    pub fn new(fanout: Arc<Fanout>) -> Self {
        Top { fanout, places: Semaphore::new(RUNNING) }
    }

    /// The hottest ranges of the cluster.
    ///
    /// # Errors
    /// As [`Fanout::cluster`], and if the question asks for too much.
    pub async fn answer(&self, request: &TopRequest) -> Result<TopAnswer, TopError> {
        if request.limit as usize > MAX_TOP {
            return Err(TopError::TooMany { asked: request.limit });
        }
        let busy = || MatrixError::Busy(Busy { what: "rankings", running: RUNNING, waiting: 0 });
        let place = tokio::time::timeout(WAIT, self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let measured = self.measure(request).await?;
        let request = request.clone();
        let ranked = off_the_runtime(move |_| Some(ranked(&request, &measured)));
        Ok(ranked.await.map_err(MatrixError::from)?)
    }

    async fn measure(&self, request: &TopRequest) -> Result<Measured, MatrixError> {
        let local = self.fanout.local();
        let (now_ms, step_ms) = (local.clock().now_ms(), local.history().config().step_ms);
        let to_ms = request.to_ms.unwrap_or(now_ms.saturating_add(1));
        let from_ms = request.from_ms.unwrap_or(to_ms.saturating_sub(DEFAULT_TOP_WINDOW_MS));
        let asked = Window { from_ms, to_ms };
        let window = if asked.is_empty() { asked } else { asked.widened(step_ms) };
        let planned = |series| {
            let plan =
                MatrixRequest { max_rows: ROWS, ..matrix_request(request, series, window, 1) };
            let fanout = &self.fanout;
            async move { fanout.cluster(&plan).await }
        };
        let planned = [planned(Series::Writes).await?, planned(Series::Reads).await?];
        let bounds = planned.iter().flat_map(|answer| &answer.matrix.rows);
        let bounds: BTreeSet<Bytes> = bounds.map(|row| row.range.start.clone()).collect();
        let boundaries: Arc<[Bytes]> = bounds.into_iter().collect();
        let length_ms = window.to_ms - window.from_ms;
        let before_from_ms = window.from_ms.saturating_sub(length_ms);
        let earlier = Window { from_ms: before_from_ms, to_ms: window.from_ms };
        let (mut now, mut before) = (Vec::new(), Vec::new());
        for series in SERIES {
            for (window, columns, answers) in
                [(window, COLUMNS, &mut now), (earlier, 1, &mut before)]
            {
                if window.is_empty() {
                    continue;
                }
                let boundaries = Arc::clone(&boundaries);
                let asked = matrix_request(request, series, window, columns);
                let asked = MatrixRequest { boundaries, ..asked };
                answers.push(self.fanout.cluster(&asked).await?);
            }
        }
        Ok(Measured { now, before, window, before_from_ms, now_ms })
    }
}

fn matrix_request(
    request: &TopRequest,
    series: Series,
    window: Window,
    columns: u32,
) -> MatrixRequest {
    MatrixRequest {
        series,
        role: None,
        from_ms: Some(window.from_ms),
        to_ms: Some(window.to_ms),
        start: request.start.clone(),
        end: request.end.clone(),
        max_rows: 0,
        max_columns: columns,
        axis: Axis::Now,
        spread: false,
        boundaries: Arc::default(),
    }
}
