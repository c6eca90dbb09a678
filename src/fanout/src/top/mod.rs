//! The hottest ranges of a window, by any series or by cost.
//!
//! Rows are planned for reads and for writes, and the bounds of both are the axis on which every
//! series is asked, of the window and of the one before it, which is as long. What was counted for
//! several rows together is a candidate of its own: no number is a guess.

mod ranking;
mod request;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use keyviz_core::{Series, Window};

use super::cluster::Fanout;
use super::loads::SERIES;
use super::request::{Axis, MatrixError, MatrixRequest};
use super::work::{Busy, off_the_runtime};
use ranking::ranked;
use request::Measured;
pub use request::{
    DEFAULT_TOP, DEFAULT_TOP_WINDOW_MS, MAX_TOP, Rank, Rates, TopAnswer, TopError, TopRange,
    TopRequest, cost,
};

/// Rows that are planned for reads, and for writes.
const ROWS: u32 = 384;
/// Columns of the window, by which the beginning of a load is found.
const COLUMNS: u32 = 120;
/// Answers under way.
const RUNNING: usize = 2;
/// How long a question waits for those before it.
const WAIT: Duration = Duration::from_secs(5);

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
        by_route: false,
        sources: false,
    }
}
