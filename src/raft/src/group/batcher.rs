//! Batches that form by themselves.
//!
//! An item that arrives alone leaves at once. Items that arrive while an earlier batch is under way
//! are collected and leave together, so batches grow with the load and no item waits for a timer:
//! the wait is for work that is being done anyway. Only a batch that hangs is not waited for. A
//! write costs a few messages, tasks and thread wake-ups whatever its size, and under load these
//! dominate its cost; a batch pays them once.
//!
//! ```text
//!   join, join ──> waiting ──> lane 1: a batch under way ──> answers
//!        join ──────┘   └────> lane 2, when a lane's worth waits
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Limits of one batch; an item over the bytes goes alone.
const BATCH_ITEMS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;

/// Batches under way. Beyond the first, a lane opens only when a whole batch or a fair part of one
/// waits; with all open, the number of waiting items is bounded by the requests that callers may
/// have under way.
const LANES: usize = 16;

/// Items that justify a further lane while others are under way.
const LANE_ITEMS: usize = 64;

/// An item that has waited this long for a batch under way is sent without it: that batch hangs, as
/// in a group that has lost its quorum, and later items must get answers of their own.
const STALLED: Duration = Duration::from_millis(100);

/// Collects items into batches.
#[derive(Debug)]
pub struct Batcher<T> {
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

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), bytes: 0, lanes: 0 };
        Batcher { state: Mutex::new(state) }
    }
}

impl<T> Batcher<T> {
    /// Has `send` send the item, of `bytes`, together with the items that arrive meanwhile, and
    /// waits for the answer through `answered`'s sender; `None`: it never will. Dropping the future
    /// does not take the item back. Needs a Tokio runtime.
    pub async fn submit<A, F>(
        self: Arc<Self>,
        item: T,
        bytes: usize,
        mut answered: oneshot::Receiver<A>,
        send: impl Fn(Vec<T>) -> F + Clone + Send + 'static,
    ) -> Option<A>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        if self.join(item, bytes) {
            tokio::spawn(Arc::clone(&self).run(send.clone()));
        }
        if let Ok(answer) = tokio::time::timeout(STALLED, &mut answered).await {
            return answer.ok();
        }
        if self.open_beside() {
            tokio::spawn(self.run(send));
        }
        answered.await.ok()
    }

    /// Adds an item. `true`: the caller must see to it that [`Batcher::run`] runs.
    fn join(&self, item: T, bytes: usize) -> bool {
        let mut state = self.state.lock();
        state.waiting.push(Waiting { item, bytes });
        state.bytes += bytes;
        let worth_a_lane = state.waiting.len() >= LANE_ITEMS || state.bytes >= BATCH_BYTES;
        let open = state.lanes == 0 || (worth_a_lane && state.lanes < LANES);
        state.lanes += usize::from(open);
        open
    }

    /// Opens a lane for items that wait behind a hanging one. `true` as in [`Batcher::join`].
    fn open_beside(&self) -> bool {
        let mut state = self.state.lock();
        let open = !state.waiting.is_empty() && state.lanes < LANES;
        state.lanes += usize::from(open);
        open
    }

    /// Sends batches until nothing waits. Items leave in the order in which they joined; batches of
    /// different lanes may overtake each other. Only `send` answers items.
    async fn run<F>(self: Arc<Self>, send: impl Fn(Vec<T>) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut lane = Lane { batcher: &self, closed: false };
        // Tasks that are ready to join now do so first.
        tokio::task::yield_now().await;
        while let Some(batch) = self.take() {
            send(batch).await;
        }
        lane.closed = true;
    }

    /// The next batch. `None`: nothing waits, and the lane is closed atomically, so that the next
    /// caller opens a new one.
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
    batcher: &'a Batcher<T>,
    closed: bool,
}

impl<T> Drop for Lane<'_, T> {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let mut state = self.batcher.state.lock();
        state.lanes -= 1;
        if state.lanes == 0 {
            // No task is left to send them: they see that their answers will not come.
            state.waiting.clear();
            state.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    type Sent = (Vec<u32>, oneshot::Sender<()>);

    /// Submits items and receives the batches they leave in, each with a way to end it.
    struct Test {
        batcher: Arc<Batcher<u32>>,
        batches: mpsc::UnboundedSender<Sent>,
        sent: mpsc::UnboundedReceiver<Sent>,
    }

    impl Test {
        fn new() -> Self {
            let (batches, sent) = mpsc::unbounded_channel();
            Test { batcher: Arc::default(), batches, sent }
        }

        /// Nobody answers an item: the tests look at the batches.
        async fn submit(&self, item: u32, bytes: usize) {
            let (batcher, batches) = (Arc::clone(&self.batcher), self.batches.clone());
            let send = move |batch| {
                let (done, ended) = oneshot::channel();
                batches.send((batch, done)).expect("the test listens");
                async move { ended.await.expect("the test ends it") }
            };
            tokio::spawn(async move {
                let (_never, answered) = oneshot::channel::<()>();
                batcher.submit(item, bytes, answered, send).await
            });
            tokio::task::yield_now().await;
        }

        async fn batch(&mut self) -> Sent {
            self.sent.recv().await.expect("a sender is kept")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_meanwhile_leaves_together_and_in_order() {
        let mut test = Test::new();
        test.submit(1, 10).await;
        let (first, done) = test.batch().await;
        assert_eq!(first, [1]);
        for item in 2..40 {
            test.submit(item, 10).await;
        }
        assert!(test.sent.try_recv().is_err(), "one batch at a time while little waits");
        done.send(()).unwrap();
        let (second, done) = test.batch().await;
        assert_eq!(second, (2..40).collect::<Vec<_>>());
        done.send(()).unwrap();
        while test.batcher.state.lock().lanes > 0 {
            tokio::task::yield_now().await;
        }
        test.submit(40, 10).await;
        assert_eq!(test.batch().await.0, [40], "whoever comes next opens a lane again");
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_of_a_batch_hold_and_much_that_waits_opens_lanes() {
        let mut test = Test::new();
        test.submit(0, BATCH_BYTES * 2).await;
        let (alone, _held) = test.batch().await;
        assert_eq!(alone, [0], "an item over the bytes goes alone");
        let all: Vec<u32> = (0..4 * BATCH_ITEMS as u32).collect();
        let mut held = Vec::new();
        let mut seen = Vec::new();
        for item in &all {
            test.submit(*item, 1).await;
            while let Ok((batch, done)) = test.sent.try_recv() {
                assert!(batch.len() <= BATCH_ITEMS);
                seen.extend(batch);
                held.push(done);
            }
            assert!(test.batcher.state.lock().lanes <= LANES);
        }
        assert!(held.len() > 1 && held.len() < LANES, "{}", held.len());
        for done in held {
            done.send(()).unwrap();
        }
        while seen.len() < all.len() {
            let (batch, done) = test.batch().await;
            assert!(batch.len() <= BATCH_ITEMS);
            seen.extend(batch);
            done.send(()).unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_hangs_holds_up_what_follows_for_a_moment_only() {
        let mut test = Test::new();
        test.submit(1, 10).await;
        let (_, _hangs) = test.batch().await;
        let before = tokio::time::Instant::now();
        test.submit(2, 10).await;
        test.submit(3, 10).await;
        let (follows, _hangs_too) = test.batch().await;
        assert_eq!(follows, [2, 3]);
        assert!(before.elapsed() < STALLED * 2);
    }

    #[tokio::test]
    async fn what_waits_for_a_cancelled_run_is_let_go() {
        let batcher = Arc::new(Batcher::default());
        let (answer, waits) = oneshot::channel::<()>();
        assert!(batcher.join(answer, 1));
        {
            let run = Arc::clone(&batcher).run(|_| std::future::pending());
            tokio::pin!(run);
            assert!(futures::poll!(&mut run).is_pending());
        }
        assert!(waits.await.is_err());
        assert!(batcher.join(oneshot::channel().0, 1), "and a lane can be opened again");
    }
}
