//! Limits the matrix work of a node, and cancels it.
//!
//! ```text
//!   own queries ----> at most MAX_QUERIES at a time, MAX_WAITING_QUERIES wait --+
//!                                                                              v
//!   queries of peers --------> at most MAX_WAITING_COMPUTATIONS wait ----> computations,
//!                                                                          half of the cores
//! ```
//!
//! A request that finds its queue full is refused at once: in a queue without a bound every answer
//! would come too late. A holder of a place in the second queue never waits for the first, so the
//! two cannot block each other. The coordinating node's own part of a query (to plan and to merge)
//! is bounded by the first queue and does not wait in the second, because it is due at the
//! deadline.
//!
//! A computation runs on a thread of its own, which cannot be stopped from outside. It checks a
//! flag between columns. Dropping the future that waits for it (a disconnected client, a reset
//! stream, a deadline) sets the flag.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of cluster and node queries in progress. Each may hold the parts of all
/// members, so this times 256 MiB bounds their memory.
pub const MAX_QUERIES: usize = 4;

/// The maximum number of distinct queries that wait for a place.
pub const MAX_WAITING_QUERIES: usize = 64;

/// The maximum number of computations for peers that wait.
pub const MAX_WAITING_COMPUTATIONS: usize = 128;

/// The node is at its limit of matrix work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this node is at its limit of matrix work ({running} {what} in progress, {waiting} waiting); \
     try again later or ask another node"
)]
pub struct Busy {
    /// What is limited.
    pub what: &'static str,
    /// Maximum number in progress.
    pub running: usize,
    /// Maximum number waiting.
    pub waiting: usize,
}

/// Why something was not computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WorkError {
    /// Too much to do.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// A fault of this program.
    #[error("the answer could not be computed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

/// The matrix work of one node.
#[derive(Debug)]
pub struct Work {
    queries: Places,
    computations: Places,
    answers: Places,
    called_off: Arc<AtomicUsize>,
}

/// Whose computation it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A query of this node, which has a place among the queries already.
    Own,
    /// Another node's.
    Peer,
}

/// A place for work in progress; released when dropped.
#[derive(Debug)]
pub struct ComputeSlot {
    _permit: OwnedSemaphorePermit,
}

impl Default for Work {
    /// Computations on half of the cores: the other half stays with the store.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Work::new(MAX_QUERIES, MAX_WAITING_QUERIES, (cores / 2).max(1), MAX_WAITING_COMPUTATIONS)
    }
}

impl Work {
    /// Limits: queries under way and waiting, computations under way and (of peers) waiting.
    pub fn new(
        queries: usize,
        waiting_queries: usize,
        computations: usize,
        waiting_computations: usize,
    ) -> Self {
        Work {
            queries: Places::new("queries", queries, waiting_queries),
            computations: Places::new("computations", computations, waiting_computations),
            answers: Places::new("answers", queries, waiting_queries),
            called_off: Arc::default(),
        }
    }

    /// Waits for a place for a query, in order of arrival.
    ///
    /// # Errors
    /// Too many queries wait. This error is returned at once.
    pub async fn query(&self) -> Result<ComputeSlot, Busy> {
        self.queries.enter(self.queries.most_waiting).await
    }

    /// The error of a query that did not get a place in time.
    pub(super) fn busy(&self) -> Busy {
        self.queries.busy(self.queries.most_waiting)
    }

    /// Computes where no request waits for it, in turn, and behind the store where both want the
    /// same core. `compute` is given a check that says whether the answer is still wanted, and may
    /// return `None` once it is not.
    ///
    /// # Errors
    /// For a peer, [`WorkError::Busy`] at once if too many computations wait.
    pub async fn compute<T: Send + 'static>(
        &self,
        asker: Asker,
        compute: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Option<T> + Send + 'static,
    ) -> Result<T, WorkError> {
        let most_waiting = match asker {
            Asker::Own => usize::MAX,
            Asker::Peer => self.computations.most_waiting,
        };
        let place = self.computations.enter(most_waiting).await?;
        let called_off = Arc::clone(&self.called_off);
        off_the_runtime(move |wanted| {
            let answer = behind_the_store(|| compute(wanted)).unwrap_or_else(|error| {
                tracing::error!(%error, "there is no thread to compute on");
                None
            });
            if answer.is_none() {
                called_off.fetch_add(1, Ordering::Relaxed);
            }
            // Returned when the thread is free, not when the caller goes away.
            drop(place);
            answer
        })
        .await
    }

    /// Writes an answer down, in turn, as [`Work::compute`] computes: over a million cells take
    /// tens of milliseconds of a core, and as much memory again. As many answers are written at a
    /// time as queries are under way.
    ///
    /// # Errors
    /// At once where too many wait.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let _place = self.answers.enter(self.answers.most_waiting).await?;
        self.compute(Asker::Own, |_| Some(write())).await
    }

    /// Computations that ended early because their callers had gone away.
    pub fn called_off(&self) -> usize {
        self.called_off.load(Ordering::Relaxed)
    }

    /// Computations that could begin at once.
    pub fn free_computations(&self) -> usize {
        self.computations.running.available_permits()
    }

    /// Computations that wait for their turn.
    pub fn waiting_computations(&self) -> usize {
        self.computations.waiting.load(Ordering::Relaxed)
    }

    /// Queries under way.
    pub fn running_queries(&self) -> usize {
        self.queries.running()
    }
}

/// Computes as [`off_the_runtime`] does, and behind the store.
pub(super) async fn off_the_runtime_behind_the_store<T: Send + 'static>(
    compute: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Option<T> + Send + 'static,
) -> Result<T, WorkError> {
    off_the_runtime(move |wanted| {
        behind_the_store(|| compute(wanted)).unwrap_or_else(|error| {
            tracing::error!(%error, "there is no thread to compute on");
            None
        })
    })
    .await
}

/// Computes where no request waits for it, at once. `compute` as in [`Work::compute`].
pub(super) async fn off_the_runtime<T: Send + 'static>(
    compute: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Option<T> + Send + 'static,
) -> Result<T, WorkError> {
    let unwanted = Unwanted(Arc::default());
    let flag = Arc::clone(&unwanted.0);
    // Relaxed: the flag carries no data, and one column more or less does not matter.
    let computed = tokio::task::spawn_blocking(move || compute(&|| !flag.load(Ordering::Relaxed)));
    let computed = computed.await;
    drop(unwanted);
    match computed {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(WorkError::Failed { reason: "it was called off".to_owned() }),
        Err(error) => Err(WorkError::Failed { reason: error.to_string() }),
    }
}

/// The niceness of a computation: next to a thread of the store on the same core it gets a quarter
/// of the time.
const NICE: i32 = 5;

/// Runs `compute` on a thread of its own with low priority. A thread of the runtime cannot be used,
/// because it could not restore its priority.
fn behind_the_store<T: Send>(compute: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let low = || {
            give_way();
            compute()
        };
        let thread = std::thread::Builder::new().name("matrix".to_owned());
        let computed = thread.spawn_scoped(scope, low)?.join();
        Ok(computed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux each thread has its own priority. If it may not be lowered, it stays.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a computation runs at the priority of the store");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {
    let _ = NICE;
}

/// Sets a flag when dropped.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Places {
    what: &'static str,
    running: Arc<Semaphore>,
    most_running: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
}

impl Places {
    fn new(what: &'static str, most_running: usize, most_waiting: usize) -> Self {
        let running = Arc::new(Semaphore::new(most_running));
        Places { what, running, most_running, waiting: AtomicUsize::new(0), most_waiting }
    }

    fn running(&self) -> usize {
        self.most_running - self.running.available_permits()
    }

    fn busy(&self, waiting: usize) -> Busy {
        Busy { what: self.what, running: self.most_running, waiting }
    }

    async fn enter(&self, most_waiting: usize) -> Result<ComputeSlot, Busy> {
        let never_closed = "the semaphore is never closed";
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(ComputeSlot { _permit: permit });
        }
        let waiting = Waiting::join(&self.waiting);
        if waiting.before >= most_waiting {
            return Err(self.busy(most_waiting));
        }
        let permit = Arc::clone(&self.running).acquire_owned().await.expect(never_closed);
        Ok(ComputeSlot { _permit: permit })
    }
}

/// Counts as waiting for as long as it exists.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Self {
        Waiting { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn no_harm_a_computation_gives_way_to_the_store() {
        let nice = || rustix::process::getpriority_process(None).expect("it has one");
        let before = nice();
        let work = Work::default();
        let (computes, panics) = (
            work.compute(Asker::Own, move |_| Some(nice())).await,
            work.compute(Asker::Own, |_| -> Option<()> { panic!("on purpose") }).await,
        );
        assert_eq!(computes.ok(), Some((before + NICE).min(19)));
        assert!(matches!(panics, Err(WorkError::Failed { .. })), "{panics:?}");
        assert_eq!(nice(), before);
    }

    #[tokio::test]
    async fn bounds_who_comes_when_the_queue_is_full_is_refused_in_words() {
        let work = Arc::new(Work::new(1, 2, 1, 1));
        let place = work.query().await.expect("the first has a place");
        let wait = |work: &Arc<Work>| {
            let work = Arc::clone(work);
            tokio::spawn(async move { work.query().await.map(drop) })
        };
        let waiting = [wait(&work), wait(&work)];
        while work.queries.waiting.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let refused = work.query().await.expect_err("two wait already");
        assert!(refused.to_string().contains("(1 queries in progress, 2 waiting)"));
        drop(place);
        for waiter in waiting {
            waiter.await.expect("no panic").expect("its turn came");
        }
        assert_eq!(work.queries.waiting.load(Ordering::Relaxed), 0);
        drop(work.query().await.expect("the places were given back"));
    }

    #[tokio::test]
    async fn no_harm_a_computation_that_nobody_waits_for_ends_and_gives_its_place_back() {
        let work = Arc::new(Work::new(1, 0, 1, 0));
        let (began, begun) = tokio::sync::oneshot::channel();
        let endless = {
            let work = Arc::clone(&work);
            tokio::spawn(async move {
                work.compute(Asker::Peer, move |wanted| {
                    let _ = began.send(());
                    while wanted() {
                        std::thread::yield_now();
                    }
                    None::<()>
                })
                .await
            })
        };
        begun.await.expect("it runs");
        let busy = work.compute(Asker::Peer, |_| Some(())).await;
        assert!(matches!(busy, Err(WorkError::Busy(_))), "{busy:?}");
        endless.abort();
        assert_eq!(work.compute(Asker::Own, |_| Some(7)).await, Ok(7));
        assert_eq!(work.called_off(), 1);
    }
}
