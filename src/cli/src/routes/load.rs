//! The load of routes, from the matrix of the cluster.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::client::{Client, Effect, MAX_ANSWER_BYTES};
use super::super::heat::{self, MAX_COLUMNS, MAX_ROWS};
use super::super::{CallError, CliError};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;

/// Window in which a complete column is searched: ten times the longest usual step.
const RECENT_MS: u64 = 600_000;

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
    // Blocks of rows that are all of one route are counted for it, too.
    let here = |block: &&proto::Block| block.column as usize == column && block.column_count == 1;
    for block in matrix.blocks.iter().filter(here).filter(|block| !block.straddling) {
        let run = block.first_row as usize..(block.first_row + block.row_count) as usize;
        let rows = matrix.rows.get(run).unwrap_or_default();
        let Some(route) = rows.first().and_then(|row| row.route_ids.first()) else { continue };
        if rows.iter().all(|row| row.route_count == 1 && row.route_ids.first() == Some(route)) {
            let load: &mut u64 = loads.entry(*route).or_default();
            *load = load.saturating_add(block.value);
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

/// Reads and writes of a route's keys.
#[derive(Debug, Default)]
pub(super) struct InRoute {
    /// Counts of single ranges, with newer columns weighing more.
    pub(super) weighed: Vec<(KeyRange, u64)>,
    /// The same as counted.
    pub(super) counted: Vec<(KeyRange, u64)>,
    /// Counts of several ranges together, or of more than the route.
    pub(super) in_blocks: u64,
}

/// A column that ended so long before the newest one weighs half as much.
const HALF_LIFE_MS: u64 = 30_000;
/// Weight of the newest column; a power of two.
const WEIGHT: u64 = 1 << 20;

/// Reads and writes of the last `window` by range, within the keys of a route.
pub(super) async fn in_route(
    client: &Client,
    start: Bytes,
    end: Option<Bytes>,
    window: Duration,
) -> Result<InRoute, CliError> {
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let from_ms = heat::now_ms().saturating_sub(window_ms);
    let mut loads = InRoute::default();
    for series in [proto::Series::Reads, proto::Series::Writes] {
        let request = proto::GetMatrixRequest {
            series: series.into(),
            from_ms: Some(from_ms),
            start: start.clone(),
            end: end.clone(),
            max_rows: MAX_ROWS as u32,
            max_columns: MAX_COLUMNS as u32,
            ..proto::GetMatrixRequest::default()
        };
        loads.add(matrix(client, request).await?);
    }
    Ok(loads)
}

impl InRoute {
    fn add(&mut self, matrix: proto::Matrix) {
        let newest_ms = matrix.columns.last().map_or(0, |column| column.end_ms);
        let weight = |column: &proto::Column| {
            let halvings = newest_ms.saturating_sub(column.end_ms) / HALF_LIFE_MS;
            WEIGHT >> halvings.min(63)
        };
        let weights: Vec<u64> = matrix.columns.iter().map(weight).collect();
        for row in matrix.rows {
            let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
            let weighed = row.values.iter().zip(&weights).map(|(v, w)| v.saturating_mul(*w));
            let weighed = sum(&mut weighed.into_iter());
            let counted = sum(&mut row.values.iter().copied());
            let range = KeyRange { start: row.start, end: row.end };
            self.weighed.push((range.clone(), weighed));
            self.counted.push((range, counted));
        }
        let blocks = matrix.blocks.iter().map(|block| block.value);
        self.in_blocks = blocks.fold(self.in_blocks, u64::saturating_add);
    }

    /// What to halve: newer columns first, all alike where those of some minutes are empty.
    pub(super) fn to_halve(&self) -> &[(KeyRange, u64)] {
        let recent = self.weighed.iter().any(|(_, load)| *load > 0);
        if recent { &self.weighed } else { &self.counted }
    }

    /// The counts before a key, and from it on.
    pub(super) fn halves(&self, key: &Bytes) -> (u64, u64) {
        self.counted.iter().fold((0, 0), |(left, right): (u64, u64), (range, load)| {
            match range.start < *key {
                true => (left.saturating_add(*load), right),
                false => (left, right.saturating_add(*load)),
            }
        })
    }
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
