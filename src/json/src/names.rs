//! The names of series, roles and axes in every flag, parameter and answer.

use keyviz_proto as proto;

/// The name of a series in every flag, parameter and answer.
pub fn series_name(series: proto::Series) -> &'static str {
    match series {
        proto::Series::Unspecified | proto::Series::Writes => "writes",
        proto::Series::Reads => "reads",
        proto::Series::ReadBytes => "read-bytes",
        proto::Series::WriteBytes => "write-bytes",
    }
}

/// The series with this name; `None` if there is none.
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

/// The role with this name; `None` if there is none.
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

/// The axis with this name; `None` if there is none.
pub fn axis_from_name(name: &str) -> Option<proto::Axis> {
    Some(match name {
        "now" => proto::Axis::Now,
        "then" => proto::Axis::Then,
        _ => return None,
    })
}

/// The name of what ranges are ranked by.
pub fn rank_name(rank: proto::Rank) -> &'static str {
    match rank {
        proto::Rank::Unspecified | proto::Rank::Cost => "cost",
        proto::Rank::Reads => "reads",
        proto::Rank::Writes => "writes",
        proto::Rank::ReadBytes => "read-bytes",
        proto::Rank::WriteBytes => "write-bytes",
    }
}

/// What ranges are ranked by, with this name; `None` if there is none.
pub fn rank_from_name(name: &str) -> Option<proto::Rank> {
    Some(match name {
        "cost" => proto::Rank::Cost,
        "reads" => proto::Rank::Reads,
        "writes" => proto::Rank::Writes,
        "read-bytes" => proto::Rank::ReadBytes,
        "write-bytes" => proto::Rank::WriteBytes,
        _ => return None,
    })
}

/// What loads are summed by, with this name; `None` if there is none.
pub fn grouping_from_name(name: &str) -> Option<proto::LoadGrouping> {
    Some(match name {
        "route" => proto::LoadGrouping::Route,
        "group" => proto::LoadGrouping::Group,
        "leader" => proto::LoadGrouping::Leader,
        "node" => proto::LoadGrouping::Node,
        "prefix" => proto::LoadGrouping::Prefix,
        _ => return None,
    })
}
