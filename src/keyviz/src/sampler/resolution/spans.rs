//! Chooses which neighbouring routes share a row when there are more routes than rows or slots.
//!
//! The weight of a route is its share of the load plus its share of the number of routes, so cold
//! routes are spread evenly over the rows that the hot ones leave. The *tight bound* is the
//! smallest weight such that rows filled up to it, from the left, fit the budget; a route above it
//! is alone in any such packing. Everything else is measured by it:
//!
//! * The first plan is that packing.
//! * Later plans change as little as possible. A row is packed anew only when it is well above the
//!   tight bound, and rows are joined only when the budget requires it, coldest neighbours first.
//!   The distance between the two thresholds prevents rows from flickering under a constant load.

use std::collections::HashMap;
use std::ops::Range;

use crate::sampler::config::SamplerConfig;
use crate::sampler::joiner::Joiner;
use keyviz_types::{GroupId, RouteSpec};

/// A shared row is packed anew when it weighs more than this many tight bounds,
const HEAVY_ROW: u64 = 4;
/// or when one of its routes weighs more than this many.
const HEAVY_MEMBER: u64 = 2;
/// The weight of a route by number, and its average weight by load.
const UNIT_WEIGHT: u128 = 16;
/// Below this many operations per row, load is noise and counts for less.
pub(crate) const SIGNIFICANT_OPS: u64 = 256;

/// The rows and slots that whole routes may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    rows: usize,
    /// A shared row uses a slot for each of its groups.
    slots: usize,
    all_alone: bool,
}

impl Budget {
    /// While all routes fit, each has its own row. Once some must share, an eighth of the slots is
    /// reserved, so that hot routes can still be resolved finer.
    pub(crate) fn new(config: &SamplerConfig, routes: usize) -> Self {
        let slots = config.resolution_slots;
        let rows = config.max_tracked_routes;
        let all_alone = routes <= rows && routes <= slots;
        Budget { rows, slots: if all_alone { slots } else { slots - slots / 8 }, all_alone }
    }

    /// Whether every route may have its own row.
    pub(crate) fn all_alone(&self) -> bool {
        self.all_alone
    }

    fn holds(&self, size: Size) -> bool {
        size.rows <= self.rows && size.slots <= self.slots
    }
}

/// The size of a list of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) slots: usize,
}

/// The weights and groups of the routes of a table.
pub(crate) struct RowPacking {
    weights: Vec<u64>,
    /// The routes' groups, numbered from 0.
    groups: Vec<u32>,
    group_count: usize,
}

impl RowPacking {
    /// `load` has the operations of each route.
    pub(crate) fn new(routes: &[RouteSpec], load: &[u64], budget: Budget) -> Self {
        let total: u128 = load.iter().map(|&load| u128::from(load)).sum();
        let rows = budget.rows.min(budget.slots).min(routes.len());
        let total = total.max(u128::from(SIGNIFICANT_OPS) * rows as u128).max(1);
        let scale = UNIT_WEIGHT * routes.len() as u128;
        let weights = load
            .iter()
            // At most UNIT_WEIGHT * (routes + 1), which fits: there are fewer than 2^32 routes.
            .map(|&load| (UNIT_WEIGHT + u128::from(load) * scale / total) as u64)
            .collect();
        let mut numbers: HashMap<GroupId, u32> = HashMap::new();
        let groups = routes
            .iter()
            .map(|route| {
                let next = numbers.len() as u32;
                *numbers.entry(route.group).or_insert(next)
            })
            .collect();
        RowPacking { weights, groups, group_count: numbers.len() }
    }

    /// The packing at the tight bound.
    pub(crate) fn fresh(&self, budget: Budget) -> Vec<Range<usize>> {
        self.pack(0..self.weights.len(), self.tight_bound(budget))
    }

    /// Packs the rows anew that are too heavy. The result may exceed the budget: see
    /// [`RowPacking::fit`].
    pub(crate) fn relieve(&self, rows: Vec<Range<usize>>, budget: Budget) -> Vec<Range<usize>> {
        let tight = self.tight_bound(budget);
        let too_heavy = |row: &Range<usize>| {
            let members = &self.weights[row.clone()];
            let weight: u64 = members.iter().sum();
            members.len() > 1
                && (weight > tight.saturating_mul(HEAVY_ROW)
                    || members.iter().any(|&one| one > tight.saturating_mul(HEAVY_MEMBER)))
        };
        let relieved = |row| if too_heavy(&row) { self.pack(row, tight) } else { vec![row] };
        rows.into_iter().flat_map(relieved).collect()
    }

    /// Joins the coldest neighbours until the rows fit the budget.
    pub(crate) fn fit(&self, rows: Vec<Range<usize>>, budget: Budget) -> Vec<Range<usize>> {
        let mut size = self.size(&rows);
        if budget.holds(size) {
            return rows;
        }
        let weights = rows.iter().map(|row| self.weights[row.clone()].iter().sum()).collect();
        let mut groups: Vec<Vec<u32>> = rows.iter().map(|row| self.groups_of(row)).collect();
        let mut joiner = Joiner::new(weights, |_| true);
        while !budget.holds(size) {
            let Some((left, right)) = joiner.coldest() else {
                // Joining pairs frees no slot if each row already has every group.
                return self.fresh(budget);
            };
            let joined = union(&groups[left], &groups[right]);
            let saved = groups[left].len() + groups[right].len() - joined.len();
            if saved == 0 && size.rows <= budget.rows {
                continue;
            }
            joiner.join(left, right);
            groups[left] = joined;
            size = Size { rows: size.rows - 1, slots: size.slots - saved };
        }
        let heads: Vec<_> = joiner.heads().map(|head| rows[head].start).collect();
        ranges(&heads, self.weights.len())
    }

    /// The rows, and the slots that they use.
    pub(crate) fn size(&self, rows: &[Range<usize>]) -> Size {
        let mut tally = Tally::new(self.group_count);
        for row in rows {
            tally.open_row();
            self.groups[row.clone()].iter().for_each(|&group| tally.add(group));
        }
        tally.size
    }

    fn groups_of(&self, row: &Range<usize>) -> Vec<u32> {
        let mut groups = self.groups[row.clone()].to_vec();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The smallest bound whose packing fits; if none does (more groups than slots), the one that
    /// puts everything into one row.
    fn tight_bound(&self, budget: Budget) -> u64 {
        let mut fits: u64 = self.weights.iter().sum();
        let mut too_small = 0;
        while fits - too_small > 1 {
            let middle = too_small + (fits - too_small) / 2;
            if budget.holds(self.packed_size(middle)) {
                fits = middle;
            } else {
                too_small = middle;
            }
        }
        fits
    }

    fn packed_size(&self, bound: u64) -> Size {
        let mut tally = Tally::new(self.group_count);
        let mut sum = u64::MAX;
        for (&weight, &group) in self.weights.iter().zip(&self.groups) {
            sum = sum.saturating_add(weight);
            if sum > bound {
                tally.open_row();
                sum = weight;
            }
            tally.add(group);
        }
        tally.size
    }

    /// Fills rows from the left up to `bound`.
    fn pack(&self, routes: Range<usize>, bound: u64) -> Vec<Range<usize>> {
        let mut heads = Vec::new();
        let mut sum = u64::MAX;
        for route in routes.clone() {
            sum = sum.saturating_add(self.weights[route]);
            if sum > bound {
                heads.push(route);
                sum = self.weights[route];
            }
        }
        ranges(&heads, routes.end)
    }
}

/// The rows that begin at `heads`, the last of which ends at `end`.
pub(crate) fn ranges(heads: &[usize], end: usize) -> Vec<Range<usize>> {
    let ends = heads.iter().skip(1).copied().chain([end]);
    heads.iter().copied().zip(ends).map(|(from, to)| from..to).collect()
}

fn union(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut both = [left, right].concat();
    both.sort_unstable();
    both.dedup();
    both
}

/// Counts rows, and a slot for each group that is new in its row.
struct Tally {
    size: Size,
    last_row_of_group: Vec<usize>,
}

impl Tally {
    fn new(groups: usize) -> Self {
        Tally { size: Size { rows: 0, slots: 0 }, last_row_of_group: vec![0; groups] }
    }

    fn open_row(&mut self) {
        self.size.rows += 1;
    }

    fn add(&mut self, group: u32) {
        let last_row = &mut self.last_row_of_group[group as usize];
        if *last_row != self.size.rows {
            *last_row = self.size.rows;
            self.size.slots += 1;
        }
    }
}

/// The rows of a new table, with as little change as possible: a route begins a row if one began at
/// its start key before, or if it descends from a route that was alone. A row whose first route
/// grew to the left begins at the next one.
pub(crate) fn carried(
    old: &[RouteSpec],
    old_rows: &[Range<usize>],
    routes: &[RouteSpec],
) -> Vec<Range<usize>> {
    let mut heads = vec![0];
    let mut at = 0;
    for (nth, route) in routes.iter().enumerate().skip(1) {
        let start = &route.range.start;
        let before = at;
        while old_rows.get(at + 1).is_some_and(|row| old[row.start].range.start <= *start) {
            at += 1;
        }
        // A row began between the two starts, or at this one.
        let passed_a_border = at != before;
        if passed_a_border || old_rows[at].len() == 1 {
            heads.push(nth);
        }
    }
    ranges(&heads, routes.len())
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
