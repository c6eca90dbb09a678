//! Rankings of ranges, and loads by route, group, leader, node or prefix.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::client::{Client, Effect};
use super::error::Error;
use super::matrix::unix_ms;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

pub use keyviz_proto::{Load, LoadGrouping, Loads, LoadsSummary, Rank, TopRange, TopRanges};

/// What to rank. By default ranges by cost, over the last five minutes and the whole key space.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct TopQuery(proto::TopRangesRequest);

impl TopQuery {
    /// Ranked by this.
    pub fn new(rank: Rank) -> Self {
        TopQuery(proto::TopRangesRequest { rank: rank.into(), ..Default::default() })
    }

    /// Ranges within this one.
    pub fn range(mut self, range: impl Into<KeyRange>) -> Self {
        let KeyRange { start, end } = range.into();
        (self.0.start, self.0.end) = (start, end);
        self
    }

    /// The last `window`, by the clock of this machine, with the column in progress.
    pub fn last(mut self, window: Duration) -> Self {
        let from = SystemTime::now().checked_sub(window).unwrap_or(UNIX_EPOCH);
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), None);
        self
    }

    /// From `from` (inclusive) to `to` (exclusive).
    pub fn between(mut self, from: SystemTime, to: SystemTime) -> Self {
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), Some(unix_ms(to)));
        self
    }

    /// At most so many ranges; at most 256.
    pub fn limit(mut self, ranges: u32) -> Self {
        self.0.limit = ranges;
        self
    }

    /// Whole routes instead of the parts that the load tells apart.
    pub fn routes(mut self) -> Self {
        self.0.routes = true;
        self
    }
}

/// Which loads. By default over the last hour of closed columns and the whole key space.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct LoadsQuery(proto::GetLoadsRequest);

impl From<proto::GetLoadsRequest> for LoadsQuery {
    /// A request as the protos have it.
    fn from(request: proto::GetLoadsRequest) -> Self {
        LoadsQuery(request)
    }
}

impl LoadsQuery {
    /// Summed by this.
    pub fn new(by: LoadGrouping) -> Self {
        LoadsQuery(proto::GetLoadsRequest { by: by.into(), ..Default::default() })
    }

    /// By prefix: the first `depth` parts of keys, between which `delimiter` is.
    pub fn prefixes_of(depth: u32, delimiter: impl Into<Bytes>) -> Self {
        let mut query = LoadsQuery::new(LoadGrouping::Prefix);
        (query.0.prefix_depth, query.0.delimiter) = (depth, delimiter.into());
        query
    }

    /// By prefix: exactly these.
    pub fn prefixes(prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let mut query = LoadsQuery::new(LoadGrouping::Prefix);
        query.0.prefixes = prefixes.into_iter().map(Into::into).collect();
        query
    }

    /// Load of these keys only.
    pub fn range(mut self, range: impl Into<KeyRange>) -> Self {
        let KeyRange { start, end } = range.into();
        (self.0.start, self.0.end) = (start, end);
        self
    }

    /// From `from` (inclusive) to `to` (exclusive).
    pub fn between(mut self, from: SystemTime, to: SystemTime) -> Self {
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), Some(unix_ms(to)));
        self
    }

    /// Only these routes, groups or nodes, also those without load.
    pub fn ids(mut self, ids: impl IntoIterator<Item = u64>) -> Self {
        self.0.ids = ids.into_iter().collect();
        self
    }
}

impl Client {
    /// The hottest ranges or routes of the cluster. Needs the token of a viewer where there are
    /// tokens.
    ///
    /// # Errors
    /// Where no node answers, or one refuses.
    pub async fn top_ranges(&self, query: TopQuery) -> Result<TopRanges, Error> {
        let request = &query.0;
        let asked = self.call(Effect::Read, |channel| async move {
            let mut stub = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.top_ranges(request.clone()).await
        });
        Ok(asked.await?.into_inner())
    }

    /// The load of the cluster in all series, summed exactly. All parts are put together, so that
    /// the answer has its `summary`. Needs the token of a viewer where there are tokens.
    ///
    /// # Errors
    /// Where no node answers, or one refuses.
    pub async fn loads(&self, query: LoadsQuery) -> Result<Loads, Error> {
        self.all_loads(query, false).await
    }

    /// The same of what one node has counted, the first that answers; see [`Client::at`].
    ///
    /// # Errors
    /// As [`Client::loads`].
    pub async fn node_loads(&self, query: LoadsQuery) -> Result<Loads, Error> {
        self.all_loads(query, true).await
    }

    async fn all_loads(&self, query: LoadsQuery, this_node: bool) -> Result<Loads, Error> {
        let request = &query.0;
        self.call(Effect::Read, |channel| async move {
            let mut stub = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            let answer = match this_node {
                true => stub.get_node_loads(request.clone()).await,
                false => stub.get_loads(request.clone()).await,
            };
            let (mut parts, mut whole) = (answer?.into_inner(), Loads::default());
            while let Some(part) = parts.message().await? {
                whole.loads.extend(part.loads);
                whole.shared.extend(part.shared);
                whole.summary = part.summary.or(whole.summary);
            }
            match whole.summary {
                Some(_) => Ok(whole),
                None => Err(tonic::Status::unavailable("the answer ended early")),
            }
        })
        .await
    }
}
