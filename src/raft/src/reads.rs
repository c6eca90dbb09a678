//! Confirming reads in rounds.
//!
//! A linearizable read needs a quorum to say that this node still leads, after the read arrived.
//! One round serves every reader that waits when it starts; readers that arrive while it runs
//! share the next one. So the number of rounds depends on how long one takes, not on how many
//! readers there are.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::ReadError;
use super::group::{Consistency, Group, known_leader};

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

impl Group {
    /// The index that a linearizable read must have applied, confirmed by a quorum after the call.
    /// Only the leader can tell. Concurrent calls share rounds.
    pub async fn read_index(self: &Arc<Self>) -> Result<u64, ReadError> {
        let option = LinearizerOption::new(Some(Duration::ZERO), true)
            .with_wait_timeout(self.options.election_max);
        self.confirm(|group| &group.quorum_rounds, option).await
    }

    /// Like [`read_index`](Group::read_index), vouched for by the leader's lease where that is
    /// fresh enough.
    pub async fn lease_index(self: &Arc<Self>) -> Result<u64, ReadError> {
        let lease = self.options.lease();
        let option = LinearizerOption::new(Some(lease), false).with_wait_timeout(Duration::ZERO);
        match self.confirm(|group| &group.lease_rounds, option).await {
            Err(ReadError::NoQuorum) => self.read_index().await,
            answer => answer,
        }
    }

    async fn confirm(
        self: &Arc<Self>,
        rounds: fn(&Group) -> &Rounds,
        option: LinearizerOption,
    ) -> Result<u64, ReadError> {
        let (answer, start) = rounds(self).join();
        if start {
            let group = self.clone();
            tokio::spawn(async move {
                rounds(&group).run(|| group.confirm_once(option.clone())).await;
            });
        }
        answer.await.unwrap_or_else(|_| Err(ReadError::Stopped("it is shutting down".into())))
    }

    async fn confirm_once(&self, option: LinearizerOption) -> Result<u64, ReadError> {
        match self.raft().get_read_linearizer(option).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: known_leader(forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
        }
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<(), ReadError> {
        let reached = |applied: &Option<u64>| applied.is_some_and(|applied| applied >= index);
        if reached(&self.applied.borrow()) {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        match tokio::time::timeout(limit, applied.wait_for(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped("its state machine is gone".into())),
            Err(_) => Err(ReadError::Behind),
        }
    }

    /// After this, reading [`space`](Group::space) here gives what `consistency` promises. On a
    /// node that does not lead, a consistency other than stale is [`ReadError::NotLeader`]: ask
    /// the leader for its [`read_index`](Group::read_index), then [`wait_applied`](Group::wait_applied).
    pub async fn confirm_read(
        self: &Arc<Self>,
        consistency: Consistency,
        limit: Duration,
    ) -> Result<(), ReadError> {
        let started = Instant::now();
        let index = match consistency {
            Consistency::Stale => return Ok(()),
            Consistency::Linearizable => tokio::time::timeout(limit, self.read_index()).await,
            Consistency::Lease => tokio::time::timeout(limit, self.lease_index()).await,
        };
        let index = index.map_err(|_| ReadError::NoQuorum)??;
        self.wait_applied(index, limit.saturating_sub(started.elapsed())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

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
