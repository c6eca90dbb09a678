//! Key ranges, and rows that are prefixes of keys.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::request::LoadOf;
use keyviz_core::KeyRange;

pub(super) fn overlap(one: &KeyRange, other: &KeyRange) -> bool {
    let before = |end: &Option<Bytes>, start: &Bytes| end.as_ref().is_some_and(|end| end <= start);
    !before(&one.end, &other.start) && !before(&other.end, &one.start)
}

pub(super) fn inside(inner: &KeyRange, outer: &KeyRange) -> bool {
    let ends = match (&inner.end, &outer.end) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner <= outer,
    };
    inner.start >= outer.start && ends
}

/// The length of the first `depth` parts of a key, each with the delimiter after it.
pub(super) fn prefix_length(key: &[u8], delimiter: &[u8], depth: u32) -> Option<usize> {
    let mut at = 0;
    for _ in 0..depth {
        let found = key[at..].windows(delimiter.len()).position(|bytes| bytes == delimiter)?;
        at += found + delimiter.len();
    }
    Some(at)
}

/// The first key after all that begin with `prefix`; `None`: there is none.
pub(super) fn after(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// Rows of the range: one for each prefix, and those between them, which are nobody's.
pub(super) fn rows_of_prefixes(
    prefixes: &BTreeSet<Bytes>,
    range: &KeyRange,
) -> Vec<(Bytes, Option<LoadOf>)> {
    let mut rows: Vec<(Bytes, Option<LoadOf>)> = vec![(range.start.clone(), None)];
    for prefix in prefixes {
        let of = KeyRange { start: prefix.clone(), end: after(prefix) };
        if !overlap(&of, range) {
            continue;
        }
        let start = of.start.max(range.start.clone());
        if rows.last().is_some_and(|(last, _)| *last == start) {
            rows.pop();
        }
        rows.push((start, Some(LoadOf::Prefix(prefix.clone()))));
        match of.end {
            Some(end) if range.end.as_ref().is_none_or(|last| end < *last) => {
                rows.push((end, None))
            }
            _ => break,
        }
    }
    rows
}
