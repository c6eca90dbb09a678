//! Requests that can share one answer share one round trip.
//!
//! A request joins the next round, never one that is under way, so the answer was true after the
//! request arrived. This makes a shared read index linearizable. The number of rounds depends on
//! how long one takes, not on how many requests there are.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Rounds of one query. At most one is under way; the number of waiters is bounded by the requests
/// in flight.
#[derive(Debug)]
pub struct Rounds<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// A task runs the rounds, and will run one for those that wait.
    running: bool,
    /// Requests of the next round.
    waiting: Vec<oneshot::Sender<T>>,
}

impl<T: Clone + Send + 'static> Rounds<T> {
    /// Rounds without callers.
    pub fn new() -> Arc<Self> {
        Arc::new(Rounds { state: Mutex::new(State { running: false, waiting: Vec::new() }) })
    }

    /// The answer of the next round. `ask` is called when the round starts, so it never answers
    /// with something older than this call. `None`: the round panicked or the runtime stops.
    pub async fn join<F, Fut>(self: &Arc<Self>, ask: F) -> Option<T>
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut state = self.state.lock();
            state.waiting.push(answer);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(Arc::clone(self).run(ask));
        }
        answered.await.ok()
    }

    async fn run<F, Fut>(self: Arc<Self>, ask: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let mut guard = Running { rounds: &self, finished: false };
        while let Some(round) = self.next_round() {
            let answer = ask().await;
            for waiter in round {
                // A dropped waiter needs no answer.
                let _ = waiter.send(answer.clone());
            }
        }
        guard.finished = true;
    }

    fn next_round(&self) -> Option<Vec<oneshot::Sender<T>>> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.running = false;
            return None;
        }
        Some(std::mem::take(&mut state.waiting))
    }
}

/// Lets the next request start rounds again if the task that runs them panics or is cancelled.
struct Running<'a, T> {
    rounds: &'a Rounds<T>,
    finished: bool,
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        if !self.finished {
            let mut state = self.rounds.state.lock();
            state.running = false;
            // Their senders drop, and they see a closed channel.
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_request_never_joins_a_round_that_is_under_way() {
        let rounds = Rounds::new();
        let asked = Arc::new(AtomicU64::new(0));
        let ask = {
            let asked = Arc::clone(&asked);
            move || {
                let asked = Arc::clone(&asked);
                async move {
                    let round = asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    round
                }
            }
        };
        let first = tokio::spawn({
            let (rounds, ask) = (Arc::clone(&rounds), ask.clone());
            async move { rounds.join(ask).await }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let late: Vec<_> = (0..50)
            .map(|_| {
                let (rounds, ask) = (Arc::clone(&rounds), ask.clone());
                tokio::spawn(async move { rounds.join(ask).await })
            })
            .collect();
        assert_eq!(first.await.expect("no panic"), Some(0));
        for request in late {
            assert_eq!(request.await.expect("no panic"), Some(1), "all share the next round");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(rounds.join(ask).await, Some(2), "idle rounds start again");
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_start_again_after_one_that_panicked() {
        let rounds: Arc<Rounds<u64>> = Rounds::new();
        let first = rounds.join(|| async { panic!("put in by hand") });
        assert_eq!(first.await, None);
        assert_eq!(rounds.join(|| async { 7 }).await, Some(7));
    }
}
