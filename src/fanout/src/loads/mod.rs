//! The load of the cluster summed by route, group, leader, node or prefix of keys.
//!
//! Loads are read from matrices of one column whose rows lie between given keys: the routes, or the
//! prefixes. So they obey what holds for a matrix: every operation counts once, and what was
//! counted for several rows together is not divided but listed as shared. A matrix has at most
//! [`MAX_BOUNDARIES`] rows, so more are asked one piece of the key space after the other; a count
//! that reaches over the edge of a piece is seen on both sides and taken once. Rows without load
//! are not told apart (`quiet.rs`).
//!
//! Without an end the window ends with the last closed column. Columns that are closed do not
//! change, so the pieces and the series are of one time.

mod prefixes;
mod quiet;
mod request;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

use keyviz_core::query::MAX_BOUNDARIES;
use keyviz_core::{GroupId, KeyRange, NodeId, RouteSpec, Series};

use super::cluster::{Answer, Fanout};
use super::request::{MatrixError, MatrixRequest};
use super::work::Busy;
use prefixes::{overlap, prefix_length, rows_of_prefixes};
pub use request::{
    Grouping, LoadCounts, LoadEntry, LoadOf, LoadsError, LoadsPart, LoadsRequest, LoadsSummary,
    MAX_LOAD_IDS, MAX_PREFIX_DEPTH, MAX_PREFIXES, SERIES,
};
use sums::{Rows, Sums};

/// Prefixes that are found, at most.
const MAX_FOUND: usize = 100_000;
/// Answers under way.
const RUNNING: usize = 2;
/// How long a question waits for those before it.
const WAIT: Duration = Duration::from_secs(5);
const HOUR_MS: u64 = 3_600_000;

/// Answers questions for loads.
pub struct Loads {
    fanout: Arc<Fanout>,
    places: Semaphore,
}

/// Who leads a group, as this node knows.
pub type LeaderOf<'a> = &'a (dyn Fn(GroupId) -> Option<NodeId> + Send + Sync);

impl Loads {
    /// Of the cluster that `fanout` asks.
    pub fn new(fanout: Arc<Fanout>) -> Self {
        Loads { fanout, places: Semaphore::new(RUNNING) }
    }

    /// Checks a question before it is answered, so that the answer can begin.
    ///
    /// # Errors
    /// As of the answer.
    pub fn check(&self, request: &LoadsRequest) -> Result<(), LoadsError> {
        request.check()?;
        let local = self.fanout.local();
        if !local.enabled() {
            return Err(MatrixError::Disabled.into());
        }
        request.matrix(Series::Writes).query(local.clock().now_ms())?;
        Ok(())
    }

    /// Sends the loads of the cluster, or of this node alone, to `parts`. Ends early if nobody
    /// takes them.
    ///
    /// # Errors
    /// If the question is refused or this node cannot answer.
    pub async fn answer(
        &self,
        request: &LoadsRequest,
        this_node: bool,
        leader_of: LeaderOf<'_>,
        parts: &Sender<Result<LoadsPart, LoadsError>>,
    ) -> Result<(), LoadsError> {
        self.check(request)?;
        let busy = || MatrixError::Busy(Busy { what: "loads", running: RUNNING, waiting: 0 });
        let place = tokio::time::timeout(WAIT, self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let request = &self.with_an_end(request);
        let rows = self.rows(request, this_node, leader_of).await?;
        let rows = self.with_load(request, this_node, rows).await?;
        let mut sums = Sums::new(request, rows);
        let mut from = 0;
        while from < sums.rows.starts.len() {
            let to = (from + MAX_BOUNDARIES).min(sums.rows.starts.len());
            for (at, series) in SERIES.into_iter().enumerate() {
                let piece = sums.piece(request, series, from..to);
                let answer = self.ask(&piece, this_node).await?;
                sums.take(at, from, &answer.matrix)?;
            }
            let part = sums.emit();
            if !(part.loads.is_empty() && part.shared.is_empty())
                && parts.send(Ok(part)).await.is_err()
            {
                return Ok(());
            }
            from = to;
        }
        // Nobody takes it: the caller has gone.
        let _ = parts.send(Ok(sums.finish())).await;
        Ok(())
    }

    async fn ask(&self, request: &MatrixRequest, this_node: bool) -> Answer {
        match this_node {
            true => self.fanout.node(request).await,
            false => self.fanout.cluster(request).await,
        }
    }

    /// The rows, those without load together, where they are more than one piece.
    async fn with_load(
        &self,
        request: &LoadsRequest,
        this_node: bool,
        rows: Rows,
    ) -> Result<Rows, LoadsError> {
        if rows.starts.len() <= MAX_BOUNDARIES {
            return Ok(rows);
        }
        let mut loud = Vec::new();
        // Where bytes were counted, operations were.
        for series in [Series::Reads, Series::Writes] {
            let planned =
                MatrixRequest { max_rows: MAX_BOUNDARIES as u32, ..request.matrix(series) };
            let answer = self.ask(&planned, this_node).await?;
            if answer.matrix.responded < answer.matrix.expected {
                // A member that answers the next question may have load anywhere.
                return Ok(rows);
            }
            loud.extend(quiet::loud(&answer.matrix));
        }
        let range = KeyRange { start: request.start.clone(), end: request.end.clone() };
        Ok(quiet::together(rows, &range, &loud, &request.ids))
    }

    fn with_an_end(&self, request: &LoadsRequest) -> LoadsRequest {
        let local = self.fanout.local();
        let step_ms = local.history().config().step_ms;
        let now_ms = local.clock().now_ms();
        let to_ms = request.to_ms.unwrap_or(now_ms / step_ms * step_ms);
        let from_ms = request.from_ms.unwrap_or(to_ms.saturating_sub(HOUR_MS));
        LoadsRequest { from_ms: Some(from_ms), to_ms: Some(to_ms), ..request.clone() }
    }

    async fn rows(
        &self,
        request: &LoadsRequest,
        this_node: bool,
        leader_of: LeaderOf<'_>,
    ) -> Result<Rows, LoadsError> {
        let epoch = self.fanout.local().sampler().epoch_full();
        if epoch.routes().is_empty() {
            return Err(MatrixError::NotReady.into());
        }
        let range = KeyRange { start: request.start.clone(), end: request.end.clone() };
        let within = epoch.routes().iter().filter(|route| overlap(&route.range, &range));
        let catalog_version = epoch.catalog_version();
        let rows = |of: Vec<(Bytes, Option<LoadOf>)>, routes| {
            let (starts, of) = of.into_iter().unzip();
            Rows { starts, of, routes, catalog_version }
        };
        let by_route = |of: &dyn Fn(&RouteSpec) -> Option<LoadOf>, routes| {
            let starts =
                within.clone().map(|route| route.range.start.clone().max(range.start.clone()));
            rows(starts.zip(within.clone().map(of)).collect(), routes)
        };
        Ok(match request.by {
            Grouping::Route => {
                let known = |route: &RouteSpec| (route.id, (route.range.clone(), route.group));
                by_route(
                    &|route| Some(LoadOf::Route(route.id)),
                    within.clone().map(known).collect(),
                )
            }
            Grouping::Group => by_route(&|route| Some(LoadOf::Group(route.group)), BTreeMap::new()),
            Grouping::Leader => {
                by_route(&|route| leader_of(route.group).map(LoadOf::Node), BTreeMap::new())
            }
            Grouping::Node => rows(vec![(range.start.clone(), None)], BTreeMap::new()),
            Grouping::Prefix => {
                let prefixes = match request.prefixes.is_empty() {
                    true => self.find_prefixes(request, this_node, within.clone()).await?,
                    false => request.prefixes.iter().cloned().collect(),
                };
                rows(rows_of_prefixes(&prefixes, &range), BTreeMap::new())
            }
        })
    }

    /// The prefixes that the bounds of routes and of planned rows begin with.
    async fn find_prefixes(
        &self,
        request: &LoadsRequest,
        this_node: bool,
        routes: impl Iterator<Item = &RouteSpec>,
    ) -> Result<BTreeSet<Bytes>, LoadsError> {
        let depth = request.prefix_depth.max(1);
        let delimiter: &[u8] = match &request.delimiter[..] {
            [] => b"/",
            given => given,
        };
        let mut found = BTreeSet::new();
        let mut look = |key: &Bytes| {
            if found.len() < MAX_FOUND
                && let Some(length) = prefix_length(key, delimiter, depth)
            {
                found.insert(key.slice(..length));
            }
        };
        routes.for_each(|route| look(&route.range.start));
        for series in [Series::Reads, Series::Writes] {
            let planned =
                MatrixRequest { max_rows: MAX_BOUNDARIES as u32, ..request.matrix(series) };
            let answer = self.ask(&planned, this_node).await?;
            answer.matrix.rows.iter().for_each(|row| look(&row.range.start));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
