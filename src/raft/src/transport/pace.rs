//! The rate at which a node sends rows to others, over all its groups.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A limit in bytes a second. Before each run a sender waits until the previous ones are paid for,
/// so a run may have any size, and after a pause one run is sent at once.
#[derive(Debug)]
pub(crate) struct Pace {
    /// 0: no limit.
    bytes_per_s: u64,
    /// When the next run may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Pace { bytes_per_s, next: Mutex::default() }
    }

    /// Waits until `bytes` may be sent.
    pub(crate) async fn take(&self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let turn = {
            let mut next = self.next.lock();
            let now = Instant::now();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + cost);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bounds_runs_are_sent_no_faster_than_the_limit_whoever_sends_them() {
        let pace = Pace::new(1_000);
        let start = Instant::now();
        let send = || async {
            for _ in 0..10 {
                pace.take(500).await;
            }
        };
        tokio::join!(send(), send());
        // Twenty runs of half a second; the last need not be waited for.
        assert_eq!(start.elapsed().as_millis(), 9_500);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let after = Instant::now();
        pace.take(500).await;
        assert_eq!(after.elapsed(), Duration::ZERO, "a pause is not paid back later");
        pace.take(500).await;
        assert_eq!(after.elapsed().as_millis(), 500, "nor saved up");
        Pace::new(0).take(usize::MAX).await;
    }
}
