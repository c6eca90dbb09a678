//! Batches that form by themselves.
//!
//! What arrives alone leaves at once. What arrives while earlier batches are under way gathers and
//! leaves together, so batches grow with the load and nobody waits for a timer: the wait is for work
//! that is being done anyway. A write costs a few messages, tasks and wakes of threads whatever its
//! size, and under load they are most of what it costs; a batch pays them once.
//!
//! ```text
//!   join, join ──> waiting ──> lane 1: a batch under way ──> answers
//!        join ──────┘   └────> lane 2, when a lane's worth waits
//! ```

use std::future::Future;

use parking_lot::Mutex;

/// What one batch holds at most; an item over the bytes goes alone.
const BATCH_ITEMS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;

/// Batches under way. Beyond the first, a lane opens only when a whole batch or a fair part of one
/// waits; with all open, what waits is bounded by what its callers may have under way.
const LANES: usize = 16;

/// Items that justify a further lane while others are under way.
const LANE_ITEMS: usize = 64;

/// Collects items into batches.
#[derive(Debug)]
pub(crate) struct Gather<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<Waiting<T>>,
    bytes: usize,
    lanes: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: usize,
}

impl<T> Default for Gather<T> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), bytes: 0, lanes: 0 };
        Gather { state: Mutex::new(state) }
    }
}

impl<T> Gather<T> {
    /// Adds an item of `bytes`. `true`: the caller must see to it that [`Gather::run`] runs.
    #[must_use]
    pub(crate) fn join(&self, item: T, bytes: usize) -> bool {
        let mut state = self.state.lock();
        state.waiting.push(Waiting { item, bytes });
        state.bytes += bytes;
        let worth_a_lane = state.waiting.len() >= LANE_ITEMS || state.bytes >= BATCH_BYTES;
        let open = state.lanes == 0 || (worth_a_lane && state.lanes < LANES);
        state.lanes += usize::from(open);
        open
    }

    /// Sends batches until nothing waits. Items leave in the order in which they joined; batches of
    /// different lanes may overtake each other. What `send` does not answer, nobody answers.
    pub(crate) async fn run<F>(&self, mut send: impl FnMut(Vec<T>) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut lane = Lane { gather: self, closed: false };
        // Tasks that are ready to join now do so first.
        tokio::task::yield_now().await;
        while let Some(batch) = self.take() {
            send(batch).await;
        }
        lane.closed = true;
    }

    /// The next batch. `None`: nothing waits, and the lane is closed in the same moment, so that
    /// whoever joins next opens one.
    fn take(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        let mut bytes = 0;
        let fits = state.waiting.iter().take(BATCH_ITEMS).take_while(|waiting| {
            bytes += waiting.bytes;
            bytes <= BATCH_BYTES
        });
        let fits = fits.count().max(1).min(state.waiting.len());
        if fits == 0 {
            state.lanes -= 1;
            return None;
        }
        let batch: Vec<Waiting<T>> = state.waiting.drain(..fits).collect();
        state.bytes -= batch.iter().map(|waiting| waiting.bytes).sum::<usize>();
        Some(batch.into_iter().map(|waiting| waiting.item).collect())
    }
}

/// An open lane, closed even if its run is cancelled.
struct Lane<'a, T> {
    gather: &'a Gather<T>,
    closed: bool,
}

impl<T> Drop for Lane<'_, T> {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let mut state = self.gather.state.lock();
        state.lanes -= 1;
        if state.lanes == 0 {
            // Nobody is left to send them: they see that their answers will not come.
            state.waiting.clear();
            state.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    type Sent = (Vec<u32>, oneshot::Sender<()>);

    /// A gather whose batches are handed out, each with what ends it.
    fn gather() -> (Arc<Gather<u32>>, impl Fn(u32, usize), mpsc::UnboundedReceiver<Sent>) {
        let gather = Arc::new(Gather::default());
        let (batches, sent) = mpsc::unbounded_channel();
        let joins = Arc::clone(&gather);
        let join = move |item, bytes| {
            if joins.join(item, bytes) {
                let (gather, batches) = (Arc::clone(&joins), batches.clone());
                tokio::spawn(async move {
                    let send = |batch| {
                        let (done, ended) = oneshot::channel();
                        batches.send((batch, done)).expect("the test listens");
                        async move { ended.await.expect("the test ends it") }
                    };
                    gather.run(send).await;
                });
            }
        };
        (gather, join, sent)
    }

    #[tokio::test]
    async fn what_arrives_meanwhile_leaves_together_and_in_order() {
        let (gather, join, mut sent) = gather();
        join(1, 10);
        let (first, done) = sent.recv().await.unwrap();
        assert_eq!(first, [1]);
        for item in 2..40 {
            join(item, 10);
        }
        assert!(sent.try_recv().is_err(), "one batch at a time while little waits");
        done.send(()).unwrap();
        let (second, done) = sent.recv().await.unwrap();
        assert_eq!(second, (2..40).collect::<Vec<_>>());
        done.send(()).unwrap();
        while gather.state.lock().lanes > 0 {
            tokio::task::yield_now().await;
        }
        join(40, 10);
        assert_eq!(sent.recv().await.unwrap().0, [40], "whoever comes next opens a lane again");
    }

    #[tokio::test]
    async fn bounds_of_a_batch_hold_and_much_that_waits_opens_lanes() {
        let (gather, join, mut sent) = gather();
        join(0, BATCH_BYTES * 2);
        let (alone, _held) = sent.recv().await.unwrap();
        assert_eq!(alone, [0], "an item over the bytes goes alone");
        let mut held = Vec::new();
        for item in 0..4 * BATCH_ITEMS as u32 {
            join(item, 1);
        }
        let mut seen = Vec::new();
        while seen.len() < 4 * BATCH_ITEMS {
            let (batch, done) = sent.recv().await.unwrap();
            assert!(batch.len() <= BATCH_ITEMS);
            seen.extend(batch);
            held.push(done);
            assert!(gather.state.lock().lanes <= LANES);
        }
        assert_eq!(seen, (0..4 * BATCH_ITEMS as u32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_waits_for_a_cancelled_run_is_let_go() {
        let gather = Gather::default();
        let (answer, waits) = oneshot::channel::<()>();
        assert!(gather.join(answer, 1));
        drop(gather.run(|batch| async move { drop(batch) }));
        // Never polled: nothing was opened that must be closed, and the item is still there.
        {
            let run = gather.run(|_| std::future::pending());
            tokio::pin!(run);
            assert!(futures::poll!(&mut run).is_pending());
        }
        assert!(waits.await.is_err());
        assert!(gather.join(oneshot::channel().0, 1), "and a lane can be opened again");
    }
}
