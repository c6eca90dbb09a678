//! The status of a cluster as JSON.

use serde::Serialize;

use super::{Item, List};
use keyviz_proto as proto;

/// A [`proto::ClusterStatus`] as JSON.
#[derive(Serialize)]
pub struct ClusterJson<'a> {
    cluster_id: &'a str,
    catalog_version: u64,
    members: List<'a, proto::Member>,
    groups: List<'a, proto::Group>,
    moves: List<'a, proto::Move>,
    /// Null: not known.
    moves_left: Option<u64>,
    moves_waiting: u64,
    replication: u64,
    leaders_due: bool,
    removed: &'a str,
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
        }
    }
}

#[derive(Serialize)]
pub(super) struct MemberJson<'a> {
    id: u64,
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

impl<'a> From<&'a proto::Member> for Item<'a> {
    fn from(member: &'a proto::Member) -> Self {
        Item::Member(MemberJson {
            id: member.id,
            address: &member.address,
            http: &member.http,
            ok: member.ok,
            error: &member.error,
            catalog_version: member.catalog_version,
            version: &member.version,
            voter: member.voter,
            uptime_ms: member.uptime_ms,
            latency_ms: member.latency_ms,
            leaving: member.leaving,
            read_only: &member.read_only,
            not_ready: &member.not_ready,
            warning: &member.warning,
        })
    }
}

#[derive(Serialize)]
pub(super) struct MoveJson<'a> {
    group_id: u64,
    from: &'a [u64],
    to: &'a [u64],
    copied_index: Option<u64>,
    last_index: Option<u64>,
    received_bytes: u64,
}

impl<'a> From<&'a proto::Move> for Item<'a> {
    fn from(now: &'a proto::Move) -> Self {
        Item::Move(MoveJson {
            group_id: now.group_id,
            from: &now.from,
            to: &now.to,
            copied_index: now.copied_index,
            last_index: now.last_index,
            received_bytes: now.received_bytes,
        })
    }
}

#[derive(Serialize)]
pub(super) struct GroupJson<'a> {
    group_id: u64,
    leader: Option<u64>,
    term: u64,
    routes: u64,
    replicas: List<'a, proto::Replica>,
}

impl<'a> From<&'a proto::Group> for Item<'a> {
    fn from(group: &'a proto::Group) -> Self {
        Item::Group(GroupJson {
            group_id: group.group_id,
            leader: group.leader,
            term: group.term,
            routes: group.routes,
            replicas: List(&group.replicas),
        })
    }
}

#[derive(Serialize)]
pub(super) struct ReplicaJson<'a> {
    node_id: u64,
    voter: bool,
    role: &'a str,
    last_log_index: u64,
    applied_index: u64,
    lag: Option<u64>,
    snapshot_rows: Option<u64>,
    closed: &'a str,
}

impl<'a> From<&'a proto::Replica> for Item<'a> {
    fn from(replica: &'a proto::Replica) -> Self {
        Item::Replica(ReplicaJson {
            node_id: replica.node_id,
            voter: replica.voter,
            role: &replica.role,
            last_log_index: replica.last_log_index,
            applied_index: replica.applied_index,
            lag: replica.lag,
            snapshot_rows: replica.snapshot_rows,
            closed: &replica.closed,
        })
    }
}
