//! Attempts of one request until its deadline, with exponential backoff.

use std::time::Duration;

use tokio::time::Instant;

/// The wait between attempts doubles from the first to the last of these.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LAST_BACKOFF: Duration = Duration::from_millis(200);

/// Attempts of one request. Only a request that certainly did not happen may be repeated.
#[derive(Debug)]
pub struct Attempts {
    deadline: Instant,
    wait: Duration,
    made: u32,
}

impl Attempts {
    /// As many attempts as fit before `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Attempts { deadline, wait: FIRST_BACKOFF, made: 0 }
    }

    /// Attempts that failed so far.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Time left until the request must be answered.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits before the next attempt; `false`: there is no time for one.
    pub async fn again(&mut self) -> bool {
        if Instant::now() + self.wait >= self.deadline {
            return false;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_BACKOFF);
        self.made = self.made.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bounds_attempts_end_at_the_deadline_and_never_sleep_past_it() {
        let start = Instant::now();
        let mut attempts = Attempts::until(start + Duration::from_secs(2));
        while attempts.again().await {}
        assert!(Instant::now() <= start + Duration::from_secs(2));
        // 5 + 10 + ... + 160 ms, then 200 ms each.
        assert_eq!(attempts.made(), 6 + 8);
    }
}
