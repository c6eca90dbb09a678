//! The parameters of a cluster, fixed at its bootstrap.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::limits::{MAX_GROUPS, MAX_REPLICAS};
use keyviz_types::{GroupId, NodeId};

/// Identifies a cluster, so that nodes of two clusters cannot mix. 16 random bytes, chosen by the
/// proposer of the bootstrap; written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// Text that is not a cluster id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits")]
pub struct BadClusterId;

impl FromStr for ClusterId {
    type Err = BadClusterId;

    fn from_str(text: &str) -> Result<Self, BadClusterId> {
        // `from_str_radix` alone would accept a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadClusterId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| BadClusterId)?;
        Ok(ClusterId(number.to_be_bytes()))
    }
}

/// The first placement of a data group.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct GroupPlacement {
    /// The group; at least 1.
    pub group: GroupId,
    /// Its first replicas. The first of them initiates the group.
    pub replicas: Vec<NodeId>,
}

/// The parameters of the bootstrap. Later members of a group are known only to its Raft membership.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClusterRecord {
    /// Name of the cluster.
    pub cluster_id: ClusterId,
    /// Unix time in milliseconds of the bootstrap.
    pub created_ms: u64,
    /// Data groups, numbered from 1 without a gap.
    pub groups: Vec<GroupPlacement>,
}

/// Why groups do not make a cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum PlacementError {
    /// No group at all.
    #[error("a cluster needs at least one data group")]
    NoGroups,
    /// More groups than allowed.
    #[error("{count} groups exceed the limit of {MAX_GROUPS}")]
    TooManyGroups {
        /// Groups asked for.
        count: u64,
    },
    /// Groups are numbered 1, 2, 3, ...
    #[error("expected group {expected}, found group {found}: groups are numbered from 1 up")]
    Numbering {
        /// The next group.
        expected: GroupId,
        /// The group in its place.
        found: GroupId,
    },
    /// A group without a replica, or with too many.
    #[error("group {group} has {count} replicas; it needs 1 to {MAX_REPLICAS}")]
    ReplicaCount {
        /// The group.
        group: GroupId,
        /// Its replicas.
        count: u64,
    },
    /// A node is named twice.
    #[error("group {group} names node {node} twice")]
    RepeatedNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
}

/// Checks that groups are numbered from 1 up and each has its own, distinct replicas.
pub(crate) fn check_placement(groups: &[GroupPlacement]) -> Result<(), PlacementError> {
    if groups.is_empty() {
        return Err(PlacementError::NoGroups);
    }
    if groups.len() > MAX_GROUPS {
        return Err(PlacementError::TooManyGroups { count: groups.len() as u64 });
    }
    for (expected, placement) in (1..).map(GroupId).zip(groups) {
        if placement.group != expected {
            return Err(PlacementError::Numbering { expected, found: placement.group });
        }
        check_replicas(placement)?;
    }
    Ok(())
}

fn check_replicas(placement: &GroupPlacement) -> Result<(), PlacementError> {
    let GroupPlacement { group, replicas } = placement;
    if !(1..=MAX_REPLICAS).contains(&replicas.len()) {
        let count = replicas.len() as u64;
        return Err(PlacementError::ReplicaCount { group: *group, count });
    }
    let mut seen = BTreeSet::new();
    match replicas.iter().find(|node| !seen.insert(**node)) {
        Some(node) => Err(PlacementError::RepeatedNode { group: *group, node: *node }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_32_digits_and_nothing_else() {
        let id = ClusterId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"g".repeat(32), &format!("+{}", "a".repeat(31)), &"a".repeat(33)] {
            assert_eq!(bad.parse::<ClusterId>(), Err(BadClusterId), "{bad}");
        }
    }

    #[test]
    fn bad_placements_are_refused_with_the_reason() {
        let group = |group, nodes: &[u64]| GroupPlacement {
            group: GroupId(group),
            replicas: nodes.iter().copied().map(NodeId).collect(),
        };
        let (one, two) = (GroupId(1), GroupId(2));
        assert_eq!(check_placement(&[group(1, &[1]), group(2, &[2, 3])]), Ok(()));
        assert_eq!(check_placement(&[]), Err(PlacementError::NoGroups));
        assert_eq!(
            check_placement(&[group(2, &[1])]),
            Err(PlacementError::Numbering { expected: one, found: two })
        );
        assert_eq!(
            check_placement(&[group(1, &[])]),
            Err(PlacementError::ReplicaCount { group: one, count: 0 })
        );
        assert_eq!(
            check_placement(&[group(1, &[7, 7])]),
            Err(PlacementError::RepeatedNode { group: one, node: NodeId(7) })
        );
    }
}
