//! The runtime that openraft runs on: Tokio, and on a thread that is [`Reproducible`] with nothing
//! that differs from one run to the next.

mod ordered;
mod watch;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::rt::{AsyncRuntime, OptionalSend};

type Tokio = openraft::impls::TokioRuntime;
type Seeded = DeterministicRng<Tokio>;

thread_local! {
    static DRAW: Cell<Option<fn() -> u64>> = const { Cell::new(None) };
}

/// While it lives, what groups do on this thread is decided by its inputs alone: random numbers
/// come from one source, waiters of a channel are woken in order, and blocking work runs at once,
/// on this thread. For simulations.
#[derive(Debug)]
pub struct Reproducible(());

impl Reproducible {
    /// Begins, with random numbers of `draw`.
    pub fn enter(draw: fn() -> u64) -> Self {
        DRAW.set(Some(draw));
        Reproducible(())
    }
}

impl Drop for Reproducible {
    fn drop(&mut self) {
        DRAW.set(None);
    }
}

/// Whether this thread is [`Reproducible`].
pub(crate) fn is_reproducible() -> bool {
    DRAW.get().is_some()
}

/// Tokio, seeded where the thread is [`Reproducible`].
#[derive(Debug)]
pub struct Runtime(Tokio);

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let seed = DRAW.get().map_or_else(rand::random, |draw| draw());
        Seeded::scope(seed, async { Seeded::thread_rng() })
            .now_or_never()
            .expect("it awaits nothing")
    }

    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = watch::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn new(threads: usize) -> Self {
        Runtime(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Tokio::spawn_blocking(work)
    }
}
