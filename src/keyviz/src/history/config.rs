//! How much history a node keeps, and how fine: settings, defaults and bounds.

/// Shortest step.
pub const MIN_STEP_MS: u64 = 1_000;
/// Longest step.
pub const MAX_STEP_MS: u64 = 3_600_000;
/// Step when none is configured.
pub const DEFAULT_STEP_MS: u64 = 60_000;
/// Columns kept when no number is configured: a day of minutes.
pub const DEFAULT_HISTORY_COLUMNS: usize = 1440;
/// Most columns that can be configured.
pub const MAX_HISTORY_COLUMNS: usize = 1 << 20;
/// Bytes kept when no number is configured.
pub const DEFAULT_HISTORY_BYTES: usize = 256 << 20;
/// Fewest bytes that can be configured: room for the open column of a full sampler.
pub const MIN_HISTORY_BYTES: usize = 4 << 20;
/// A gap of more columns than this between two calls is a clock that jumped, not a slow process.
pub const MAX_STALL_COLUMNS: u64 = 60;

/// Times from here on are taken for this one: some 280,000 years from now.
pub(crate) const MAX_TIME_MS: u64 = 1 << 53;

/// How much history a node keeps, and how fine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryConfig {
    /// Milliseconds of a column, [`MIN_STEP_MS`] to [`MAX_STEP_MS`].
    pub step_ms: u64,
    /// Closed columns kept as they are, 1 to [`MAX_HISTORY_COLUMNS`]; older ones are folded into
    /// coarser tiers.
    pub columns: usize,
    /// Bytes of all tiers, at least [`MIN_HISTORY_BYTES`]; over it the oldest are folded, and at
    /// last forgotten. The open column may take half of them before it does so on top. Hot keys
    /// have an eighth in addition.
    pub bytes: usize,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            step_ms: DEFAULT_STEP_MS,
            columns: DEFAULT_HISTORY_COLUMNS,
            bytes: DEFAULT_HISTORY_BYTES,
        }
    }
}

/// A configuration outside its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryConfigError {
    /// The step.
    #[error("a step of {step_ms} ms is outside {MIN_STEP_MS} to {MAX_STEP_MS} ms")]
    Step {
        /// As configured.
        step_ms: u64,
    },
    /// The number of columns.
    #[error("{columns} columns of history are outside 1 to {MAX_HISTORY_COLUMNS}")]
    Columns {
        /// As configured.
        columns: usize,
    },
    /// The number of bytes.
    #[error("{bytes} bytes of history are fewer than {MIN_HISTORY_BYTES}")]
    Bytes {
        /// As configured.
        bytes: usize,
    },
}

impl HistoryConfig {
    /// Errors on the first value outside its bounds.
    pub fn validate(&self) -> Result<(), HistoryConfigError> {
        if !(MIN_STEP_MS..=MAX_STEP_MS).contains(&self.step_ms) {
            return Err(HistoryConfigError::Step { step_ms: self.step_ms });
        }
        if !(1..=MAX_HISTORY_COLUMNS).contains(&self.columns) {
            return Err(HistoryConfigError::Columns { columns: self.columns });
        }
        if self.bytes < MIN_HISTORY_BYTES {
            return Err(HistoryConfigError::Bytes { bytes: self.bytes });
        }
        Ok(())
    }
}
