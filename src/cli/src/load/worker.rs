//! One client: one operation at a time, from its intended start to its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::super::client::local_timeout;
use super::content;
use super::ledger::Begun;
use super::pattern::SCAN_KEYS;
use super::record::{Event, RecordQueue, Recorder};
use super::report::Kind;
use super::shared::Shared;
use keyviz_client::{Meaning, NodeIndex, code_name};
use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;
use keyviz_security::AuthChannel;

/// The wait before the second attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A read waits for one node at most this share of its time, so that a hanging node does not use it
/// up. A write waits until the end, because it cannot be repeated.
const READ_ATTEMPTS: u32 = 3;
/// One in this many reads stays at the client's own node, like reads of clients without leader
/// hints, so that reads served by followers are part of the load.
const READS_AT_HOME: u64 = 8;
/// Maximum delay of a timer on an idle machine. A client that woke within it counts as started on
/// time, so that the granularity of the timer is not measured as latency.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// One operation to do.
#[derive(Debug)]
pub struct Task {
    /// What.
    pub kind: Kind,
    /// With which key.
    pub key: Bytes,
    /// Size of the value to write.
    pub value_bytes: usize,
    /// Its number in the run.
    pub sequence: u64,
    /// Its intended start; `None`: now.
    pub due: Option<Instant>,
}

/// The outcome of an operation.
struct Outcome {
    result: Result<Answer, Status>,
    meaning: Option<Meaning>,
    attempts: u32,
    node: NodeIndex,
}

/// The result of a successful operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    /// Digest of the value that a read found.
    pub found: Option<u64>,
    /// Rows that a scan returned.
    pub rows: u64,
}

/// One client.
pub struct Worker {
    client: usize,
    shared: Arc<Shared>,
    record: Option<RecordQueue>,
    started: Instant,
    started_unix: Duration,
    stubs: Vec<Option<KvClient<AuthChannel>>>,
    /// The start of the latency of the current operation.
    begin: Instant,
}

impl Worker {
    pub(super) fn new(
        client: usize,
        shared: Arc<Shared>,
        recorder: Option<&Recorder>,
        started: Instant,
    ) -> Self {
        let since_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Worker {
            client,
            record: recorder.map(Recorder::queue),
            started,
            started_unix: since_unix.saturating_sub(started.elapsed()),
            stubs: vec![None; shared.pool.len()],
            shared,
            begin: started,
        }
    }

    /// Waits for the intended start of a task. Returns false if the run was stopped before.
    pub(super) async fn at(&mut self, task: &Task, stop: &CancellationToken) -> bool {
        if stop.is_cancelled() {
            return false;
        }
        let now = Instant::now();
        self.begin = now;
        let Some(due) = task.due else { return true };
        self.begin = due;
        if due > now {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => return false,
            }
            let woken = Instant::now();
            if woken < due + TIMER_SLACK {
                self.begin = woken;
            }
        }
        true
    }

    /// Performs an operation and records its outcome.
    pub(super) async fn perform(&mut self, task: Task) {
        let sent = Instant::now();
        let value = (task.kind == Kind::Write)
            .then(|| content::value(&task.key, task.sequence, self.shared.seed, task.value_bytes));
        let written = value.as_deref().map(content::digest);
        let begun = self.shared.ledger.as_ref().map(|ledger| ledger.lock().begin());
        let stays = task.kind.is_read() && task.sequence.is_multiple_of(READS_AT_HOME);
        let (key, value) = (&task.key, value.as_ref());
        let request = Request { kind: task.kind, key, value, stays };
        let deadline = sent + self.shared.timeout;
        let deadline = self.shared.cutoff.map_or(deadline, |cutoff| deadline.min(cutoff));
        let outcome = self.attempts(&request, deadline).await;
        let latency = self.begin.elapsed();
        self.account(&task, written, begun, &outcome, latency);
        if let Some(record) = &self.record {
            record.push(self.event(task, written, sent, &outcome)).await;
        }
    }

    fn account(
        &self,
        task: &Task,
        written: Option<u64>,
        begun: Option<Begun>,
        outcome: &Outcome,
        latency: Duration,
    ) {
        let is_write = matches!(task.kind, Kind::Write | Kind::Delete);
        let unknown = is_write && outcome.meaning == Some(Meaning::Unknown);
        if let (true, Some(ledger), Some(begun)) = (is_write, &self.shared.ledger, begun) {
            match outcome.result {
                Ok(_) => ledger.lock().acknowledged(&task.key, written, begun),
                Err(_) if unknown => ledger.lock().unknown(&task.key, written),
                Err(_) => {}
            }
        }
        let mut stats = self.shared.stats.lock();
        stats.retries += u64::from(outcome.attempts - 1);
        match &outcome.result {
            Ok(answer) => {
                stats.succeeded(task.kind, latency);
                stats.found += u64::from(answer.found.is_some());
                stats.rows += answer.rows;
                self.shared.progress.count_done();
            }
            Err(status) => {
                stats.failed(code_name(status.code()));
                stats.unknown += u64::from(unknown);
                self.shared.progress.count_error();
            }
        }
    }

    fn event(&self, task: Task, written: Option<u64>, sent: Instant, outcome: &Outcome) -> Event {
        let unix_us = |at: Instant| {
            let since = self.started_unix + at.saturating_duration_since(self.started);
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        };
        let (outcome_name, status) = match (&outcome.result, outcome.meaning) {
            (Ok(_), _) => ("ok", Code::Ok),
            (Err(status), Some(Meaning::Unknown))
                if matches!(task.kind, Kind::Write | Kind::Delete) =>
            {
                ("unknown", status.code())
            }
            (Err(status), _) => ("failed", status.code()),
        };
        let found = outcome.result.as_ref().ok().and_then(|answer| answer.found);
        Event {
            client: self.client,
            sequence: task.sequence,
            op: task.kind.name(),
            key: task.key,
            digest: if task.kind == Kind::Read { found } else { written },
            start_us: unix_us(sent),
            end_us: unix_us(Instant::now()),
            outcome: outcome_name,
            status: code_name(status),
            attempts: outcome.attempts,
            node: self.shared.pool.address(outcome.node).to_string(),
        }
    }

    /// Reads a key back, with retries until `deadline`.
    pub(super) async fn read_back(
        &mut self,
        key: &Bytes,
        deadline: Instant,
    ) -> Result<Answer, Status> {
        let request = Request { kind: Kind::Read, key, value: None, stays: false };
        let outcome = self.attempts(&request, deadline).await;
        self.shared.stats.lock().retries += u64::from(outcome.attempts - 1);
        outcome.result
    }

    /// Sends an operation until it succeeds, must not be repeated, or the time is up.
    async fn attempts(&mut self, request: &Request<'_>, deadline: Instant) -> Outcome {
        let shared = Arc::clone(&self.shared);
        let (pool, leaders) = (&shared.pool, &shared.leaders);
        let group = leaders.group_of(request.key).filter(|_| !request.stays);
        let leader = group.and_then(|group| leaders.leader(group)).map(NodeIndex);
        let home = || pool.up_from(pool.home(self.client));
        let mut node = leader.filter(|leader| pool.is_up(*leader)).unwrap_or_else(home);
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if request.is_read() {
                left.min(self.shared.timeout / READ_ATTEMPTS)
            } else {
                left
            };
            let status = match tokio::time::timeout(wait, request.send(self.stub(node))).await {
                Ok(Ok((answer, said))) => {
                    if let Some(group) = group {
                        leaders.answered(group, node.0, &said);
                    }
                    return Outcome { result: Ok(answer), meaning: None, attempts, node };
                }
                Ok(Err(status)) => status,
                Err(_) => local_timeout(wait),
            };
            if let Some(group) = group {
                leaders.failed(group, node.0);
            }
            let meaning = Meaning::of(&status);
            let broken = std::error::Error::source(&status).is_some();
            if broken {
                pool.mark_down(node);
            }
            let again = match request.is_read() {
                true => meaning.read_again(&status),
                false => meaning.write_again(),
            };
            let over = Instant::now() + pause >= deadline;
            if !again || over {
                return Outcome { result: Err(status), meaning: Some(meaning), attempts, node };
            }
            let next = pool.up_from(pool.after(node));
            // Another node is tried at once. After a round of all nodes, or with only one, there is
            // a pause.
            if next == node || (attempts as usize).is_multiple_of(pool.len()) || !broken {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            node = next;
        }
    }

    fn stub(&mut self, node: NodeIndex) -> &mut KvClient<AuthChannel> {
        let (pool, client) = (&self.shared.pool, self.client);
        self.stubs[node.0].get_or_insert_with(|| pool.stub(node, client))
    }
}

/// A request, which may be sent several times.
struct Request<'a> {
    kind: Kind,
    key: &'a Bytes,
    value: Option<&'a Bytes>,
    /// At its client's own node.
    stays: bool,
}

impl Request<'_> {
    fn is_read(&self) -> bool {
        self.kind.is_read()
    }

    /// The answer and its metadata.
    async fn send(
        &self,
        stub: &mut KvClient<AuthChannel>,
    ) -> Result<(Answer, MetadataMap), Status> {
        let key = self.key.clone();
        match self.kind {
            Kind::Read => {
                let consistency = proto::Consistency::Linearizable.into();
                let answer = stub.get(proto::GetRequest { key, consistency }).await?;
                let (said, answer, _) = answer.into_parts();
                let found = answer.value.as_deref().map(content::digest);
                Ok((Answer { found, rows: 0 }, said))
            }
            Kind::Write => {
                let value = self.value.cloned().unwrap_or_default();
                let answer = stub.put(proto::PutRequest { key, value }).await?;
                Ok((Answer::default(), answer.into_parts().0))
            }
            Kind::Delete => {
                let answer = stub.delete(proto::DeleteRequest { key }).await?;
                Ok((Answer::default(), answer.into_parts().0))
            }
            Kind::Scan => {
                let request = proto::ScanRequest {
                    start: key,
                    limit: SCAN_KEYS,
                    ..proto::ScanRequest::default()
                };
                let (said, mut pages, _) = stub.scan(request).await?.into_parts();
                let mut rows = 0;
                while let Some(page) = pages.message().await? {
                    rows += page.rows.len() as u64;
                }
                Ok((Answer { found: None, rows }, said))
            }
        }
    }
}
