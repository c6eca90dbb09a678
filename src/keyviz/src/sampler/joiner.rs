//! Joins the coldest neighbours, pair by pair.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A sequence of items whose neighbours are joined, the pair with the least total weight first; of
/// equal pairs the leftmost. A join takes O(log n).
pub(crate) struct Joiner {
    /// The weight of the joined item that begins here.
    weights: Vec<u64>,
    /// Neighbours, identified by their first item; beyond the ends, an index past the last item.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Whether the item may be joined to its left neighbour.
    joinable: Vec<bool>,
    heap: BinaryHeap<Reverse<Pair>>,
}

/// Ordered by total weight, then from the left. A pair is stale once either weight has changed:
/// every join changes one, because weights only grow. If a weight of zero is joined to zero, the
/// pair remains correct.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Pair {
    weight: u64,
    left: usize,
    right: usize,
}

impl Joiner {
    /// `joinable(n)` says whether item `n` may be joined to item `n - 1`; it is called from 1 on.
    pub(crate) fn new(weights: Vec<u64>, joinable: impl Fn(usize) -> bool) -> Self {
        let count = weights.len();
        let mut joiner = Joiner {
            next: (1..=count).collect(),
            previous: (0..count).map(|item| item.wrapping_sub(1)).collect(),
            joinable: (0..count).map(|item| item > 0 && joinable(item)).collect(),
            heap: BinaryHeap::with_capacity(count),
            weights,
        };
        (1..count).for_each(|right| joiner.push(right));
        joiner
    }

    fn push(&mut self, right: usize) {
        if self.joinable.get(right) == Some(&true) {
            let left = self.previous[right];
            let weight = self.weights[left].saturating_add(self.weights[right]);
            self.heap.push(Reverse(Pair { weight, left, right }));
        }
    }

    /// The coldest pair that may be joined, identified by the first items of both. A pair is
    /// returned again only after one of the two has changed.
    pub(crate) fn coldest(&mut self) -> Option<(usize, usize)> {
        while let Some(Reverse(pair)) = self.heap.pop() {
            let Pair { weight, left, right } = pair;
            let adjacent = self.next[left] == right && self.previous[right] == left;
            if adjacent && self.weights[left].saturating_add(self.weights[right]) == weight {
                return Some((left, right));
            }
        }
        None
    }

    /// Joins a pair that [`Joiner::coldest`] returned.
    pub(crate) fn join(&mut self, left: usize, right: usize) {
        let after = self.next[right];
        self.weights[left] = self.weights[left].saturating_add(self.weights[right]);
        self.next[left] = after;
        // `right` is not the first of an item any more, so no pair with it is adjacent.
        self.next[right] = usize::MAX;
        self.previous[right] = usize::MAX;
        if let Some(previous) = self.previous.get_mut(after) {
            *previous = left;
        }
        self.push(left);
        self.push(after);
    }

    /// The first items of the joined ones, in order.
    pub(crate) fn heads(&self) -> impl Iterator<Item = usize> {
        let first = (!self.next.is_empty()).then_some(0);
        std::iter::successors(first, |&head| self.next.get(head).copied())
            .take_while(|&head| head < self.next.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(weights: &[u64], joins: usize, joinable: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut joiner = Joiner::new(weights.to_vec(), joinable);
        for _ in 0..joins {
            if let Some((left, right)) = joiner.coldest() {
                joiner.join(left, right);
            }
        }
        joiner.heads().collect()
    }

    #[test]
    fn the_coldest_neighbours_join_first() {
        assert_eq!(joined(&[5, 1, 2, 9, 1], 1, |_| true), [0, 1, 3, 4]);
        assert_eq!(joined(&[5, 1, 2, 9, 1], 2, |_| true), [0, 3, 4]);
        assert_eq!(joined(&[5, 1, 2, 9, 1], 9, |_| true), [0]);
    }

    #[test]
    fn a_closed_border_is_never_crossed() {
        assert_eq!(joined(&[0, 0, 0, 0], 9, |item| item != 2), [0, 2]);
        assert_eq!(joined(&[], 3, |_| true), [0usize; 0]);
        assert_eq!(joined(&[7], 3, |_| true), [0]);
    }

    #[test]
    fn equal_pairs_join_from_the_left_and_zero_weights_join_too() {
        assert_eq!(joined(&[0; 5], 2, |_| true), [0, 3, 4]);
        assert_eq!(joined(&[1; 6], 2, |_| true), [0, 2, 4, 5]);
    }
}
