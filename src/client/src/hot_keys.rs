//! The hot keys of a window and a key range.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::{Client, Effect};
use super::error::Error;
use super::matrix::unix_ms;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

pub use keyviz_proto::{HotKey, HotKeys, Series};

/// Which hot keys to return. By default the 20 hottest of the last hour over the whole key space,
/// by writes.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct HotKeysQuery(proto::GetHotKeysRequest);

impl HotKeysQuery {
    /// A query for reads or writes.
    pub fn new(series: Series) -> Self {
        let series = series.into();
        HotKeysQuery(proto::GetHotKeysRequest { series, ..Default::default() })
    }

    /// Columns from `from` (inclusive) to `to` (exclusive).
    pub fn between(mut self, from: SystemTime, to: SystemTime) -> Self {
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), Some(unix_ms(to)));
        self
    }

    /// Columns of the last `window`, by the clock of this machine, with the column in progress.
    pub fn last(mut self, window: Duration) -> Self {
        let from = SystemTime::now().checked_sub(window).unwrap_or(UNIX_EPOCH);
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), None);
        self
    }

    /// Keys of this range only.
    pub fn range(mut self, range: impl Into<KeyRange>) -> Self {
        let KeyRange { start, end } = range.into();
        (self.0.start, self.0.end) = (start, end);
        self
    }

    /// At most so many keys; at most 1,000.
    pub fn limit(mut self, keys: u32) -> Self {
        self.0.limit = keys;
        self
    }

    /// Also what each node counted of each key.
    pub fn by_node(mut self) -> Self {
        self.0.by_node = true;
        self
    }

    /// Also each key's operations by so many equal pieces of the window, each with the columns that
    /// begin in it; at most 240.
    pub fn points(mut self, points: u32) -> Self {
        self.0.points = points;
        self
    }
}

impl Client {
    /// The hot keys of the whole cluster. Needs the admin token where the cluster has one.
    ///
    /// For each key, `lower <= true <= upper`, and every key with more than `threshold` operations
    /// is listed. Look at `partial`: of a node or of a part of the window something is missing.
    ///
    /// # Errors
    /// Where no node answers, or one refuses.
    pub async fn hot_keys(&self, query: HotKeysQuery) -> Result<HotKeys, Error> {
        let request = &query.0;
        let asked = self.call(Effect::Read, |channel| async move {
            let mut stub = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.get_hot_keys(request.clone()).await
        });
        Ok(asked.await?.into_inner())
    }

    /// The hot keys of one node, the first that answers; see [`Client::at`].
    ///
    /// # Errors
    /// As [`Client::hot_keys`].
    pub async fn node_hot_keys(&self, query: HotKeysQuery) -> Result<HotKeys, Error> {
        let request = &query.0;
        let asked = self.call(Effect::Read, |channel| async move {
            let mut stub = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.get_node_hot_keys(request.clone()).await
        });
        Ok(asked.await?.into_inner())
    }
}
