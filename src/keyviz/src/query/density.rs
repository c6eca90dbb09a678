//! The distribution of load over the key space, from ranges that may overlap: a route and those
//! that it was split into, or the ranges of several nodes, each with its own learned boundaries.
//!
//! The bounds of all ranges divide the key space into elementary ranges, here called cells. The
//! load of a range of one cell is exact. The load of a wider range is divided among its cells in
//! proportion to their exact load, or evenly if they have none. The result serves to choose rows
//! and to weigh them; no value of a matrix comes from it.

use std::collections::HashMap;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::resample::apportion;
use keyviz_types::KeyRange;

/// The load of one key range in the window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeTotal {
    /// Keys.
    pub range: KeyRange,
    /// Sum of the series over the window. At least 1.
    pub total: u64,
    /// Counted for several routes together; nothing finer is known.
    pub aggregate: bool,
    /// The load of ranges that reach across the first key. A row that begins there turns it into
    /// blocks.
    pub cut: u64,
}

/// Load by cell.
#[derive(Debug)]
pub(crate) struct Density {
    /// Where each cell starts, ascending.
    pub starts: Vec<Bytes>,
    /// End of the last cell.
    pub end: Option<Bytes>,
    /// Load of each cell.
    pub weights: Vec<u64>,
    /// For each cell, whether its start lies strictly inside an aggregate and is no bound of a
    /// range with load: no node counted the two sides of it separately.
    pub unmeasured: Vec<bool>,
    /// For each cell, whether all of its load was counted in aggregates.
    pub aggregate: Vec<bool>,
    /// For each cell, the load of ranges that reach across its start.
    pub cuts: Vec<u64>,
}

impl Density {
    /// The cells between the keys of `base` (sorted, from the first key of the whole) and the
    /// bounds of all ranges in `lists`. Each list is sorted by start and without overlap in itself.
    /// All ranges lie between the first key of `base` and `end`.
    pub fn new(base: Vec<Bytes>, end: Option<Bytes>, lists: &[&[RangeTotal]]) -> Self {
        let Bounded { starts, spans } = Bounded::new(base, end.as_ref(), lists);
        let cells = starts.len();
        let mut exact = vec![0u64; cells];
        let mut wide = Vec::new();
        let mut measured = vec![false; cells + 1];
        let mut plain = vec![false; cells];
        // Differences: how many aggregates begin, less how many cease, to enclose the boundary.
        let mut around = vec![0i64; cells + 1];
        let mut covered = vec![0i64; cells + 1];
        let mut cuts = vec![0u64; cells];
        // Differences of the load that reaches across the boundary.
        let mut over = vec![0i128; cells + 1];
        for (load, (first, last)) in loaded(lists).zip(spans) {
            (measured[first], measured[last]) = (true, true);
            if load.aggregate {
                around[first + 1] += 1;
                around[last] -= 1;
                covered[first] += 1;
                covered[last] -= 1;
            } else {
                plain[first..last].fill(true);
            }
            cuts[first] = cuts[first].saturating_add(load.cut);
            over[first + 1] += i128::from(load.total);
            over[last] -= i128::from(load.total);
            if last == first + 1 {
                exact[first] = exact[first].saturating_add(load.total);
            } else {
                wide.push((first, last, load.total));
            }
        }
        let mut weights = exact.clone();
        let mut parts = Vec::new();
        for (first, last, total) in wide {
            apportion(total, &exact[first..last], &mut parts);
            for (weight, part) in weights[first..last].iter_mut().zip(&parts) {
                *weight = weight.saturating_add(*part);
            }
        }
        let mut depth = 0;
        let unmeasured = (0..cells)
            .map(|cell| {
                depth += around[cell];
                depth > 0 && !measured[cell]
            })
            .collect();
        let mut depth = 0;
        let aggregate = (0..cells)
            .map(|cell| {
                depth += covered[cell];
                depth > 0 && !plain[cell]
            })
            .collect();
        let mut reach = 0;
        for (cut, over) in cuts.iter_mut().zip(over) {
            reach += over;
            *cut = cut.saturating_add(u64::try_from(reach).unwrap_or(u64::MAX));
        }
        Density { starts, end, weights, unmeasured, aggregate, cuts }
    }

    /// End of a cell.
    pub fn cell_end(&self, cell: usize) -> Option<&Bytes> {
        self.starts.get(cell + 1).or(self.end.as_ref())
    }
}

/// The ranges with load.
fn loaded<'a>(lists: &[&'a [RangeTotal]]) -> impl Iterator<Item = &'a RangeTotal> {
    lists.iter().flat_map(|list| list.iter()).filter(|load| load.total > 0)
}

/// All bounds in order, and the position of each range among them.
struct Bounded {
    starts: Vec<Bytes>,
    /// First cell, and one past the last, of each loaded range.
    spans: Vec<(usize, usize)>,
}

impl Bounded {
    /// `base` and the bounds of all loaded ranges, sorted, each once, all below `end`. Most bounds
    /// of the ranges are in `base`, so they are looked up by hash rather than searched for.
    fn new<'a>(base: Vec<Bytes>, end: Option<&Bytes>, lists: &[&'a [RangeTotal]]) -> Self {
        const END: usize = usize::MAX;
        let mut extra: Vec<Bytes> = Vec::new();
        let mut spans: Vec<(usize, usize)> = {
            let mut numbers: HashMap<&[u8], usize, Xxh3DefaultBuilder> =
                HashMap::with_capacity_and_hasher(base.len(), Xxh3DefaultBuilder);
            numbers.extend(base.iter().map(|key| key.as_ref()).zip(0..));
            let mut number = |key: &'a Bytes| {
                let next = base.len() + extra.len();
                *numbers.entry(key).or_insert_with(|| {
                    extra.push(key.clone());
                    next
                })
            };
            // A range usually begins where the one before it ends, and ends at the next bound of
            // the base.
            let mut before: Option<(&Bytes, usize)> = None;
            let span = |load: &'a RangeTotal| {
                let start = &load.range.start;
                let first = match before {
                    Some((key, place)) if key == start => place,
                    _ => number(start),
                };
                let last = load.range.end.as_ref().filter(|key| end != Some(*key)).map(|key| {
                    let next = base.get(first + 1).filter(|next| *next == key);
                    (key, next.map_or_else(|| number(key), |_| first + 1))
                });
                before = last;
                (first, last.map_or(END, |(_, place)| place))
            };
            loaded(lists).map(span).collect()
        };
        let known = base.len();
        let mut keys = base;
        if extra.is_empty() {
            spans.iter_mut().for_each(|(_, last)| *last = (*last).min(known));
            return Bounded { starts: keys, spans };
        }
        keys.append(&mut extra);
        // Sort the other bounds in, and renumber all.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|&left, &right| keys[left].cmp(&keys[right]));
        let mut places = vec![0; keys.len()];
        order.iter().enumerate().for_each(|(place, &number)| places[number] = place);
        for (first, last) in &mut spans {
            *first = places[*first];
            *last = if *last == END { keys.len() } else { places[*last] };
        }
        Bounded { starts: order.into_iter().map(|number| keys[number].clone()).collect(), spans }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        start: &'static str,
        end: Option<&'static str>,
        total: u64,
        aggregate: bool,
    ) -> RangeTotal {
        let key = |key: &'static str| Bytes::from_static(key.as_bytes());
        let range = KeyRange { start: key(start), end: end.map(key) };
        RangeTotal { range, total, aggregate, cut: 0 }
    }

    #[test]
    fn a_parents_load_is_spread_by_what_its_children_carry() {
        let old = [load("", Some("m"), 100, false), load("m", None, 5, false)];
        let new = [load("", Some("f"), 30, false), load("f", Some("m"), 10, false)];
        let density = Density::new(vec![Bytes::new()], None, &[&old, &new]);
        assert_eq!(density.starts, ["", "f", "m"]);
        assert_eq!(density.weights, [30 + 75, 10 + 25, 5]);
        assert_eq!(density.unmeasured, [false; 3]);
        assert_eq!(density.cuts, [0, 100, 0], "a row that begins at f makes a block of them");
        let known = [RangeTotal { cut: 7, ..load("f", Some("m"), 1, false) }];
        let density = Density::new(vec![Bytes::new()], None, &[&old, &known]);
        assert_eq!(density.cuts, [0, 107, 0]);
    }

    #[test]
    fn boundaries_inside_an_aggregate_are_known_to_be_unmeasured() {
        let base = ["", "b", "c", "d", "e"].map(|key| Bytes::from_static(key.as_bytes())).to_vec();
        let one = [load("", Some("d"), 9, true), load("e", None, 1, false)];
        let two = [load("c", Some("d"), 4, false)];
        let density = Density::new(base, None, &[&one, &two]);
        assert_eq!(density.weights, [0, 0, 13, 0, 1]);
        assert_eq!(density.unmeasured, [false, true, false, false, false]);
        assert_eq!(density.aggregate, [true, true, false, false, false]);
    }
}
