//! The non-zero cells of one axis, packed by series.
//!
//! Five streams of blocks (see [`super::bitpack`]) in one buffer: the gaps between the slots that
//! have counts, then each series. A dense run of slots needs no bits for its gaps. Since most reads
//! and writes of a slot have similar sizes, a block of a byte series may store the difference to
//! `operations * unit` instead.
//!
//! ```text
//! gaps | reads | writes            blocks
//! read bytes | write bytes         (unit varint, block) each; unit 0: the bytes themselves,
//!                                  else bytes - operations * unit, zigzag, wrapping
//! ```

use super::bitpack::{
    BLOCK, PADDING, add_block, best_width, put_block, put_varint, skip_block, take_block,
    take_varint,
};
use crate::sampler::counts::{Counts, Series};

/// Packed cells. They are always well-formed: [`Cells::new`] packs them, and [`Cells::decode`]
/// checks them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cells {
    count: u32,
    /// The offset of each series' stream.
    starts: [u32; 4],
    /// Padded.
    data: Box<[u8]>,
}

/// The slots of a block of cells.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slots<'a> {
    /// Consecutive slots, from this one on.
    From(u32),
    /// Ascending.
    List(&'a [u32]),
}

impl Slots<'_> {
    pub fn at(&self, index: usize) -> u32 {
        match self {
            Slots::From(first) => first + index as u32,
            Slots::List(slots) => slots[index],
        }
    }
}

/// The series that a byte series is predicted from.
const fn operations(series: Series) -> Option<Series> {
    match series {
        Series::Reads | Series::Writes => None,
        Series::ReadBytes => Some(Series::Reads),
        Series::WriteBytes => Some(Series::Writes),
    }
}

const fn index(series: Series) -> usize {
    match series {
        Series::Reads => 0,
        Series::Writes => 1,
        Series::ReadBytes => 2,
        Series::WriteBytes => 3,
    }
}

/// Gaps are filled if at least one in this many slots has counts.
const MOST_FILLED: usize = 2;

/// The header of a block of gaps that are all 0: no width and no patches.
const NO_GAPS: [u8; 2] = [0, 0];

const WELL_FORMED: &str = "cells are packed here or checked when decoded";

impl Cells {
    /// Packs cells with ascending slots, none of them zero.
    ///
    /// Gaps cost time whenever cells are read. If most slots have counts, the others are therefore
    /// stored as zeros, unless that takes more than an eighth more space.
    pub fn new(cells: &[(u32, Counts)]) -> Self {
        let packed = Self::pack(cells);
        let ([(first, _), ..], [.., (last, _)]) = (cells, cells) else { return packed };
        let span = (last - first) as usize + 1;
        if span == cells.len() || span > cells.len() * MOST_FILLED {
            return packed;
        }
        let mut filled: Vec<(u32, Counts)> =
            (*first..=*last).map(|slot| (slot, Counts::ZERO)).collect();
        cells.iter().for_each(|&(slot, counts)| filled[(slot - first) as usize].1 = counts);
        let filled = Self::pack(&filled);
        if filled.bytes() * 8 <= packed.bytes() * 9 { filled } else { packed }
    }

    fn pack(cells: &[(u32, Counts)]) -> Self {
        let mut data = Vec::with_capacity(cells.len() * 5 + 64);
        let mut block = Vec::with_capacity(BLOCK);
        let mut next = 0;
        for cells in cells.chunks(BLOCK) {
            block.clear();
            for &(slot, _) in cells {
                block.push(u64::from(slot - next));
                next = slot + 1;
            }
            put_block(&block, &mut data);
        }
        let mut starts = [0; 4];
        for series in Series::ALL {
            starts[index(series)] = u32::try_from(data.len()).expect("a column is far below 4 GiB");
            for cells in cells.chunks(BLOCK) {
                block.clear();
                block.extend(cells.iter().map(|(_, counts)| counts.get(series)));
                if let Some(operations) = operations(series) {
                    let unit = unit(cells, operations, &mut block);
                    put_varint(unit, &mut data);
                }
                put_block(&block, &mut data);
            }
        }
        data.extend([0; PADDING]);
        let count = u32::try_from(cells.len()).expect("an axis has fewer than 2^32 slots");
        Cells { count, starts, data: data.into_boxed_slice() }
    }

    /// The number of cells, including the zeros that fill gaps.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Calls `visit` with the slots and the values of one series, a block at a time.
    pub fn each(&self, series: Series, mut visit: impl FnMut(Slots<'_>, &[u64])) {
        let mut gaps = &self.data[..];
        let mut stream = &self.data[self.starts[index(series)] as usize..];
        let mut base = operations(series).map(|by| &self.data[self.starts[index(by)] as usize..]);
        let (mut values, mut scratch) = ([0; BLOCK], [0; BLOCK]);
        let mut slots = [0; BLOCK];
        let (mut left, mut next) = (self.len(), 0);
        while left > 0 {
            let count = left.min(BLOCK);
            match &mut base {
                None => take_block(&mut stream, count, &mut values).expect(WELL_FORMED),
                Some(base) => take_predicted(&mut stream, base, count, &mut values, &mut scratch)
                    .expect(WELL_FORMED),
            }
            if gaps[..2] == NO_GAPS {
                gaps = &gaps[2..];
                visit(Slots::From(next), &values[..count]);
                next += count as u32;
            } else {
                take_block(&mut gaps, count, &mut scratch).expect(WELL_FORMED);
                next = slots_of(&scratch[..count], next, &mut slots).expect(WELL_FORMED);
                visit(Slots::List(&slots[..count]), &values[..count]);
            }
            left -= count;
        }
    }

    /// Adds one series to the sums of the axis, one sum per slot, saturating.
    pub fn add_to(&self, series: Series, sums: &mut [u64]) {
        let mut gaps = &self.data[..];
        let mut stream = &self.data[self.starts[index(series)] as usize..];
        let mut base = operations(series).map(|by| &self.data[self.starts[index(by)] as usize..]);
        let (mut values, mut scratch) = ([0; BLOCK], [0; BLOCK]);
        let (mut left, mut next) = (self.len(), 0);
        while left > 0 {
            let count = left.min(BLOCK);
            if gaps[..2] == NO_GAPS {
                gaps = &gaps[2..];
                let sums = &mut sums[next as usize..next as usize + count];
                match &mut base {
                    None => add_block(&mut stream, 1, sums),
                    Some(base) => add_predicted(&mut stream, base, sums),
                }
                .expect(WELL_FORMED);
                next += count as u32;
            } else {
                match &mut base {
                    None => take_block(&mut stream, count, &mut values),
                    Some(base) => {
                        take_predicted(&mut stream, base, count, &mut values, &mut scratch)
                    }
                }
                .expect(WELL_FORMED);
                take_block(&mut gaps, count, &mut scratch).expect(WELL_FORMED);
                for (&value, &gap) in values[..count].iter().zip(&scratch) {
                    let slot = next + gap as u32;
                    sums[slot as usize] = sums[slot as usize].saturating_add(value);
                    next = slot + 1;
                }
            }
            left -= count;
        }
    }

    /// All cells in order, without the zeros that fill gaps.
    pub fn to_vec(&self) -> Vec<(u32, Counts)> {
        let mut cells = vec![(0, Counts::ZERO); self.len()];
        for series in Series::ALL {
            let mut at = 0;
            self.each(series, |slots, values| {
                for (i, &value) in values.iter().enumerate() {
                    let (slot, counts) = &mut cells[at + i];
                    *slot = slots.at(i);
                    match series {
                        Series::Reads => counts.reads = value,
                        Series::Writes => counts.writes = value,
                        Series::ReadBytes => counts.read_bytes = value,
                        Series::WriteBytes => counts.write_bytes = value,
                    }
                }
                at += values.len();
            });
        }
        cells.retain(|(_, counts)| !counts.is_zero());
        cells
    }

    /// Appends the number of cells, the length of the streams, and the streams.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let data = &self.data[..self.data.len() - PADDING];
        put_varint(u64::from(self.count), out);
        put_varint(data.len() as u64, out);
        out.extend_from_slice(data);
    }

    /// Takes the cells of an axis with `slots` slots off the front of `input`; `None` if they are
    /// malformed.
    pub fn decode(input: &mut &[u8], slots: usize) -> Option<Self> {
        let count = u32::try_from(take_varint(input)?).ok()?;
        let length = usize::try_from(take_varint(input)?).ok()?;
        if count as usize > slots || length > input.len() {
            return None;
        }
        let (streams, rest) = input.split_at(length);
        *input = rest;
        let data = [streams, &[0; PADDING]].concat().into_boxed_slice();
        let starts = check(&data, count as usize, slots)?;
        Some(Cells { count, starts, data })
    }
}

/// Checks all streams, and returns the offsets of the series' streams.
fn check(data: &[u8], count: usize, slots: usize) -> Option<[u32; 4]> {
    let mut input = data;
    let (mut out, mut list) = ([0; BLOCK], [0; BLOCK]);
    let blocks = || (0..count).step_by(BLOCK).map(|from| (count - from).min(BLOCK));
    let mut next = 0;
    for count in blocks() {
        take_block(&mut input, count, &mut out)?;
        next = slots_of(&out[..count], next, &mut list)?;
    }
    if next as usize > slots {
        return None;
    }
    let mut starts = [0; 4];
    for series in Series::ALL {
        starts[index(series)] = u32::try_from(data.len() - input.len()).ok()?;
        for count in blocks() {
            if operations(series).is_some() {
                take_varint(&mut input)?;
            }
            take_block(&mut input, count, &mut out)?;
        }
    }
    (input.len() == PADDING).then_some(starts)
}

/// Converts gaps to slots, from `next` on. Returns one past the last slot; `None` if a slot exceeds
/// 32 bits.
pub(crate) fn slots_of(gaps: &[u64], mut next: u32, slots: &mut [u32; BLOCK]) -> Option<u32> {
    for (&gap, slot) in gaps.iter().zip(slots) {
        *slot = next.checked_add(u32::try_from(gap).ok()?)?;
        next = slot.checked_add(1)?;
    }
    Some(next)
}

fn take_predicted(
    stream: &mut &[u8],
    base: &mut &[u8],
    count: usize,
    values: &mut [u64; BLOCK],
    scratch: &mut [u64; BLOCK],
) -> Option<()> {
    let unit = take_varint(stream)?;
    take_block(stream, count, values)?;
    if unit == 0 {
        return skip_block(base, count);
    }
    take_block(base, count, scratch)?;
    for (value, &operations) in values[..count].iter_mut().zip(&scratch[..count]) {
        *value = unzigzag(*value).wrapping_add(operations.wrapping_mul(unit));
    }
    Some(())
}

/// As [`take_predicted`], but adds to sums.
fn add_predicted(stream: &mut &[u8], base: &mut &[u8], sums: &mut [u64]) -> Option<()> {
    let unit = take_varint(stream)?;
    if unit == 0 {
        add_block(stream, 1, sums)?;
        return skip_block(base, sums.len());
    }
    if stream.get(..2)? == NO_GAPS {
        // The prediction is exact, as for values of one size.
        *stream = &stream[2..];
        return add_block(base, unit, sums);
    }
    let (mut values, mut operations) = ([0; BLOCK], [0; BLOCK]);
    take_block(stream, sums.len(), &mut values)?;
    take_block(base, sums.len(), &mut operations)?;
    for ((sum, &value), &operations) in sums.iter_mut().zip(&values).zip(&operations) {
        let value = unzigzag(value).wrapping_add(operations.wrapping_mul(unit));
        *sum = sum.saturating_add(value);
    }
    Some(())
}

/// Chooses the unit for a block of a byte series, and replaces `block` by the numbers to pack.
fn unit(cells: &[(u32, Counts)], operations: Series, block: &mut [u64]) -> u64 {
    let count: u128 = cells.iter().map(|(_, counts)| u128::from(counts.get(operations))).sum();
    let bytes: u128 = block.iter().map(|&bytes| u128::from(bytes)).sum();
    let unit = bytes.checked_div(count).and_then(|unit| u64::try_from(unit).ok()).unwrap_or(0);
    if unit == 0 {
        return 0;
    }
    // Products must be exact, so that `add_block` can add parts of them separately.
    if cells.iter().any(|(_, counts)| counts.get(operations).checked_mul(unit).is_none()) {
        return 0;
    }
    let mut rest = [0; BLOCK];
    for ((rest, &bytes), (_, counts)) in rest.iter_mut().zip(&*block).zip(cells) {
        *rest = zigzag(bytes.wrapping_sub(counts.get(operations).wrapping_mul(unit)));
    }
    let rest = &rest[..block.len()];
    // A prediction costs reading the operations too, so it must save a third.
    if best_width(rest).1 * 3 > best_width(block).1 * 2 {
        return 0;
    }
    block.copy_from_slice(rest);
    unit
}

/// Maps numbers of small magnitude to small numbers.
fn zigzag(value: u64) -> u64 {
    value << 1 ^ (value.cast_signed() >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 0u64..9, 2 => (any::<u64>(), 0u32..64).prop_map(|(v, shift)| v >> shift)]
    }

    fn cells() -> impl Strategy<Value = Vec<(u32, Counts)>> {
        let counts = (number(), number(), number(), number()).prop_map(
            |(reads, writes, read_bytes, write_bytes)| Counts {
                reads,
                writes,
                read_bytes,
                write_bytes,
            },
        );
        let gap = prop_oneof![5 => Just(1u32), 1 => 1u32..1_000];
        prop::collection::vec((gap, counts), 0..400).prop_map(|cells| {
            let mut slot = 0;
            let place = |(gap, counts)| {
                slot += gap;
                (slot - 1, counts)
            };
            cells.into_iter().map(place).filter(|(_, counts)| !counts.is_zero()).collect()
        })
    }

    proptest! {
        #[test]
        fn conservation_of_cells_packed_encoded_and_decoded(cells in cells()) {
            let packed = Cells::new(&cells);
            prop_assert_eq!(&packed.to_vec(), &cells);
            for series in Series::ALL {
                let mut sums = vec![5u64; cells.last().map_or(0, |(slot, _)| *slot as usize + 1)];
                let mut expected = sums.clone();
                packed.add_to(series, &mut sums);
                for (slot, counts) in &cells {
                    let sum = &mut expected[*slot as usize];
                    *sum = sum.saturating_add(counts.get(series));
                }
                prop_assert_eq!(sums, expected);
            }
            let mut bytes = Vec::new();
            packed.encode(&mut bytes);
            let slots = cells.last().map_or(0, |(slot, _)| *slot as usize + 1);
            let mut input = bytes.as_slice();
            prop_assert_eq!(Cells::decode(&mut input, slots), Some(packed));
            prop_assert!(input.is_empty());
            if slots > 0 {
                prop_assert_eq!(Cells::decode(&mut bytes.as_slice(), slots - 1), None);
            }
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_without_panic(
            cells in cells(), at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            Cells::new(&cells).encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let cut = cut.index(bytes.len() + 1);
            for input in [&bytes[..], &bytes[..cut]] {
                if let Some(cells) = Cells::decode(&mut { input }, 100_000) {
                    prop_assert!(cells.to_vec().iter().all(|(slot, _)| *slot < 100_000));
                }
            }
        }
    }

    #[test]
    fn slots_with_few_gaps_are_packed_without_any_where_it_costs_little() {
        let cell = |slot: u32| (slot, Counts { reads: 1 + u64::from(slot % 3), ..Counts::ZERO });
        let sized = |slot: u32| {
            let write_bytes = 500 + u64::from(slot) * 7_919 % 500;
            (slot, Counts { reads: 1, writes: 1, write_bytes, ..Counts::ZERO })
        };
        let some = |one_in: u32| (5..5_000).filter(move |slot| slot * 31 % 64 >= one_in);
        let few: Vec<_> = some(16).map(cell).collect();
        let packed = Cells::new(&few);
        assert_eq!((packed.len(), packed.to_vec()), (4_995, few));
        // A hole in every second slot, and holes that would take as many bytes as counts of all
        // sizes.
        let many: Vec<_> = some(40).map(cell).collect();
        assert_eq!(Cells::new(&many).len(), many.len());
        let large: Vec<_> = some(16).map(sized).collect();
        assert_eq!(Cells::new(&large).len(), large.len());
    }

    #[test]
    fn constant_value_sizes_cost_nothing_beside_the_operations() {
        let counts = |i: u64| Counts { writes: i % 13, write_bytes: i % 13 * 116, ..Counts::ZERO };
        let cells: Vec<_> =
            (0..10_000).map(|i| (i as u32, counts(u64::from(i as u32) + 1))).collect();
        let bytes = Cells::new(&cells).bytes();
        assert!(bytes < 10_000, "{bytes} bytes for 10,000 cells");
    }
}
