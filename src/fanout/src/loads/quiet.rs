//! Rows without load need not be told apart.
//!
//! A hundred thousand rows are a hundred pieces, each asked of all members for each series. Mostly
//! there is load in a part of them only. So a first question, of as many planned rows as one piece
//! has, says where there is any, and a run of rows elsewhere is asked as one. Nothing is assumed:
//! what such a row counts after all, as from a member that answers later, is in the sums all the
//! same, for its keys together.

use std::collections::BTreeSet;

use keyviz_core::{KeyRange, Matrix};

use super::prefixes::overlap;
use super::sums::Rows;

/// The keys for which a matrix has counts, those that blocks reach over among them.
pub(super) fn loud(matrix: &Matrix) -> impl Iterator<Item = KeyRange> + '_ {
    let rows = matrix.rows.iter().filter(|row| row.values.iter().any(|value| *value > 0));
    let blocks = matrix.blocks.iter().filter(|block| block.value > 0);
    rows.map(|row| row.range.clone()).chain(blocks.map(|block| block.range.clone()))
}

/// The same rows, of which each run that meets none of the keys in `loud` is one. Rows of ids that
/// are named stay, one of each at least, because those are listed without load too.
pub(super) fn together(rows: Rows, range: &KeyRange, loud: &[KeyRange], ids: &[u64]) -> Rows {
    let loud = merged(loud);
    let mut named: BTreeSet<u64> = ids.iter().copied().collect();
    let Rows { starts, of, routes, catalog_version } = rows;
    let (mut kept_starts, mut kept_of) = (Vec::new(), Vec::new());
    let (mut next, mut quiet_before) = (0, false);
    for (at, (start, of)) in starts.iter().zip(of).enumerate() {
        let end = starts.get(at + 1).or(range.end.as_ref()).cloned();
        let row = KeyRange { start: start.clone(), end };
        // Ends ascend, as starts do.
        while loud.get(next).is_some_and(|one| one.end.as_ref().is_some_and(|end| *end <= *start)) {
            next += 1;
        }
        let is_named = of.as_ref().and_then(|of| of.id()).is_some_and(|id| named.remove(&id));
        let quiet = !is_named && !loud.get(next).is_some_and(|one| overlap(one, &row));
        match kept_of.last_mut() {
            Some(before) if quiet && quiet_before => {
                if *before != of {
                    *before = None;
                }
            }
            _ => {
                kept_starts.push(row.start);
                kept_of.push(of);
            }
        }
        quiet_before = quiet;
    }
    Rows { starts: kept_starts, of: kept_of, routes, catalog_version }
}

/// Ranges in the order of keys that do not meet, and cover the same keys.
fn merged(ranges: &[KeyRange]) -> Vec<KeyRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by(|one, other| one.start.cmp(&other.start));
    let mut merged: Vec<KeyRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if last.end.as_ref().is_none_or(|end| *end >= range.start) => {
                last.end = match (last.end.take(), range.end) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use keyviz_core::RouteId;

    use super::super::LoadOf;
    use super::*;

    fn key(number: u64) -> Bytes {
        format!("{number:03}").into()
    }

    fn range(start: u64, end: Option<u64>) -> KeyRange {
        KeyRange { start: key(start), end: end.map(key) }
    }

    fn rows() -> Rows {
        let ids = 1..=100;
        Rows {
            starts: ids.clone().map(|id| if id == 1 { Bytes::new() } else { key(id) }).collect(),
            of: ids.map(|id| RouteId::new(id).map(LoadOf::Route)).collect(),
            routes: BTreeMap::new(),
            catalog_version: 7,
        }
    }

    fn kept(loud: &[KeyRange], ids: &[u64]) -> Vec<(Bytes, Option<u64>)> {
        let rows = together(rows(), &KeyRange::all(), loud, ids);
        let ids = rows.of.iter().map(|of| of.as_ref().and_then(LoadOf::id));
        rows.starts.iter().cloned().zip(ids).collect()
    }

    #[test]
    fn order_rows_with_load_stay_and_runs_without_are_one() {
        let loud = [range(50, Some(51)), range(20, Some(22)), range(21, Some(22))];
        let expected = [
            (Bytes::new(), None),
            (key(20), Some(20)),
            (key(21), Some(21)),
            (key(22), None),
            (key(50), Some(50)),
            (key(51), None),
        ];
        assert_eq!(kept(&loud, &[]), expected);
        // A single quiet row is still of its route.
        let apart = [range(1, Some(99)), range(100, None)];
        assert_eq!(kept(&apart, &[])[98], (key(99), Some(99)));
        assert_eq!(kept(&[], &[]), [(Bytes::new(), None)]);
        assert_eq!(kept(&[KeyRange::all()], &[]).len(), 100);
    }

    #[test]
    fn who_is_named_stays() {
        let expected =
            [(Bytes::new(), None), (key(40), Some(40)), (key(41), None), (key(100), Some(100))];
        assert_eq!(kept(&[], &[100, 40, 999]), expected);
    }
}
