//! Why the load of the cluster is as it is: matrices of all series on one axis, and what
//! [`keyviz_core::insight`] finds in them.
//!
//! Rows are planned for reads and for writes; the bounds of both are the axis on which all series
//! are then asked, so that no row hides what one of them tells apart. Findings keep their ids
//! between two questions for the same keys and length of window at the same node; what happened
//! meanwhile is replayed from the history ([`insight::follow`]). One question is answered at a
//! time: an answer is seven matrices, two rounds for the names of keys, and some analyses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt as _, TryFutureExt as _};
use tokio::sync::{Mutex, Semaphore};

use keyviz_core::insight::{
    self, Able, Finding, Input, Load, LoadError, NamedKey, Topology, Tracker,
};
use keyviz_core::matrix::NodeStatus;
use keyviz_core::{Matrix, Role, RouteSpec, Series};

use super::cluster::Fanout;
use super::hot_keys::HotKeysRequest;
use super::request::{Axis, MatrixAnswer, MatrixError, MatrixRequest};
use super::work::{Busy, off_the_runtime};

/// Most findings of a list.
pub const MAX_FINDINGS: usize = insight::MAX_FINDINGS;
/// Findings of a list where the question does not say.
const DEFAULT_FINDINGS: usize = 32;
/// Rows that are planned for reads, and for writes.
const ROWS: u32 = 192;
/// Columns that are looked at.
const COLUMNS: u32 = 240;
/// Keys with names that are looked at, of reads and of writes.
const NAMED: u32 = 64;
/// Questions that wait or are answered.
const MOST_ASKED: usize = 16;
/// How long a question waits for those before it.
const WAIT: Duration = Duration::from_secs(5);
/// Keys and lengths of window whose findings are remembered.
const MOST_REMEMBERED: usize = 16;
/// The same time before.
const DAY_MS: u64 = 24 * 3_600_000;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FindingsRequest {
    /// Unix milliseconds, inclusive; `None`: an hour before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: now, with the column in progress.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// Most findings of each list; 0: 32.
    pub max_findings: u32,
}

/// Where the cluster serves, and what can be done about it.
#[derive(Clone, Debug)]
pub struct Served {
    /// Members, groups and leaders. Routes are added.
    pub topology: Topology,
    /// Acts that there are.
    pub able: Able,
}

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub struct FindingsAnswer {
    /// What goes on, the largest first.
    pub findings: Vec<Finding>,
    /// What ended within the window, the newest first.
    pub resolved: Vec<Finding>,
    /// More than the lists have.
    pub omitted: u64,
    /// The window that was looked at, its columns, and those that may miss counts.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Its columns.
    pub columns: u32,
    /// Those that may miss counts.
    pub partial_columns: u32,
    /// Operations a second at its end.
    pub rate: f64,
    /// Version of the catalog.
    pub catalog_version: u64,
    /// The status of each member.
    pub nodes: Vec<NodeStatus>,
    /// Members that answered every question.
    pub responded: u32,
    /// Members that were asked.
    pub expected: u32,
}

/// Why there are no findings.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum FindingsError {
    /// There is no matrix.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Too many findings.
    #[error("max_findings is {asked}; a list has at most {MAX_FINDINGS} findings")]
    TooManyFindings {
        /// Asked for.
        asked: u32,
    },
    /// The columns changed while they were asked, twice.
    #[error("the columns of the window changed while it was read ({0}); try again")]
    Changed(LoadError),
}

/// Keys and length of a window in minutes.
type Scope = (Bytes, Option<Bytes>, u64);

/// Answers questions for findings.
pub struct Findings {
    pub(super) fanout: Arc<Fanout>,
    places: Semaphore,
    remembered: Mutex<HashMap<Scope, Tracker>>,
}

/// The axes of an answer's matrices.
pub(super) struct Axes {
    boundaries: Arc<[Bytes]>,
    from_ms: u64,
    to_ms: u64,
}

impl Axes {
    fn request(&self, request: &FindingsRequest, series: Series) -> MatrixRequest {
        MatrixRequest {
            from_ms: Some(self.from_ms),
            to_ms: Some(self.to_ms),
            max_rows: 0,
            boundaries: Arc::clone(&self.boundaries),
            ..matrix_request(request, series)
        }
    }
}

/// The matrices of one answer, and the keys that have names.
#[derive(Default)]
struct Measured {
    matrices: Vec<Arc<MatrixAnswer>>,
    before: Vec<Arc<MatrixAnswer>>,
    hot_keys: Vec<NamedKey>,
}

impl Findings {
    /// Of the cluster that `fanout` asks.
    pub fn new(fanout: Arc<Fanout>) -> Self {
        Findings { fanout, places: Semaphore::new(MOST_ASKED), remembered: Mutex::default() }
    }

    /// What is found in the load of the cluster. `served` is asked once the question is sound.
    ///
    /// # Errors
    /// As [`Fanout::cluster`], and if the question asks for too much.
    pub fn ask<'a>(
        &'a self,
        request: &'a FindingsRequest,
        served: BoxFuture<'a, Served>,
    ) -> BoxFuture<'a, Result<FindingsAnswer, FindingsError>> {
        async move {
            if request.max_findings as usize > MAX_FINDINGS {
                return Err(FindingsError::TooManyFindings { asked: request.max_findings });
            }
            let clock = self.fanout.local().clock();
            matrix_request(request, Series::Writes).query(clock.now_ms())?;
            let (running, waiting) = (1, MOST_ASKED - 1);
            let busy = || MatrixError::Busy(Busy { what: "findings", running, waiting });
            let _place = self.places.try_acquire().map_err(|_| busy())?;
            let remembered = tokio::time::timeout(WAIT, self.remembered.lock());
            let mut remembered = remembered.await.map_err(|_| busy())?;
            let mut served = served.await;
            let epoch = self.fanout.local().sampler().epoch_full();
            served.topology.routes = epoch.routes().to_vec();
            let mut again = true;
            loop {
                let measured = self.measure(request).await?;
                let now_ms = clock.now_ms();
                let scope = scope(request, &measured, now_ms);
                let tracker = scope.as_ref().and_then(|scope| remembered.get(scope).cloned());
                let (served, asked) = (served.clone(), request.clone());
                let found = off_the_runtime(move |_| {
                    Some(found(&asked, &measured, &served, tracker.unwrap_or_default(), now_ms))
                });
                match found.await.map_err(MatrixError::from)? {
                    Ok((answer, tracker)) => {
                        if let Some(scope) = scope {
                            remember(&mut remembered, scope, tracker);
                        }
                        return Ok(answer);
                    }
                    Err(_) if again => again = false,
                    Err(error) => return Err(FindingsError::Changed(error)),
                }
            }
        }
        .boxed()
    }

    /// The step of a column in milliseconds.
    pub fn step_ms(&self) -> u64 {
        self.fanout.local().history().config().step_ms
    }

    /// The routes that the load is counted by.
    pub fn routes(&self) -> Vec<RouteSpec> {
        self.fanout.local().sampler().epoch_full().routes().to_vec()
    }

    /// The present as Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.fanout.local().clock().now_ms()
    }

    /// All series of the window on one axis, and its columns.
    pub(super) async fn matrices(
        &self,
        request: &FindingsRequest,
    ) -> Result<(Vec<Arc<MatrixAnswer>>, Option<Axes>), FindingsError> {
        let planned = [Series::Writes, Series::Reads].map(|series| matrix_request(request, series));
        let planned = try_join_all(planned.iter().map(|request| self.fanout.cluster(request)));
        let planned = planned.await?;
        let bounds = planned.iter().flat_map(|answer| &answer.matrix.rows);
        let bounds: BTreeSet<Bytes> = bounds.map(|row| row.range.start.clone()).collect();
        let boundaries: Arc<[Bytes]> = bounds.into_iter().collect();
        let columns = &planned[0].matrix.columns;
        let (Some(first), Some(last)) = (columns.first(), columns.last()) else {
            return Ok((Vec::new(), None));
        };
        let (from_ms, to_ms) = (first.start_ms, last.end_ms);
        let axes = Axes { boundaries: Arc::clone(&boundaries), from_ms, to_ms };
        let on_axis = |series, role| {
            let request = MatrixRequest { role, ..axes.request(request, series) };
            let fanout = &self.fanout;
            async move { fanout.cluster(&request).map_err(FindingsError::Matrix).await }
        };
        let followers = Some(Role::FollowerRead);
        let matrices = try_join_all([
            on_axis(Series::Writes, None),
            on_axis(Series::Reads, None),
            on_axis(Series::WriteBytes, None),
            on_axis(Series::ReadBytes, None),
            on_axis(Series::Reads, followers),
        ])
        .await?;
        Ok((matrices, Some(axes)))
    }

    /// The matrices, reads and writes of the day before if any member may hold them, and hot keys.
    async fn measure(&self, request: &FindingsRequest) -> Result<Measured, FindingsError> {
        let (matrices, axes) = self.matrices(request).await?;
        let Some(axes) = axes else { return Ok(Measured::default()) };
        let Axes { from_ms, to_ms, .. } = axes;
        let status = matrices.iter().flat_map(|answer| &answer.matrix.nodes);
        let oldest_ms = status.filter_map(|node| node.oldest_ms).min();
        let held = oldest_ms.is_some_and(|oldest_ms| oldest_ms.saturating_add(DAY_MS) <= from_ms);
        let day_before = |series| {
            let request = MatrixRequest {
                from_ms: Some(from_ms - DAY_MS),
                to_ms: Some(to_ms - DAY_MS),
                ..axes.request(request, series)
            };
            let fanout = &self.fanout;
            async move { fanout.cluster(&request).map_err(FindingsError::Matrix).await }
        };
        let before = match held {
            true => try_join_all([Series::Writes, Series::Reads].map(day_before)).await?,
            false => Vec::new(),
        };
        let columns = matrices.first().map_or(0, |answer| answer.matrix.columns.len());
        let pieces = columns as u32;
        let named = |series| self.named(request, series, (from_ms, to_ms), pieces);
        let (mut hot_keys, reads) = futures::join!(named(Series::Writes), named(Series::Reads));
        hot_keys.extend(reads);
        Ok(Measured { matrices, before, hot_keys })
    }

    /// The hottest keys by column; none where they are off, hashed or not answered.
    async fn named(
        &self,
        request: &FindingsRequest,
        series: Series,
        (from_ms, to_ms): (u64, u64),
        columns: u32,
    ) -> Vec<NamedKey> {
        let request = HotKeysRequest {
            series,
            from_ms: Some(from_ms),
            to_ms: Some(to_ms),
            start: request.start.clone(),
            end: request.end.clone(),
            limit: NAMED,
            points: columns,
        };
        let answer = match self.fanout.cluster_hot_keys(&request).await {
            Ok(answer) if !answer.hashed => answer,
            Ok(_) | Err(_) => return Vec::new(),
        };
        let keys = answer.hot_keys.keys.into_iter().map(|key| key.bounds);
        keys.map(|key| NamedKey {
            key: key.key,
            series,
            lower: key.lower,
            upper: key.upper,
            values: key.points,
        })
        .collect()
    }
}

fn matrix_request(request: &FindingsRequest, series: Series) -> MatrixRequest {
    MatrixRequest {
        series,
        role: None,
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        start: request.start.clone(),
        end: request.end.clone(),
        max_rows: ROWS,
        max_columns: COLUMNS,
        axis: Axis::Now,
        spread: false,
        boundaries: Arc::default(),
        by_route: false,
        sources: false,
    }
}

/// What the findings are remembered under; nothing where the window has an end.
fn scope(request: &FindingsRequest, measured: &Measured, now_ms: u64) -> Option<Scope> {
    measured.matrices.first()?;
    let length_ms = request.from_ms.map_or(3_600_000, |from_ms| now_ms.saturating_sub(from_ms));
    let minutes = length_ms.saturating_add(30_000) / 60_000;
    let open = request.to_ms.is_none();
    open.then(|| (request.start.clone(), request.end.clone(), minutes))
}

/// Those that were asked for least recently make room.
fn remember(remembered: &mut HashMap<Scope, Tracker>, scope: Scope, tracker: Tracker) {
    remembered.insert(scope, tracker);
    while remembered.len() > MOST_REMEMBERED {
        let oldest = remembered.iter().min_by_key(|(_, tracker)| tracker.seen_ms());
        let Some(oldest) = oldest.map(|(scope, _)| scope.clone()) else { return };
        remembered.remove(&oldest);
    }
}

fn found(
    request: &FindingsRequest,
    measured: &Measured,
    served: &Served,
    mut tracker: Tracker,
    now_ms: u64,
) -> Result<(FindingsAnswer, Tracker), LoadError> {
    let load = load(&measured.matrices)?;
    let before = load_before(&measured.before);
    let last_ms = load.columns.last().map_or(now_ms, |last| last.end_ms);
    let input = Input {
        load: &load,
        before: before.as_ref(),
        hot_keys: &measured.hot_keys,
        topology: &served.topology,
        able: served.able,
        now_ms: now_ms.min(last_ms),
    };
    insight::follow(&mut tracker, &input)?;
    let from_ms = load.columns.first().map_or(now_ms, |first| first.start_ms);
    let most = match request.max_findings {
        0 => DEFAULT_FINDINGS,
        asked => asked as usize,
    };
    let mut findings = tracker.current();
    let within = |ended: &&Finding| ended.resolved_ms.is_some_and(|at_ms| at_ms >= from_ms);
    let mut resolved: Vec<Finding> = tracker.resolved().filter(within).cloned().collect();
    resolved.sort_by_key(|ended| std::cmp::Reverse(ended.resolved_ms));
    let all = findings.len() + resolved.len();
    findings.truncate(most);
    resolved.truncate(most);
    let matrices = || measured.matrices.iter().map(|answer| &answer.matrix);
    let whole = matrices().min_by_key(|matrix| matrix.responded);
    let answer = FindingsAnswer {
        omitted: (all - findings.len() - resolved.len()) as u64,
        findings,
        resolved,
        from_ms,
        to_ms: last_ms,
        columns: load.columns.len() as u32,
        partial_columns: load.partial.len() as u32,
        rate: insight::rate(&input),
        catalog_version: matrices().map(|matrix| matrix.catalog_version).max().unwrap_or(0),
        nodes: whole.map(|matrix| matrix.nodes.clone()).unwrap_or_default(),
        responded: whole.map_or(0, |matrix| matrix.responded),
        expected: whole.map_or(0, |matrix| matrix.expected),
    };
    Ok((answer, tracker))
}

pub(super) fn load(answers: &[Arc<MatrixAnswer>]) -> Result<Load, LoadError> {
    let matrices: Vec<Matrix> = answers.iter().map(|answer| answer.matrix.clone()).collect();
    Load::of(&matrices)
}

/// A day before; nothing where nothing was counted then.
fn load_before(answers: &[Arc<MatrixAnswer>]) -> Option<Load> {
    let counted = answers.iter().any(|answer| answer.matrix.total > 0);
    counted.then(|| load(answers).ok()).flatten()
}
