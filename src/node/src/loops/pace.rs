//! The pace at which rows are copied and deleted.

use std::time::Duration;

use tokio::time::Instant;

/// Spreads what is copied evenly over time, over all moves.
#[derive(Default)]
pub(crate) struct Pace {
    free_at: parking_lot::Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until `bytes` may be copied.
    pub(crate) async fn take(&self, bytes: u64, bytes_per_s: u64) {
        if bytes_per_s == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        let turn = {
            let mut free_at = self.free_at.lock();
            let turn = free_at.unwrap_or_else(Instant::now).max(Instant::now());
            *free_at = Some(turn + cost);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
