//! Fitting a sequence of weighted atoms into a budget of intervals.
//!
//! The *cut* is the smallest weight for which the budget suffices: an atom heavier than the cut
//! stays alone, and no interval of several atoms weighs more than the cut. A joined interval
//! therefore never hides an atom that is hotter than the cut. Bisection over a greedy sweep finds
//! the cut. The sweep makes the fewest intervals for a given cut, because every part of an allowed
//! interval is allowed. What remains of the budget is spent on splitting the heaviest joined
//! intervals again.
//!
//! Atoms form *units* (a route and its sub-ranges): an interval consists of whole units or is a
//! part of one. The sweep keeps a unit that weighs at most the cut in one interval, and gives a
//! heavier one intervals of its own.

use std::collections::BinaryHeap;

/// A run of atoms: the first, and one past the last.
pub(crate) type Interval = (usize, usize);

/// At most `budget` intervals, in order and without gaps, and the cut.
///
/// `units` holds the index of the first atom of each unit, ascending from 0. `budget` is at least
/// 1.
pub(crate) fn fit(weights: &[u64], units: &[usize], budget: usize) -> (Vec<Interval>, u64) {
    assert!(budget > 0, "nothing fits no interval at all");
    if weights.len() <= budget {
        return ((0..weights.len()).map(|atom| (atom, atom + 1)).collect(), 0);
    }
    let fitting = Fitting::new(weights, units);
    let (mut low, mut high) = (0u64, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if fitting.sweep(middle).len() <= budget {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let intervals = fitting.sweep(low);
    (fitting.spend(intervals, budget), low)
}

/// As [`fit`], with every atom a unit of its own.
pub(crate) fn coarsen(weights: &[u64], budget: usize) -> Vec<Interval> {
    let units: Vec<usize> =
        if weights.len() <= budget { vec![] } else { (0..weights.len()).collect() };
    fit(weights, &units, budget).0
}

struct Fitting<'a> {
    units: &'a [usize],
    /// The weight of the atoms before each atom, and of all atoms.
    sums: Vec<u128>,
}

impl<'a> Fitting<'a> {
    fn new(weights: &[u64], units: &'a [usize]) -> Self {
        let mut sums = vec![0];
        let mut sum = 0;
        for &weight in weights {
            sum += u128::from(weight);
            sums.push(sum);
        }
        Fitting { units, sums }
    }

    fn weight(&self, (from, to): Interval) -> u128 {
        self.sums[to] - self.sums[from]
    }

    fn unit(&self, unit: usize) -> Interval {
        let atoms = self.sums.len() - 1;
        (self.units[unit], self.units.get(unit + 1).copied().unwrap_or(atoms))
    }

    /// The fewest intervals for a cut; `u64::MAX` stands for no limit.
    fn sweep(&self, cut: u64) -> Vec<Interval> {
        let cut = if cut == u64::MAX { u128::MAX } else { u128::from(cut) };
        let mut intervals: Vec<Interval> = Vec::new();
        let mut place = |atoms: Interval, joins: bool| match intervals.last_mut() {
            Some(last) if joins && self.weight((last.0, atoms.1)) <= cut => last.1 = atoms.1,
            _ => intervals.push(atoms),
        };
        let mut after_whole = false;
        for unit in (0..self.units.len()).map(|unit| self.unit(unit)) {
            let whole = self.weight(unit) <= cut;
            if whole {
                place(unit, after_whole);
            } else {
                // The first atom joins no other unit.
                (unit.0..unit.1).for_each(|atom| place((atom, atom + 1), atom > unit.0));
            }
            after_whole = whole;
        }
        intervals
    }

    /// Splits joined intervals, heaviest first, while the budget lasts.
    fn spend(&self, intervals: Vec<Interval>, budget: usize) -> Vec<Interval> {
        let mut left = budget - intervals.len();
        let mut done = Vec::with_capacity(budget);
        let mut heap = BinaryHeap::new();
        for interval in intervals {
            self.offer(interval, &mut heap, &mut done);
        }
        while left > 0 {
            let Some((_, _, std::cmp::Reverse(from), to)) = heap.pop() else { break };
            let middle = self.middle((from, to));
            self.offer((from, middle), &mut heap, &mut done);
            self.offer((middle, to), &mut heap, &mut done);
            left -= 1;
        }
        done.extend(heap.into_iter().map(|(_, _, std::cmp::Reverse(from), to)| (from, to)));
        done.sort_unstable();
        done
    }

    /// Queues an interval by weight, then length, then position; one atom is done.
    fn offer(
        &self,
        interval: Interval,
        heap: &mut BinaryHeap<(u128, usize, std::cmp::Reverse<usize>, usize)>,
        done: &mut Vec<Interval>,
    ) {
        let (from, to) = interval;
        if to - from == 1 {
            done.push(interval);
        } else {
            heap.push((self.weight(interval), to - from, std::cmp::Reverse(from), to));
        }
    }

    /// Where to split an interval of several atoms: at the unit boundary (or, within one unit, the
    /// atom) that halves its weight best; in the middle if it has no weight.
    fn middle(&self, (from, to): Interval) -> usize {
        let first = self.units.partition_point(|&start| start <= from);
        let last = self.units.partition_point(|&start| start < to);
        let inner = &self.units[first..last];
        let goal = self.sums[from] + self.weight((from, to)) / 2;
        let weightless = self.weight((from, to)) == 0;
        if inner.is_empty() {
            let at = if weightless {
                from + (to - from) / 2
            } else {
                self.nearest(goal, self.sums[from..to].partition_point(|sum| *sum < goal) + from)
            };
            return at.clamp(from + 1, to - 1);
        }
        if weightless {
            return inner[inner.len() / 2];
        }
        let after = inner.partition_point(|&start| self.sums[start] < goal).min(inner.len() - 1);
        let before = after.saturating_sub(1);
        let distance = |index: usize| self.sums[inner[index]].abs_diff(goal);
        if distance(before) <= distance(after) { inner[before] } else { inner[after] }
    }

    fn nearest(&self, goal: u128, after: usize) -> usize {
        let before = after.saturating_sub(1);
        if self.sums[before].abs_diff(goal) <= self.sums[after].abs_diff(goal) {
            before
        } else {
            after
        }
    }
}

/// Moves boundaries to where they cut less of what was counted together. Returns as many intervals,
/// and the weight that no interval of several atoms exceeds.
///
/// `cuts` has, for each atom, the load that a boundary at its start cuts. A boundary within a unit
/// moves to the place between its neighbours that cuts least; of equal places, to the one that
/// halves the weight best. It moves only if that saves at least half of what it cuts, and if no
/// interval of several atoms becomes heavier than twice `cut`.
pub(crate) fn snapped(
    mut intervals: Vec<Interval>,
    weights: &[u64],
    units: &[usize],
    cuts: &[u64],
    cut: u64,
) -> (Vec<Interval>, u64) {
    let fitting = Fitting::new(weights, units);
    let limit = u128::from(cut) * 2;
    for at in 1..intervals.len() {
        let ((from, border), (_, to)) = (intervals[at - 1], intervals[at]);
        // Boundaries between units stay, and so do those that cut nothing.
        let owner = |atom: usize| units.partition_point(|start| *start <= atom);
        if cuts[border] == 0 || owner(from) != owner(to - 1) {
            continue;
        }
        let fits = |(from, to): Interval| to - from == 1 || fitting.weight((from, to)) <= limit;
        let allowed = |border: &usize| fits((from, *border)) && fits((*border, to));
        let uneven =
            |border: usize| fitting.weight((from, border)).abs_diff(fitting.weight((border, to)));
        let best = (from + 1..to).filter(allowed).min_by_key(|&at| (cuts[at], uneven(at), at));
        if let Some(best) = best.filter(|&best| cuts[best] <= cuts[border] / 2) {
            intervals[at - 1] = (from, best);
            intervals[at] = (best, to);
        }
    }
    let joined = intervals.iter().filter(|(from, to)| to - from > 1);
    let heaviest = joined.map(|&interval| fitting.weight(interval)).max().unwrap_or(0);
    (intervals, u64::try_from(heaviest).unwrap_or(u64::MAX).max(cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hot_atoms_stay_alone_and_cold_neighbours_are_joined() {
        let weights = [0, 0, 0, 90, 0, 1, 80, 0, 0];
        let units: Vec<usize> = (0..weights.len()).collect();
        let (intervals, cut) = fit(&weights, &units, 5);
        assert_eq!(intervals, [(0, 3), (3, 4), (4, 6), (6, 7), (7, 9)]);
        assert_eq!(cut, 1);
    }

    #[test]
    fn a_budget_that_is_left_splits_what_is_cold() {
        let units: Vec<usize> = (0..100).collect();
        let (intervals, _) = fit(&[0; 100], &units, 4);
        assert_eq!(intervals, [(0, 25), (25, 50), (50, 75), (75, 100)]);
    }

    #[test]
    fn boundaries_go_where_they_cut_least_of_what_was_counted_together() {
        let (weights, cuts) = ([5; 8], [0, 90, 4, 90, 90, 90, 3, 90]);
        let intervals = vec![(0, 3), (3, 6), (6, 8)];
        let (snapped, heaviest) = super::snapped(intervals.clone(), &weights, &[0], &cuts, 15);
        assert_eq!((snapped, heaviest), (vec![(0, 2), (2, 6), (6, 8)], 20));
        let tight = super::snapped(intervals.clone(), &weights, &[0], &cuts, 5).0;
        assert_eq!(tight, intervals, "no row gets more than twice as heavy as the cut");
        // Boundaries between units stay.
        let whole = vec![(0, 4), (4, 8)];
        assert_eq!(super::snapped(whole.clone(), &weights, &[0, 4], &cuts, 100).0, whole);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_hotter_than_the_cut_is_hidden(
            weights in prop::collection::vec(
                prop_oneof![3 => Just(0u64), 3 => 0u64..20, 1 => 0u64..10_000, 1 => any::<u64>()],
                1..80,
            ),
            sizes in prop::collection::vec(1usize..6, 80),
            budget in 1usize..60,
        ) {
            let mut units = vec![0];
            for size in sizes {
                let next = units.last().expect("never empty") + size;
                if next >= weights.len() { break }
                units.push(next);
            }
            let (intervals, cut) = fit(&weights, &units, budget);
            prop_assert!(intervals.len() <= budget);
            prop_assert_eq!(intervals.len(), budget.min(weights.len()), "the budget is spent");
            prop_assert_eq!(intervals[0].0, 0);
            prop_assert_eq!(intervals[intervals.len() - 1].1, weights.len());
            prop_assert!(intervals.windows(2).all(|pair| pair[0].1 == pair[1].0));
            for &(from, to) in &intervals {
                let sum: u128 = weights[from..to].iter().map(|w| u128::from(*w)).sum();
                prop_assert!(to - from == 1 || sum <= u128::from(cut) || cut == u64::MAX);
                let owner = |atom: usize| units.partition_point(|start| *start <= atom);
                let whole = units.contains(&from) && (to == weights.len() || units.contains(&to));
                prop_assert!(owner(from) == owner(to - 1) || whole, "{from}..{to} {units:?}");
            }
        }
    }
}
