//! Confirming reads in rounds.
//!
//! A linearizable read needs a quorum to say that this node still leads, after the read arrived.
//! One round serves every reader that waits when it starts; readers that arrive while it runs
//! share the next one. So the number of rounds depends on how long one takes, not on how many
//! readers there are.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::ReadError;

type Answer = Result<u64, ReadError>;

/// Collects readers into rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Readers of the next round.
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Someone runs the rounds and will run one for those that wait.
    running: bool,
}

impl Rounds {
    /// Joins the next round and returns what to await for its answer. The second value: the caller
    /// must see to it that [`Rounds::run`] runs.
    pub(crate) fn join(&self) -> (oneshot::Receiver<Answer>, bool) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        state.waiting.push(sender);
        let start = !std::mem::replace(&mut state.running, true);
        (answer, start)
    }

    /// Runs rounds until nobody waits. `confirm` must start after it was called, so that a round
    /// never answers with what was confirmed before a reader joined.
    pub(crate) async fn run<F>(&self, mut confirm: impl FnMut() -> F)
    where
        F: Future<Output = Answer>,
    {
        let mut guard = Running { rounds: self, finished: false };
        loop {
            let readers = {
                let mut state = self.state.lock();
                if state.waiting.is_empty() {
                    state.running = false;
                    guard.finished = true;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let answer = confirm().await;
            for reader in readers {
                // A reader that has gone needs no answer.
                let _ = reader.send(answer.clone());
            }
        }
    }
}

/// Lets somebody else run the rounds if the one who does is cancelled.
struct Running<'a> {
    rounds: &'a Rounds,
    finished: bool,
}

impl Drop for Running<'_> {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn readers_share_a_round_and_never_one_that_began_before_them() {
        let rounds = Arc::new(Rounds::default());
        let started = Arc::new(AtomicU64::new(0));
        let run = |rounds: Arc<Rounds>, started: Arc<AtomicU64>| async move {
            rounds
                .run(|| async {
                    let round = started.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    Ok(round)
                })
                .await;
        };
        let (first, start) = rounds.join();
        assert!(start);
        tokio::spawn(run(rounds.clone(), started.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let late: Vec<_> = (0..100).map(|_| rounds.join()).collect();
        assert!(late.iter().all(|(_, start)| !start));
        assert_eq!(first.await.unwrap().unwrap(), 1);
        for (reader, _) in late {
            assert_eq!(reader.await.unwrap().unwrap(), 2);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(rounds.join().1, "the runner left when nobody waited");
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }
}
