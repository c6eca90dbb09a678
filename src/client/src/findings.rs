//! Findings: why the load is as it is, since when, and what would help.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::{BoxFuture, FutureExt as _};

use super::client::{Client, Effect};
use super::error::Error;
use super::matrix::unix_ms;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

pub use keyviz_proto::{Finding, Findings, Remedy};

/// What findings are about. By default the last hour over the whole key space.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct FindingsQuery(proto::GetFindingsRequest);

impl FindingsQuery {
    /// The last hour, all keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Load of this key range only; shares are of it.
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

    /// From `from` (inclusive) to `to` (exclusive), as it was then; routes and leaders are those of
    /// today.
    pub fn between(mut self, from: SystemTime, to: SystemTime) -> Self {
        (self.0.from_ms, self.0.to_ms) = (Some(unix_ms(from)), Some(unix_ms(to)));
        self
    }

    /// At most so many findings that go on, and as many that have ended; at most 256.
    pub fn max_findings(mut self, findings: u32) -> Self {
        self.0.max_findings = findings;
        self
    }
}

impl Client {
    /// Why the load of the cluster is as it is. Needs the admin token where the cluster has one.
    ///
    /// Look at `responded` and `expected` of the answer, as for a matrix.
    ///
    /// # Errors
    /// Where no node answers, or one refuses.
    pub fn findings(&self, query: FindingsQuery) -> BoxFuture<'_, Result<Findings, Error>> {
        async move {
            let request = &query.0;
            let asked = self.call(Effect::Read, |channel| async move {
                let mut stub =
                    KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                stub.get_findings(request.clone()).await
            });
            Ok(asked.await?.into_inner())
        }
        .boxed()
    }
}
