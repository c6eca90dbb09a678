//! The first groups and routes of a cluster, planned before anything is proposed.
//!
//! Routes are given to the groups in turn, in key order. Without given boundaries there is one
//! route per group: otherwise a cluster of four groups would run on one, because later splits stay
//! in their route's group. The boundaries are then spread evenly over printable text, which is a
//! guess, and the plan is marked as such. Given boundaries are used unchanged.

use std::collections::BTreeSet;

use super::cluster::{ClusterId, GroupPlacement, PlacementError, check_placement};
use crate::limits::{MAX_BOUNDARY_BYTES, MAX_GROUPS, MAX_ROUTES};
use crate::machine::command::CatalogCommand;
use crate::machine::error::{KeyError, check_boundary};
use keyviz_types::{GroupId, NodeId};

/// First and last printable ASCII byte, between which guessed boundaries lie.
const PRINTABLE: std::ops::RangeInclusive<u8> = 0x20..=0x7e;

/// What to bootstrap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapPlan {
    /// Groups with their first replicas.
    pub groups: Vec<GroupPlacement>,
    /// Boundaries between the first routes, ascending, none twice.
    pub split_keys: Vec<Vec<u8>>,
    /// Replicas that each group got: as many as asked for, or as there are members.
    pub replication: usize,
    /// The boundaries are a guess, because none was asked for.
    pub guessed: bool,
    /// Groups that no route is in, because fewer boundaries were asked for than it takes.
    pub idle_groups: Vec<GroupId>,
}

impl BootstrapPlan {
    /// The command that carries the plan out.
    pub fn command(&self, cluster_id: ClusterId, time_ms: u64) -> CatalogCommand {
        let BootstrapPlan { groups, split_keys, .. } = self.clone();
        CatalogCommand::Bootstrap { cluster_id, groups, split_keys, time_ms }
    }
}

/// A cluster that cannot be planned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// No member to hold the groups.
    #[error("a cluster needs at least one member")]
    NoMembers,
    /// A group needs a replica.
    #[error("the replication factor is 0")]
    NoReplication,
    /// The groups do not make a cluster.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A key can be no boundary.
    #[error("split key {index} (from 0): {source}")]
    Key {
        /// Its position as given.
        index: usize,
        /// Why not.
        source: KeyError,
    },
    /// More boundaries than routes allow.
    #[error("{count} split keys would make more than {MAX_ROUTES} routes")]
    TooManyRoutes {
        /// Distinct keys.
        count: usize,
    },
    /// The boundaries have more bytes than allowed.
    #[error("the split keys have {bytes} bytes together; the limit is {MAX_BOUNDARY_BYTES}")]
    TooManyBoundaryBytes {
        /// Bytes of all distinct keys.
        bytes: usize,
    },
}

/// The group of the `index`-th first route (from 0) in key order.
pub(crate) fn group_of_route(index: usize, groups: usize) -> GroupId {
    GroupId(1 + (index % groups.max(1)) as u64)
}

/// Plans a cluster of `groups` data groups with `replication` replicas each (fewer where there are
/// fewer members), its first routes bounded by `split_at` in any order.
///
/// Replicas go round the members: group `g` starts on member `g - 1`, so first leaders and replicas
/// are spread evenly.
///
/// # Errors
/// A number is 0 or too large, a member is named twice, or a key cannot be a boundary.
pub fn plan_bootstrap(
    members: &[NodeId],
    groups: usize,
    replication: usize,
    split_at: &[Vec<u8>],
) -> Result<BootstrapPlan, PlanError> {
    if members.is_empty() {
        return Err(PlanError::NoMembers);
    }
    if replication == 0 {
        return Err(PlanError::NoReplication);
    }
    if groups > MAX_GROUPS {
        return Err(PlacementError::TooManyGroups { count: groups as u64 }.into());
    }
    let replication = replication.min(members.len());
    let placements = place(members, groups, replication);
    check_placement(&placements)?;
    let guessed = split_at.is_empty() && groups > 1;
    let split_keys = if guessed { printable_boundaries(groups) } else { sorted(split_at)? };
    let idle_groups = (split_keys.len() + 2..=groups).map(|group| GroupId(group as u64)).collect();
    Ok(BootstrapPlan { groups: placements, split_keys, replication, guessed, idle_groups })
}

pub(crate) fn place(members: &[NodeId], groups: usize, replication: usize) -> Vec<GroupPlacement> {
    (0..groups)
        .map(|first| GroupPlacement {
            group: GroupId(first as u64 + 1),
            replicas: members
                .iter()
                .cycle()
                .skip(first % members.len())
                .take(replication)
                .copied()
                .collect(),
        })
        .collect()
}

fn sorted(split_at: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, PlanError> {
    for (index, key) in split_at.iter().enumerate() {
        check_boundary(key).map_err(|source| PlanError::Key { index, source })?;
    }
    let keys: BTreeSet<&Vec<u8>> = split_at.iter().collect();
    if keys.len() >= MAX_ROUTES {
        return Err(PlanError::TooManyRoutes { count: keys.len() });
    }
    let bytes = keys.iter().map(|key| key.len()).sum();
    if bytes > MAX_BOUNDARY_BYTES {
        return Err(PlanError::TooManyBoundaryBytes { bytes });
    }
    Ok(keys.into_iter().cloned().collect())
}

/// `routes - 1` keys that divide two printable characters evenly; one character if that suffices to
/// separate them.
fn printable_boundaries(routes: usize) -> Vec<Vec<u8>> {
    let low = *PRINTABLE.start();
    let letters = PRINTABLE.count();
    let width = if routes <= letters { 1 } else { 2 };
    let space = letters.pow(width);
    (1..routes)
        .map(|index| index * space / routes)
        .map(|at| if width == 1 { vec![at] } else { vec![at / letters, at % letters] })
        .map(|digits| digits.into_iter().map(|digit| low + digit as u8).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    fn keys(keys: &[&str]) -> Vec<Vec<u8>> {
        keys.iter().map(|key| key.as_bytes().to_vec()).collect()
    }

    #[test]
    fn replicas_and_first_leaders_are_spread_evenly() {
        let plan = plan_bootstrap(&nodes(4), 8, 3, &[]).expect("a sound plan");
        let mut held = [0; 5];
        let mut first = [0; 5];
        for placement in &plan.groups {
            first[placement.replicas[0].0 as usize] += 1;
            placement.replicas.iter().for_each(|node| held[node.0 as usize] += 1);
        }
        assert_eq!((held, first), ([0, 6, 6, 6, 6], [0, 2, 2, 2, 2]));
    }

    #[test]
    fn boundaries_are_used_as_asked_for_sorted_and_once() {
        let plan = plan_bootstrap(&nodes(1), 2, 3, &keys(&["m", "b", "m"])).expect("sound");
        assert_eq!(plan.split_keys, keys(&["b", "m"]));
        assert_eq!((plan.replication, plan.guessed), (1, false));
        assert!(plan.idle_groups.is_empty());
    }

    #[test]
    fn too_few_boundaries_leave_groups_idle_and_the_plan_says_so() {
        let plan = plan_bootstrap(&nodes(3), 4, 3, &keys(&["m"])).expect("sound");
        assert_eq!(plan.idle_groups, [GroupId(3), GroupId(4)]);
    }

    #[test]
    fn without_boundaries_every_group_gets_a_route() {
        for groups in [1, 2, 3, 4, 64, 95, 96, MAX_GROUPS] {
            let plan = plan_bootstrap(&nodes(3), groups, 3, &[]).expect("sound");
            assert_eq!(plan.split_keys.len() + 1, groups);
            assert!(plan.split_keys.windows(2).all(|pair| pair[0] < pair[1]), "{groups} groups");
            assert_eq!(plan.guessed, groups > 1);
            assert!(plan.idle_groups.is_empty());
        }
        let four = plan_bootstrap(&nodes(3), 4, 3, &[]).expect("sound");
        assert_eq!(four.split_keys, keys(&["7", "O", "g"]));
    }

    #[test]
    fn what_cannot_be_planned_is_refused_with_the_reason() {
        let plan = |members: u64, groups, replication, split: &[&str]| {
            plan_bootstrap(&nodes(members), groups, replication, &keys(split))
        };
        assert_eq!(plan(0, 1, 1, &[]), Err(PlanError::NoMembers));
        assert_eq!(plan(1, 1, 0, &[]), Err(PlanError::NoReplication));
        assert_eq!(plan(1, 0, 1, &[]), Err(PlacementError::NoGroups.into()));
        assert_eq!(
            plan(1, MAX_GROUPS + 1, 1, &[]),
            Err(PlacementError::TooManyGroups { count: MAX_GROUPS as u64 + 1 }.into())
        );
        let key = |index, source| Err(PlanError::Key { index, source });
        assert_eq!(plan(1, 1, 1, &["a", ""]), key(1, KeyError::Empty));
        assert_eq!(plan(1, 1, 1, &["\0a"]), key(0, KeyError::Reserved));
        assert_eq!(plan(1, 1, 1, &[&"k".repeat(4_097)]), key(0, KeyError::TooLong { len: 4_097 }));
        assert_eq!(
            plan_bootstrap(&[NodeId(1), NodeId(1)], 1, 2, &[]),
            Err(PlacementError::RepeatedNode { group: GroupId(1), node: NodeId(1) }.into())
        );
    }
}
