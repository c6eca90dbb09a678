//! Packs whole numbers into few bits: the streams that packed cells consist of.
//!
//! Numbers are packed in blocks of up to [`BLOCK`]. A block has one bit width (frame of reference).
//! The upper bits of the few numbers that need more are stored separately ("patched", as in PFOR:
//! Zukowski et al., Super-Scalar RAM-CPU Cache Compression, 2006), so one hot cell does not widen
//! its neighbours.
//!
//! ```text
//! block:   width u8 (0..=64) | patches u8 | count * width bits, little-endian, padded to a byte
//!          | patches * position u8 | patches * upper bits varint
//! varint:  seven bits a byte, lowest first, the top bit set on all but the last
//! ```

/// Numbers in a block.
pub(crate) const BLOCK: usize = 128;

/// Bytes that must follow a stream, so that any number can be read with one eight-byte load.
pub(crate) const PADDING: usize = 8;

/// Appends a number of 1 to 10 bytes.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front of `input`; `None` if it is truncated or exceeds 64 bits.
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint_len(bits: usize) -> usize {
    bits.div_ceil(7).max(1)
}

fn bit_len(value: u64) -> usize {
    64 - value.leading_zeros() as usize
}

/// The width at which a block of `values` is smallest, and its size in bytes.
pub(crate) fn best_width(values: &[u64]) -> (usize, usize) {
    let mut lengths = [0usize; 65];
    values.iter().for_each(|&value| lengths[bit_len(value)] += 1);
    let widest = lengths.iter().rposition(|&count| count > 0).unwrap_or(0);
    let size = |width: usize| {
        let patches: usize =
            (width + 1..=widest).map(|bits| lengths[bits] * (1 + varint_len(bits - width))).sum();
        2 + (values.len() * width).div_ceil(8) + patches
    };
    (0..=widest)
        .rev()
        .map(|width| (width, size(width)))
        .min_by_key(|&(_, size)| size)
        .expect("there is always the widest width")
}

/// Appends a block of at most [`BLOCK`] numbers.
pub(crate) fn put_block(values: &[u64], out: &mut Vec<u8>) {
    assert!(values.len() <= BLOCK, "a block has at most {BLOCK} numbers");
    let (width, _) = best_width(values);
    let mask = low_bits(width);
    let patches = values.iter().filter(|&&value| value > mask).count();
    out.push(width as u8);
    out.push(patches as u8);
    let (mut word, mut filled) = (0u128, 0);
    for &value in values {
        word |= u128::from(value & mask) << filled;
        filled += width;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
    let patched = || values.iter().enumerate().filter(|&(_, &value)| value > mask);
    out.extend(patched().map(|(position, _)| position as u8));
    patched().for_each(|(_, &value)| put_varint(value >> width, out));
}

/// Takes a block of `count` numbers (at most [`BLOCK`]) off the front of `input`, in which
/// [`PADDING`] bytes follow the last block. `None` if it is malformed.
pub(crate) fn take_block(input: &mut &[u8], count: usize, out: &mut [u64; BLOCK]) -> Option<()> {
    let [width, patches, rest @ ..] = input else { return None };
    let (width, patches) = (usize::from(*width), usize::from(*patches));
    let packed = (count * width).div_ceil(8);
    if width > 64 || patches > count || rest.len() < packed + patches + PADDING {
        return None;
    }
    unpack(rest, width, out.get_mut(..count)?);
    let (positions, mut uppers) = rest[packed..].split_at(patches);
    for &position in positions {
        let upper = take_varint(&mut uppers)?;
        if width == 64 || upper > u64::MAX >> width {
            return None;
        }
        *out[..count].get_mut(usize::from(position))? |= upper << width;
    }
    *input = uppers;
    Some(())
}

/// Skips a block without reading its numbers.
pub(crate) fn skip_block(input: &mut &[u8], count: usize) -> Option<()> {
    let [width, patches, rest @ ..] = input else { return None };
    let packed = (count * usize::from(*width)).div_ceil(8) + usize::from(*patches);
    let mut uppers = rest.get(packed..)?;
    for _ in 0..*patches {
        take_varint(&mut uppers)?;
    }
    *input = uppers;
    Some(())
}

/// As [`take_block`], but adds each number times `unit` to its sum, saturating. This costs half of
/// the two steps, because no number is stored in between.
pub(crate) fn add_block(input: &mut &[u8], unit: u64, sums: &mut [u64]) -> Option<()> {
    let [width, patches, rest @ ..] = input else { return None };
    let (width, patches, count) = (usize::from(*width), usize::from(*patches), sums.len());
    let packed = (count * width).div_ceil(8);
    if width > 64 || patches > count || rest.len() < packed + patches + PADDING {
        return None;
    }
    if unit == 1 {
        each_number(rest, width, sums, |sum, value| *sum = sum.saturating_add(value));
    } else {
        // Products of numbers packed here are exact. Others wrap, so that malformed input cannot
        // panic.
        each_number(rest, width, sums, |sum, value| {
            *sum = sum.saturating_add(value.wrapping_mul(unit));
        });
    }
    let (positions, mut uppers) = rest[packed..].split_at(patches);
    for &position in positions {
        let upper = take_varint(&mut uppers)?;
        if width == 64 || upper > u64::MAX >> width {
            return None;
        }
        let sum = sums.get_mut(usize::from(position))?;
        *sum = sum.saturating_add((upper << width).wrapping_mul(unit));
    }
    *input = uppers;
    Some(())
}

/// `packed` must have at least [`PADDING`] bytes beyond the numbers.
fn unpack(packed: &[u8], width: usize, out: &mut [u64]) {
    each_number(packed, width, out, |out, value| *out = value);
}

/// Calls `place` with each element of `out` and its number. Narrow widths are compile-time
/// constants, so the shifts of eight numbers, which begin at a byte, are constants too.
fn each_number(packed: &[u8], width: usize, out: &mut [u64], place: impl Fn(&mut u64, u64)) {
    macro_rules! narrow {
        ($($width:literal)*) => {
            match width {
                $($width => each_narrow::<$width>(packed, out, place),)*
                _ => each_wide(packed, width, out, place),
            }
        };
    }
    narrow!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24)
}

fn each_narrow<const WIDTH: usize>(packed: &[u8], out: &mut [u64], place: impl Fn(&mut u64, u64)) {
    let mask = low_bits(WIDTH);
    let (eights, rest) = out.as_chunks_mut::<8>();
    let mut at = 0;
    for eight in eights {
        // Eight numbers of up to 24 bits take at most 24 bytes; a load may reach into the padding.
        let bytes: &[u8] = &packed[at..];
        for (index, out) in eight.iter_mut().enumerate() {
            let bit = index * WIDTH;
            place(out, load(bytes, bit >> 3) >> (bit & 7) & mask);
        }
        at += WIDTH;
    }
    for (index, out) in rest.iter_mut().enumerate() {
        let bit = index * WIDTH;
        place(out, load(packed, at + (bit >> 3)) >> (bit & 7) & mask);
    }
}

fn each_wide(packed: &[u8], width: usize, out: &mut [u64], place: impl Fn(&mut u64, u64)) {
    let mask = low_bits(width);
    let mut bit = 0;
    for out in out {
        let (at, shift) = (bit >> 3, bit & 7);
        let low = load(packed, at) >> shift;
        // A number begins in the first byte of the load, so up to 57 of its bits are in the eight
        // bytes.
        let value = match shift {
            0 => low,
            _ if width <= 57 => low,
            _ => low | u64::from(packed[at + 8]) << (64 - shift),
        };
        place(out, value & mask);
        bit += width;
    }
}

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn low_bits(width: usize) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (64 - width) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(mut bytes: Vec<u8>, count: usize) -> Option<Vec<u64>> {
        bytes.extend([0; PADDING]);
        let mut input = bytes.as_slice();
        let mut out = [0; BLOCK];
        take_block(&mut input, count, &mut out)?;
        let mut skipped = bytes.as_slice();
        skip_block(&mut skipped, count)?;
        assert_eq!(skipped, input);
        let mut sums = vec![7; count];
        let mut added = bytes.as_slice();
        add_block(&mut added, 1, &mut sums)?;
        assert_eq!(added, input);
        assert!(sums.iter().zip(&out).all(|(sum, value)| *sum == value.saturating_add(7)));
        Some(out[..count].to_vec())
    }

    #[test]
    fn every_width_and_length_is_read_as_written() {
        for width in 0..=64 {
            for count in 0..=BLOCK {
                let values: Vec<u64> =
                    (0..count as u64).map(|i| !(i * 0x9e37_79b9) & low_bits(width)).collect();
                let mut bytes = Vec::new();
                put_block(&values, &mut bytes);
                assert_eq!(bytes.len(), best_width(&values).1);
                assert_eq!(read(bytes, count), Some(values), "{width} bits, {count} numbers");
            }
        }
    }

    #[test]
    fn one_hot_number_does_not_widen_its_neighbours() {
        let mut values = vec![3u64; BLOCK];
        values[77] = 1 << 40;
        let mut bytes = Vec::new();
        put_block(&values, &mut bytes);
        assert_eq!(bytes.len(), 2 + BLOCK * 2 / 8 + 1 + 6);
        assert_eq!(read(bytes, BLOCK), Some(values));
    }

    proptest! {
        #[test]
        fn any_numbers_are_read_as_written(
            values in prop::collection::vec(
                (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift), 0..=BLOCK),
        ) {
            let mut bytes = Vec::new();
            put_block(&values, &mut bytes);
            prop_assert_eq!(read(bytes, values.len()), Some(values));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, count in 0..=BLOCK) {
            let mut out = [0; BLOCK];
            let _ = take_block(&mut bytes.as_slice(), count, &mut out);
            let _ = add_block(&mut bytes.as_slice(), 3, &mut out[..count]);
            let _ = skip_block(&mut bytes.as_slice(), count);
            let _ = take_varint(&mut bytes.as_slice());
        }
    }
}
