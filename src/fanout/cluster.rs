//! The two rounds and their deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::time::{Instant, timeout_at};

use crate::catalog::RouteEvents;
use crate::keyviz::{
    ColumnPlan, DEFAULT_ROW_ROUTE_IDS, KeyRange, MAX_COLUMNS, MAX_ROWS, Matrix, NodeColumns,
    NodeId, NodeStatus, NodeTotals, PlanRequest, Query, Role, RouteSpec, RowAxis, RowPlan, Series,
    Window, merge, plan, plan_columns,
};
use crate::kv::Directory;
use crate::raft::AppliedCatalog;

use super::local::LocalMatrix;

/// How long a member may take for both rounds.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(2);

/// Window of a matrix when the asker names none.
const DEFAULT_WINDOW_MS: u64 = 3_600_000;

/// Most splits and merges that an answer lists.
const MAX_EVENTS: usize = 1_024;

/// Which routes the rows of a matrix are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Axis {
    /// Those of today: what a retired route counted is shown at its descendants.
    #[default]
    Now,
    /// Those of the first instant of the window: what their descendants counted is added up.
    Then,
}

/// A matrix and what happened to its routes meanwhile.
#[derive(Clone, PartialEq, Debug)]
pub struct MatrixAnswer {
    /// The counts.
    pub matrix: Matrix,
    /// Splits and merges of its window and keys, as this node has applied them.
    pub events: RouteEvents,
    /// Which routes the rows are.
    pub axis: Axis,
}

/// What a member said in round one.
#[derive(Clone, Debug)]
pub struct PeerTotals {
    /// Its totals.
    pub totals: NodeTotals,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
    /// Its step, in milliseconds.
    pub step_ms: u64,
}

/// Other nodes, as the fan-out sees them. The error is what a person should read.
pub trait PeerMatrix: Send + Sync + 'static {
    /// Round one at `to`.
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, String>>;

    /// Round two at `to`, in chunks that together answer for every column.
    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<NodeColumns>, String>>;
}

/// What is asked, as the asker wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MatrixRequest {
    /// Which of the four numbers.
    pub series: Series,
    /// Only operations of this role; `None`: all.
    pub role: Option<Role>,
    /// Unix milliseconds, inclusive; `None`: an hour before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: now, with the column in progress.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Row budget; 0: the default.
    pub max_rows: u32,
    /// Column budget; 0: the default.
    pub max_columns: u32,
    /// Which routes the rows are.
    pub axis: Axis,
}

/// Why there is no matrix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MatrixError {
    /// The sampler is off.
    #[error(
        "keyviz is disabled on this node (--keyviz-enabled=false); ask a node where it is enabled"
    )]
    Disabled,
    /// No catalog was applied yet, so there are no rows.
    #[error("this node has not applied a route catalog yet; try again or ask another node")]
    NotReady,
    /// The window ends before it starts.
    #[error("from_ms ({from_ms}) is not before to_ms ({to_ms})")]
    EmptyWindow {
        /// Start asked for.
        from_ms: u64,
        /// End asked for.
        to_ms: u64,
    },
    /// The range ends before it starts.
    #[error("the end of the key range is not after its start")]
    EmptyRange,
    /// A key over the limit.
    #[error(
        "a bound of the key range has {bytes} bytes; keys have at most {}",
        crate::kv::MAX_KEY_BYTES
    )]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many rows.
    #[error("max_rows is {asked}; a matrix has at most {MAX_ROWS} rows")]
    TooManyRows {
        /// Asked for.
        asked: u32,
    },
    /// Too many columns.
    #[error("max_columns is {asked}; a matrix has at most {MAX_COLUMNS} columns")]
    TooManyColumns {
        /// Asked for.
        asked: u32,
    },
    /// A fault of this program.
    #[error("the matrix could not be put together: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

/// What a fan-out is made of.
pub struct FanoutParts {
    /// This node.
    pub node: NodeId,
    /// Its own counts.
    pub local: Arc<LocalMatrix>,
    /// Who else there is.
    pub directory: Arc<Directory>,
    /// The routes, as they are and were.
    pub catalog: AppliedCatalog,
    /// How to ask them.
    pub peers: Arc<dyn PeerMatrix>,
    /// How long they may take.
    pub deadline: Duration,
}

/// Answers matrix queries, for the cluster or for this node.
pub struct Fanout {
    parts: FanoutParts,
    counters: FanoutCounters,
}

/// What came of the queries since the node started.
#[derive(Default, Debug)]
pub struct FanoutCounters {
    /// Matrices that were put together.
    pub queries: AtomicU64,
    /// Members that gave their part of one.
    pub answered: AtomicU64,
    /// Members that did not, in time or at all.
    pub failed: AtomicU64,
}

/// What a member has said so far.
struct Member {
    node: NodeId,
    status: NodeStatus,
    totals: Option<NodeTotals>,
    asked: Instant,
}

impl Fanout {
    /// A fan-out of these parts.
    pub fn new(parts: FanoutParts) -> Arc<Self> {
        Arc::new(Fanout { parts, counters: FanoutCounters::default() })
    }

    /// The node's own source.
    pub fn local(&self) -> &Arc<LocalMatrix> {
        &self.parts.local
    }

    /// What came of the queries so far.
    pub fn counters(&self) -> &FanoutCounters {
        &self.counters
    }

    fn count(&self, members: &[Member]) {
        // Relaxed: each number is read by itself.
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        for member in members {
            let ok = member.status.ok;
            let counter = if ok { &self.counters.answered } else { &self.counters.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One matrix from every member.
    pub async fn cluster(&self, request: &MatrixRequest) -> Result<MatrixAnswer, MatrixError> {
        let members = self.parts.directory.members();
        let mut addresses: BTreeMap<NodeId, String> =
            members.iter().map(|(id, member)| (*id, member.address.clone())).collect();
        addresses.entry(self.parts.node).or_default();
        self.answer(request, addresses).await
    }

    /// The matrix of this node alone.
    pub async fn node(&self, request: &MatrixRequest) -> Result<MatrixAnswer, MatrixError> {
        let node = self.parts.node;
        let address = self.parts.directory.address(node).map_or_else(String::new, |at| at.address);
        self.answer(request, BTreeMap::from([(node, address)])).await
    }

    async fn answer(
        &self,
        request: &MatrixRequest,
        addresses: BTreeMap<NodeId, String>,
    ) -> Result<MatrixAnswer, MatrixError> {
        if !self.parts.local.enabled() {
            return Err(MatrixError::Disabled);
        }
        let now_ms = self.parts.local.clock().now_ms();
        let query = Arc::new(request.query(now_ms)?);
        let deadline = Instant::now() + self.parts.deadline;

        let mut members = self.round_one(&query, addresses, deadline).await;
        let columns = Arc::new(self.plan_columns(request, &query, &members, now_ms)?);
        let rows = self.plan_rows(request, &query, &members).await?;
        let axis = Arc::new(rows.axis());
        let parts = self.round_two(&query, &axis, &columns, &mut members, deadline).await;
        self.count(&members);

        let statuses = members.into_iter().map(|member| member.status).collect();
        let (catalog, axis) = (self.parts.catalog.clone(), request.axis);
        off_the_runtime(move || {
            let columns = Arc::unwrap_or_clone(columns);
            let matrix = merge(rows, columns, &query, parts, statuses);
            // The columns are whole steps, so the first may begin before the window asked for.
            let Window { mut from_ms, to_ms } = query.window;
            if let Some(first) = matrix.columns.first() {
                from_ms = from_ms.min(first.start_ms);
            }
            let events =
                catalog.with(|catalog| catalog.events(from_ms, to_ms, &query.range, MAX_EVENTS));
            MatrixAnswer { matrix, events, axis }
        })
        .await
    }

    async fn round_one(
        &self,
        query: &Arc<Query>,
        addresses: BTreeMap<NodeId, String>,
        deadline: Instant,
    ) -> Vec<Member> {
        let step_ms = self.parts.local.history().config().step_ms;
        let asks = addresses.into_iter().map(|(node, address)| {
            let query = Arc::clone(query);
            async move {
                let asked = Instant::now();
                let sent_ms = self.parts.local.clock().now_ms();
                let answer = self.totals_of(node, query, deadline).await;
                let got_ms = self.parts.local.clock().now_ms();
                let mut status = NodeStatus { node: Some(node), address, ..NodeStatus::default() };
                let totals = match answer {
                    Ok(peer) if peer.step_ms == step_ms => {
                        status.clock_skew_ms = skew(sent_ms, got_ms, peer.now_ms);
                        Some(peer.totals)
                    }
                    Ok(peer) => {
                        status.error = Some(format!(
                            "its columns are {} ms wide, those of this node {step_ms} ms; give all \
                             nodes the same --keyviz-step",
                            peer.step_ms
                        ));
                        None
                    }
                    Err(error) => {
                        status.error = Some(error);
                        None
                    }
                };
                status.latency_ms = millis(asked.elapsed());
                Member { node, status, totals, asked }
            }
        });
        join_all(asks).await
    }

    async fn totals_of(
        &self,
        node: NodeId,
        query: Arc<Query>,
        deadline: Instant,
    ) -> Result<PeerTotals, String> {
        if node == self.parts.node {
            let local = Arc::clone(&self.parts.local);
            let step_ms = local.history().config().step_ms;
            let totals = off_the_runtime(move || local.totals(&query)).await;
            let totals = totals.map_err(|error| error.to_string())?;
            let now_ms = self.parts.local.clock().now_ms();
            return Ok(PeerTotals { totals, now_ms, step_ms });
        }
        let range = query.range.clone();
        let peer = within(deadline, self.parts.peers.totals(node, query)).await?;
        if peer.totals.node != node {
            return Err(format!("it says that it is node {}", peer.totals.node));
        }
        peer.totals.check(&range).map_err(|error| format!("its answer is not sound: {error}"))?;
        Ok(peer)
    }

    /// Columns of the window, from the oldest that any member holds: a window from 1970 on must not
    /// make every column a year wide.
    fn plan_columns(
        &self,
        request: &MatrixRequest,
        query: &Query,
        members: &[Member],
        now_ms: u64,
    ) -> Result<ColumnPlan, MatrixError> {
        let totals = members.iter().filter_map(|member| member.totals.as_ref());
        let oldest_ms = totals.map(|totals| totals.oldest_ms).min().unwrap_or(now_ms);
        let from_ms = if request.from_ms.is_some() {
            query.window.from_ms.max(oldest_ms.min(query.window.to_ms.saturating_sub(1)))
        } else {
            query.window.from_ms
        };
        let window = Window { from_ms, ..query.window };
        let step_ms = self.parts.local.history().config().step_ms;
        plan_columns(window, step_ms, request.max_columns as usize, now_ms)
            .map_err(|error| MatrixError::Internal { reason: error.to_string() })
    }

    async fn plan_rows(
        &self,
        request: &MatrixRequest,
        query: &Arc<Query>,
        members: &[Member],
    ) -> Result<RowPlan, MatrixError> {
        let epoch = self.parts.local.sampler().epoch_full();
        if epoch.routes().is_empty() {
            return Err(MatrixError::NotReady);
        }
        let totals: Vec<NodeTotals> =
            members.iter().filter_map(|member| member.totals.clone()).collect();
        let (query, max_rows) = (Arc::clone(query), request.max_rows as usize);
        let (axis, catalog) = (request.axis, self.parts.catalog.clone());
        off_the_runtime(move || {
            let past = (axis == Axis::Then)
                .then(|| catalog.with(|catalog| catalog.routes_at(query.window.from_ms)));
            let (routes, catalog_version): (&[RouteSpec], u64) = match &past {
                Some(past) => (&past.routes, past.version),
                None => (epoch.routes(), epoch.catalog_version()),
            };
            let request = PlanRequest {
                routes,
                catalog_version,
                range: &query.range,
                max_rows,
                max_route_ids: DEFAULT_ROW_ROUTE_IDS,
            };
            plan(&request, &totals)
        })
        .await?
        .map_err(|error| MatrixError::Internal { reason: error.to_string() })
    }

    async fn round_two(
        &self,
        query: &Arc<Query>,
        rows: &Arc<RowAxis>,
        columns: &Arc<ColumnPlan>,
        members: &mut [Member],
        deadline: Instant,
    ) -> Vec<NodeColumns> {
        let asks = members.iter_mut().map(|member| async move {
            let totals = member.totals.take()?;
            let answer = self.columns_of(member.node, query, rows, columns, deadline).await;
            let status = &mut member.status;
            status.latency_ms = millis(member.asked.elapsed());
            match answer {
                Ok(parts) => {
                    status.ok = true;
                    status.columns = totals.columns;
                    status.oldest_ms = Some(totals.oldest_ms);
                    status.incarnation = Some(totals.incarnation);
                    Some(parts)
                }
                Err(error) => {
                    status.error = Some(error);
                    None
                }
            }
        });
        join_all(asks).await.into_iter().flatten().flatten().collect()
    }

    async fn columns_of(
        &self,
        node: NodeId,
        query: &Arc<Query>,
        rows: &Arc<RowAxis>,
        columns: &Arc<ColumnPlan>,
        deadline: Instant,
    ) -> Result<Vec<NodeColumns>, String> {
        let (query, rows, columns) = (Arc::clone(query), Arc::clone(rows), Arc::clone(columns));
        if node == self.parts.node {
            let local = Arc::clone(&self.parts.local);
            let part = off_the_runtime(move || local.columns(&query, &rows, &columns)).await;
            return part.map(|part| vec![part]).map_err(|error| error.to_string());
        }
        let asked = self.parts.peers.columns(node, query, Arc::clone(&rows), Arc::clone(&columns));
        let parts = within(deadline, asked).await?;
        for part in &parts {
            if part.node != node {
                return Err(format!("it says that it is node {}", part.node));
            }
            let sound = part.check(&rows, &columns);
            sound.map_err(|error| format!("its answer is not sound: {error}"))?;
        }
        Ok(parts)
    }
}

impl MatrixRequest {
    fn query(&self, now_ms: u64) -> Result<Query, MatrixError> {
        if self.max_rows as usize > MAX_ROWS {
            return Err(MatrixError::TooManyRows { asked: self.max_rows });
        }
        if self.max_columns as usize > MAX_COLUMNS {
            return Err(MatrixError::TooManyColumns { asked: self.max_columns });
        }
        for key in std::iter::once(&self.start).chain(&self.end) {
            if key.len() > crate::kv::MAX_KEY_BYTES {
                return Err(MatrixError::KeyTooLong { bytes: key.len() });
            }
        }
        // Without an end the column in progress belongs to the answer, so the window ends after now.
        let to_ms = self.to_ms.unwrap_or(now_ms.saturating_add(1));
        let from_ms = self.from_ms.unwrap_or(to_ms.saturating_sub(DEFAULT_WINDOW_MS));
        let window = Window { from_ms, to_ms };
        if window.is_empty() {
            return Err(MatrixError::EmptyWindow { from_ms, to_ms });
        }
        let range = KeyRange { start: self.start.clone(), end: self.end.clone() };
        if range.is_empty() {
            return Err(MatrixError::EmptyRange);
        }
        Ok(Query { window, range, series: self.series, role: self.role })
    }
}

async fn within<T>(
    deadline: Instant,
    answer: BoxFuture<'static, Result<T, String>>,
) -> Result<T, String> {
    match timeout_at(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => Err("it did not answer within the deadline".to_owned()),
    }
}

/// Computes where no request waits for it.
async fn off_the_runtime<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MatrixError> {
    tokio::task::spawn_blocking(compute)
        .await
        .map_err(|error| MatrixError::Internal { reason: error.to_string() })
}

/// A peer's clock less ours, taken at the middle of the round trip.
fn skew(sent_ms: u64, got_ms: u64, theirs_ms: u64) -> i64 {
    let ours = i128::from(sent_ms) + (i128::from(got_ms) - i128::from(sent_ms)) / 2;
    let skew = i128::from(theirs_ms) - ours;
    i64::try_from(skew).unwrap_or(if skew > 0 { i64::MAX } else { i64::MIN })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> MatrixRequest {
        MatrixRequest {
            series: Series::Writes,
            role: None,
            from_ms: None,
            to_ms: None,
            start: Bytes::new(),
            end: None,
            max_rows: 0,
            max_columns: 0,
            axis: Axis::Now,
        }
    }

    #[test]
    fn a_request_without_a_window_is_for_the_last_hour_and_the_open_column() {
        let query = request().query(10_000_000).expect("the defaults are sound");
        assert_eq!(query.window, Window { from_ms: 6_400_001, to_ms: 10_000_001 });
        assert_eq!(query.range, KeyRange::all());
    }

    #[test]
    fn bad_requests_are_refused_by_name_with_the_limit() {
        let refuse = |change: fn(&mut MatrixRequest)| {
            let mut request = request();
            change(&mut request);
            request.query(1).expect_err("refused").to_string()
        };
        assert!(refuse(|r| r.max_rows = 1_025).contains("1024"));
        assert!(refuse(|r| r.max_columns = 2_049).contains("2048"));
        assert!(refuse(|r| (r.from_ms, r.to_ms) = (Some(5), Some(5))).contains("from_ms"));
        assert!(refuse(|r| r.start = Bytes::from(vec![1; 4_097])).contains("4096"));
        assert!(refuse(|r| r.end = Some(Bytes::new())).contains("range"));
    }

    #[test]
    fn skew_is_measured_at_the_middle_of_the_round_trip() {
        assert_eq!(skew(100, 200, 150), 0);
        assert_eq!(skew(100, 200, 1_150), 1_000);
        assert_eq!(skew(5_000, 5_010, 0), -5_005);
        assert_eq!(skew(0, 0, u64::MAX), i64::MAX);
        // A clock that was set back between the two readings.
        assert_eq!(skew(200, 100, 150), 0);
    }
}
