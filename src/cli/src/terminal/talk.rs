//! The messages of long-running commands on stderr, including log lines.
//!
//! A separate thread writes the lines from a queue, so that logging never blocks on stderr or fails
//! with it: its reader may have gone or stopped reading, or the disk of its file may be full. Such
//! lines are lost and counted. The queue is bounded by [`QUEUE_BYTES`]; a line that finds it full
//! is lost too.
//!
//! A panic is one more line: the standard hook would wait for stderr.
//!
//! Commands that end soon write at once ([`say!`] before [`start`]).

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait for stderr: some ten thousand lines.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Lines that wait for stderr; each takes some memory beside its bytes.
const QUEUE_LINES: usize = 16 * 1024;

/// The process waits this long at its end for stderr to take the remaining lines.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

struct Queue {
    lines: SyncSender<Item>,
    bytes: AtomicUsize,
}

enum Item {
    Line(Vec<u8>),
    /// Answered once all lines before it are written or lost.
    Flush(SyncSender<()>),
}

/// Lines that could not be written since the process began.
pub(crate) fn lost_lines() -> u64 {
    // Relaxed, as all counts here: nothing else depends on them.
    LOST.load(Ordering::Relaxed)
}

/// Says a line on stderr. Never fails and never panics.
macro_rules! say {
    ($($word:tt)*) => { $crate::terminal::talk::say_line(format_args!($($word)*)) };
}
pub(crate) use say;

pub(crate) fn say_line(words: fmt::Arguments<'_>) {
    put(format!("{words}\n").into_bytes());
}

/// Has a thread write all lines from here on, and panics be said as lines. Once a process.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start() -> io::Result<()> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    let (lines, received) = sync_channel(QUEUE_LINES);
    let writer = std::thread::Builder::new().name("log".into());
    writer.spawn(move || write_all(&received))?;
    if QUEUE.set(Queue { lines, bytes: AtomicUsize::new(0) }).is_ok() {
        std::panic::set_hook(Box::new(say_panic));
    }
    Ok(())
}

/// Waits until stderr has taken all lines, or has blocked for a while.
pub(crate) fn finish() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, written) = sync_channel(1);
    if queue.lines.try_send(Item::Flush(done)).is_ok() {
        // Too late is too late.
        let _ = written.recv_timeout(LAST_WORDS_WITHIN);
    }
}

fn say_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name").to_owned();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("without words");
    let backtrace = std::backtrace::Backtrace::capture();
    let trace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    say!("keyviz: thread '{name}' panicked at {place}: {words}{trace}");
}

fn put(line: Vec<u8>) {
    let lost = || {
        LOST.fetch_add(1, Ordering::Relaxed);
    };
    let Some(queue) = QUEUE.get() else {
        if io::stderr().write_all(&line).is_err() {
            lost();
        }
        return;
    };
    let bytes = line.len();
    if queue.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES {
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        return lost();
    }
    if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
        queue.lines.try_send(Item::Line(line))
    {
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        lost();
    }
}

fn write_all(received: &Receiver<Item>) {
    while let Ok(item) = received.recv() {
        match item {
            Item::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(queue) = QUEUE.get() {
                    queue.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                }
            }
            // The caller may have stopped waiting.
            Item::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Takes the lines of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLines;

/// One line of the log, written when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct LogLine(Vec<u8>);

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine::default()
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            put(std::mem::take(&mut self.0));
        }
    }
}
