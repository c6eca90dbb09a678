//! Streams columns as they close, with one poller per distinct query, however many subscribers it
//! has.
//!
//! ```text
//!   poller of a query: every second and shortly after each boundary
//!      cluster matrix from the cursor on: what closed since, and the column in progress
//!                 |
//!            broadcast (bounded) ----> each subscriber, which has a cursor of its own
//! ```
//!
//! A cursor is the end of the last final column: a closed column for which every member has
//! answered and has begun a later one. A column that lacks a member, or that a member has not
//! closed because its clock is behind, is sent again with each update, like the column in progress,
//! and replaces the earlier one; after [`HOLD_MS`] it is final and stays partial. A subscriber that
//! joins late, returns with a cursor or falls behind the broadcast gets one update of its own from
//! that cursor on and then follows the broadcast, so nothing is missed and nothing is stored per
//! subscriber. A poller ends when it has no subscribers or the node stops.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use keyviz_core::matrix::NodeStatus;
use keyviz_core::query::ColumnSpan;

use super::cluster::Fanout;
use super::request::{MatrixAnswer, MatrixError, MatrixRequest};

/// Maximum number of distinct queries that are polled; each costs the cluster one small query per
/// second. Each viewer with rows of its own is one.
pub const MAX_FEEDS: usize = 64;

/// The maximum number of subscribers of a node.
pub const MAX_SUBSCRIBERS: usize = 1_024;

/// Updates that wait for a subscriber before it counts as behind.
const QUEUE: usize = 8;

/// Interval at which the column in progress is sent.
const EVERY_MS: u64 = 1_000;

/// Delay of a poll after a boundary, so that nodes whose clocks lag a little have passed it.
const GRACE_MS: u64 = 150;

/// A column that lacks a member is sent again for this time, and at least once.
const HOLD_MS: u64 = 120_000;

/// Maximum number of closed columns in one update; after a longer absence, query a matrix.
const MAX_BEHIND: u64 = 512;

/// New columns of one query.
#[derive(Clone, Debug)]
pub struct ColumnsUpdate {
    /// The closed columns after the previous cursor, and the column in progress.
    pub answer: Arc<MatrixAnswer>,
    /// End of the last column that does not change any more, in Unix milliseconds.
    pub cursor_ms: u64,
    /// The time of its request. If two updates have the same column, the one requested later is
    /// valid.
    asked: Instant,
}

/// Why a subscription is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeedError {
    /// The question itself is refused.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Too many distinct questions.
    #[error("this node streams its maximum of {MAX_FEEDS} different queries; ask another node")]
    TooManyFeeds,
    /// Too many subscribers.
    #[error("this node already has {MAX_SUBSCRIBERS} subscribers; ask another node")]
    TooManySubscribers,
}

/// All streams of a node.
pub struct Feeds {
    fanout: Arc<Fanout>,
    stop: CancellationToken,
    feeds: Mutex<Vec<(MatrixRequest, Weak<Feed>)>>,
}

type Receiver = broadcast::Receiver<ColumnsUpdate>;

/// One query and its subscribers. They own it; the poller ends with the last of them.
struct Feed {
    updates: broadcast::Sender<ColumnsUpdate>,
    done: CancellationToken,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

/// One subscriber's place in a stream.
pub struct Subscription {
    /// Keeps the poller going.
    _feed: Arc<Feed>,
    updates: Receiver,
    fanout: Arc<Fanout>,
    question: MatrixRequest,
    stop: CancellationToken,
    cursor_ms: Option<u64>,
    /// The time of the request for the last update that was sent.
    told: Option<Instant>,
    first: Option<ColumnsUpdate>,
}

impl Feeds {
    /// Streams from `fanout`, until `stop`.
    pub fn new(fanout: Arc<Fanout>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Feeds { fanout, stop, feeds: Mutex::default() })
    }

    /// Columns that end after `after_ms`, then each as it closes, with the one in progress. Absent:
    /// from the last closed column on. The window of the question plays no part.
    ///
    /// # Errors
    /// The query is refused, or a bound of the node is reached.
    pub async fn subscribe(
        &self,
        question: MatrixRequest,
        after_ms: Option<u64>,
    ) -> Result<Subscription, FeedError> {
        let question = MatrixRequest { from_ms: None, to_ms: None, max_columns: 0, ..question };
        // Asked first: a question that is refused starts no poller.
        let first = ask(&self.fanout, &question, after_ms).await?;
        let (feed, updates) = self.feed(&question)?;
        Ok(Subscription {
            _feed: feed,
            updates,
            fanout: Arc::clone(&self.fanout),
            question,
            stop: self.stop.clone(),
            cursor_ms: None,
            told: None,
            first: Some(first),
        })
    }

    fn feed(&self, question: &MatrixRequest) -> Result<(Arc<Feed>, Receiver), FeedError> {
        let mut feeds = self.feeds.lock();
        feeds.retain(|(_, feed)| feed.strong_count() > 0);
        let alive = || feeds.iter().filter_map(|(asked, feed)| Some((asked, feed.upgrade()?)));
        if alive().map(|(_, feed)| feed.updates.receiver_count()).sum::<usize>() >= MAX_SUBSCRIBERS
        {
            return Err(FeedError::TooManySubscribers);
        }
        if let Some((_, feed)) = alive().find(|(asked, _)| *asked == question) {
            let updates = feed.updates.subscribe();
            return Ok((feed, updates));
        }
        if feeds.len() >= MAX_FEEDS {
            return Err(FeedError::TooManyFeeds);
        }
        let (sender, updates) = broadcast::channel(QUEUE);
        let done = self.stop.child_token();
        let feed = Arc::new(Feed { updates: sender, done: done.clone() });
        feeds.push((question.clone(), Arc::downgrade(&feed)));
        let poll = poll(Arc::clone(&self.fanout), question.clone(), Arc::downgrade(&feed));
        tokio::spawn(async move {
            tokio::select! {
                () = done.cancelled() => {}
                () = poll => {}
            }
        });
        Ok((feed, updates))
    }
}

impl Subscription {
    /// The next update, or `None` once the node stops.
    ///
    /// # Errors
    /// The visualizer can no longer answer.
    pub async fn next(&mut self) -> Option<Result<ColumnsUpdate, MatrixError>> {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => None,
            update = self.follow() => Some(update),
        }
    }

    async fn follow(&mut self) -> Result<ColumnsUpdate, MatrixError> {
        if let Some(first) = self.first.take() {
            return Ok(self.tell(first));
        }
        loop {
            let update = match self.updates.recv().await {
                // It waited in the queue while this subscriber made a query of its own.
                Ok(update) if Some(update.asked) < self.told => continue,
                Ok(update) if continues(&update, self.cursor_ms) => update,
                // A gap between this subscriber's columns and the poller's is fetched.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    ask(&self.fanout, &self.question, self.cursor_ms).await?
                }
                // Not while this holds the sender.
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(MatrixError::Internal { reason: "the stream ended".to_owned() });
                }
            };
            return Ok(self.tell(update));
        }
    }

    /// Records what was sent. The poller's cursor may be behind this one if the poller has waited
    /// longer for a member: a column that was final here stays final.
    fn tell(&mut self, update: ColumnsUpdate) -> ColumnsUpdate {
        let cursor_ms = self.cursor_ms.map_or(update.cursor_ms, |told| told.max(update.cursor_ms));
        (self.cursor_ms, self.told) = (Some(cursor_ms), Some(update.asked));
        ColumnsUpdate { cursor_ms, ..update }
    }
}

/// Whether an update begins where a cursor stands, or before it.
fn continues(update: &ColumnsUpdate, cursor_ms: Option<u64>) -> bool {
    let first = update.answer.matrix.columns.first();
    let begins = first.map_or(update.cursor_ms, |column| column.start_ms);
    cursor_ms.is_some_and(|cursor| begins <= cursor)
}

async fn poll(fanout: Arc<Fanout>, question: MatrixRequest, feed: Weak<Feed>) {
    let mut cursor_ms = None;
    loop {
        let step_ms = fanout.local().history().config().step_ms;
        tokio::time::sleep(until_next(fanout.local().clock().now_ms(), step_ms)).await;
        // A query that fails is one of many: the next one asks from the same cursor on.
        let update = match ask(&fanout, &question, cursor_ms).await {
            Ok(update) => update,
            Err(error) => {
                tracing::debug!(%error, "a stream of columns misses a beat");
                continue;
            }
        };
        cursor_ms = Some(update.cursor_ms);
        let Some(feed) = feed.upgrade() else { return };
        // Without a receiver the last subscriber is on its way out.
        let _ = feed.updates.send(update);
    }
}

/// The columns after a cursor, in the node's own steps.
async fn ask(
    fanout: &Arc<Fanout>,
    question: &MatrixRequest,
    after_ms: Option<u64>,
) -> Result<ColumnsUpdate, MatrixError> {
    let asked = Instant::now();
    let step_ms = fanout.local().history().config().step_ms;
    let now_ms = fanout.local().clock().now_ms();
    let from_ms = first_instant(after_ms, now_ms, step_ms);
    let request = MatrixRequest { from_ms: Some(from_ms), max_columns: 2_048, ..question.clone() };
    let answer = fanout.cluster(&request).await?;
    let cursor_ms = settled(from_ms, &answer.matrix.columns, &answer.matrix.nodes);
    Ok(ColumnsUpdate { answer, cursor_ms, asked })
}

/// Up to when nothing changes any more in `columns` from `from_ms` on, which `nodes` were asked
/// for.
fn settled(from_ms: u64, columns: &[ColumnSpan], nodes: &[NodeStatus]) -> u64 {
    // Before the oldest column that anyone holds there is nothing to resume.
    let oldest_ms = columns.first().map_or(from_ms, |column| column.start_ms);
    let Some(last) = columns.iter().rfind(|column| !column.open) else { return oldest_ms };
    let begun_ms = |node: &NodeStatus| node.open_ms.filter(|_| node.ok).unwrap_or(0);
    let all_ms = nodes.iter().map(begun_ms).min().unwrap_or(0);
    let held_ms = last.end_ms.saturating_sub(HOLD_MS).min(last.start_ms);
    all_ms.clamp(held_ms, last.end_ms).max(oldest_ms)
}

/// Where the columns after a cursor begin: aligned, not in the future, not too long ago.
fn first_instant(after_ms: Option<u64>, now_ms: u64, step_ms: u64) -> u64 {
    let open = now_ms - now_ms % step_ms;
    let earliest = open.saturating_sub(step_ms.saturating_mul(MAX_BEHIND));
    let after = after_ms.unwrap_or(open.saturating_sub(step_ms));
    let aligned = after.min(open) / step_ms * step_ms;
    aligned.max(earliest)
}

/// Time to the next whole second, or to shortly after the next boundary of a column.
fn until_next(now_ms: u64, step_ms: u64) -> Duration {
    let since = now_ms.saturating_sub(GRACE_MS);
    let to = |width: u64| width - since % width;
    Duration::from_millis(to(step_ms).min(to(EVERY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_column_that_begins_there() {
        assert_eq!(first_instant(None, 10_500, 1_000), 9_000);
        assert_eq!(first_instant(Some(7_000), 10_500, 1_000), 7_000);
        assert_eq!(first_instant(Some(7_999), 10_500, 1_000), 7_000);
        // From a clock that is ahead, and from another age.
        assert_eq!(first_instant(Some(99_000), 10_500, 1_000), 10_000);
        assert_eq!(first_instant(Some(0), 10_000_500, 1_000), 10_000_000 - 512_000);
    }

    /// `count` columns of `step_ms` from `start_ms` on.
    fn columns(start_ms: u64, step_ms: u64, count: u64) -> Vec<ColumnSpan> {
        let starts = (0..count).map(|at| start_ms + at * step_ms);
        let column = |start_ms| ColumnSpan { start_ms, end_ms: start_ms + step_ms, open: false };
        starts.map(column).collect()
    }

    #[test]
    fn once_a_cursor_waits_for_members_that_are_missing_or_behind() {
        let mut columns = columns(300_000, 1_000, 4);
        columns[3].open = true;
        let at = |nodes: &[(u64, bool)]| {
            let node = |&(open_ms, ok): &(u64, bool)| NodeStatus {
                open_ms: Some(open_ms),
                ok,
                ..NodeStatus::default()
            };
            settled(300_000, &columns, &nodes.iter().map(node).collect::<Vec<_>>())
        };
        assert_eq!(at(&[(303_000, true), (304_000, true)]), 303_000);
        assert_eq!(at(&[(303_000, true), (302_000, true)]), 302_000);
        assert_eq!(at(&[(303_000, true), (200_000, true)]), 300_000);
        assert_eq!(at(&[(303_000, true), (303_000, false)]), 300_000);
        assert_eq!(settled(300_000, &columns[3..], &[NodeStatus::default()]), 303_000);
    }

    #[test]
    fn once_nobody_is_waited_for_longer_than_agreed() {
        let missing = [NodeStatus::default()];
        assert_eq!(settled(0, &columns(100_000, 1_000, 200), &missing), 180_000);
        // A column as wide as that is sent twice.
        assert_eq!(settled(0, &columns(600_000, 600_000, 2), &missing), 1_200_000);
    }

    #[test]
    fn aligned_time_every_boundary_is_asked_about_once_it_has_passed() {
        assert_eq!(until_next(60_000, 60_000), Duration::from_millis(150));
        assert_eq!(until_next(60_150, 60_000), Duration::from_millis(1_000));
        assert_eq!(until_next(59_900, 1_500), Duration::from_millis(250));
    }
}
