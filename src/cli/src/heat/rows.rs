//! Which rows a live heatmap has.

use std::time::{Duration, Instant};

use bytes::Bytes;

use keyviz_proto as proto;

/// The rows of a live heatmap: those of its first answer, so that nothing moves by itself. Only a
/// heatmap with few rows, as of a new cluster, is planned anew.
#[derive(Debug)]
pub(crate) struct LiveRows {
    /// The keys between the rows that are kept; none: rows are planned.
    boundaries: Vec<Bytes>,
    kept: bool,
    planned: Instant,
}

/// Below this number of rows, rows are planned anew without asking, if that pays.
const FEW_ROWS: usize = 32;
/// And at most this often.
const PLAN_EVERY: Duration = Duration::from_secs(5);
/// From this gain on more detail is offered.
pub(crate) const GAIN_THAT_PAYS: f64 = 1.5;

impl LiveRows {
    /// Keeps the rows of the answer, unless the question has rows of its own.
    pub(crate) fn new(own: &[Bytes], matrix: &proto::Matrix) -> Self {
        let mut rows = LiveRows::planned(own);
        rows.keep(matrix);
        rows
    }

    /// Keeps the rows of the first answer that is shown.
    pub(crate) fn planned(own: &[Bytes]) -> Self {
        LiveRows { boundaries: own.to_vec(), kept: own.is_empty(), planned: Instant::now() }
    }

    /// The keys between the rows; none: they are planned.
    pub(crate) fn boundaries(&self) -> &[Bytes] {
        &self.boundaries
    }

    fn keep(&mut self, matrix: &proto::Matrix) {
        if self.kept && !matrix.rows.is_empty() {
            self.boundaries = matrix.rows.iter().map(|row| row.start.clone()).collect();
        }
    }

    /// Rows are planned by the next answer.
    pub(crate) fn plan(&mut self) {
        if self.kept {
            self.boundaries.clear();
            self.planned = Instant::now();
        }
    }

    /// Keeps rows that were planned; whether rows planned anew would show more, and nothing much is
    /// shown yet.
    pub(crate) fn shown(&mut self, matrix: &proto::Matrix) -> bool {
        if self.boundaries.is_empty() {
            self.keep(matrix);
            return false;
        }
        let few = self.kept && matrix.rows.len() < FEW_ROWS && more_detail(matrix).is_some();
        let few = few && self.planned.elapsed() >= PLAN_EVERY;
        if few {
            self.plan();
        }
        few
    }
}

/// How much more detail newly planned rows would show, if that pays.
pub(crate) fn more_detail(matrix: &proto::Matrix) -> Option<f64> {
    matrix.axis_gain.filter(|gain| *gain >= GAIN_THAT_PAYS)
}
