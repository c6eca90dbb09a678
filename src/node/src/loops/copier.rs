//! Sends this node's columns to the members that keep copies of them: closed ones, and the one in
//! progress every second as far as the rate allows. Sees to it that copies are where they belong
//! when members come and go.
//!
//! ```text
//! each second, for each holder:  compare (once) ─> closed columns ─> column in progress
//! each half minute:              copies of nodes that have left, and copies that moved
//! ```
//!
//! A holder that does not answer delays no other: each has a task of its own. Nothing here holds a
//! lock that a request takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use keyviz_core::copies::{CopyPush, Outbox, Parcel, Taken, holders};
use keyviz_core::history::Column;
use keyviz_core::{NodeId, Window};
use keyviz_directory::{Directory, MembershipState};
use keyviz_fanout::LocalMatrix;
use keyviz_peer::{CopyCallError, PeerClient};
use keyviz_raft::Storage;
use keyviz_types::DiskId;

/// The loop runs this often, a little after the flush of the second.
const EVERY_MS: u64 = 1_000;
const AFTER_FLUSH_MS: u64 = 150;

/// Bytes a second of the column in progress, to all holders together.
const OPEN_BYTES_PER_S: f64 = 48.0 * 1024.0;

/// It is sent this often at least, whatever its size: what a node that dies may lose, and a second.
const OPEN_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// Bytes a second of closed columns to one holder that lacks some.
const CATCH_UP_BYTES_PER_S: usize = 4 << 20;

/// Bytes of records in one call, plus at most one column.
const PARCEL_BYTES: usize = 1 << 20;

/// A holder that failed is tried again after this, and after twice as long each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// A holder of an earlier version is tried again after this.
const RETRY_OLD_AFTER: Duration = Duration::from_secs(60);

/// At a stop the last counts have this long to reach the holders.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Sends one node's columns.
pub(crate) struct Copier {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// Copies of each history, the node's own among them.
    pub(crate) copies: usize,
    pub(crate) local: Arc<LocalMatrix>,
    pub(crate) storage: Storage,
    pub(crate) directory: Arc<Directory>,
    pub(crate) client: Arc<PeerClient>,
    pub(crate) sessions: Mutex<BTreeMap<NodeId, Arc<Mutex<Session>>>>,
    pub(crate) stop: CancellationToken,
}

/// What is known of one holder.
#[derive(Default)]
pub(crate) struct Session {
    outbox: Option<Outbox>,
    wait_until: Option<Instant>,
    failures: u32,
    /// The column in progress as it was sent last: its interval and its operations.
    open: Option<Sent>,
}

type Sent = (keyviz_core::history::ColumnId, keyviz_core::sampler::Counts);

/// What this node holds at one moment.
struct Held {
    /// Everything that was counted before is in the columns.
    flushed_ms: u64,
    open: Column,
    /// The one in progress is due.
    send_open: bool,
    closed: Vec<Arc<Column>>,
    forgotten_before_ms: u64,
}

/// How often the column in progress is sent.
pub(super) struct Pace {
    allowance: f64,
    at: Instant,
    sent: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let sent = now.checked_sub(OPEN_AT_LEAST_EVERY).unwrap_or(now);
        Pace { allowance: OPEN_BYTES_PER_S, at: now, sent }
    }

    /// Whether the column in progress may be sent, if it takes about `bytes`.
    fn is_due(&mut self, bytes: u64, now: Instant) -> bool {
        let most = OPEN_BYTES_PER_S * OPEN_AT_LEAST_EVERY.as_secs_f64();
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.allowance = (self.allowance + since * OPEN_BYTES_PER_S).min(most);
        self.at = now;
        let waited = now.saturating_duration_since(self.sent);
        // A little less than a multiple of the interval of the loop.
        let late = waited + Duration::from_millis(EVERY_MS / 2) >= OPEN_AT_LEAST_EVERY;
        if self.allowance < bytes as f64 && !late {
            return false;
        }
        self.allowance = (self.allowance - bytes as f64).max(-most);
        self.sent = now;
        true
    }
}

impl Copier {
    /// The members, once this node is one of them.
    pub(super) fn members(&self) -> Option<BTreeSet<NodeId>> {
        let members: BTreeSet<NodeId> = self.directory.members().keys().copied().collect();
        let is_member = self.directory.membership_state() == MembershipState::Member;
        (is_member && members.contains(&self.node)).then_some(members)
    }

    /// The sessions of the present holders.
    async fn sessions(&self, members: &BTreeSet<NodeId>) -> Vec<(NodeId, Arc<Mutex<Session>>)> {
        let targets = holders(self.node, members.iter().copied(), self.copies);
        let mut sessions = self.sessions.lock().await;
        sessions.retain(|holder, _| targets.contains(holder));
        let session = |holder: &NodeId| (*holder, Arc::clone(sessions.entry(*holder).or_default()));
        targets.iter().map(session).collect()
    }

    pub(super) async fn send(self: &Arc<Self>, members: &BTreeSet<NodeId>, pace: &mut Pace) {
        let sessions = self.sessions(members).await;
        let stats = self.local.copy_stats();
        stats.set_holders(sessions.len() as u64);
        if sessions.is_empty() || self.local.flushed_ms() == 0 {
            return;
        }
        let expected = stats.open_bytes() * sessions.len() as u64;
        let send_open = pace.is_due(expected, Instant::now());
        let Some(held) = self.held(send_open).await else { return };
        let held = Arc::new(held);
        for (holder, session) in sessions {
            // One whose last call has not ended yet is passed over.
            let Ok(session) = session.try_lock_owned() else { continue };
            let (copier, held) = (Arc::clone(self), Arc::clone(&held));
            tokio::spawn(async move {
                let mut session = session;
                copier.step(holder, &mut session, held).await;
            });
        }
    }

    /// Sends what the flush at the stop closed.
    pub(crate) async fn finish(self: &Arc<Self>) {
        let finish = async {
            let Some(members) = self.members() else { return };
            let Some(held) = self.held(true).await else { return };
            let held = Arc::new(held);
            let steps = self.sessions(&members).await.into_iter().map(|(holder, session)| {
                let (copier, held) = (Arc::clone(self), Arc::clone(&held));
                async move { copier.step(holder, &mut *session.lock().await, held).await }
            });
            futures::future::join_all(steps).await;
        };
        if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
            tracing::warn!("the last counts did not reach all holders of copies");
        }
    }

    async fn held(&self, send_open: bool) -> Option<Held> {
        let local = Arc::clone(&self.local);
        let held = keyviz_raft::blocking(move || {
            // In this order: what was flushed is in the open column or in a closed one, and one
            // that closes in between is in both.
            let flushed_ms = local.flushed_ms();
            let history = local.history();
            let open = history.checkpoint();
            let closed = history.inspect(Window { from_ms: 0, to_ms: u64::MAX });
            let forgotten_before_ms = history.holdings().forgotten_before_ms;
            Held { flushed_ms, open, send_open, closed, forgotten_before_ms }
        });
        held.await.inspect_err(|error| tracing::error!(%error, "packing columns failed")).ok()
    }

    /// One second of one holder.
    async fn step(self: &Arc<Self>, holder: NodeId, session: &mut Session, held: Arc<Held>) {
        if session.wait_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        match self.advance(holder, session, held).await {
            Ok(()) => {
                if session.failures > 0 {
                    tracing::info!(%holder, "copies of the history are sent again");
                }
                (session.failures, session.wait_until) = (0, None);
            }
            Err(error) => self.failed(holder, session, &error),
        }
    }

    fn failed(&self, holder: NodeId, session: &mut Session, error: &CopyCallError) {
        self.local.copy_stats().failed();
        (session.outbox, session.open) = (None, None);
        let doubled = RETRY_AFTER * 2u32.saturating_pow(session.failures.min(8));
        let wait = match error {
            CopyCallError::Unimplemented => RETRY_OLD_AFTER,
            CopyCallError::Call(_) => doubled.min(RETRY_AT_MOST),
        };
        if session.failures == 0 {
            tracing::warn!(%holder, %error, "no copies of the history are kept by a member");
        }
        session.failures = session.failures.saturating_add(1);
        session.wait_until = Some(Instant::now() + wait);
    }

    async fn advance(
        self: &Arc<Self>,
        holder: NodeId,
        session: &mut Session,
        held: Arc<Held>,
    ) -> Result<(), CopyCallError> {
        let mut outbox = match session.outbox.take() {
            Some(outbox) => outbox,
            None => {
                let me = (self.node, &self.disk.0[..]);
                let inventory = self.client.copy_inventory(holder, self.node, me).await?;
                let held = Arc::clone(&held);
                blocking(move || Outbox::new(&inventory, &held.closed)).await?
            }
        };
        let (mut left, mut whole) = (CATCH_UP_BYTES_PER_S, false);
        while left > 0 {
            let of = Arc::clone(&held);
            let (back, parcel) = blocking(move || {
                let open = of.open.id();
                let next = outbox.next(&of.closed, open, of.forgotten_before_ms, PARCEL_BYTES);
                (outbox, next)
            })
            .await?;
            outbox = back;
            let Some(parcel) = parcel else {
                whole = true;
                break;
            };
            left = left.saturating_sub(parcel.bytes().max(1));
            self.deliver(holder, &mut outbox, parcel, &held, None).await?;
        }
        let stats = self.local.copy_stats();
        let sent = (held.open.id(), held.open.total());
        let quiet = session.open == Some(sent);
        let complete_to_ms = whole.then_some(held.flushed_ms);
        if quiet && whole {
            self.deliver(holder, &mut outbox, Parcel::default(), &held, complete_to_ms).await?;
        } else if held.send_open {
            let closed_since = held.closed.iter().any(|column| column.id() == held.open.id());
            let parcel = if closed_since { Parcel::default() } else { outbox.open(&held.open) };
            stats.set_open_bytes(parcel.bytes() as u64);
            self.deliver(holder, &mut outbox, parcel, &held, complete_to_ms).await?;
            session.open = Some(sent);
        }
        if let Some(complete_to_ms) = complete_to_ms.filter(|_| quiet || held.send_open) {
            stats.set_complete(holder, complete_to_ms);
        }
        session.outbox = Some(outbox);
        Ok(())
    }

    /// One call. A holder that lacks chunks gets them with the next one.
    async fn deliver(
        &self,
        holder: NodeId,
        outbox: &mut Outbox,
        parcel: Parcel,
        held: &Held,
        complete_to_ms: Option<u64>,
    ) -> Result<(), CopyCallError> {
        let push = CopyPush {
            node: self.node,
            incarnation: self.local.history().incarnation(),
            step_ms: self.local.history().config().step_ms,
            complete_to_ms,
            left_ms: None,
            forgotten_before_ms: held.forgotten_before_ms,
            records: parcel.records.clone(),
            removed: parcel.removed.clone(),
        };
        let bytes = push.bytes() as u64;
        let me = (self.node, &self.disk.0[..]);
        let taken = self.client.store_copy(holder, me, push).await?;
        self.local.copy_stats().sent(bytes);
        match taken {
            Taken::Stored { generation } if generation == outbox.generation() => {
                outbox.stored(parcel);
                Ok(())
            }
            Taken::Stored { .. } => {
                Err(CopyCallError::Call(tonic::Status::aborted("its copy has changed by itself")))
            }
            Taken::MissingChunks => {
                outbox.forget_chunks();
                Err(CopyCallError::Call(tonic::Status::aborted("its copy lacks slots")))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CopyCallError> {
    let done = keyviz_raft::blocking(work).await;
    done.map_err(|error| CopyCallError::Call(tonic::Status::internal(error.to_string())))
}

/// Time to shortly after the next whole second, when counts have been flushed.
pub(super) fn until_next(now_ms: u64) -> Duration {
    let since = (now_ms + EVERY_MS - AFTER_FLUSH_MS) % EVERY_MS;
    Duration::from_millis(EVERY_MS - since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_time_columns_are_sent_after_the_flush_of_each_second() {
        assert_eq!(until_next(5_000), Duration::from_millis(150));
        assert_eq!(until_next(5_149), Duration::from_millis(1));
        assert_eq!(until_next(5_150), Duration::from_millis(1_000));
        assert_eq!(until_next(5_999), Duration::from_millis(151));
    }

    #[test]
    fn bounds_a_large_column_in_progress_is_sent_less_often_and_at_least_every_five_seconds() {
        let seconds = |bytes: u64| {
            let mut pace = Pace::new();
            let begin = Instant::now();
            let due = |second: &u64| pace.is_due(bytes, begin + Duration::from_secs(*second));
            let sent: Vec<u64> = (0..60).filter(due).collect();
            (sent.len() as u64, sent.windows(2).map(|pair| pair[1] - pair[0]).max())
        };
        assert_eq!(seconds(1_000), (60, Some(1)));
        let (times, longest) = seconds(100_000);
        assert!((28..=36).contains(&times), "{times} times");
        // The first is sent at once, on credit.
        assert!(longest <= Some(4), "{longest:?}");
        assert_eq!(seconds(10_000_000).1, Some(5));
    }
}
