//! How wide key ranges are, as their names suggest.
//!
//! Rows follow the load: where it is dense, they are narrow, so that rows alone do not say what is
//! hot. How many keys a row has is not counted. What is known is how keys are written: the bytes at
//! each place of the bounds. A place with decimal or hexadecimal digits counts them; at another,
//! each byte that occurs there has an equal part. Two tables are so equally wide, whatever their
//! names, and numbered keys are as far apart as their numbers.
//!
//! It is an estimate, and says no more than that a range is narrow. No count depends on it.

use std::collections::BTreeSet;

use keyviz_types::KeyRange;

/// Places after the common beginning that are looked at.
const PLACES: usize = 16;

/// The most of the whole that one range is taken to have.
const WIDEST: f64 = 0.1;

/// The bytes of one place.
enum Place {
    /// Digits of a number, of base 10 or 16.
    Digits { base: f64 },
    /// Anything else: each has the same part.
    Bytes(Vec<u8>),
}

impl Place {
    fn of(bytes: &BTreeSet<u8>) -> Self {
        let decimal = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
        match bytes.iter().all(|&byte| digit(byte).is_some()) && decimal > 0 {
            true if decimal == bytes.len() => Place::Digits { base: 10.0 },
            true => Place::Digits { base: 16.0 },
            false => Place::Bytes(bytes.iter().copied().collect()),
        }
    }

    /// Where a byte begins, and how wide it is, both as parts of the place.
    fn part(&self, byte: u8) -> (f64, f64) {
        match self {
            Place::Digits { base } => (digit(byte).unwrap_or(0.0) / base, 1.0 / base),
            Place::Bytes(known) => {
                let at = known.partition_point(|&other| other < byte);
                let count = known.len().max(1) as f64;
                (at as f64 / count, 1.0 / count)
            }
        }
    }
}

fn digit(byte: u8) -> Option<f64> {
    match byte {
        b'0'..=b'9' => Some(f64::from(byte - b'0')),
        b'a'..=b'f' => Some(f64::from(byte - b'a') + 10.0),
        b'A'..=b'F' => Some(f64::from(byte - b'A') + 10.0),
        _ => None,
    }
}

/// How wide each range is. Those without a bound, and those at which `used` is false, have no
/// width.
fn by_names(ranges: &[KeyRange], used: &[bool]) -> Vec<f64> {
    let bounded = |at: &usize| {
        used.get(*at) == Some(&true) && !ranges[*at].start.is_empty() && ranges[*at].end.is_some()
    };
    let counted: Vec<usize> = (0..ranges.len()).filter(bounded).collect();
    let keys = counted.iter().flat_map(|&at| {
        let range = &ranges[at];
        std::iter::once(&range.start).chain(&range.end).map(|key| key.as_ref())
    });
    let keys: Vec<&[u8]> = keys.collect();
    let common = keys.iter().skip(1).fold(keys.first().map_or(0, |key| key.len()), |len, key| {
        keys[0].iter().zip(*key).take(len).take_while(|(a, b)| a == b).count()
    });
    let mut seen = vec![BTreeSet::new(); PLACES];
    for key in &keys {
        for (place, &byte) in seen.iter_mut().zip(&key[common..]) {
            place.insert(byte);
        }
    }
    let places: Vec<Place> = seen.iter().map(Place::of).collect();
    let position = |key: &[u8]| {
        let (mut at, mut width) = (0.0, 1.0);
        for (place, &byte) in places.iter().zip(&key[common..]) {
            let (begins, part) = place.part(byte);
            at += width * begins;
            width *= part;
        }
        at
    };
    let mut widths = vec![0.0; ranges.len()];
    for &at in &counted {
        let end = ranges[at].end.as_deref().unwrap_or_default();
        widths[at] = f64::max(position(end) - position(&ranges[at].start), 0.0);
    }
    widths
}

/// The part of the key space that each range has; they add up to 1. If none has any, all have the
/// same. No range counts for much more than the others: the first and the last used one reach
/// into what is not used, and so does one between two tables.
pub(super) fn widths(ranges: &[KeyRange], used: &[bool]) -> Vec<f64> {
    let mut widths = by_names(ranges, used);
    let inner = |at: &usize| {
        let next_to = |other: Option<usize>| other.is_some_and(|at| used.get(at) == Some(&true));
        next_to(at.checked_sub(1)) && next_to(Some(at + 1))
    };
    let counted = (0..widths.len()).filter(|&at| widths[at] > 0.0);
    let (inner, edge): (Vec<usize>, Vec<usize>) = counted.partition(inner);
    let mut known: Vec<f64> = inner.iter().map(|&at| widths[at]).collect();
    known.sort_by(f64::total_cmp);
    if let Some(&middle) = known.get(known.len() / 2) {
        edge.iter().for_each(|&at| widths[at] = widths[at].min(middle));
    }
    let sum: f64 = widths.iter().sum();
    widths.iter_mut().for_each(|width| *width = width.min(WIDEST * sum));
    as_parts(widths)
}

fn as_parts(mut widths: Vec<f64>) -> Vec<f64> {
    let (sum, ranges) = (widths.iter().sum::<f64>(), widths.len());
    match sum > 0.0 {
        true => widths.iter_mut().for_each(|width| *width /= sum),
        false => widths.fill(1.0 / ranges.max(1) as f64),
    }
    widths
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn of(bounds: &[&'static str]) -> Vec<f64> {
        let range = |pair: &[&'static str]| KeyRange {
            start: Bytes::from(pair[0]),
            end: Some(Bytes::from(pair[1])),
        };
        let ranges: Vec<KeyRange> = bounds.windows(2).map(range).collect();
        as_parts(by_names(&ranges, &vec![true; ranges.len()]))
    }

    fn near(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 0.02, "{found} and not {wanted}");
        }
    }

    #[test]
    fn numbered_keys_are_as_far_apart_as_their_numbers() {
        near(&of(&["user/000", "user/100", "user/101", "user/9"]), &[0.11, 0.001, 0.888]);
        near(&of(&["user/0", "user/8", "user/a", "user/f"]), &[8.0 / 15.0, 2.0 / 15.0, 5.0 / 15.0]);
    }

    #[test]
    fn tables_are_equally_wide_whatever_their_names() {
        near(&of(&["a/0", "a/5", "z/0", "z/5"]), &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn bad_input_ranges_without_bounds_or_use_have_no_width() {
        let open = KeyRange { start: Bytes::new(), end: None };
        assert_eq!(widths(std::slice::from_ref(&open), &[true]), [1.0]);
        assert_eq!(widths(&[], &[]), Vec::<f64>::new());
        let some = KeyRange { start: Bytes::from("a"), end: Some(Bytes::from("b")) };
        assert_eq!(widths(&[some.clone(), open], &[true, true]), [1.0, 0.0]);
        assert_eq!(widths(&[some], &[false]), [1.0]);
    }
}
