//! The JSON of matrices, routes and members: one form for the commands and for the HTTP edge.
//!
//! Field names are those of the protos. A key is text where it is printable UTF-8, otherwise
//! `hex:` and its bytes; a key that itself begins with `hex:` is given in hex too, so that
//! [`parse_key`] undoes [`key_text`] for every key. An absent `end` is null. The values borrow from
//! the message and are serialized without a copy of its cells.

mod cluster;
mod packed;
mod text;

use serde::{Serialize, Serializer};

use crate::proto;
use cluster::{GroupJson, MemberJson, MoveJson, ReplicaJson};

pub use cluster::ClusterJson;
pub use packed::PackedJson;
pub use text::{HEX_PREFIX, KeyTextError, is_printable, key_text, parse_key, value_text};

/// The name of a series in every flag, parameter and answer.
pub fn series_name(series: proto::Series) -> &'static str {
    match series {
        proto::Series::Unspecified | proto::Series::Writes => "writes",
        proto::Series::Reads => "reads",
        proto::Series::ReadBytes => "read-bytes",
        proto::Series::WriteBytes => "write-bytes",
    }
}

/// The series of a name; `None` where there is no such series.
pub fn series_from_name(name: &str) -> Option<proto::Series> {
    Some(match name {
        "reads" => proto::Series::Reads,
        "writes" => proto::Series::Writes,
        "read-bytes" => proto::Series::ReadBytes,
        "write-bytes" => proto::Series::WriteBytes,
        _ => return None,
    })
}

/// The name of a role in every flag, parameter and answer.
pub fn role_name(role: proto::Role) -> &'static str {
    match role {
        proto::Role::Unspecified => "all",
        proto::Role::LeaderWrite => "leader-write",
        proto::Role::LeaderRead => "leader-read",
        proto::Role::FollowerRead => "follower-read",
    }
}

/// The role of a name; `None` where there is no such role.
pub fn role_from_name(name: &str) -> Option<proto::Role> {
    Some(match name {
        "all" => proto::Role::Unspecified,
        "leader-write" => proto::Role::LeaderWrite,
        "leader-read" => proto::Role::LeaderRead,
        "follower-read" => proto::Role::FollowerRead,
        _ => return None,
    })
}

/// The name of an axis in every flag, parameter and answer.
pub fn axis_name(axis: proto::Axis) -> &'static str {
    match axis {
        proto::Axis::Unspecified | proto::Axis::Now => "now",
        proto::Axis::Then => "then",
    }
}

/// The axis of a name; `None` where there is no such axis.
pub fn axis_from_name(name: &str) -> Option<proto::Axis> {
    Some(match name {
        "now" => proto::Axis::Now,
        "then" => proto::Axis::Then,
        _ => return None,
    })
}

/// A key that serializes as [`key_text`].
#[derive(Clone, Copy, Debug)]
pub struct Key<'a>(pub &'a [u8]);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key_text(self.0))
    }
}

/// A list that is converted item by item while it is written.
#[derive(Clone, Copy, Debug)]
struct List<'a, T>(&'a [T]);

impl<'a, T> Serialize for List<'a, T>
where
    &'a T: Into<Item<'a>>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Into::into))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Column(ColumnJson),
    Row(Box<RowJson<'a>>),
    Node(NodeJson<'a>),
    Conflict(ConflictJson<'a>),
    Share(ShareJson<'a>),
    Route(RouteJson<'a>),
    Delta(DeltaJson<'a>),
    Event(EventJson<'a>),
    Retired(RetiredJson<'a>),
    Member(MemberJson<'a>),
    Move(MoveJson<'a>),
    Group(GroupJson<'a>),
    Replica(ReplicaJson<'a>),
}

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
struct ColumnJson {
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
struct EventJson<'a> {
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
struct RowJson<'a> {
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
struct NodeJson<'a> {
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
        })
    }
}

#[derive(Serialize)]
struct ConflictJson<'a> {
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
struct ShareJson<'a> {
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

/// A [`proto::ListRoutesResponse`] as JSON.
#[derive(Serialize)]
pub struct RoutesJson<'a> {
    catalog_version: u64,
    routes: List<'a, proto::Route>,
}

impl<'a> From<&'a proto::ListRoutesResponse> for RoutesJson<'a> {
    fn from(list: &'a proto::ListRoutesResponse) -> Self {
        RoutesJson { catalog_version: list.catalog_version, routes: List(&list.routes) }
    }
}

/// A [`proto::RouteChangeResponse`] as JSON.
#[derive(Serialize)]
pub struct RouteChangeJson<'a> {
    catalog_version: u64,
    created: List<'a, proto::Route>,
    retired: &'a [u64],
}

impl<'a> From<&'a proto::RouteChangeResponse> for RouteChangeJson<'a> {
    fn from(change: &'a proto::RouteChangeResponse) -> Self {
        RouteChangeJson {
            catalog_version: change.catalog_version,
            created: List(&change.created),
            retired: &change.retired,
        }
    }
}

/// A [`proto::WatchRoutesResponse`] as JSON: an object with one field, named as the event.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchJson<'a> {
    /// The whole table, or a part of it.
    Snapshot {
        /// Its version.
        catalog_version: u64,
        /// Routes in key order.
        routes: Routes<'a>,
        /// More of it follows.
        more: bool,
        /// The subscriber fell behind.
        reset: bool,
    },
    /// Contiguous changes.
    Deltas {
        /// Oldest first.
        deltas: Deltas<'a>,
    },
    /// Nothing changed up to this version.
    Progress {
        /// The version.
        catalog_version: u64,
    },
}

/// A list of routes.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Routes<'a>(List<'a, proto::Route>);

/// A list of changes.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Deltas<'a>(List<'a, proto::RouteDelta>);

impl<'a> WatchJson<'a> {
    /// `None` for a message without an event, which a newer server may send.
    pub fn new(message: &'a proto::WatchRoutesResponse) -> Option<Self> {
        use proto::watch_routes_response::Event;
        Some(match message.event.as_ref()? {
            Event::Snapshot(snapshot) => WatchJson::Snapshot {
                catalog_version: snapshot.catalog_version,
                routes: Routes(List(&snapshot.routes)),
                more: snapshot.more,
                reset: snapshot.reset,
            },
            Event::Deltas(deltas) => WatchJson::Deltas { deltas: Deltas(List(&deltas.deltas)) },
            Event::Progress(progress) => {
                WatchJson::Progress { catalog_version: progress.catalog_version }
            }
        })
    }
}

#[derive(Serialize)]
struct DeltaJson<'a> {
    catalog_version: u64,
    kind: &'a str,
    time_ms: u64,
    retired: &'a [u64],
    created: List<'a, proto::Route>,
}

impl<'a> From<&'a proto::RouteDelta> for Item<'a> {
    fn from(delta: &'a proto::RouteDelta) -> Self {
        Item::Delta(DeltaJson {
            catalog_version: delta.catalog_version,
            kind: &delta.kind,
            time_ms: delta.time_ms,
            retired: &delta.retired,
            created: List(&delta.created),
        })
    }
}

/// A [`proto::RouteHistoryResponse`] as JSON.
#[derive(Serialize)]
pub struct RouteHistoryJson<'a> {
    catalog_version: u64,
    changes: List<'a, proto::RouteDelta>,
    retired: List<'a, proto::RetiredRoute>,
    truncated: bool,
}

impl<'a> From<&'a proto::RouteHistoryResponse> for RouteHistoryJson<'a> {
    fn from(history: &'a proto::RouteHistoryResponse) -> Self {
        RouteHistoryJson {
            catalog_version: history.catalog_version,
            changes: List(&history.changes),
            retired: List(&history.retired),
            truncated: history.truncated,
        }
    }
}

#[derive(Serialize)]
struct RetiredJson<'a> {
    #[serde(flatten)]
    route: Option<RouteJson<'a>>,
    retired_version: u64,
    retired_ms: u64,
    children: &'a [u64],
}

impl<'a> From<&'a proto::RetiredRoute> for Item<'a> {
    fn from(retired: &'a proto::RetiredRoute) -> Self {
        Item::Retired(RetiredJson {
            route: retired.route.as_ref().map(RouteJson::from),
            retired_version: retired.retired_version,
            retired_ms: retired.retired_ms,
            children: &retired.children,
        })
    }
}

/// A [`proto::Route`] as JSON.
#[derive(Serialize)]
pub struct RouteJson<'a> {
    route_id: u64,
    start: Key<'a>,
    end: Option<Key<'a>>,
    group_id: u64,
    leader: Option<u64>,
    parents: &'a [u64],
    created_version: u64,
    created_ms: u64,
}

impl<'a> From<&'a proto::Route> for RouteJson<'a> {
    fn from(route: &'a proto::Route) -> Self {
        RouteJson {
            route_id: route.route_id,
            start: Key(&route.start),
            end: route.end.as_deref().map(Key),
            group_id: route.group_id,
            leader: route.leader,
            parents: &route.parents,
            created_version: route.created_version,
            created_ms: route.created_ms,
        }
    }
}

impl<'a> From<&'a proto::Route> for Item<'a> {
    fn from(route: &'a proto::Route) -> Self {
        Item::Route(route.into())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
