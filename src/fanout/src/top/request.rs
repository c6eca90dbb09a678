//! The question for a ranking, its answer and its errors.

use std::sync::Arc;

use bytes::Bytes;

use keyviz_core::matrix::NodeStatus;
use keyviz_core::{GroupId, KeyRange, RouteId, Series, Window};

use crate::request::{MatrixAnswer, MatrixError};

/// Most ranges of an answer.
pub const MAX_TOP: usize = 256;
/// Ranges where the question does not say.
pub const DEFAULT_TOP: usize = 20;
/// The window where the question does not say.
pub const DEFAULT_TOP_WINDOW_MS: u64 = 300_000;

/// What ranges are ranked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// Request units, see [`cost`].
    Cost,
    /// A series.
    Of(Series),
}

/// Request units: 1 for 8 reads, for 64 KiB read, for a write and for 1 KiB written. `counts` are
/// in the order of `SERIES`.
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
pub(super) struct Measured {
    pub(super) now: Vec<Arc<MatrixAnswer>>,
    pub(super) before: Vec<Arc<MatrixAnswer>>,
    pub(super) window: Window,
    pub(super) before_from_ms: u64,
    pub(super) now_ms: u64,
}
