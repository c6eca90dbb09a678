//! Routes, their changes and their history as JSON.

use serde::Serialize;

use super::ids::NodeIdJson;
use super::list::{HasJson, List};
use super::text::Key;
use keyviz_proto as proto;

/// An earlier version of the node does not say which cluster it is of.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_unknown(cluster_id: &&str) -> bool {
    cluster_id.is_empty()
}

/// A [`proto::ListRoutesResponse`] as JSON.
#[derive(Serialize)]
pub struct RoutesJson<'a> {
    #[serde(skip_serializing_if = "is_unknown")]
    cluster_id: &'a str,
    catalog_version: u64,
    routes: List<'a, proto::Route>,
    moves: List<'a, proto::RouteMove>,
    /// Of the next page, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<Key<'a>>,
}

impl<'a> From<&'a proto::ListRoutesResponse> for RoutesJson<'a> {
    fn from(list: &'a proto::ListRoutesResponse) -> Self {
        RoutesJson {
            cluster_id: &list.cluster_id,
            catalog_version: list.catalog_version,
            routes: List(&list.routes),
            moves: List(&list.moves),
            next_page_token: (!list.next_page_token.is_empty())
                .then_some(Key(&list.next_page_token)),
        }
    }
}

/// A [`proto::RouteChangeResponse`] as JSON.
#[derive(Serialize)]
pub struct RouteChangeJson<'a> {
    #[serde(skip_serializing_if = "is_unknown")]
    cluster_id: &'a str,
    catalog_version: u64,
    created: List<'a, proto::Route>,
    retired: &'a [u64],
}

impl<'a> From<&'a proto::RouteChangeResponse> for RouteChangeJson<'a> {
    fn from(change: &'a proto::RouteChangeResponse) -> Self {
        RouteChangeJson {
            cluster_id: &change.cluster_id,
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
        /// In the first object: the cluster that all versions are of.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster_id: Option<&'a str>,
        /// Its version.
        catalog_version: u64,
        /// Routes in key order.
        routes: Routes<'a>,
        /// More messages of the same snapshot follow.
        more: bool,
        /// The subscriber had fallen behind, or its version was of another cluster.
        reset: bool,
    },
    /// Contiguous changes.
    Deltas {
        /// In the first object: the cluster that all versions are of.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster_id: Option<&'a str>,
        /// Oldest first.
        deltas: Deltas<'a>,
    },
    /// The subscriber is current up to this version.
    Progress {
        /// In the first object: the cluster that all versions are of.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster_id: Option<&'a str>,
        /// The version.
        catalog_version: u64,
    },
    /// Leaders of groups.
    Leaders {
        /// In the first object: the cluster that all versions are of.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster_id: Option<&'a str>,
        /// They replace all that were sent before.
        all: bool,
        /// The leaders.
        leaders: GroupLeaders<'a>,
    },
}

/// Leaders of groups.
#[derive(Serialize)]
#[serde(transparent)]
pub struct GroupLeaders<'a>(List<'a, proto::GroupLeader>);

#[derive(Serialize)]
pub(super) struct GroupLeaderJson<'a> {
    group_id: u64,
    leader: Option<NodeIdJson>,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
}

impl HasJson for proto::GroupLeader {
    type Json<'a> = GroupLeaderJson<'a>;

    fn json(&self) -> GroupLeaderJson<'_> {
        GroupLeaderJson {
            group_id: self.group_id,
            leader: self.node_id.map(NodeIdJson),
            address: &self.address,
        }
    }
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
    /// `None` for a message without a known event, as a newer server may send.
    pub fn new(message: &'a proto::WatchRoutesResponse) -> Option<Self> {
        use proto::watch_routes_response::Event;
        let cluster_id = Some(message.cluster_id.as_str()).filter(|id| !id.is_empty());
        Some(match message.event.as_ref()? {
            Event::Snapshot(snapshot) => WatchJson::Snapshot {
                cluster_id,
                catalog_version: snapshot.catalog_version,
                routes: Routes(List(&snapshot.routes)),
                more: snapshot.more,
                reset: snapshot.reset,
            },
            Event::Deltas(deltas) => {
                WatchJson::Deltas { cluster_id, deltas: Deltas(List(&deltas.deltas)) }
            }
            Event::Progress(progress) => {
                WatchJson::Progress { cluster_id, catalog_version: progress.catalog_version }
            }
            Event::Leaders(leaders) => WatchJson::Leaders {
                cluster_id,
                all: leaders.all,
                leaders: GroupLeaders(List(&leaders.leaders)),
            },
        })
    }
}

#[derive(Serialize)]
pub(super) struct DeltaJson<'a> {
    catalog_version: u64,
    kind: &'a str,
    time_ms: u64,
    retired: &'a [u64],
    created: List<'a, proto::Route>,
}

impl HasJson for proto::RouteDelta {
    type Json<'a> = DeltaJson<'a>;

    fn json(&self) -> DeltaJson<'_> {
        DeltaJson {
            catalog_version: self.catalog_version,
            kind: &self.kind,
            time_ms: self.time_ms,
            retired: &self.retired,
            created: List(&self.created),
        }
    }
}

/// A [`proto::RouteHistoryResponse`] as JSON.
#[derive(Serialize)]
pub struct RouteHistoryJson<'a> {
    catalog_version: u64,
    changes: List<'a, proto::RouteDelta>,
    retired: List<'a, proto::RetiredRoute>,
    truncated: bool,
    next_before_version: u64,
    moves: List<'a, proto::RouteMove>,
}

impl<'a> From<&'a proto::RouteHistoryResponse> for RouteHistoryJson<'a> {
    fn from(history: &'a proto::RouteHistoryResponse) -> Self {
        RouteHistoryJson {
            catalog_version: history.catalog_version,
            changes: List(&history.changes),
            retired: List(&history.retired),
            truncated: history.truncated,
            next_before_version: history.next_before_version,
            moves: List(&history.moves),
        }
    }
}

#[derive(Serialize)]
pub(super) struct RetiredJson<'a> {
    #[serde(flatten)]
    route: Option<RouteJson<'a>>,
    retired_version: u64,
    retired_ms: u64,
    children: &'a [u64],
}

impl HasJson for proto::RetiredRoute {
    type Json<'a> = RetiredJson<'a>;

    fn json(&self) -> RetiredJson<'_> {
        RetiredJson {
            route: self.route.as_ref().map(RouteJson::from),
            retired_version: self.retired_version,
            retired_ms: self.retired_ms,
            children: &self.children,
        }
    }
}

/// A [`proto::RouteMove`] as JSON.
#[derive(Serialize)]
pub struct MoveJson<'a> {
    move_id: u64,
    route_id: u64,
    from_group: u64,
    to_group: u64,
    phase: &'a str,
    started_ms: u64,
    /// `null`: it has not ended.
    ended_ms: Option<u64>,
    /// `null`: the route has not moved.
    moved_version: Option<u64>,
    moved_ms: Option<u64>,
    /// Why it is or was abandoned; `null`: it is not.
    reason: Option<&'a str>,
    /// Of a move under way in a cluster's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_bytes: Option<u64>,
}

impl<'a> From<&'a proto::RouteMove> for MoveJson<'a> {
    fn from(moving: &'a proto::RouteMove) -> Self {
        let known = |number: u64| (number > 0).then_some(number);
        MoveJson {
            move_id: moving.move_id,
            route_id: moving.route_id,
            from_group: moving.from_group,
            to_group: moving.to_group,
            phase: &moving.phase,
            started_ms: moving.started_ms,
            ended_ms: known(moving.ended_ms),
            moved_version: known(moving.moved_version),
            moved_ms: known(moving.moved_ms),
            reason: Some(moving.reason.as_str()).filter(|reason| !reason.is_empty()),
            copied_rows: moving.copied_rows,
            copied_bytes: moving.copied_bytes,
        }
    }
}

impl HasJson for proto::RouteMove {
    type Json<'a> = MoveJson<'a>;

    fn json(&self) -> MoveJson<'_> {
        MoveJson::from(self)
    }
}

/// A [`proto::Route`] as JSON.
#[derive(Serialize)]
pub struct RouteJson<'a> {
    route_id: u64,
    start: Key<'a>,
    end: Option<Key<'a>>,
    group_id: u64,
    leader: Option<NodeIdJson>,
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
            leader: route.leader.map(NodeIdJson),
            parents: &route.parents,
            created_version: route.created_version,
            created_ms: route.created_ms,
        }
    }
}

impl HasJson for proto::Route {
    type Json<'a> = RouteJson<'a>;

    fn json(&self) -> RouteJson<'_> {
        RouteJson::from(self)
    }
}
