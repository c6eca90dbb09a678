//! Divides whole numbers so that the parts add up to the whole.
//!
//! Row planning estimates load by range with it, and blocks are divided into cells with it for
//! callers that know no blocks. No cell of a measured answer comes from here: see [`super::block`].
//!
//! A value is divided among targets by the largest remainder (Hamilton's method), so the parts
//! always sum to the value. The part of a value inside a range is a difference of cumulative
//! shares, `F(to) - F(from)` with `F(p) = floor(value * p)`: the parts of adjacent ranges then sum
//! to the value wherever it is cut, which the largest remainder does not ensure.

/// The position of a point along a range, `num / den`, from 0 to 1; `den` is never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    pub num: u64,
    pub den: u64,
}

impl Share {
    pub const ZERO: Share = Share { num: 0, den: 1 };
    pub const ONE: Share = Share { num: 1, den: 1 };

    /// `floor(value * self)`, at most `value`.
    pub fn of(self, value: u64) -> u64 {
        if self.num >= self.den {
            return value;
        }
        let part = u128::from(value) * u128::from(self.num) / u128::from(self.den);
        u64::try_from(part).expect("a share below one of a u64 fits a u64")
    }
}

/// The part of `value` between two points of its range.
pub(crate) fn between(value: u64, from: Share, to: Share) -> u64 {
    to.of(value).saturating_sub(from.of(value))
}

/// Divides `value` among `weights` by the largest remainder; `out` gets one part per weight, in
/// order. Of equal remainders the earlier one gets the unit. If all weights are 0, the parts are
/// even. The parts sum to `value`, unless `weights` is empty.
pub(crate) fn apportion(value: u64, weights: &[u64], out: &mut Vec<u64>) {
    out.clear();
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if sum == 0 {
        let count = weights.len() as u64;
        out.extend((0..count).map(|i| value / count + u64::from(i < value % count)));
        return;
    }
    let mut remainders = Vec::with_capacity(weights.len());
    let mut rest = value;
    for (i, &weight) in weights.iter().enumerate() {
        let product = u128::from(value) * u128::from(weight);
        let part = u64::try_from(product / sum).expect("a weight is at most the sum of weights");
        rest -= part;
        out.push(part);
        remainders.push((std::cmp::Reverse(product % sum), i));
    }
    if rest > 0 {
        remainders.sort_unstable();
        for &(_, i) in remainders.iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
            out[i] += 1;
        }
    }
}

/// The position of `key` in the range from `start` to `end`, with keys read as binary fractions.
/// The common prefix of `start` and `end` is skipped, and the eight bytes after it are used. A
/// range without an end is taken to end at the last possible key.
pub(crate) fn position(start: &[u8], end: Option<&[u8]>, key: &[u8]) -> Share {
    if key <= start {
        return Share::ZERO;
    }
    if end.is_some_and(|end| key >= end) {
        return Share::ONE;
    }
    let skip = end.map_or(0, |end| start.iter().zip(end).take_while(|(a, b)| a == b).count());
    let from = digits(start, skip);
    let to = end.map_or(u64::MAX, |end| digits(end, skip));
    let at = digits(key, skip).clamp(from, to.max(from));
    match to.checked_sub(from) {
        None | Some(0) => Share::ZERO,
        Some(den) => Share { num: at - from, den },
    }
}

/// Eight bytes of `key` from `skip` on, as a big-endian number; missing bytes are zero.
fn digits(key: &[u8], skip: usize) -> u64 {
    let mut bytes = [0; 8];
    let rest = key.get(skip..).unwrap_or(&[]);
    let count = rest.len().min(8);
    bytes[..count].copy_from_slice(&rest[..count]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(value: u64, weights: &[u64]) -> Vec<u64> {
        let mut out = Vec::new();
        apportion(value, weights, &mut out);
        out
    }

    #[test]
    fn largest_remainders_get_the_units_that_are_left() {
        assert_eq!(parts(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(parts(10, &[5, 3, 2]), [5, 3, 2]);
        assert_eq!(parts(7, &[0, 6, 1]), [0, 6, 1]);
        assert_eq!(parts(3, &[1, 10]), [0, 3]);
        assert_eq!(parts(5, &[0, 0]), [3, 2]);
        assert_eq!(parts(u64::MAX, &[u64::MAX, u64::MAX]), [u64::MAX / 2 + 1, u64::MAX / 2]);
        assert_eq!(parts(9, &[]), [0; 0]);
    }

    #[test]
    fn position_passes_over_what_the_bounds_have_in_common() {
        let at = position(b"tenant/a", Some(b"tenant/c"), b"tenant/b");
        assert_eq!(u128::from(at.num) * 2, u128::from(at.den));
        assert_eq!(position(b"b", Some(b"c"), b"a"), Share::ZERO);
        assert_eq!(position(b"b", Some(b"c"), b"c"), Share::ONE);
        // Bounds that differ only by trailing zero bytes leave no distance to measure.
        assert_eq!(position(b"b", Some(b"b\0\0"), b"b\0"), Share::ZERO);
        assert!(position(b"", None, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff").of(100) == 100);
    }

    proptest! {
        #[test]
        fn conservation_of_every_apportioned_value(
            value: u64, weights in prop::collection::vec(any::<u64>(), 1..40)
        ) {
            let sum: u128 = parts(value, &weights).into_iter().map(u128::from).sum();
            prop_assert_eq!(sum, u128::from(value));
        }

        #[test]
        fn conservation_of_any_cut_into_adjacent_windows(
            value: u64, start: Vec<u8>, end: Option<Vec<u8>>, mut keys: Vec<Vec<u8>>
        ) {
            let end = end.map(|end| [&start[..], &end, &[0]].concat());
            keys.sort();
            let end = end.as_deref();
            let mut cuts = vec![Share::ZERO];
            cuts.extend(keys.iter().map(|key| position(&start, end, key)));
            cuts.push(Share::ONE);
            let sum: u64 = cuts.windows(2).map(|cut| between(value, cut[0], cut[1])).sum();
            prop_assert_eq!(sum, value);
        }
    }
}
