//! The one thread of a node that makes logs and votes durable.
//!
//! Every group hands its appends, votes, truncations and purges to one queue. The thread takes all
//! that has gathered, writes it in order, syncs the database once, and reports each in order: while
//! one sync runs the next batch gathers, so the batch grows with the load and a sync is never
//! waited for twice. Success is reported only after the sync that covers it. After the first
//! failure no write is reported as successful ([`Fault`](crate::storage::Fault)).
//!
//! The queue has no bound of its own: it is bounded by the proposals that groups admit and by the
//! appends that peers keep in flight.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::blocks;
use super::record::{self, BlockBuilder, Key};
use super::shared::{Appended, LogShared};
use super::stats::WriterCounters;
use crate::loops::{Loops, RaftLoop};
use crate::storage::{Engine, FaultLatch, Tree};
use crate::types::{Entry, IoFlushed, LogId, Vote};

/// Blocks removed a cycle while there is other work, so that a purge never delays an append by
/// more than about a millisecond.
const SWEEP_BLOCKS: usize = 64;

/// After a batch of this many operations, threads that are ready to submit more run before the next
/// batch is taken: with many groups each submits little, and a sync costs the same for all of it.
const IN_COMPANY: usize = 4;

type Done = oneshot::Sender<io::Result<()>>;

pub(crate) enum Op {
    Append {
        log: Arc<LogShared>,
        entries: Vec<Entry>,
        committed: Option<LogId>,
        appended: Appended,
        flushed: IoFlushed,
    },
    Vote {
        log: Arc<LogShared>,
        vote: Vote,
        done: Done,
    },
    /// Removes the entries from `from` on.
    Truncate {
        log: Arc<LogShared>,
        from: u64,
    },
    /// Forgets the entries up to `upto`.
    Purge {
        log: Arc<LogShared>,
        upto: LogId,
    },
    /// A small record in another tree that must be durable.
    Record {
        tree: Tree,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        done: Done,
    },
}

/// The work of an [`Op`], without its waiter.
enum Work {
    Append { log: Arc<LogShared>, entries: Vec<Entry>, committed: Option<LogId> },
    Vote { log: Arc<LogShared>, vote: Vote },
    Truncate { log: Arc<LogShared>, from: u64 },
    Purge { log: Arc<LogShared>, upto: LogId },
    Record { tree: Tree, key: Vec<u8>, value: Option<Vec<u8>> },
}

impl Op {
    fn split(self, reports: &mut Vec<Report>) -> Work {
        match self {
            Op::Append { log, entries, committed, appended, flushed } => {
                reports.push(Report::Flushed(appended, flushed));
                Work::Append { log, entries, committed }
            }
            Op::Vote { log, vote, done } => {
                reports.push(Report::Done(done));
                Work::Vote { log, vote }
            }
            Op::Truncate { log, from } => Work::Truncate { log, from },
            Op::Purge { log, upto } => Work::Purge { log, upto },
            Op::Record { tree, key, value, done } => {
                reports.push(Report::Done(done));
                Work::Record { tree, key, value }
            }
        }
    }
}

#[derive(Default)]
struct Queue {
    ops: Vec<Op>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    counters: WriterCounters,
    /// Where the writer is a task.
    woken: Option<tokio::sync::Notify>,
}

/// The handle to the thread. Clones share it; [`Writer::stop`] ends it.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(crate) fn start(
        engine: Engine,
        tree: Tree,
        faults: FaultLatch,
        loops: Loops,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let run = WriterLoop { shared: shared.clone(), engine, tree, faults, unswept: Vec::new() };
        let queue = shared.clone();
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            loops.run(RaftLoop::LogWriter, || run.run());
            // After a panic: nothing waits for a writer that is gone.
            let mut queue = queue.queue.lock();
            queue.stopping = true;
            queue.ops.clear();
        })?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// A writer that is a task of the current runtime, for databases with simulated sync times.
    pub(crate) fn start_task(
        engine: Engine,
        tree: Tree,
        faults: FaultLatch,
        loops: &Loops,
    ) -> Self {
        let shared = Arc::new(Shared { woken: Some(Default::default()), ..Shared::default() });
        let run = WriterLoop { shared: shared.clone(), engine, tree, faults, unswept: Vec::new() };
        loops.spawn(RaftLoop::LogWriter, run.run_task());
        Self { shared, thread: Arc::default() }
    }

    /// Hands `op` over. After [`Writer::stop`] it is dropped, which its waiter sees as a closed
    /// channel.
    pub(crate) fn submit(&self, op: Op) {
        let mut queue = self.shared.queue.lock();
        if queue.stopping {
            return;
        }
        queue.ops.push(op);
        drop(queue);
        match &self.shared.woken {
            None => drop(self.shared.filled.notify_one()),
            Some(woken) => woken.notify_one(),
        }
    }

    /// Operations that wait for the next batch.
    pub(crate) fn queued(&self) -> usize {
        self.shared.queue.lock().ops.len()
    }

    pub(crate) fn counters(&self) -> &WriterCounters {
        &self.shared.counters
    }

    /// Finishes what was submitted, then ends the thread. Blocks for the last sync.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.filled.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

pub(crate) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped")
}

enum Report {
    Flushed(Appended, IoFlushed),
    Done(Done),
}

struct WriterLoop {
    shared: Arc<Shared>,
    engine: Engine,
    tree: Tree,
    faults: FaultLatch,
    /// Logs that still hold purged blocks.
    unswept: Vec<Arc<LogShared>>,
}

impl WriterLoop {
    fn run(mut self) {
        let mut last = 0;
        while let Some(ops) = self.next_batch(last) {
            last = ops.len();
            if !ops.is_empty() {
                self.write(ops);
            }
            self.sweep();
        }
    }

    /// The same as [`WriterLoop::run`], with a sync that takes time and that a crash can interrupt.
    async fn run_task(mut self) {
        loop {
            let ops = std::mem::take(&mut self.shared.queue.lock().ops);
            if ops.is_empty() {
                if self.shared.queue.lock().stopping {
                    return;
                }
                let shared = self.shared.clone();
                shared.woken.as_ref().expect("a task is woken").notified().await;
                continue;
            }
            let count = ops.len();
            let (written, reports) = self.put_all(ops);
            if !reports.is_empty() {
                let synced = self.engine.sync_in_time().await;
                let written = written.and_then(|put| synced.map(|()| put));
                let put = self.report(written, reports);
                // Its time is the simulation's to know.
                let none = std::time::Duration::ZERO;
                self.shared.counters.record(count, put.entries, put.bytes, none, none);
            }
            self.sweep();
        }
    }

    /// Everything that has gathered, `last` operations being those of the batch before; empty:
    /// nothing to write, but records to sweep. `None` once stopped and drained.
    fn next_batch(&self, last: usize) -> Option<Vec<Op>> {
        let mut queue = self.shared.queue.lock();
        while queue.ops.is_empty() && !queue.stopping && self.unswept.is_empty() {
            self.shared.filled.wait(&mut queue);
        }
        if queue.ops.is_empty() && queue.stopping {
            return None;
        }
        if last >= IN_COMPANY && !queue.stopping {
            MutexGuard::unlocked(&mut queue, std::thread::yield_now);
        }
        Some(std::mem::take(&mut queue.ops))
    }

    fn write(&mut self, ops: Vec<Op>) {
        let started = Instant::now();
        let count = ops.len();
        let (written, reports) = self.put_all(ops);
        let encoded = Instant::now();
        let written = written.and_then(|put| {
            if reports.is_empty() { Ok(put) } else { self.engine.sync().map(|()| put) }
        });
        let put = self.report(written, reports);
        let (write, sync) = (encoded - started, encoded.elapsed());
        self.shared.counters.record(count, put.entries, put.bytes, write, sync);
    }

    /// Writes the collected operations and returns their waiters.
    fn put_all(&mut self, ops: Vec<Op>) -> (io::Result<Put>, Vec<Report>) {
        let mut reports = Vec::with_capacity(ops.len());
        let work: Vec<Work> = ops.into_iter().map(|op| op.split(&mut reports)).collect();
        // A panic of the database must not leave waiters without an answer.
        let written = std::panic::catch_unwind(AssertUnwindSafe(|| self.put(work)));
        (written.unwrap_or_else(|_| Err(io::Error::other("the database panicked"))), reports)
    }

    /// Answers the waiters.
    fn report(&self, written: io::Result<Put>, reports: Vec<Report>) -> Put {
        let (put, failed) = match written {
            Ok(put) => (put, None),
            Err(error) => (Put::default(), Some(self.faults.latch("writing the log", &error))),
        };
        for report in reports {
            let result = match &failed {
                Some(fault) => Err(fault.clone().into()),
                None => Ok(()),
            };
            match report {
                Report::Flushed(appended, flushed) => {
                    appended.done(result.is_ok());
                    flushed.io_completed(result);
                }
                // The waiter may have gone away.
                Report::Done(done) => drop(done.send(result)),
            }
        }
        put
    }

    fn put(&mut self, work: Vec<Work>) -> io::Result<Put> {
        self.faults.check()?;
        let mut batch = Batch { tree: &self.tree, open: Vec::new(), put: Put::default() };
        for work in work {
            batch.take(work, &mut self.unswept)?;
        }
        batch.close_all()?;
        Ok(batch.put)
    }

    /// Removes some purged blocks. Not synced: the purge mark already says that they are gone.
    fn sweep(&mut self) {
        let mut budget = SWEEP_BLOCKS;
        while budget > 0 {
            let Some(log) = self.unswept.last() else { return };
            match blocks::sweep(&self.tree, log, budget) {
                Ok(0) => {
                    self.unswept.pop();
                }
                Ok(removed) => budget -= removed.min(budget),
                Err(error) => {
                    self.faults.latch("removing purged entries", &error);
                    self.unswept.clear();
                }
            }
        }
    }
}

/// The records that one cycle put into the tree.
#[derive(Default)]
struct Put {
    entries: u64,
    bytes: u64,
}

/// The blocks that are filled in one cycle, at most one per group.
struct Batch<'a> {
    tree: &'a Tree,
    open: Vec<(Arc<LogShared>, BlockBuilder)>,
    put: Put,
}

impl Batch<'_> {
    fn take(&mut self, work: Work, unswept: &mut Vec<Arc<LogShared>>) -> io::Result<()> {
        match work {
            Work::Append { log, entries, committed } => self.append(&log, &entries, committed),
            Work::Vote { log, vote } => {
                // In the order it was handed over, should a crash leave a part of the batch.
                self.close(&log)?;
                self.tree.put(&Key::Vote.encode(log.group()), record::encode_vote(&vote))
            }
            Work::Truncate { log, from } => {
                self.close(&log)?;
                blocks::truncate(self.tree, &log, from)
            }
            Work::Purge { log, upto } => {
                self.close(&log)?;
                self.tree.put(&Key::Purged.encode(log.group()), record::encode_purged(upto))?;
                blocks::mark_purged(&log, upto.index);
                if !unswept.iter().any(|other| Arc::ptr_eq(other, &log)) {
                    unswept.push(log);
                }
                Ok(())
            }
            Work::Record { tree, key, value } => match value {
                Some(value) => tree.put(&key, value),
                None => tree.delete(&key),
            },
        }
    }

    fn append(
        &mut self,
        log: &Arc<LogShared>,
        entries: &[Entry],
        committed: Option<LogId>,
    ) -> io::Result<()> {
        for entry in entries {
            let mut at = self.open.iter().position(|(other, _)| Arc::ptr_eq(other, log));
            if let Some(open) = at
                && (self.open[open].1.next_index() != entry.log_id.index
                    || !self.open[open].1.has_room_for(entry))
            {
                self.close(log)?;
                at = None;
            }
            let at = at.unwrap_or_else(|| {
                self.open.push((log.clone(), BlockBuilder::new(entry.log_id.index)));
                self.open.len() - 1
            });
            let block = &mut self.open[at].1;
            block.push(entry);
            block.set_committed(committed);
        }
        self.put.entries += entries.len() as u64;
        Ok(())
    }

    fn close(&mut self, log: &Arc<LogShared>) -> io::Result<()> {
        match self.open.iter().position(|(other, _)| Arc::ptr_eq(other, log)) {
            Some(at) => {
                let (log, block) = self.open.swap_remove(at);
                self.put.bytes += blocks::write(self.tree, &log, block)?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn close_all(&mut self) -> io::Result<()> {
        while let Some((log, block)) = self.open.pop() {
            self.put.bytes += blocks::write(self.tree, &log, block)?;
        }
        Ok(())
    }
}
