//! `load`: runs a workload on a cluster and verifies that acknowledged writes are kept.
//!
//! Clients are tasks that each do one operation at a time. With a rate the workload is open-loop:
//! operations have intended starts, and latency is measured from there, so that a stalled server
//! cannot hide its latency. Operations of a trace are assigned to clients by key, so that the
//! operations of a key run in the order of the file.
//!
//! Reads are retried if another node may answer, writes only if they certainly did not happen. All
//! other failures are counted by kind.

mod args;
mod content;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ledger;
mod pattern;
mod progress;
mod record;
mod report;
mod shared;
mod trace;
mod verify;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::Nodes;
use keyviz_client::{Leaders, Pool};

pub use args::{LoadArgs, command};
pub use error::LoadError;
pub use pattern::{KeyNames, Pattern, split_keys};
pub use progress::{Progress, progress_line};
pub use report::{Findings, LoadReport, latency_words};
pub use trace::{LineFault, TraceError};

use pattern::Picker;
use record::Recorder;
use report::{Kind, Run};
use shared::Shared;
use trace::{Census, Trace, TraceKind};
use worker::{Task, Worker};

/// Default prefix of keys.
pub const DEFAULT_KEY_PREFIX: &str = "key/";
/// Default number of distinct keys.
pub const DEFAULT_KEYS: u64 = 100_000;
/// Default size of a value.
pub const DEFAULT_VALUE_BYTES: usize = 256;
/// Default number of clients.
pub const DEFAULT_CLIENTS: usize = 64;
/// Most clients.
pub const MAX_CLIENTS: usize = 4096;
/// Default share of reads.
pub const DEFAULT_READ_RATIO: f64 = 0.5;
/// Default duration of a run with a pattern.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(30);
/// Maximum time after the end of a run for operations that are in progress or overdue.
const DRAIN: Duration = Duration::from_secs(5);
/// Maximum number of operations of a trace that wait for one client.
const TRACE_QUEUE: usize = 256;

/// A run.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadOptions {
    /// What to do.
    pub workload: Workload,
    /// Clients, at least 1.
    pub clients: usize,
    /// Seed of keys and values.
    pub seed: u64,
    /// Duration of the workload; `None`: until its end.
    pub duration: Option<Duration>,
    /// Maximum time for one operation with all its attempts.
    pub timeout: Duration,
    /// Clients stay at their own nodes rather than asking the leaders of their keys.
    pub spread: bool,
    /// Read every acknowledged write back at the end.
    pub verify: bool,
    /// File to record every operation in.
    pub record: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Workload {
    /// Operations drawn from a pattern.
    Pattern(PatternOptions),
    /// Operations read from a file.
    Trace(TraceOptions),
}

/// Operations drawn from a pattern.
#[derive(Clone, PartialEq, Debug)]
pub struct PatternOptions {
    /// Which keys.
    pub pattern: Pattern,
    /// Share of reads, 0 to 1.
    pub read_ratio: f64,
    /// Distinct keys, at least 1.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Beginning of every key.
    pub key_prefix: String,
    /// Operations per second over all clients; `None`: as fast as possible.
    pub rate: Option<f64>,
    /// Total number of operations; `None`: until the duration is over.
    pub operations: Option<u64>,
}

/// Operations read from a file.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceOptions {
    /// The file.
    pub path: PathBuf,
    /// Seconds of the trace per second; `None`: as fast as possible.
    pub speed: Option<f64>,
    /// Skip malformed lines.
    pub skip_bad: bool,
}

/// Runs a workload on the cluster of `nodes`, until its end or until `progress` is stopped.
///
/// # Errors
/// If it cannot be started or finished. Failed operations are counted in the report.
pub async fn run(
    options: LoadOptions,
    nodes: impl Into<Nodes>,
    progress: Arc<Progress>,
) -> Result<LoadReport, LoadError> {
    let trace = match &options.workload {
        Workload::Trace(trace) => Some(check(trace.clone()).await?),
        Workload::Pattern(_) => None,
    };
    let recorder = options.record.as_deref().map(Recorder::create).transpose()?;
    let nodes = nodes.into();
    let pool = Pool::connect(&nodes, options.clients, options.timeout).await?;
    let leaders = match options.spread {
        true => Leaders::default(),
        false => Leaders::learn(&nodes.addresses, &nodes.access, options.timeout).await,
    };
    let started = Instant::now();
    let deadline = options.duration.and_then(|duration| started.checked_add(duration));
    let shared = Arc::new(Shared {
        pool,
        leaders,
        progress,
        stats: Mutex::default(),
        ledger: options.verify.then(Mutex::default),
        seed: options.seed,
        timeout: options.timeout,
        cutoff: deadline.and_then(|end| end.checked_add(options.timeout.min(DRAIN))),
    });
    let workers = (0..options.clients)
        .map(|client| Worker::new(client, shared.clone(), recorder.as_ref(), started));
    let complete = match (&options.workload, &trace) {
        (Workload::Trace(how), Some((trace, census))) => {
            shared.progress.plan(census.operations);
            replay(workers, &shared, trace, how, started, deadline).await?
        }
        (Workload::Pattern(how), _) => {
            shared.progress.plan(how.operations.unwrap_or(0));
            draw(workers, &shared, how, started, deadline).await?
        }
        (Workload::Trace(_), None) => unreachable!("a trace is checked before it is replayed"),
    };
    let duration = started.elapsed();
    let verified = match &shared.ledger {
        Some(ledger) => Some(verify::run(&shared, ledger, options.clients).await?),
        None => None,
    };
    if let Some(recorder) = recorder {
        recorder.finish().await?;
    }
    let run = Run {
        workload: match &options.workload {
            Workload::Pattern(how) => format!("{:?}", how.pattern).to_lowercase(),
            Workload::Trace(_) => "trace".into(),
        },
        clients: options.clients,
        duration,
        trace_lines_skipped: trace.map(|(_, census)| census.bad),
        interrupted: !complete,
        verified,
    };
    let stats = std::mem::take(&mut *shared.stats.lock());
    Ok(LoadReport::new(run, stats))
}

/// Reads a trace whole, before anything is sent.
async fn check(options: TraceOptions) -> Result<(Arc<Trace>, Census), LoadError> {
    let checked = tokio::task::spawn_blocking(move || {
        let trace = Trace::open(&options.path)?;
        let census = trace.check(options.skip_bad)?;
        Ok::<_, TraceError>((Arc::new(trace), census))
    });
    Ok(checked.await??)
}

/// Every client takes the next number and performs its operation. Returns false if the run was
/// stopped.
async fn draw(
    workers: impl Iterator<Item = Worker>,
    shared: &Arc<Shared>,
    how: &PatternOptions,
    started: Instant,
    deadline: Option<Instant>,
) -> Result<bool, LoadError> {
    let source = Arc::new(Source {
        picker: Picker::new(how.pattern, how.keys, how.read_ratio, shared.seed),
        names: KeyNames::new(&how.key_prefix, how.keys),
        next: AtomicU64::new(0),
        how: how.clone(),
        started,
        deadline,
    });
    let mut clients = JoinSet::new();
    for mut worker in workers {
        let (source, stop) = (source.clone(), shared.progress.stopped().clone());
        let shared = shared.clone();
        clients.spawn(async move {
            while let Some(task) = source.next() {
                if !worker.at(&task, &stop).await {
                    break;
                }
                if shared.is_over() {
                    shared.stats.lock().not_begun(1);
                    break;
                }
                worker.perform(task).await;
            }
        });
    }
    join(clients).await?;
    let stopped = shared.progress.stopped().is_cancelled();
    if !stopped {
        shared.stats.lock().not_begun(source.never_taken());
    }
    Ok(!stopped)
}

/// The source of the operations of a pattern.
struct Source {
    picker: Picker,
    names: KeyNames,
    next: AtomicU64,
    how: PatternOptions,
    started: Instant,
    deadline: Option<Instant>,
}

impl Source {
    /// Operations that were due before the end of the run and that no client started.
    fn never_taken(&self) -> u64 {
        let (Some(rate), Some(deadline)) = (self.how.rate, self.deadline) else { return 0 };
        let seconds = deadline.saturating_duration_since(self.started).as_secs_f64();
        // Operation n is due n / rate seconds after the start.
        let due = (seconds * rate).ceil() as u64;
        let due = self.how.operations.map_or(due, |operations| due.min(operations));
        due.saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// `None` if the run is over.
    fn next(&self) -> Option<Task> {
        // Relaxed: only the uniqueness of the number matters.
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        if self.how.operations.is_some_and(|operations| sequence >= operations) {
            return None;
        }
        let due = match self.how.rate {
            Some(rate) => {
                self.started.checked_add(Duration::try_from_secs_f64(sequence as f64 / rate).ok()?)
            }
            None => Some(Instant::now()),
        }?;
        if self.deadline.is_some_and(|deadline| due >= deadline) {
            return None;
        }
        let draw = self.picker.draw(sequence, due.saturating_duration_since(self.started));
        let scan = self.how.pattern == Pattern::Scan;
        let kind = match draw.read {
            true if scan => Kind::Scan,
            true => Kind::Read,
            false => Kind::Write,
        };
        Some(Task {
            kind,
            key: self.names.name(draw.key),
            value_bytes: self.how.value_bytes,
            sequence,
            due: self.how.rate.map(|_| due),
        })
    }
}

/// A thread reads the trace and passes each operation to the client of its key. Returns false if
/// the run was stopped.
async fn replay(
    workers: impl Iterator<Item = Worker>,
    shared: &Arc<Shared>,
    trace: &Arc<Trace>,
    how: &TraceOptions,
    started: Instant,
    deadline: Option<Instant>,
) -> Result<bool, LoadError> {
    let mut clients = JoinSet::new();
    let mut queues = Vec::new();
    for mut worker in workers {
        let (queue, mut tasks) = mpsc::channel::<Task>(TRACE_QUEUE);
        queues.push(queue);
        let stop = shared.progress.stopped().clone();
        let shared = shared.clone();
        clients.spawn(async move {
            loop {
                let task = tokio::select! {
                    task = tasks.recv() => task,
                    () = stop.cancelled() => None,
                };
                let Some(task) = task else { break };
                if deadline
                    .is_some_and(|deadline| task.due.unwrap_or_else(Instant::now) >= deadline)
                    || !worker.at(&task, &stop).await
                {
                    break;
                }
                if shared.is_over() {
                    shared.stats.lock().not_begun(1);
                    break;
                }
                worker.perform(task).await;
            }
        });
    }
    let (trace, how) = (trace.clone(), how.clone());
    let reader = tokio::task::spawn_blocking(move || deal(&trace, &how, &queues, started));
    join(clients).await?;
    Ok(reader.await??)
}

/// Passes the operations of a trace to the clients; returns false if a client stopped.
fn deal(
    trace: &Trace,
    how: &TraceOptions,
    queues: &[mpsc::Sender<Task>],
    started: Instant,
) -> Result<bool, TraceError> {
    for (sequence, line) in trace.lines()?.enumerate() {
        let line = match line {
            Err(TraceError::Line { .. }) if how.skip_bad => continue,
            line => line?,
        };
        let due = how.speed.map(|speed| {
            let after = Duration::try_from_secs_f64(line.at_s / speed).unwrap_or(Duration::MAX);
            // A due time that no clock reaches.
            started.checked_add(after).unwrap_or_else(|| started + Duration::from_secs(1 << 32))
        });
        let client = (content::digest(&line.key) % queues.len() as u64) as usize;
        let task = Task {
            kind: match line.kind {
                TraceKind::Read => Kind::Read,
                TraceKind::Write => Kind::Write,
                TraceKind::Delete => Kind::Delete,
            },
            key: line.key,
            value_bytes: line.value_bytes,
            sequence: sequence as u64,
            due,
        };
        if queues[client].blocking_send(task).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn join(mut clients: JoinSet<()>) -> Result<(), LoadError> {
    while let Some(client) = clients.join_next().await {
        client?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
