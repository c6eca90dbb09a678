//! A matrix as JSON.

use serde::Serialize;

use super::ids::{NodeIdJson, NodeIdsJson};
use super::list::{HasJson, List};
use super::names::{axis_name, series_name};
use super::text::Key;
use keyviz_proto as proto;

/// A [`proto::Matrix`] as JSON.
#[derive(Serialize)]
pub struct MatrixJson<'a> {
    series: &'static str,
    catalog_version: u64,
    columns: List<'a, proto::Column>,
    rows: List<'a, proto::Row>,
    blocks: List<'a, proto::Block>,
    total: u64,
    straddling_total: u64,
    #[serde(skip_serializing_if = "is_false")]
    spread: bool,
    axis_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    axis_gain: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boundaries: Option<Keys<'a>>,
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
            blocks: List(&matrix.blocks),
            total: matrix.total,
            straddling_total: matrix.straddling_total,
            spread: matrix.spread,
            axis_id: &matrix.axis_id,
            axis_gain: matrix.axis_gain,
            boundaries: matrix.axis_gain.map(|_| Keys(&matrix.boundaries)),
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

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Keys as a list.
struct Keys<'a>(&'a [bytes::Bytes]);

impl Serialize for Keys<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|key| Key(key)))
    }
}

#[derive(Serialize)]
pub(super) struct BlockJson<'a> {
    first_row: u32,
    row_count: u32,
    column: u32,
    column_count: u32,
    value: u64,
    start: Key<'a>,
    end: Option<Key<'a>>,
    straddling: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    conflict: bool,
    roles: RolesJson,
}

impl HasJson for proto::Block {
    type Json<'a> = BlockJson<'a>;

    fn json(&self) -> BlockJson<'_> {
        BlockJson {
            first_row: self.first_row,
            row_count: self.row_count,
            column: self.column,
            column_count: self.column_count,
            value: self.value,
            start: Key(&self.start),
            end: self.end.as_deref().map(Key),
            straddling: self.straddling,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            conflict: self.conflict,
            roles: self.roles.unwrap_or_default().into(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ColumnJson {
    start_ms: u64,
    end_ms: u64,
    open: bool,
}

impl HasJson for proto::Column {
    type Json<'a> = ColumnJson;

    fn json(&self) -> ColumnJson {
        ColumnJson { start_ms: self.start_ms, end_ms: self.end_ms, open: self.open }
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
    leader: Option<NodeIdJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_group: Option<u64>,
}

impl HasJson for proto::RouteEvent {
    type Json<'a> = EventJson<'a>;

    fn json(&self) -> EventJson<'_> {
        EventJson {
            time_ms: self.time_ms,
            kind: &self.kind,
            catalog_version: self.catalog_version,
            retired: &self.retired,
            created: &self.created,
            key: Key(&self.key),
            group_id: self.group_id,
            leader: self.leader.map(NodeIdJson),
            term: self.term,
            from_group: self.from_group,
        }
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

impl HasJson for proto::Row {
    type Json<'a> = RowJson<'a>;

    fn json(&self) -> RowJson<'_> {
        RowJson {
            bucket_id: &self.bucket_id,
            start: Key(&self.start),
            end: self.end.as_deref().map(Key),
            label: &self.label,
            aggregate: self.aggregate,
            route_ids: &self.route_ids,
            route_count: self.route_count,
            route_ids_truncated: self.route_ids_truncated,
            roles: self.roles.unwrap_or_default().into(),
            group_id: self.group_id,
            values: &self.values,
            apportioned: &self.apportioned,
            partial: &self.partial,
            conflict: &self.conflict,
        }
    }
}

#[derive(Serialize)]
pub(super) struct NodeJson<'a> {
    id: NodeIdJson,
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
    answered_by: NodeIdsJson<'a>,
    complete_to_ms: Option<u64>,
}

impl HasJson for proto::NodeStatus {
    type Json<'a> = NodeJson<'a>;

    fn json(&self) -> NodeJson<'_> {
        NodeJson {
            id: NodeIdJson(self.id),
            address: &self.address,
            ok: self.ok,
            error: &self.error,
            clock_skew_ms: self.clock_skew_ms,
            columns: self.columns,
            incarnation: self.incarnation,
            oldest_ms: self.oldest_ms,
            latency_ms: self.latency_ms,
            forgotten_before_ms: self.forgotten_before_ms,
            past_history: self.past_history,
            newest_ms: self.newest_ms,
            beyond_end: self.beyond_end,
            answered_by: NodeIdsJson(&self.answered_by),
            complete_to_ms: self.complete_to_ms,
        }
    }
}

#[derive(Serialize)]
pub(super) struct ConflictJson<'a> {
    group_id: u64,
    term: u64,
    nodes: NodeIdsJson<'a>,
}

impl HasJson for proto::Conflict {
    type Json<'a> = ConflictJson<'a>;

    fn json(&self) -> ConflictJson<'_> {
        ConflictJson { group_id: self.group_id, term: self.term, nodes: NodeIdsJson(&self.nodes) }
    }
}

#[derive(Serialize)]
pub(super) struct ShareJson<'a> {
    id: NodeIdJson,
    total: u64,
    roles: RolesJson,
    rows: &'a [u64],
    blocks: u64,
    straddling: u64,
    unattributed: u64,
}

impl HasJson for proto::NodeShare {
    type Json<'a> = ShareJson<'a>;

    fn json(&self) -> ShareJson<'_> {
        ShareJson {
            id: NodeIdJson(self.id),
            total: self.total,
            roles: self.roles.unwrap_or_default().into(),
            rows: &self.rows,
            blocks: self.blocks,
            straddling: self.straddling,
            unattributed: self.unattributed,
        }
    }
}
