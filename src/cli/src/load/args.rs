//! The flags of `load`, and the command around a run: bar, Ctrl-C, summary.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::super::client::{CallError, NodeArgs, Nodes};
use super::pattern::KeyNames;
use super::{
    DEFAULT_CLIENTS, DEFAULT_DURATION, DEFAULT_KEY_PREFIX, DEFAULT_KEYS, DEFAULT_READ_RATIO,
    DEFAULT_VALUE_BYTES, LoadOptions, MAX_CLIENTS, Pattern, PatternOptions, Progress, TraceOptions,
    Workload, progress_line, run,
};
use crate::data::kv::OneFormat;
use crate::flags::access::AccessArgs;
use crate::flags::keyviz_flags::{SizeError, size_in};
use crate::flags::values::{self, Address, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueError};
use crate::terminal::output;
use crate::{CliError, UsageError};

/// Time between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);

/// `load`.
#[derive(Args, Debug)]
#[command(after_help = "\
Latency counts from the intended start of an operation (--rate, --speed), else from its start.\n\
Reads are retried where another node may answer; writes only where they certainly did not\n\
happen. A run with a duration ends at most 5 s (or --timeout) after it: operations still under\n\
way then count as failed, and those due but not begun as errors of the kind NOT_BEGUN.\n\
Ctrl-C ends the workload and prints the summary; a second one ends the verification too.\n\
Exits with 1 where --verify finds a key that is missing, wrong or unreadable, or where every\n\
operation failed.")]
pub struct LoadArgs {
    /// Which keys the operations touch
    #[arg(long, value_enum, default_value = "uniform", conflicts_with = "trace")]
    pattern: Pattern,
    /// Share of reads, from 0 (only writes) to 1 (only reads)
    #[arg(
        long,
        value_name = "RATIO",
        default_value_t = DEFAULT_READ_RATIO,
        value_parser = ratio,
        conflicts_with = "trace",
    )]
    read_ratio: f64,
    /// Distinct keys, numbered in key order
    #[arg(
        long,
        value_name = "KEYS",
        default_value_t = DEFAULT_KEYS,
        value_parser = |text: &str| values::number_in(text, 1, u64::MAX),
        conflicts_with = "trace",
    )]
    keys: u64,
    /// Size of a value, in bytes or as KiB or MiB; at most 1MiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = DEFAULT_VALUE_BYTES,
        value_parser = value_bytes,
        conflicts_with = "trace",
    )]
    value_bytes: usize,
    /// Beginning of every key
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_KEY_PREFIX, conflicts_with = "trace")]
    key_prefix: String,
    /// Operations a second over all clients; absent: as fast as they are answered
    #[arg(long, value_name = "OPS", value_parser = positive, conflicts_with = "trace")]
    rate: Option<f64>,
    /// Operations in all; absent: until the duration is over
    #[arg(
        long,
        value_name = "N",
        value_parser = |text: &str| values::number_in(text, 1, u64::MAX),
        conflicts_with = "trace",
    )]
    operations: Option<u64>,
    /// Longest time, such as 30s or 5m [default: 30s; with --trace or --operations: until they end]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Clients, each with one operation at a time, at most 4,096; dealt out over the nodes. Once
    /// answers have told which of them leads a key's group, writes and seven of eight reads go
    /// there
    #[arg(long, value_name = "CLIENTS", default_value_t = DEFAULT_CLIENTS, value_parser = clients)]
    clients: usize,
    /// Keep each client at its own node, which forwards requests for groups that it does not lead
    #[arg(long)]
    spread: bool,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replay this file (.csv or .csv.gz with the header t_s,op,key,value_bytes; op is read, write
    /// or delete); operations on one key keep their order
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Speed of the replay: seconds of the trace per second, or max for as fast as possible
    #[arg(
        long,
        value_name = "X|max",
        default_value = "1",
        value_parser = speed,
        requires = "trace",
    )]
    speed: Speed,
    /// Skip and count malformed lines of the trace
    #[arg(long, requires = "trace")]
    skip_bad: bool,
    /// Read every acknowledged write back at the end, and count missing or wrong values
    #[arg(long)]
    verify: bool,
    /// Record every operation in this file with start, end and outcome, one JSON object per line
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// The speed of a replay.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Speed {
    Times(f64),
    Max,
}

/// Why a number is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum NumberError {
    #[error("must be a number from 0 to 1")]
    Ratio,
    #[error("must be a number above 0")]
    Positive,
    #[error("must be a number above 0, or max")]
    Speed,
}

fn ratio(text: &str) -> Result<f64, NumberError> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or(NumberError::Ratio)
}

fn positive(text: &str) -> Result<f64, NumberError> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or(NumberError::Positive)
}

fn speed(text: &str) -> Result<Speed, NumberError> {
    match text {
        "max" => Ok(Speed::Max),
        text => positive(text).map(Speed::Times).map_err(|_| NumberError::Speed),
    }
}

fn value_bytes(text: &str) -> Result<usize, SizeError> {
    size_in(text, 0, MAX_VALUE_BYTES as u64).map(|bytes| bytes as usize)
}

fn clients(text: &str) -> Result<usize, ValueError> {
    values::number_in(text, 1, MAX_CLIENTS as u64).map(|clients| clients as usize)
}

/// The options of a run and of its summary.
#[derive(Debug)]
pub struct Command {
    options: LoadOptions,
    access: AccessArgs,
    format: OneFormat,
}

impl LoadArgs {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// Names the flag and its value.
    pub fn options(self) -> Result<(Vec<Address>, Command), UsageError> {
        let longest = KeyNames::new(&self.key_prefix, self.keys).name(self.keys - 1);
        if longest.len() > MAX_KEY_BYTES {
            let reason = ValueError::LongKey(longest.len());
            return Err(UsageError::value("--key-prefix <TEXT>", self.key_prefix, reason));
        }
        if self.key_prefix.starts_with('\0') {
            let reason = ValueError::ReservedKey;
            return Err(UsageError::value("--key-prefix <TEXT>", "\\x00...", reason));
        }
        let until_end = self.trace.is_some() || self.operations.is_some();
        let workload = match self.trace {
            Some(path) => Workload::Trace(TraceOptions {
                path,
                speed: match self.speed {
                    Speed::Times(speed) => Some(speed),
                    Speed::Max => None,
                },
                skip_bad: self.skip_bad,
            }),
            None => Workload::Pattern(PatternOptions {
                pattern: self.pattern,
                read_ratio: self.read_ratio,
                keys: self.keys,
                value_bytes: self.value_bytes,
                key_prefix: self.key_prefix,
                rate: self.rate,
                operations: self.operations,
            }),
        };
        let options = LoadOptions {
            workload,
            clients: self.clients,
            seed: self.seed,
            duration: self.duration.or((!until_end).then_some(DEFAULT_DURATION)),
            timeout: self.nodes.timeout,
            spread: self.spread,
            verify: self.verify,
            record: self.record,
        };
        Ok((self.nodes.nodes, Command { options, access: self.nodes.access, format: self.format }))
    }
}

/// Runs `load`.
pub async fn command(nodes: Vec<Address>, command: Command) -> Result<(), CliError> {
    let access = command.access.open().map_err(CallError::from)?;
    let nodes = Nodes { addresses: nodes, access };
    let progress = Arc::new(Progress::default());
    let watched = progress.clone();
    let duration = command.options.duration;
    let watcher = tokio::spawn(async move {
        tokio::select! {
            () = show(&watched, duration) => {}
            () = interrupts(&watched) => {}
        }
    });
    let report = run(command.options, nodes, progress).await;
    watcher.abort();
    // The watcher was aborted on purpose; dropping it removes the bar.
    let _ = watcher.await;
    let report = report?;
    let mut out = output::stdout();
    match command.format {
        OneFormat::Json => output::json_line(&mut out, &report)?,
        OneFormat::Table => report.print(&mut out)?,
    }
    out.flush()?;
    let findings = report.findings();
    if findings.is_clean() { Ok(()) } else { Err(CliError::LoadFindings(findings)) }
}

/// The first Ctrl-C stops the workload, the second one the verification.
async fn interrupts(progress: &Progress) {
    if tokio::signal::ctrl_c().await.is_ok() {
        progress.stop();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        progress.abort();
    }
    std::future::pending().await
}

/// Draws a progress bar on stderr, if that is a terminal.
async fn show(progress: &Progress, duration: Option<Duration>) {
    let style = |template| {
        ProgressStyle::with_template(template).expect("the template has no unknown field")
    };
    let bar = ProgressBar::new(1).with_finish(ProgressFinish::AndClear);
    bar.set_style(style("{bar:30} {msg}"));
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let (done, of) = match (progress.verifying(), progress.planned(), duration) {
            (keys @ 1.., _, _) => (progress.checked(), keys),
            (0, 0, Some(duration)) => {
                (started.elapsed().as_millis() as u64, duration.as_millis() as u64)
            }
            (0, planned, _) => (progress.done() + progress.errors(), planned),
        };
        bar.set_length(of.max(1));
        bar.set_position(done.min(of));
        bar.set_message(match progress.verifying() {
            0 => progress_line(progress, started.elapsed()),
            keys => format!("verifying {} of {keys} keys", progress.checked()),
        });
    }
}
