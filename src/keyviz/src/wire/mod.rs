//! The packed form of a contribution, in which nodes send it and the coordinating node keeps it
//! until all have answered.
//!
//! A plain cell takes twelve bytes, and a coordinating node holds the cells of all nodes at once. A
//! packed cell takes little more than one: values are blocks of numbers with as many bits as they
//! need, and the columns of a busy node all have the same keys, which are stored once. Protobuf's
//! packed integers would take three and a half bytes, but are several times slower to read, and
//! would have to be converted for storage.
//!
//! ```text
//! keys:   blocks of gaps (the key less the one before it, less 1); no blocks where the part has
//!         the keys of the part before
//! values: blocks of values
//! blocks: up to 128 numbers each, as the columns of the history are packed, without padding
//! ```
//!
//! [`PackedColumns::checked`] verifies every number of a contribution from another node once. Only
//! its result, [`CheckedColumns`], can be merged.

use std::sync::Arc;

use crate::history::bitpack::{BLOCK, PADDING, put_block, take_block};
use crate::history::cells::slots_of;
use crate::query::axis::{ColumnPlan, RowAxis};
use crate::query::contribution::ascending_below;
use keyviz_types::Incarnation;

pub use crate::query::contribution::{
    CONTRIBUTION_VERSION, CellKey, ColumnPart, ContributionError, MAX_KEYS, NodeColumns, Place,
    Source,
};

/// Whole numbers in blocks. The bytes are not verified before they are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// Padded.
    data: Arc<[u8]>,
}

impl Numbers {
    /// The numbers that these bytes encode.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let data = bytes.iter().copied().chain([0; PADDING]);
        Numbers { data: data.collect() }
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data[..self.data.len() - PADDING]
    }

    fn pack(numbers: impl Iterator<Item = u64>) -> Self {
        let (mut data, mut block) = (Vec::new(), Vec::with_capacity(BLOCK));
        for number in numbers {
            block.push(number);
            if block.len() == BLOCK {
                put_block(&block, &mut data);
                block.clear();
            }
        }
        if !block.is_empty() {
            put_block(&block, &mut data);
        }
        data.extend([0; PADDING]);
        Numbers { data: data.into() }
    }

    /// Calls `visit` with `count` numbers, a block at a time; `None` if the number is not exactly
    /// `count`, or `visit` returns `None`.
    fn each(&self, count: usize, mut visit: impl FnMut(&[u64]) -> Option<()>) -> Option<()> {
        let (mut input, mut left, mut block) = (&self.data[..], count, [0; BLOCK]);
        while left > 0 {
            let size = left.min(BLOCK);
            take_block(&mut input, size, &mut block)?;
            visit(&block[..size])?;
            left -= size;
        }
        (input.len() == PADDING).then_some(())
    }

    fn is_same(&self, other: &Numbers) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }
}

/// The cells of a part: keys and values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedCells {
    /// The number of cells.
    pub count: u32,
    /// Gaps between indices into [`NodeColumns::keys`]. Shared with the part before if both have
    /// the same keys.
    pub keys: Numbers,
    /// The counts, one per key.
    pub values: Numbers,
}

/// [`ColumnPart`], packed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedPart {
    /// Index of the column in the plan.
    pub column: u32,
    /// The incarnation that counted.
    pub incarnation: Incarnation,
    /// Counts may be missing.
    pub partial: bool,
    /// Operations without a route.
    pub unattributed: u64,
    /// The counts.
    pub cells: PackedCells,
    /// Rows in which a count is apportioned, ascending.
    pub apportioned: Vec<u32>,
}

/// A node's answer in round two, or a chunk of it, packed.
pub type PackedColumns = NodeColumns<PackedPart>;

/// Packed columns that were checked for axes of so many rows and columns.
#[derive(Clone, Debug)]
pub struct CheckedColumns {
    columns: PackedColumns,
    axes: (usize, usize),
}

impl PackedCells {
    /// Whether both share one copy of their keys, so that what was derived from those of one holds
    /// for the other.
    pub fn has_keys_of(&self, other: &PackedCells) -> bool {
        self.count == other.count && self.keys.is_same(&other.keys)
    }

    /// The indices of the keys; `None` if they are malformed or exceed 32 bits.
    pub(crate) fn keys(&self) -> Option<Vec<u32>> {
        let (mut keys, mut slots, mut next) = (Vec::new(), [0; BLOCK], 0);
        self.keys.each(self.count as usize, |gaps| {
            next = slots_of(gaps, next, &mut slots)?;
            keys.extend_from_slice(&slots[..gaps.len()]);
            Some(())
        })?;
        Some(keys)
    }

    /// Calls `visit` with the values, a block at a time; `None` if they are malformed, or `visit`
    /// returns `None`.
    pub(crate) fn values(&self, visit: impl FnMut(&[u64]) -> Option<()>) -> Option<()> {
        self.values.each(self.count as usize, visit)
    }
}

impl From<NodeColumns> for PackedColumns {
    /// Packs columns. Columns that [`NodeColumns::check`] refuses are refused in packed form too.
    fn from(columns: NodeColumns) -> Self {
        columns.with_parts(|parts| {
            let mut before: Option<(Vec<u32>, Numbers)> = None;
            parts.into_iter().map(|part| packed(part, &mut before)).collect()
        })
    }
}

/// Packs a part; `before` has the keys of the part before it.
fn packed(part: ColumnPart, before: &mut Option<(Vec<u32>, Numbers)>) -> PackedPart {
    let keys = match before.take() {
        Some((keys, packed)) if keys == part.keys => packed,
        _ => {
            let after = |key: &u32| u64::from(*key) + 1;
            let before = std::iter::once(0).chain(part.keys.iter().map(after));
            let gap = |(key, before): (&u32, u64)| u64::from(*key).wrapping_sub(before);
            Numbers::pack(part.keys.iter().zip(before).map(gap))
        }
    };
    // Without exactly one value per key, the packed form must be refused too: it becomes malformed.
    let values = match part.keys.len() == part.values.len() {
        true => Numbers::pack(part.values.into_iter()),
        false => Numbers::from_bytes(&[u8::MAX]),
    };
    let count = u32::try_from(part.keys.len()).expect("keys are numbered in 32 bits");
    let cells = PackedCells { count, keys: keys.clone(), values };
    *before = Some((part.keys, keys));
    PackedPart {
        column: part.column,
        incarnation: part.incarnation,
        partial: part.partial,
        unattributed: part.unattributed,
        cells,
        apportioned: part.apportioned,
    }
}

impl PackedColumns {
    /// Number of cells.
    pub fn cells(&self) -> usize {
        self.parts.iter().map(|part| part.cells.count as usize).sum()
    }

    /// Verifies every number.
    ///
    /// # Errors
    /// The contribution does not fit the axes.
    pub fn checked(
        self,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Result<CheckedColumns, ContributionError> {
        let axes = (rows.len(), columns.len());
        let head = |part: &PackedPart| (part.column, part.incarnation);
        self.check_frame(rows, columns, head)?;
        let mut before: Option<&PackedCells> = None;
        let mut longest = 1;
        for (index, part) in self.parts.iter().enumerate() {
            let cells = &part.cells;
            if before.is_none_or(|before| !cells.has_keys_of(before)) {
                let keys =
                    named(cells, self.keys.len()).ok_or(ContributionError::Cells { index })?;
                longest = self.longest(&keys);
            }
            if part.column as usize + longest > axes.1 {
                return Err(ContributionError::Part { index, column: part.column });
            }
            let none_zero = |values: &[u64]| (!values.contains(&0)).then_some(());
            cells.values(none_zero).ok_or(ContributionError::Cells { index })?;
            if !ascending_below(&part.apportioned, axes.0) {
                return Err(ContributionError::Apportioned { index });
            }
            before = Some(cells);
        }
        Ok(CheckedColumns { columns: self, axes })
    }
}

/// The keys of cells; `None` unless all are below `keys`. Gaps make them ascend.
fn named(cells: &PackedCells, keys: usize) -> Option<Vec<u32>> {
    // Check the count before unpacking: two bytes can stand for a block of 128 zeros.
    if cells.count as usize > keys {
        return None;
    }
    let indices = cells.keys()?;
    indices.last().is_none_or(|&last| (last as usize) < keys).then_some(indices)
}

impl CheckedColumns {
    /// The columns, and the size of the axes that they were checked for.
    pub(crate) fn into_inner(self) -> (PackedColumns, (usize, usize)) {
        (self.columns, self.axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::column_set::ColumnSet;
    use crate::query::contribution::{CellKey, Source};
    use bytes::Bytes;
    use keyviz_types::NodeId;

    fn plain(cells: Vec<(Vec<u32>, Vec<u64>)>) -> NodeColumns {
        let part = |(column, (keys, values))| ColumnPart {
            column,
            incarnation: Incarnation(1),
            partial: false,
            unattributed: 0,
            keys,
            values,
            apportioned: vec![],
        };
        let key = |n: u32| CellKey {
            place: Place::Row(n / 2),
            source: if n.is_multiple_of(2) { Source::LeaderRead } else { Source::FollowerRead },
        };
        NodeColumns {
            node: NodeId(1),
            held_by: NodeId(1),
            incarnation: Incarnation(1),
            covers: 0..9,
            held: ColumnSet::of(0..9),
            incomplete: ColumnSet::new(),
            forgotten_before_ms: 0,
            spans: vec![],
            keys: (0..600).map(key).collect(),
            parts: (0..).zip(cells).map(part).collect(),
        }
    }

    fn axes() -> (RowAxis, ColumnPlan) {
        let starts = (0..300u32).map(|row| Bytes::copy_from_slice(&row.to_be_bytes())).collect();
        let rows = RowAxis::new(starts, None, vec![0; 300]).expect("in order");
        let bounds: Vec<u64> = (0..10).map(|column| column * 1_000).collect();
        (rows, ColumnPlan::new(1_000, &bounds, false).expect("in order"))
    }

    fn checked(columns: NodeColumns) -> Result<CheckedColumns, ContributionError> {
        let (rows, plan) = axes();
        assert_eq!(columns.check(&rows, &plan).is_ok(), {
            let packed = PackedColumns::from(columns.clone());
            packed.checked(&rows, &plan).is_ok()
        });
        PackedColumns::from(columns).checked(&rows, &plan)
    }

    #[test]
    fn conservation_of_packed_parts_and_keys_that_follow_each_other_are_kept_once() {
        let all: Vec<u32> = (0..600).collect();
        let some: Vec<u32> = all.iter().copied().filter(|key| key % 7 != 3).collect();
        let values = |keys: &[u32]| keys.iter().map(|&key| 1 << (key % 64)).collect::<Vec<u64>>();
        let lists = [all.clone(), all.clone(), some.clone(), vec![], some, vec![599], all];
        let cells: Vec<_> = lists.into_iter().map(|keys| (keys.clone(), values(&keys))).collect();
        let (sound, _) = checked(plain(cells.clone())).expect("it is sound").into_inner();
        for (part, (keys, values)) in sound.parts.iter().zip(&cells) {
            let mut unpacked = Vec::new();
            let all = |values: &[u64]| {
                unpacked.extend_from_slice(values);
                Some(())
            };
            part.cells.values(all).expect("packed here");
            assert_eq!((&part.cells.keys().expect("packed here"), &unpacked), (keys, values));
        }
        let shared = |pair: &[PackedPart]| pair[1].cells.has_keys_of(&pair[0].cells);
        let shared: Vec<bool> = sound.parts.windows(2).map(shared).collect();
        assert_eq!(shared, [true, false, false, false, false, false]);
    }

    #[test]
    fn what_is_refused_plain_is_refused_packed() {
        let refused = [
            (vec![1, 0], vec![1, 1]),
            (vec![3, 3], vec![1, 1]),
            (vec![0, 600], vec![1, 1]),
            (vec![0, u32::MAX], vec![1, 1]),
            (vec![0, 1], vec![1]),
            (vec![0], vec![1, 1]),
            (vec![0, 1], vec![1, 0]),
        ];
        for cells in refused {
            let good = (vec![0, 1], vec![1, 1]);
            let error = checked(plain(vec![good, cells])).expect_err("it is unsound");
            assert_eq!(error, ContributionError::Cells { index: 1 });
        }
    }
}
