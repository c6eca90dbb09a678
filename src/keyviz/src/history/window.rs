//! The time window of a query.

/// A time window in Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// First millisecond, inclusive.
    pub from_ms: u64,
    /// First millisecond after the window.
    pub to_ms: u64,
}

impl Window {
    /// Whether the window contains no time.
    pub const fn is_empty(&self) -> bool {
        self.from_ms >= self.to_ms
    }

    /// The window with whole columns of `step_ms`, which is not 0.
    #[must_use]
    pub const fn widened(&self, step_ms: u64) -> Window {
        let from_ms = self.from_ms / step_ms * step_ms;
        let to_ms = self.to_ms.div_ceil(step_ms).saturating_mul(step_ms);
        Window { from_ms, to_ms }
    }
}
