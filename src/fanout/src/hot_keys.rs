//! The hot keys of the cluster, asked of all members in one round and added up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use keyviz_core::hotkeys::{
    DEFAULT_HOT_KEYS, HotKeys, HotKeysPart, HotKeysQuery, MAX_HOT_KEYS, MAX_POINTS, merge,
};
use keyviz_core::matrix::NodeStatus;
use keyviz_core::{KeyRange, NodeId, Series, Window};
use keyviz_directory::MembershipState;

use super::cluster::Fanout;
use super::copies::{Absent, proxies, tell};
use super::local::{HotKeysMode, LocalMatrix};
use super::peers::{NodeHotKeys, RoundError};
use super::request::{DEFAULT_WINDOW_MS, MatrixError};
use super::work::{Asker, WorkError};

/// What is asked, as the asker wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotKeysRequest {
    /// Reads or writes.
    pub series: Series,
    /// Unix milliseconds, inclusive; `None`: an hour before the end.
    pub from_ms: Option<u64>,
    /// Unix milliseconds, exclusive; `None`: now, with the column in progress.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after; `None`: unbounded.
    pub end: Option<Bytes>,
    /// The most keys; 0: the default.
    pub limit: u32,
    /// Pieces of the window; each key is counted by itself for the columns that begin in each.
    pub points: u32,
}

/// The hot keys of several nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct HotKeysAnswer {
    /// The series.
    pub series: Series,
    /// The window, with whole columns.
    pub window: Window,
    /// The keys.
    pub hot_keys: HotKeys,
    /// Keys are hashes.
    pub hashed: bool,
    /// One for each member.
    pub nodes: Vec<NodeStatus>,
}

/// Why there are no hot keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HotKeysError {
    /// As for a matrix.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// They are not recorded.
    #[error("hot keys are off on this node (--keyviz-hot-keys=off); ask a node where they are on")]
    Off,
    /// A series of bytes.
    #[error(
        "hot keys are ranked by operations, not by bytes; ask for reads or writes, which have the \
         bytes of each key beside"
    )]
    Bytes,
    /// Too many keys.
    #[error("limit is {asked}; an answer has at most {MAX_HOT_KEYS} keys")]
    TooManyKeys {
        /// Asked for.
        asked: u32,
    },
    /// Too many points.
    #[error("points is {asked}; a key has at most {MAX_POINTS} points")]
    TooManyPoints {
        /// Asked for.
        asked: u32,
    },
}

impl From<WorkError> for HotKeysError {
    fn from(error: WorkError) -> Self {
        HotKeysError::Matrix(error.into())
    }
}

impl HotKeysRequest {
    /// The question at a moment, of whole columns of `step_ms`, as those of a matrix are.
    fn query(&self, now_ms: u64, step_ms: u64) -> Result<HotKeysQuery, HotKeysError> {
        if !matches!(self.series, Series::Reads | Series::Writes) {
            return Err(HotKeysError::Bytes);
        }
        if self.limit as usize > MAX_HOT_KEYS {
            return Err(HotKeysError::TooManyKeys { asked: self.limit });
        }
        if self.points as usize > MAX_POINTS {
            return Err(HotKeysError::TooManyPoints { asked: self.points });
        }
        for key in std::iter::once(&self.start).chain(&self.end) {
            if key.len() > keyviz_types::MAX_KEY_BYTES {
                return Err(MatrixError::KeyTooLong { bytes: key.len() }.into());
            }
        }
        let to_ms = self.to_ms.unwrap_or(now_ms.saturating_add(1));
        let from_ms = self.from_ms.unwrap_or(to_ms.saturating_sub(DEFAULT_WINDOW_MS));
        let window = Window { from_ms, to_ms };
        if window.is_empty() {
            return Err(MatrixError::EmptyWindow { from_ms, to_ms }.into());
        }
        let window = window.widened(step_ms);
        let range = KeyRange { start: self.start.clone(), end: self.end.clone() };
        if range.is_empty() {
            return Err(MatrixError::EmptyRange.into());
        }
        Ok(HotKeysQuery { window, range, series: self.series, points: self.points as usize })
    }

    fn limit(&self) -> usize {
        match self.limit {
            0 => DEFAULT_HOT_KEYS,
            limit => limit as usize,
        }
    }
}

impl LocalMatrix {
    /// What this node answers, within the bounds for `asker`.
    ///
    /// # Errors
    /// Where hot keys are off, or too much work waits.
    pub async fn hot_keys_for(
        self: &Arc<Self>,
        asker: Asker,
        query: Arc<HotKeysQuery>,
        salt: &str,
    ) -> Result<NodeHotKeys, HotKeysError> {
        let mode = self.hot_keys_mode();
        if mode == HotKeysMode::Off {
            return Err(HotKeysError::Off);
        }
        let (local, salt) = (Arc::clone(self), salt.to_owned());
        let hashed = mode == HotKeysMode::Hashed;
        let parts = self.work().compute(asker, move |wanted| {
            let view = local.view(query.window);
            let forgotten = view.holdings().forgotten_before_ms;
            let mut parts = view.hot_keys(&query, wanted)?;
            if hashed {
                parts = parts.into_iter().map(|part| part.hashed(&salt)).collect();
            }
            Some((parts, forgotten))
        });
        let (parts, forgotten_before_ms) = parts.await?;
        let (now_ms, copies) = (self.clock().now_ms(), self.held_copies());
        Ok(NodeHotKeys { parts, hashed, now_ms, forgotten_before_ms, copies })
    }
}

impl Fanout {
    /// The hot keys of all members. A member that does not answer has a status that says why, and
    /// the answer is partial.
    ///
    /// # Errors
    /// If the question is refused or this node cannot answer.
    pub async fn cluster_hot_keys(
        &self,
        request: &HotKeysRequest,
    ) -> Result<HotKeysAnswer, HotKeysError> {
        let parts = self.parts();
        match parts.directory.membership_state() {
            MembershipState::Member | MembershipState::Asking => {}
            MembershipState::Removed => {
                return Err(MatrixError::Removed { node: parts.node }.into());
            }
            MembershipState::Refused => {
                let reason = parts.directory.refusal().as_str().to_owned();
                return Err(MatrixError::Refused { reason }.into());
            }
        }
        self.hot_keys_of(request, self.members(), true).await
    }

    /// The hot keys of this node alone.
    ///
    /// # Errors
    /// As [`Fanout::cluster_hot_keys`].
    pub async fn node_hot_keys(
        &self,
        request: &HotKeysRequest,
    ) -> Result<HotKeysAnswer, HotKeysError> {
        self.hot_keys_of(request, self.this_node(), false).await
    }

    async fn hot_keys_of(
        &self,
        request: &HotKeysRequest,
        members: BTreeMap<NodeId, String>,
        in_names: bool,
    ) -> Result<HotKeysAnswer, HotKeysError> {
        let parts = self.parts();
        if !parts.local.enabled() {
            return Err(MatrixError::Disabled.into());
        }
        if parts.local.hot_keys_mode() == HotKeysMode::Off {
            return Err(HotKeysError::Off);
        }
        let step_ms = parts.local.history().config().step_ms;
        let query = Arc::new(request.query(parts.local.clock().now_ms(), step_ms)?);
        let began = Instant::now();
        let deadline = began + parts.deadline;
        // Later there is no time left to ask anybody.
        let _place = self.place(began + parts.deadline / 2).await?;
        let known: BTreeSet<NodeId> = members.keys().copied().collect();
        let mut asked: FuturesUnordered<_> = members
            .into_iter()
            .map(|(node, address)| self.hot_keys_at(node, address, Arc::clone(&query), deadline))
            .collect();
        let (mut nodes, mut answers, mut hashed) = (Vec::new(), Vec::new(), false);
        while let Some((status, answer)) = asked.next().await {
            let counters = self.counters();
            let counter = if status.ok { &counters.answered } else { &counters.failed };
            // Relaxed: each number is read by itself.
            counter.fetch_add(1, Ordering::Relaxed);
            nodes.push(status);
            if let Some(answer) = answer {
                hashed |= answer.hashed;
                answers.push(answer);
            }
        }
        if in_names {
            answers.extend(self.in_names(&mut nodes, &answers, &known, &query, deadline).await);
            hashed |= answers.iter().any(|answer| answer.hashed);
        }
        nodes.sort_by_key(|status| status.node);
        // What a holder lacks it says itself.
        let silent = |status: &&NodeStatus| !status.ok || status.past_history;
        let mut missing = nodes.iter().filter(silent).any(|status| status.answered_by.is_empty());
        if hashed {
            // What a node that shows names says cannot be added to hashes of them.
            let salt = parts.directory.cluster_id().as_str().to_owned();
            for answer in answers.iter_mut().filter(|answer| !answer.hashed) {
                let parts = std::mem::take(&mut answer.parts).into_iter();
                answer.parts = parts.map(|part| part.hashed(&salt)).collect();
            }
        }
        let limit = request.limit();
        let counted: Vec<HotKeysPart> =
            answers.into_iter().flat_map(|answer| answer.parts).collect();
        missing |= counted.is_empty();
        let merged = parts.local.work().compute(Asker::Own, move |_| Some(merge(counted, limit)));
        let mut hot_keys = merged.await?;
        hot_keys.partial |= missing;
        let (series, window) = (query.series, query.window);
        Ok(HotKeysAnswer { series, window, hot_keys, hashed, nodes })
    }

    /// What holders say in the names of members that did not answer, or lack the past, and of nodes
    /// that have left.
    async fn in_names(
        &self,
        nodes: &mut [NodeStatus],
        answers: &[NodeHotKeys],
        known: &BTreeSet<NodeId>,
        query: &Arc<HotKeysQuery>,
        deadline: Instant,
    ) -> Vec<NodeHotKeys> {
        let mut absent: Absent = known.iter().map(|node| (*node, u64::MAX)).collect();
        for status in nodes.iter().filter(|status| status.ok) {
            let Some(node) = status.node else { continue };
            if status.past_history {
                absent.insert(node, status.forgotten_before_ms);
            } else {
                absent.remove(&node);
            }
        }
        let offer =
            |answer: &NodeHotKeys| Some((answer.parts.first()?.held_by, answer.copies.clone()));
        let offers: Vec<_> = answers.iter().filter_map(offer).collect();
        let proxies = proxies(&offers, known, &absent, query.window).into_iter();
        let asked = proxies.map(|proxy| self.proxy_hot_keys(proxy, query, deadline));
        let mut told = Vec::new();
        for (of, answered) in join_all(asked).await {
            let (holders, parts): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
            if let Some(status) = nodes.iter_mut().find(|status| status.node == Some(of)) {
                tell(status, &holders);
            }
            told.extend(parts);
        }
        told
    }

    async fn hot_keys_at(
        &self,
        node: NodeId,
        address: String,
        query: Arc<HotKeysQuery>,
        deadline: Instant,
    ) -> (NodeStatus, Option<NodeHotKeys>) {
        let parts = self.parts();
        let mut status = NodeStatus { node: Some(node), address, ..NodeStatus::default() };
        let (asked, sent_ms) = (Instant::now(), parts.local.clock().now_ms());
        let window = query.window;
        let answer = timeout_at(deadline, self.ask_hot_keys(node, query)).await;
        let got_ms = parts.local.clock().now_ms();
        status.latency_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let answer = answer.unwrap_or_else(|_| Err(RoundError::Deadline(parts.deadline)));
        match answer {
            Ok(answer) => {
                status.ok = true;
                let columns = answer.parts.iter().map(|part| part.columns);
                status.columns = columns.fold(0, u64::saturating_add);
                status.clock_skew_ms = super::member::skew(sent_ms, got_ms, answer.now_ms);
                status.forgotten_before_ms = answer.forgotten_before_ms;
                status.past_history = answer.forgotten_before_ms > window.from_ms;
                (status, Some(answer))
            }
            Err(error) => {
                status.error = Some(error.to_string());
                (status, None)
            }
        }
    }

    async fn ask_hot_keys(
        &self,
        node: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> Result<NodeHotKeys, RoundError> {
        let parts = self.parts();
        if node == parts.node {
            let salt = parts.directory.cluster_id();
            let answer = parts.local.hot_keys_for(Asker::Own, query, salt.as_str()).await;
            return answer.map_err(|error| RoundError::Call(error.to_string()));
        }
        let points = query.points;
        let answer = parts.peers.hot_keys(node, query).await?;
        for part in &answer.parts {
            if part.held_by != node {
                return Err(RoundError::OtherNode(part.held_by));
            }
            part.check(points)?;
        }
        Ok(answer)
    }
}
