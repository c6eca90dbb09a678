//! A query for a matrix, as flags or keys describe it, and its call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::ValueEnum;
use tonic::Code;

use super::rows::LiveRows;
use crate::client::{Client, Effect, MAX_ANSWER_BYTES};
use crate::heatmap::Drawing;
use crate::terminal::text;
use crate::{CallError, CliError};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;

/// Most rows of a matrix.
pub const MAX_ROWS: u64 = 1024;
/// Most columns of a matrix.
pub const MAX_COLUMNS: u64 = 2048;
/// Shortest and longest time between two drawings of a live heatmap.
const LIVE_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Whose counts to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Scope {
    /// Every node of the cluster, merged
    #[default]
    Cluster,
    /// The asked node alone
    Node,
}

/// The query, before the clock and the terminal are taken into account.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    /// Which numbers.
    pub series: proto::Series,
    /// Which roles.
    pub role: proto::Role,
    /// The length of the window until now.
    pub last: Option<Duration>,
    /// Start of the window, instead of `last`.
    pub from_ms: Option<u64>,
    /// End of the window, instead of `last`.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after the range.
    pub end: Option<Bytes>,
    /// Row budget; 0: that of the server; absent: that of the drawing.
    pub rows: Option<u32>,
    /// Column budget; 0: that of the server; absent: that of the drawing.
    pub columns: Option<u32>,
    /// Cluster or node.
    pub scope: Scope,
    /// Routes of today or of the window's beginning.
    pub axis: proto::Axis,
    /// Also what each node contributed.
    pub by_node: bool,
    /// The keys between which the rows lie; none: rows are planned.
    pub boundaries: Vec<Bytes>,
    /// Blocks are divided evenly over their cells.
    pub spread: bool,
}

impl Query {
    /// The request at `now_ms`, for a drawing or with the budgets of the server.
    pub fn request(&self, now_ms: u64, drawing: Option<&Drawing>) -> proto::GetMatrixRequest {
        let budget = drawing.map(Drawing::budget);
        let fits = |cells: usize, most: u64| (cells as u64).min(most) as u32;
        let last_ms = self.last.map(|last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX));
        proto::GetMatrixRequest {
            series: self.series.into(),
            from_ms: last_ms.map(|last_ms| now_ms.saturating_sub(last_ms)).or(self.from_ms),
            to_ms: self.to_ms,
            start: self.start.clone(),
            end: self.end.clone(),
            max_rows: self.rows.or(budget.map(|(_, rows)| fits(rows, MAX_ROWS))).unwrap_or(0),
            max_columns: self
                .columns
                .or(budget.map(|(columns, _)| fits(columns, MAX_COLUMNS)))
                .unwrap_or(0),
            role: self.role.into(),
            axis: self.axis.into(),
            by_node: self.by_node,
            spread: self.spread,
            boundaries: self.boundaries.clone(),
            ..Default::default()
        }
    }

    /// The same query on rows that are kept.
    pub(crate) fn on(&self, rows: &LiveRows) -> Query {
        Query { boundaries: rows.boundaries().to_vec(), ..self.clone() }
    }

    /// Asks.
    ///
    /// # Errors
    /// [`CliError::HeatUnavailable`] if the visualizer is off, otherwise the error of the call.
    pub async fn ask(
        &self,
        client: &Client,
        drawing: Option<&Drawing>,
    ) -> Result<proto::Matrix, CliError> {
        let request = &self.request(now_ms(), drawing);
        let scope = self.scope;
        let answer = client.call(Effect::Read, |channel| async move {
            let mut client = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            match scope {
                Scope::Cluster => client.get_matrix(request.clone()).await,
                Scope::Node => client.get_node_matrix(request.clone()).await,
            }
        });
        match answer.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(CallError::Refused { address, status }) if status.code() == Code::Unavailable => {
                Err(CliError::HeatUnavailable(CallError::Refused { address, status }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Unix milliseconds of this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The only node that was asked.
pub fn counted_by(matrix: &proto::Matrix) -> Option<String> {
    let node = matrix.nodes.first()?;
    Some(format!("counted by node {} ({}) alone", node.id, text::inert(&node.address)))
}

/// Four times a column, within bounds.
pub fn live_every(matrix: &proto::Matrix) -> Duration {
    let column = matrix.columns.last();
    let length = column.map_or(1000, |column| column.end_ms.saturating_sub(column.start_ms));
    Duration::from_millis(length / 4).clamp(LIVE_EVERY.0, LIVE_EVERY.1)
}
