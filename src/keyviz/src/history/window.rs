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
}
