//! A set of columns, stored as runs: a node that does not answer marks every column of every row,
//! which must stay cheap.

use std::ops::Range;

/// A set of column indices.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct ColumnSet {
    /// Sorted, disjoint, not touching, none empty: (first, one past the last).
    spans: Vec<(u32, u32)>,
}

impl ColumnSet {
    /// The empty set.
    pub const fn new() -> Self {
        ColumnSet { spans: Vec::new() }
    }

    /// The columns of one range.
    pub fn of(range: Range<u32>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// Adds a range of columns.
    pub fn insert(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let (mut from, mut to) = (range.start, range.end);
        // The new span absorbs those that it overlaps or touches.
        let first = self.spans.partition_point(|span| span.1 < from);
        let last = first + self.spans[first..].partition_point(|span| span.0 <= to);
        if first < last {
            from = from.min(self.spans[first].0);
            to = to.max(self.spans[last - 1].1);
        }
        self.spans.splice(first..last, [(from, to)]);
    }

    /// Adds all columns of `other`.
    pub fn insert_all(&mut self, other: &ColumnSet) {
        for span in other.spans() {
            self.insert(span);
        }
    }

    /// Whether the set contains `column`.
    pub fn contains(&self, column: u32) -> bool {
        let at = self.spans.partition_point(|span| span.1 <= column);
        self.spans.get(at).is_some_and(|span| span.0 <= column)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.spans.iter().map(|span| (span.1 - span.0) as usize).sum()
    }

    /// The columns, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.spans.iter().flat_map(|span| span.0..span.1)
    }

    /// The runs of columns, ascending.
    pub fn spans(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.spans.iter().map(|span| span.0..span.1)
    }

    /// The columns below `columns` that are not in the set.
    pub fn missing(&self, columns: u32) -> ColumnSet {
        let mut missing = ColumnSet::new();
        let mut from = 0;
        for &(start, end) in &self.spans {
            missing.insert(from..start.min(columns));
            from = end;
        }
        missing.insert(from..columns);
        missing
    }

    /// The columns of the set that lie in `range`.
    pub fn intersection(&self, range: Range<u32>) -> ColumnSet {
        let mut inside = ColumnSet::new();
        for span in self.spans() {
            inside.insert(span.start.max(range.start)..span.end.min(range.end));
        }
        inside
    }
}

impl FromIterator<u32> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = u32>>(columns: I) -> Self {
        let mut set = ColumnSet::new();
        for column in columns {
            set.insert(column..column + 1);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_set_over_a_small_domain_equals_the_plain_set() {
        // All sequences of three ranges over six columns, against a BTreeSet.
        let ranges: Vec<Range<u32>> = (0..6).flat_map(|a| (a..7).map(move |b| a..b)).collect();
        for a in &ranges {
            for b in &ranges {
                for c in &ranges {
                    let mut set = ColumnSet::new();
                    let mut model = BTreeSet::new();
                    for range in [a, b, c] {
                        set.insert(range.clone());
                        model.extend(range.clone());
                    }
                    assert!(set.iter().eq(model.iter().copied()), "{a:?} {b:?} {c:?}");
                    assert_eq!(set.len(), model.len());
                    assert!((0..8).all(|c| set.contains(c) == model.contains(&c)));
                    assert!(set.missing(5).iter().eq((0..5).filter(|c| !model.contains(c))));
                    let inside = (2..4).filter(|c| model.contains(c));
                    assert!(set.intersection(2..4).iter().eq(inside));
                    assert_eq!(set, model.into_iter().collect());
                }
            }
        }
    }
}
