//! The status of a cluster as JSON.

use serde::Serialize;

use super::ids::{NodeIdJson, NodeIdsJson};
use super::list::{HasJson, List};
use keyviz_proto as proto;

/// A [`proto::ClusterStatus`] as JSON.
#[derive(Serialize)]
pub struct ClusterJson<'a> {
    cluster_id: &'a str,
    catalog_version: u64,
    members: List<'a, proto::Member>,
    groups: List<'a, proto::Group>,
    moves: List<'a, proto::Move>,
    /// Null: unknown.
    moves_left: Option<u64>,
    moves_waiting: u64,
    replication: u64,
    leaders_due: bool,
    removed: &'a str,
    route_moves: List<'a, proto::RouteMove>,
}

impl<'a> From<&'a proto::ClusterStatus> for ClusterJson<'a> {
    fn from(status: &'a proto::ClusterStatus) -> Self {
        ClusterJson {
            cluster_id: &status.cluster_id,
            catalog_version: status.catalog_version,
            members: List(&status.members),
            groups: List(&status.groups),
            moves: List(&status.moves),
            moves_left: status.moves_left,
            moves_waiting: status.moves_waiting,
            replication: status.replication,
            leaders_due: status.leaders_due,
            removed: &status.removed,
            route_moves: List(&status.route_moves),
        }
    }
}

#[derive(Serialize)]
pub(super) struct MemberJson<'a> {
    id: NodeIdJson,
    address: &'a str,
    http: &'a str,
    ok: bool,
    error: &'a str,
    catalog_version: u64,
    version: &'a str,
    voter: bool,
    uptime_ms: u64,
    latency_ms: u64,
    leaving: bool,
    read_only: &'a str,
    not_ready: &'a str,
    warning: &'a str,
}

impl HasJson for proto::Member {
    type Json<'a> = MemberJson<'a>;

    fn json(&self) -> MemberJson<'_> {
        MemberJson {
            id: NodeIdJson(self.id),
            address: &self.address,
            http: &self.http,
            ok: self.ok,
            error: &self.error,
            catalog_version: self.catalog_version,
            version: &self.version,
            voter: self.voter,
            uptime_ms: self.uptime_ms,
            latency_ms: self.latency_ms,
            leaving: self.leaving,
            read_only: &self.read_only,
            not_ready: &self.not_ready,
            warning: &self.warning,
        }
    }
}

#[derive(Serialize)]
pub(super) struct MoveJson<'a> {
    group_id: u64,
    from: NodeIdsJson<'a>,
    to: NodeIdsJson<'a>,
    copied_index: Option<u64>,
    last_index: Option<u64>,
    received_bytes: u64,
}

impl HasJson for proto::Move {
    type Json<'a> = MoveJson<'a>;

    fn json(&self) -> MoveJson<'_> {
        MoveJson {
            group_id: self.group_id,
            from: NodeIdsJson(&self.from),
            to: NodeIdsJson(&self.to),
            copied_index: self.copied_index,
            last_index: self.last_index,
            received_bytes: self.received_bytes,
        }
    }
}

#[derive(Serialize)]
pub(super) struct GroupJson<'a> {
    group_id: u64,
    leader: Option<NodeIdJson>,
    term: u64,
    routes: u64,
    replicas: List<'a, proto::Replica>,
}

impl HasJson for proto::Group {
    type Json<'a> = GroupJson<'a>;

    fn json(&self) -> GroupJson<'_> {
        GroupJson {
            group_id: self.group_id,
            leader: self.leader.map(NodeIdJson),
            term: self.term,
            routes: self.routes,
            replicas: List(&self.replicas),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ReplicaJson<'a> {
    node_id: NodeIdJson,
    voter: bool,
    role: &'a str,
    last_log_index: u64,
    applied_index: u64,
    lag: Option<u64>,
    snapshot_rows: Option<u64>,
    closed: &'a str,
}

impl HasJson for proto::Replica {
    type Json<'a> = ReplicaJson<'a>;

    fn json(&self) -> ReplicaJson<'_> {
        ReplicaJson {
            node_id: NodeIdJson(self.node_id),
            voter: self.voter,
            role: &self.role,
            last_log_index: self.last_log_index,
            applied_index: self.applied_index,
            lag: self.lag,
            snapshot_rows: self.snapshot_rows,
            closed: &self.closed,
        }
    }
}
