//! Who keeps the copies of whose history.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each pair of a node and a member has a score,
//! and the members with the highest scores keep the copies of the node. Every node computes the
//! same holders from the same members, and a member that comes or goes moves only the copies that
//! it gets or had.

use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64;

use keyviz_types::NodeId;

/// The members that keep the copies of `node`, the first choice first. `copies` counts the node's
/// own columns too.
pub fn holders(
    node: NodeId,
    members: impl IntoIterator<Item = NodeId>,
    copies: usize,
) -> Vec<NodeId> {
    let mut others: Vec<NodeId> = members.into_iter().filter(|member| *member != node).collect();
    others.sort_by_cached_key(|member| {
        let pair = [node.0.to_be_bytes(), member.0.to_be_bytes()].concat();
        (Reverse(xxh3_64(&pair)), *member)
    });
    others.truncate(copies.saturating_sub(1));
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn members(count: u64) -> impl Iterator<Item = NodeId> {
        (1..=count).map(NodeId)
    }

    #[test]
    fn bounds_a_member_that_comes_or_goes_moves_only_what_it_holds() {
        for node in members(9) {
            let before: BTreeSet<NodeId> = holders(node, members(9), 3).into_iter().collect();
            assert_eq!(before.len(), 2);
            assert!(!before.contains(&node));
            for gone in members(9).filter(|gone| *gone != node) {
                let rest = members(9).filter(|member| *member != gone);
                let after: BTreeSet<NodeId> = holders(node, rest, 3).into_iter().collect();
                let kept = before.intersection(&after).count();
                assert_eq!(kept, if before.contains(&gone) { 1 } else { 2 });
            }
        }
    }

    #[test]
    fn bounds_there_are_never_more_holders_than_other_members() {
        assert!(holders(NodeId(1), members(1), 3).is_empty());
        assert_eq!(holders(NodeId(1), members(2), 3), [NodeId(2)]);
        assert!(holders(NodeId(1), members(3), 1).is_empty());
        assert_eq!(holders(NodeId(7), members(3), 3).len(), 2, "of a node that has left");
    }

    #[test]
    fn bounds_each_member_keeps_about_as_much() {
        let mut held = [0usize; 101];
        for node in members(100) {
            for holder in holders(node, members(100), 3) {
                held[holder.0 as usize] += 1;
            }
        }
        assert!(held.iter().skip(1).all(|copies| *copies <= 10), "{held:?}");
    }
}
