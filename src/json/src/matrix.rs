//! A matrix as JSON.

use serde::Serialize;

use super::{Item, Key, List, axis_name, series_name};
use keyviz_proto as proto;

/// A [`proto::Matrix`] as JSON.
#[derive(Serialize)]
pub struct MatrixJson<'a> {
    series: &'static str,
    catalog_version: u64,
    columns: List<'a, proto::Column>,
    rows: List<'a, proto::Row>,
    total: u64,
    unattributed: u64,
    nodes: List<'a, proto::NodeStatus>,
    responded: u32,
    expected: u32,
    saturated: bool,
    events: List<'a, proto::RouteEvent>,
    events_truncated: bool,
    axis: &'static str,
    conflicts: List<'a, proto::Conflict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_node: Option<List<'a, proto::NodeShare>>,
}

impl<'a> From<&'a proto::Matrix> for MatrixJson<'a> {
    fn from(matrix: &'a proto::Matrix) -> Self {
        MatrixJson {
            series: series_name(matrix.series()),
            catalog_version: matrix.catalog_version,
            columns: List(&matrix.columns),
            rows: List(&matrix.rows),
            total: matrix.total,
            unattributed: matrix.unattributed,
            nodes: List(&matrix.nodes),
            responded: matrix.responded,
            expected: matrix.expected,
            saturated: matrix.saturated,
            events: List(&matrix.events),
            events_truncated: matrix.events_truncated,
            axis: axis_name(matrix.axis()),
            conflicts: List(&matrix.conflicts),
            by_node: (!matrix.by_node.is_empty()).then_some(List(&matrix.by_node)),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ColumnJson {
    start_ms: u64,
    end_ms: u64,
    open: bool,
}

impl From<&proto::Column> for Item<'_> {
    fn from(column: &proto::Column) -> Self {
        Item::Column(ColumnJson {
            start_ms: column.start_ms,
            end_ms: column.end_ms,
            open: column.open,
        })
    }
}

#[derive(Serialize)]
pub(super) struct EventJson<'a> {
    time_ms: u64,
    kind: &'a str,
    catalog_version: u64,
    retired: &'a [u64],
    created: &'a [u64],
    key: Key<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
}

impl<'a> From<&'a proto::RouteEvent> for Item<'a> {
    fn from(event: &'a proto::RouteEvent) -> Self {
        Item::Event(EventJson {
            time_ms: event.time_ms,
            kind: &event.kind,
            catalog_version: event.catalog_version,
            retired: &event.retired,
            created: &event.created,
            key: Key(&event.key),
            group_id: event.group_id,
            leader: event.leader,
            term: event.term,
        })
    }
}

#[derive(Serialize)]
pub(super) struct RowJson<'a> {
    bucket_id: &'a str,
    start: Key<'a>,
    end: Option<Key<'a>>,
    label: &'a str,
    aggregate: bool,
    route_ids: &'a [u64],
    route_count: u64,
    route_ids_truncated: bool,
    roles: RolesJson,
    group_id: Option<u64>,
    values: &'a [u64],
    apportioned: &'a [u32],
    partial: &'a [u32],
    conflict: &'a [u32],
}

#[derive(Serialize)]
struct RolesJson {
    leader_write: u64,
    leader_read: u64,
    follower_read: u64,
}

impl From<proto::RoleTotals> for RolesJson {
    fn from(roles: proto::RoleTotals) -> Self {
        RolesJson {
            leader_write: roles.leader_write,
            leader_read: roles.leader_read,
            follower_read: roles.follower_read,
        }
    }
}

impl<'a> From<&'a proto::Row> for Item<'a> {
    fn from(row: &'a proto::Row) -> Self {
        Item::Row(Box::new(RowJson {
            bucket_id: &row.bucket_id,
            start: Key(&row.start),
            end: row.end.as_deref().map(Key),
            label: &row.label,
            aggregate: row.aggregate,
            route_ids: &row.route_ids,
            route_count: row.route_count,
            route_ids_truncated: row.route_ids_truncated,
            roles: row.roles.unwrap_or_default().into(),
            group_id: row.group_id,
            values: &row.values,
            apportioned: &row.apportioned,
            partial: &row.partial,
            conflict: &row.conflict,
        }))
    }
}

#[derive(Serialize)]
pub(super) struct NodeJson<'a> {
    id: u64,
    address: &'a str,
    ok: bool,
    error: &'a str,
    clock_skew_ms: i64,
    columns: u64,
    incarnation: u64,
    oldest_ms: Option<u64>,
    latency_ms: u64,
    forgotten_before_ms: u64,
    past_history: bool,
    newest_ms: Option<u64>,
    beyond_end: bool,
}

impl<'a> From<&'a proto::NodeStatus> for Item<'a> {
    fn from(node: &'a proto::NodeStatus) -> Self {
        Item::Node(NodeJson {
            id: node.id,
            address: &node.address,
            ok: node.ok,
            error: &node.error,
            clock_skew_ms: node.clock_skew_ms,
            columns: node.columns,
            incarnation: node.incarnation,
            oldest_ms: node.oldest_ms,
            latency_ms: node.latency_ms,
            forgotten_before_ms: node.forgotten_before_ms,
            past_history: node.past_history,
            newest_ms: node.newest_ms,
            beyond_end: node.beyond_end,
        })
    }
}

#[derive(Serialize)]
pub(super) struct ConflictJson<'a> {
    group_id: u64,
    term: u64,
    nodes: &'a [u64],
}

impl<'a> From<&'a proto::Conflict> for Item<'a> {
    fn from(conflict: &'a proto::Conflict) -> Self {
        Item::Conflict(ConflictJson {
            group_id: conflict.group_id,
            term: conflict.term,
            nodes: &conflict.nodes,
        })
    }
}

#[derive(Serialize)]
pub(super) struct ShareJson<'a> {
    id: u64,
    total: u64,
    roles: RolesJson,
    rows: &'a [u64],
    unattributed: u64,
}

impl<'a> From<&'a proto::NodeShare> for Item<'a> {
    fn from(share: &'a proto::NodeShare) -> Self {
        Item::Share(ShareJson {
            id: share.id,
            total: share.total,
            roles: share.roles.unwrap_or_default().into(),
            rows: &share.rows,
            unattributed: share.unattributed,
        })
    }
}
