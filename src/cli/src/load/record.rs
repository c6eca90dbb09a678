//! `--record`: every operation with its start, end and outcome, one JSON object per line, for
//! checkers of histories. A separate thread writes it from a bounded queue: a slow disk slows the
//! workload down but loses nothing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use super::error::LoadError;
use crate::terminal::output::json_line;
use keyviz_json::Key;

/// Maximum number of operations that wait for the disk, some hundred bytes each.
const QUEUE: usize = 8192;

/// One operation.
#[derive(Debug)]
pub struct Event {
    /// Which client did it.
    pub client: usize,
    /// Its number among all operations.
    pub sequence: u64,
    /// read, write, delete or scan.
    pub op: &'static str,
    /// The key.
    pub key: Bytes,
    /// Digest of the value written or read; `None`: no value.
    pub digest: Option<u64>,
    /// Time of the first attempt, in Unix microseconds.
    pub start_us: u64,
    /// Time of its outcome, in Unix microseconds.
    pub end_us: u64,
    /// ok; failed: it did not happen; unknown: it may or may not have happened.
    pub outcome: &'static str,
    /// The gRPC status.
    pub status: &'static str,
    /// How often it was sent.
    pub attempts: u32,
    /// Address of the node of the last attempt.
    pub node: String,
}

#[derive(Serialize)]
struct EventJson<'a> {
    client: usize,
    sequence: u64,
    op: &'a str,
    key: Key<'a>,
    digest: Option<String>,
    start_us: u64,
    end_us: u64,
    outcome: &'a str,
    status: &'a str,
    attempts: u32,
    node: &'a str,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    queue: mpsc::Sender<Event>,
    writer: JoinHandle<io::Result<()>>,
}

/// Takes operations down.
#[derive(Clone, Debug)]
pub struct RecordQueue(mpsc::Sender<Event>);

impl RecordQueue {
    /// Queues an operation. After a failure of the disk it is dropped, and [`Recorder::finish`]
    /// reports the failure.
    pub async fn push(&self, event: Event) {
        let _ = self.0.send(event).await;
    }
}

impl Recorder {
    /// Creates the file.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let failed = |error| LoadError::Record { path: path.to_owned(), error };
        let file = File::create(path).map_err(failed)?;
        let (queue, events) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("record".into())
            .spawn(move || write(file, events))
            .map_err(failed)?;
        Ok(Recorder { path: path.to_owned(), queue, writer })
    }

    /// A queue for one client.
    pub fn queue(&self) -> RecordQueue {
        RecordQueue(self.queue.clone())
    }

    /// Waits until everything is written. Every [`RecordQueue`] must have been dropped.
    ///
    /// # Errors
    /// If something could not be written.
    pub async fn finish(self) -> Result<(), LoadError> {
        let Recorder { path, queue, writer } = self;
        drop(queue);
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        let written = match joined {
            Ok(Ok(written)) => written,
            _ => Err(io::Error::other("the writer of the record ended early")),
        };
        written.map_err(|error| LoadError::Record { path, error })
    }
}

fn write(file: File, mut events: mpsc::Receiver<Event>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, file);
    while let Some(event) = events.blocking_recv() {
        let event = EventJson {
            client: event.client,
            sequence: event.sequence,
            op: event.op,
            key: Key(&event.key),
            digest: event.digest.map(|digest| format!("{digest:016x}")),
            start_us: event.start_us,
            end_us: event.end_us,
            outcome: event.outcome,
            status: event.status,
            attempts: event.attempts,
            node: &event.node,
        };
        json_line(&mut out, &event)?;
    }
    out.flush()
}
