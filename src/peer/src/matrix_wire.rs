//! Matrices and their parts, between the types of [`keyviz_core`] and the wire.
//!
//! Values of a peer that cannot be represented are refused here; their consistency with the
//! requested axes is checked by the caller.

use std::ops::Range;

use bytes::Bytes;
use tonic::Status;

use keyviz_catalog::RouteEvent;
use keyviz_core::matrix::{Block, Conflict, NodeShare, NodeStatus, RoleTotals};
use keyviz_core::query::{BlockSpan, ColumnPlan, ColumnSet, RowAxis};
use keyviz_core::wire::{
    CONTRIBUTION_VERSION, CellKey, NodeColumns, Numbers, PackedCells, PackedColumns, PackedPart,
    Place, Source,
};
use keyviz_core::{
    GroupId, Incarnation, KeyRange, NodeId, Query, Role, RouteId, Row, Series, Term, Window,
};
use keyviz_fanout::{Axis, MatrixAnswer, RoundError};
use keyviz_proto as proto;

mod sources;

use sources::{count_span_to_wire, count_to_wire};

/// Cells in one chunk of columns: at most 22 bytes each on the wire, 2.75 MiB in total.
const CELLS_A_CHUNK: usize = 131_072;

/// The answer to a client, with what each node contributed if it is to be `by_node`.
pub fn matrix_to_wire(answer: MatrixAnswer, by_node: bool) -> proto::Matrix {
    let MatrixAnswer { matrix, events, axis, spread, by_route, sources } = answer;
    let columns = matrix.columns.iter().map(|column| proto::Column {
        start_ms: column.start_ms,
        end_ms: column.end_ms,
        open: column.open,
    });
    proto::Matrix {
        series: series_to_wire(matrix.series).into(),
        catalog_version: matrix.catalog_version,
        columns: columns.collect(),
        boundaries: match matrix.axis_gain {
            Some(_) => matrix.rows.iter().map(|row| row.range.start.clone()).collect(),
            None => Vec::new(),
        },
        blocks: matrix.blocks.into_iter().map(block_to_wire).collect(),
        straddling_total: matrix.straddling_total,
        axis_id: format!("{:016x}", matrix.axis_id),
        axis_gain: matrix.axis_gain,
        spread,
        rows: matrix.rows.into_iter().map(row_to_wire).collect(),
        total: matrix.total,
        unattributed: matrix.unattributed,
        nodes: matrix.nodes.into_iter().map(status_to_wire).collect(),
        responded: matrix.responded,
        expected: matrix.expected,
        saturated: matrix.saturated,
        events: events.events.into_iter().map(event_to_wire).collect(),
        events_truncated: events.truncated,
        axis: match axis {
            Axis::Now => proto::Axis::Now,
            Axis::Then => proto::Axis::Then,
        }
        .into(),
        conflicts: matrix.conflicts.into_iter().map(conflict_to_wire).collect(),
        by_node: if by_node {
            matrix.by_node.into_iter().map(share_to_wire).collect()
        } else {
            Vec::new()
        },
        by_route,
        sources: sources.counts.iter().map(count_to_wire).collect(),
        source_spans: sources.spans.into_iter().map(count_span_to_wire).collect(),
    }
}

fn conflict_to_wire(conflict: Conflict) -> proto::Conflict {
    proto::Conflict {
        group_id: conflict.group.0,
        term: conflict.term.0,
        nodes: conflict.nodes.into_iter().map(|node| node.0).collect(),
    }
}

fn block_to_wire(block: Block) -> proto::Block {
    proto::Block {
        first_row: block.first_row,
        row_count: block.row_count,
        column: block.column,
        column_count: block.column_count,
        value: block.value,
        start: block.range.start,
        end: block.range.end,
        straddling: block.straddling,
        start_ms: block.reach.map(|reach| reach.from_ms),
        end_ms: block.reach.map(|reach| reach.to_ms),
        conflict: block.conflict,
        roles: Some(roles_to_wire(block.roles)),
    }
}

fn share_to_wire(share: NodeShare) -> proto::NodeShare {
    proto::NodeShare {
        id: share.node.0,
        total: share.total,
        roles: Some(roles_to_wire(share.roles)),
        rows: share.rows,
        unattributed: share.unattributed,
        blocks: share.blocks,
        straddling: share.straddling,
    }
}

fn roles_to_wire(roles: RoleTotals) -> proto::RoleTotals {
    proto::RoleTotals {
        leader_write: roles.leader_write,
        leader_read: roles.leader_read,
        follower_read: roles.follower_read,
    }
}

fn event_to_wire(event: RouteEvent) -> proto::RouteEvent {
    proto::RouteEvent {
        time_ms: event.time_ms,
        kind: event.kind.name().to_owned(),
        catalog_version: event.version,
        retired: event.retired.iter().map(RouteId::get).collect(),
        created: event.created.iter().map(RouteId::get).collect(),
        key: event.key,
        group_id: event.groups.map(|(_, to)| to.0),
        from_group: event.groups.map(|(from, _)| from.0),
        ..proto::RouteEvent::default()
    }
}

fn row_to_wire(row: Row) -> proto::Row {
    proto::Row {
        bucket_id: row.bucket_id,
        start: row.range.start,
        end: row.range.end,
        label: row.label,
        aggregate: row.aggregate,
        route_ids: row.route_ids.iter().map(|id| id.get()).collect(),
        route_count: row.route_count,
        route_ids_truncated: row.route_ids_truncated,
        roles: Some(roles_to_wire(row.roles)),
        group_id: row.group.map(|group| group.0),
        values: row.values,
        apportioned: row.apportioned.iter().collect(),
        partial: row.partial.iter().collect(),
        conflict: row.conflict.iter().collect(),
    }
}

/// The contribution of one member.
pub fn status_to_wire(status: NodeStatus) -> proto::NodeStatus {
    proto::NodeStatus {
        id: status.node.map_or(0, |node| node.0),
        address: status.address,
        ok: status.ok,
        error: status.error.unwrap_or_default(),
        clock_skew_ms: status.clock_skew_ms,
        columns: status.columns,
        incarnation: status.incarnation.map_or(0, |incarnation| incarnation.0),
        oldest_ms: status.oldest_ms,
        latency_ms: status.latency_ms,
        forgotten_before_ms: status.forgotten_before_ms,
        past_history: status.past_history,
        newest_ms: status.newest_ms,
        beyond_end: status.beyond_end,
        answered_by: status.answered_by.iter().map(|node| node.0).collect(),
        complete_to_ms: status.complete_to_ms,
    }
}

/// The question of both rounds.
pub(crate) fn query_to_wire(query: &Query, cluster_id: String) -> proto::PeerQuery {
    let role = match query.role {
        None => proto::Role::Unspecified,
        Some(Role::LeaderWrite) => proto::Role::LeaderWrite,
        Some(Role::LeaderRead) => proto::Role::LeaderRead,
        Some(Role::FollowerRead) => proto::Role::FollowerRead,
    };
    proto::PeerQuery {
        cluster_id,
        series: series_to_wire(query.series).into(),
        role: role.into(),
        from_ms: query.window.from_ms,
        to_ms: query.window.to_ms,
        start: query.range.start.clone(),
        end: query.range.end.clone(),
        in_name_of: 0,
    }
}

/// The query that a peer asks.
pub fn query_from_wire(query: proto::PeerQuery) -> Result<Query, Status> {
    Ok(Query {
        window: Window { from_ms: query.from_ms, to_ms: query.to_ms },
        range: KeyRange { start: query.start, end: query.end },
        series: series_from_wire(query.series)?,
        role: role_from_wire(query.role)?,
    })
}

/// The question of round two.
pub(crate) fn columns_request(
    query: &Query,
    cluster_id: String,
    rows: &RowAxis,
    columns: &ColumnPlan,
) -> proto::ColumnsRequest {
    let spans = columns.columns();
    let bounds = spans.first().map(|first| first.start_ms);
    proto::ColumnsRequest {
        query: Some(query_to_wire(query, cluster_id)),
        row_starts: rows.starts().to_vec(),
        row_end: rows.end().cloned(),
        row_weights: rows.weights().to_vec(),
        step_ms: columns.step_ms(),
        column_bounds: bounds.into_iter().chain(spans.iter().map(|span| span.end_ms)).collect(),
        open: spans.last().is_some_and(|last| last.open),
        spans: true,
    }
}

/// The rows that a peer asks for.
pub fn row_axis_from_wire(request: &proto::ColumnsRequest) -> Result<RowAxis, Status> {
    let starts = request.row_starts.clone();
    RowAxis::new(starts, request.row_end.clone(), request.row_weights.clone())
        .map_err(|error| Status::invalid_argument(format!("rows: {error}")))
}

/// The columns that a peer asks for.
pub fn column_plan_from_wire(request: &proto::ColumnsRequest) -> Result<ColumnPlan, Status> {
    ColumnPlan::new(request.step_ms, &request.column_bounds, request.open)
        .map_err(|error| Status::invalid_argument(format!("columns: {error}")))
}

pub(crate) fn check_version(version: u32) -> Result<(), RoundError> {
    if version == CONTRIBUTION_VERSION {
        return Ok(());
    }
    Err(RoundError::Form { theirs: version, ours: CONTRIBUTION_VERSION })
}

/// Either side may not know its cluster yet, while the first members come up.
pub(crate) fn check_cluster(theirs: &str, ours: &str) -> Result<(), RoundError> {
    if theirs.is_empty() || ours.is_empty() || theirs == ours {
        return Ok(());
    }
    Err(RoundError::OtherCluster { theirs: theirs.to_owned(), ours: ours.to_owned() })
}

/// Round two's answer.
pub fn columns_chunks(columns: NodeColumns, cluster_id: &str) -> Vec<proto::ColumnsChunk> {
    let chunks = columns.chunks(CELLS_A_CHUNK).into_iter();
    chunks.map(|chunk| columns_chunk(chunk.into(), cluster_id)).collect()
}

fn columns_chunk(columns: PackedColumns, cluster_id: &str) -> proto::ColumnsChunk {
    let keys = columns.keys.iter().map(|key| (key.place, source_to_wire(key.source)));
    let mut chunk = proto::ColumnsChunk {
        version: CONTRIBUTION_VERSION,
        node_id: columns.held_by.0,
        counted_by: if columns.node == columns.held_by { 0 } else { columns.node.0 },
        incarnation: columns.incarnation.0,
        covers_from: columns.covers.start,
        covers_to: columns.covers.end,
        held: runs_to_wire(&columns.held),
        incomplete: runs_to_wire(&columns.incomplete),
        forgotten_before_ms: columns.forgotten_before_ms,
        cluster_id: cluster_id.to_owned(),
        spans: columns.spans.iter().map(span_to_wire).collect(),
        ..proto::ColumnsChunk::default()
    };
    for (place, (source, group, term)) in keys {
        let (row, block) = match place {
            Place::Row(row) => (row, 0),
            Place::Block(span) => (span, BLOCK_SOURCES),
        };
        chunk.key_rows.push(row);
        chunk.key_sources.push(source + block);
        chunk.key_groups.push(group);
        chunk.key_terms.push(term);
    }
    let before = std::iter::once(None).chain(columns.parts.iter().map(Some));
    let parts = columns.parts.iter().zip(before);
    chunk.parts = parts.map(|(part, before)| part_to_wire(part, before)).collect();
    chunk
}

/// What the number of a source is more in a block.
const BLOCK_SOURCES: u32 = 4;

fn span_to_wire(span: &BlockSpan) -> proto::BlockSpan {
    proto::BlockSpan {
        first_row: span.first_row,
        rows: span.rows,
        columns: span.columns,
        start: span.range.start.clone(),
        end: span.range.end.clone(),
        from_ms: span.reach.map(|reach| reach.from_ms),
        to_ms: span.reach.map(|reach| reach.to_ms),
    }
}

/// Keys are copied, so that a slice does not keep the whole message alive.
fn span_from_wire(span: proto::BlockSpan) -> Result<BlockSpan, RoundError> {
    let reach = match (span.from_ms, span.to_ms) {
        (Some(from_ms), Some(to_ms)) => Some(Window { from_ms, to_ms }),
        (None, None) => None,
        _ => return Err(RoundError::Malformed("it names half of the time of a block")),
    };
    let copied = |key: Bytes| Bytes::copy_from_slice(&key);
    Ok(BlockSpan {
        first_row: span.first_row,
        rows: span.rows,
        columns: span.columns,
        range: KeyRange { start: copied(span.start), end: span.end.map(copied) },
        reach,
    })
}

fn source_to_wire(source: Source) -> (u32, u64, u64) {
    match source {
        Source::LeaderWrite { group, term: Some(term) } => (0, group.0, term.0),
        Source::LeaderWrite { group, term: None } => (1, group.0, 0),
        Source::LeaderRead => (2, 0, 0),
        Source::FollowerRead => (3, 0, 0),
    }
}

fn source_from_wire(source: u32, group: u64, term: u64) -> Option<Source> {
    Some(match source {
        0 => Source::LeaderWrite { group: GroupId(group), term: Some(Term(term)) },
        1 => Source::LeaderWrite { group: GroupId(group), term: None },
        2 => Source::LeaderRead,
        3 => Source::FollowerRead,
        _ => return None,
    })
}

fn part_to_wire(part: &PackedPart, before: Option<&PackedPart>) -> proto::ColumnPart {
    let PackedCells { count, keys, values } = &part.cells;
    let same = before.is_some_and(|before| part.cells.has_keys_of(&before.cells));
    proto::ColumnPart {
        column: part.column,
        incarnation: part.incarnation.0,
        partial: part.partial,
        unattributed: part.unattributed,
        cells: *count,
        keys: if same { Bytes::new() } else { Bytes::copy_from_slice(keys.as_bytes()) },
        values: Bytes::copy_from_slice(values.as_bytes()),
        apportioned: part.apportioned.clone(),
    }
}

fn part_from_wire(part: proto::ColumnPart, before: Option<&PackedPart>) -> PackedPart {
    // The number of keys is checked with all the rest.
    let keys = match before {
        Some(before) if part.keys.is_empty() && part.cells > 0 => before.cells.keys.clone(),
        _ => Numbers::from_bytes(&part.keys),
    };
    // Copied, so that a slice does not keep the whole message alive.
    let values = Numbers::from_bytes(&part.values);
    PackedPart {
        column: part.column,
        incarnation: Incarnation(part.incarnation),
        partial: part.partial,
        unattributed: part.unattributed,
        cells: PackedCells { count: part.cells, keys, values },
        apportioned: part.apportioned,
    }
}

/// One chunk of round two, for a node of cluster `ours`.
pub(crate) fn columns_from_chunk(
    chunk: proto::ColumnsChunk,
    ours: &str,
) -> Result<PackedColumns, RoundError> {
    check_version(chunk.version)?;
    check_cluster(&chunk.cluster_id, ours)?;
    let keys = chunk.key_rows.len();
    let lists = [chunk.key_sources.len(), chunk.key_groups.len(), chunk.key_terms.len()];
    if lists.iter().any(|length| *length != keys) {
        return Err(RoundError::Malformed("its key lists have different lengths"));
    }
    let keys = (0..keys).map(|index| {
        let (group, term) = (chunk.key_groups[index], chunk.key_terms[index]);
        let (source, row) = (chunk.key_sources[index], chunk.key_rows[index]);
        let (of, place) = match source.checked_sub(BLOCK_SOURCES) {
            Some(of) => (of, Place::Block(row)),
            None => (source, Place::Row(row)),
        };
        let of = source_from_wire(of, group, term).ok_or(RoundError::Source(source))?;
        Ok(CellKey { place, source: of })
    });
    let spans: Result<_, RoundError> = chunk.spans.into_iter().map(span_from_wire).collect();
    let mut parts: Vec<PackedPart> = Vec::with_capacity(chunk.parts.len());
    for part in chunk.parts {
        parts.push(part_from_wire(part, parts.last()));
    }
    Ok(NodeColumns {
        node: NodeId(if chunk.counted_by == 0 { chunk.node_id } else { chunk.counted_by }),
        held_by: NodeId(chunk.node_id),
        incarnation: Incarnation(chunk.incarnation),
        covers: chunk.covers_from..chunk.covers_to,
        held: runs_from_wire(&chunk.held)?,
        incomplete: runs_from_wire(&chunk.incomplete)?,
        forgotten_before_ms: chunk.forgotten_before_ms,
        spans: spans?,
        keys: keys.collect::<Result<_, RoundError>>()?,
        parts,
    })
}

fn runs_to_wire(columns: &ColumnSet) -> Vec<u32> {
    columns.spans().flat_map(|span| [span.start, span.end]).collect()
}

fn runs_from_wire(bounds: &[u32]) -> Result<ColumnSet, RoundError> {
    let mut held = ColumnSet::new();
    for span in bounds.chunks(2) {
        let [start, end] = *span else {
            return Err(RoundError::Malformed("its held columns end in the middle of a run"));
        };
        let run: Range<u32> = start..end;
        if run.is_empty() {
            return Err(RoundError::Malformed("its held columns have an empty run"));
        }
        held.insert(run);
    }
    Ok(held)
}

/// The series of a message; writes by default.
pub fn series_from_wire(series: i32) -> Result<Series, Status> {
    match proto::Series::try_from(series) {
        Ok(proto::Series::Unspecified | proto::Series::Writes) => Ok(Series::Writes),
        Ok(proto::Series::Reads) => Ok(Series::Reads),
        Ok(proto::Series::ReadBytes) => Ok(Series::ReadBytes),
        Ok(proto::Series::WriteBytes) => Ok(Series::WriteBytes),
        Err(_) => Err(Status::invalid_argument(format!(
            "series {series} does not exist; 1 is reads, 2 writes, 3 read bytes, 4 write bytes"
        ))),
    }
}

/// The role that a message names, if any.
pub fn role_from_wire(role: i32) -> Result<Option<Role>, Status> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::Unspecified) => Ok(None),
        Ok(proto::Role::LeaderWrite) => Ok(Some(Role::LeaderWrite)),
        Ok(proto::Role::LeaderRead) => Ok(Some(Role::LeaderRead)),
        Ok(proto::Role::FollowerRead) => Ok(Some(Role::FollowerRead)),
        Err(_) => Err(Status::invalid_argument(format!(
            "role {role} does not exist; 1 is leader write, 2 leader read, 3 follower read"
        ))),
    }
}

/// The series as messages name it.
pub fn series_to_wire(series: Series) -> proto::Series {
    match series {
        Series::Reads => proto::Series::Reads,
        Series::Writes => proto::Series::Writes,
        Series::ReadBytes => proto::Series::ReadBytes,
        Series::WriteBytes => proto::Series::WriteBytes,
    }
}
