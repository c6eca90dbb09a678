//! The heatmap: matrices and the stream of columns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tonic::{Code, Streaming};

use super::client::{Client, Effect};
use super::error::Error;
use super::failure::Meaning;
use super::nodes::address::Address;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

pub use keyviz_proto::{Axis, Block, ColumnsUpdate, Matrix, Role, Series};

/// The pause before a broken stream is opened again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The settings that a matrix and a stream of columns have in common.
macro_rules! scope {
    () => {
        /// Rows of this key range only.
        pub fn range(mut self, range: impl Into<KeyRange>) -> Self {
            let KeyRange { start, end } = range.into();
            (self.0.start, self.0.end) = (start, end);
            self
        }

        /// At most so many rows; at most 1,024.
        pub fn max_rows(mut self, rows: u32) -> Self {
            self.0.max_rows = rows;
            self
        }

        /// Counts of this role only.
        pub fn role(mut self, role: Role) -> Self {
            self.0.role = role.into();
            self
        }

        /// Rows between these keys, ascending, at most 1,024 of them, whatever is planned today:
        /// to compare windows, or to keep rows while you look. `axis_gain` of the answer says when
        /// rows planned anew would show more.
        pub fn boundaries(mut self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
            self.0.boundaries = keys.into_iter().map(Into::into).collect();
            self
        }

        /// A full grid: blocks are divided evenly over their cells, which are marked as
        /// apportioned.
        pub fn spread(mut self) -> Self {
            self.0.spread = true;
            self
        }
    };
}

/// What a matrix shows. By default writes of the last hour over the whole key space, in at most 256
/// rows and 480 columns.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct MatrixQuery(proto::GetMatrixRequest);

impl MatrixQuery {
    scope!();

    /// A query for a series.
    pub fn new(series: Series) -> Self {
        let series = series.into();
        MatrixQuery(proto::GetMatrixRequest { series, ..proto::GetMatrixRequest::default() })
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

    /// At most so many columns; at most 2,048.
    pub fn max_columns(mut self, columns: u32) -> Self {
        self.0.max_columns = columns;
        self
    }

    /// Rows by the routes of today, or by those of the first instant of the window.
    pub fn axis(mut self, axis: Axis) -> Self {
        self.0.axis = axis.into();
        self
    }

    /// Also returns the share of each node.
    pub fn by_node(mut self) -> Self {
        self.0.by_node = true;
        self
    }
}

/// What a stream of columns shows. By default writes over the whole key space in at most 256 rows,
/// from the last closed column on.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct ColumnsQuery(proto::StreamColumnsRequest);

impl ColumnsQuery {
    scope!();

    /// A query for a series.
    pub fn new(series: Series) -> Self {
        let series = series.into();
        ColumnsQuery(proto::StreamColumnsRequest { series, ..Default::default() })
    }

    /// Begins after this cursor, at most 512 columns back.
    pub fn after(mut self, cursor_ms: u64) -> Self {
        self.0.after_ms = Some(cursor_ms);
        self
    }
}

impl Client {
    /// A matrix of the whole cluster. Needs the admin token where the cluster has one.
    ///
    /// Look at `responded` and `expected` of the answer: a member that did not answer in time is
    /// missing, and its cells are listed as `partial`.
    ///
    /// # Errors
    /// Where no node answers, or one refuses.
    pub fn matrix(&self, query: MatrixQuery) -> BoxFuture<'_, Result<Matrix, Error>> {
        async move {
            let request = &query.0;
            let asked = self.call(Effect::Read, |channel| async move {
                let mut stub =
                    KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                stub.get_matrix(request.clone()).await
            });
            Ok(asked.await?.into_inner())
        }
        .boxed()
    }

    /// The matrix of one node, the first that answers; see [`Client::at`].
    ///
    /// # Errors
    /// As [`Client::matrix`].
    pub fn node_matrix(&self, query: MatrixQuery) -> BoxFuture<'_, Result<Matrix, Error>> {
        async move {
            let request = &query.0;
            let asked = self.call(Effect::Read, |channel| async move {
                let mut stub =
                    KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                stub.get_node_matrix(request.clone()).await
            });
            Ok(asked.await?.into_inner())
        }
        .boxed()
    }

    /// Columns of the whole cluster as they close, and every second the column in progress. Needs
    /// the admin token where the cluster has one.
    pub fn columns(&self, query: ColumnsQuery) -> Columns {
        Columns { client: self.clone(), request: query.0, stream: None }
    }
}

/// A stream of columns, made by [`Client::columns`]. It does not end by itself: when a connection
/// breaks or a node stops, it continues at another node after its cursor.
#[derive(Debug)]
#[must_use = "a stream reads nothing until `next` is called"]
pub struct Columns {
    client: Client,
    request: proto::StreamColumnsRequest,
    stream: Option<(Address, Streaming<ColumnsUpdate>)>,
}

impl Columns {
    /// The next update. A column that is sent again replaces the earlier one.
    ///
    /// # Errors
    /// Where no node serves the stream within the deadline, or one refuses it. It can be called
    /// again, and continues after the cursor.
    pub async fn next(&mut self) -> Result<ColumnsUpdate, Error> {
        loop {
            let (address, stream) = match &mut self.stream {
                Some(open) => open,
                None => {
                    let opened = self.open().await?;
                    self.stream.insert(opened)
                }
            };
            match stream.message().await {
                Ok(Some(update)) => {
                    self.request.after_ms = Some(update.cursor_ms);
                    return Ok(update);
                }
                // The node stops.
                Ok(None) => {}
                Err(status) if Meaning::of(&status).read_again(&status) => {}
                Err(status) if status.code() == Code::Cancelled => {}
                Err(status) => {
                    let (address, status) = (address.clone(), Box::new(status));
                    self.stream = None;
                    return Err(Error::Refused { address, status });
                }
            }
            self.stream = None;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// The cursor: where the stream continues, in Unix milliseconds. `None`: before the first
    /// update.
    pub fn cursor_ms(&self) -> Option<u64> {
        self.request.after_ms
    }

    async fn open(&self) -> Result<(Address, Streaming<ColumnsUpdate>), Error> {
        let request = &self.request;
        let opened = self.client.call_where(Effect::Read, |channel| async move {
            let mut stub = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.stream_columns(request.clone()).await
        });
        let (address, stream) = opened.await?;
        Ok((address.clone(), stream.into_inner()))
    }
}

/// The row of a matrix that holds a key.
pub fn row_of<'a>(matrix: &'a Matrix, key: &[u8]) -> Option<&'a proto::Row> {
    let after = matrix.rows.partition_point(|row| row.start.as_ref() <= key);
    let row = &matrix.rows[after.checked_sub(1)?];
    row.end.as_ref().is_none_or(|end: &Bytes| key < end.as_ref()).then_some(row)
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
