//! The load of routes, from the matrix of the cluster.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::client::{Client, Effect, MAX_ANSWER_BYTES};
use super::super::heat::{self, MAX_ROWS};
use super::super::{CallError, CliError};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

/// Window in which a complete column is searched: ten times the longest usual step.
const RECENT_MS: u64 = 600_000;
/// The load that decides a split.
const OBSERVED_MS: u64 = 3_600_000;

/// The load of routes in the last complete column, or in the open one if there is no other.
#[derive(Debug)]
pub(super) struct RouteLoads {
    /// Start of the column.
    pub(super) from_ms: u64,
    /// End of the column.
    pub(super) to_ms: u64,
    reads: HashMap<u64, u64>,
    writes: HashMap<u64, u64>,
}

impl RouteLoads {
    /// From the two matrices; `None` if they have no column in common.
    pub(super) fn of(reads: &proto::Matrix, writes: &proto::Matrix) -> Option<Self> {
        let closed = reads.columns.iter().rfind(|column| !column.open);
        let column = closed.or(reads.columns.last())?;
        let at = |matrix: &proto::Matrix| {
            matrix.columns.iter().position(|other| other.start_ms == column.start_ms)
        };
        Some(RouteLoads {
            from_ms: column.start_ms,
            to_ms: column.end_ms,
            reads: by_route(reads, at(reads)?),
            writes: by_route(writes, at(writes)?),
        })
    }

    /// Reads of a route; `None` if it shares its row with others.
    pub(super) fn reads(&self, route: u64) -> Option<u64> {
        self.reads.get(&route).copied()
    }

    /// Writes of a route; `None` if it shares its row with others.
    pub(super) fn writes(&self, route: u64) -> Option<u64> {
        self.writes.get(&route).copied()
    }
}

fn by_route(matrix: &proto::Matrix, column: usize) -> HashMap<u64, u64> {
    let mut loads = HashMap::new();
    for row in matrix.rows.iter().filter(|row| row.route_count == 1) {
        if let (Some(route), Some(value)) = (row.route_ids.first(), row.values.get(column)) {
            let load: &mut u64 = loads.entry(*route).or_default();
            *load = load.saturating_add(*value);
        }
    }
    loads
}

/// The load of all routes; `None` if unknown, in which case they are listed without it.
pub(super) async fn of_routes(client: &Client) -> Option<RouteLoads> {
    let from_ms = heat::now_ms().saturating_sub(RECENT_MS);
    let request = |series: proto::Series| proto::GetMatrixRequest {
        series: series.into(),
        from_ms: Some(from_ms),
        max_rows: MAX_ROWS as u32,
        ..proto::GetMatrixRequest::default()
    };
    let reads = matrix(client, request(proto::Series::Reads)).await.ok()?;
    let writes = matrix(client, request(proto::Series::Writes)).await.ok()?;
    RouteLoads::of(&reads, &writes)
}

/// Reads and writes of the last hour by range, within the keys of a route.
pub(super) async fn in_route(
    client: &Client,
    start: Bytes,
    end: Option<Bytes>,
) -> Result<Vec<(KeyRange, u64)>, CliError> {
    let from_ms = heat::now_ms().saturating_sub(OBSERVED_MS);
    let mut loads = Vec::new();
    for series in [proto::Series::Reads, proto::Series::Writes] {
        let request = proto::GetMatrixRequest {
            series: series.into(),
            from_ms: Some(from_ms),
            start: start.clone(),
            end: end.clone(),
            max_rows: MAX_ROWS as u32,
            ..proto::GetMatrixRequest::default()
        };
        let matrix = matrix(client, request).await?;
        loads.extend(matrix.rows.into_iter().map(|row| {
            let sum = row.values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
            (KeyRange { start: row.start, end: row.end }, sum)
        }));
    }
    Ok(loads)
}

async fn matrix(
    client: &Client,
    request: proto::GetMatrixRequest,
) -> Result<proto::Matrix, CallError> {
    let request = &request;
    let answer = client.call(Effect::Read, |channel| async move {
        KeyVizClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .get_matrix(request.clone())
            .await
    });
    answer.await.map(tonic::Response::into_inner)
}
