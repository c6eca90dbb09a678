//! What one incarnation counted in one column, as a merge keeps it.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::query::contribution::CellKey;
use crate::wire::{PackedCells, PackedPart};
use keyviz_types::NodeId;

/// Why a part can be read.
const CHECKED: &str = "only columns that were checked are merged";

/// Whose answers name a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claimants {
    /// One node's.
    One(NodeId),
    /// Those of several nodes.
    Several,
}

/// One incarnation's counts in a column.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    total: u128,
    pub partial: bool,
    pub unattributed: u64,
    /// Keys of the merge, by the keys of the cells. Shared by the parts of a chunk.
    pub table: Arc<[u32]>,
    pub cells: PackedCells,
    pub apportioned: Vec<u32>,
}

impl Part {
    pub fn new(part: PackedPart, table: &Arc<[u32]>) -> Self {
        let mut total = 0u128;
        let sum = |values: &[u64]| {
            total += values.iter().map(|&value| u128::from(value)).sum::<u128>();
            Some(())
        };
        part.cells.values(sum).expect(CHECKED);
        Part {
            total,
            partial: part.partial,
            unattributed: part.unattributed,
            table: Arc::clone(table),
            cells: part.cells,
            apportioned: part.apportioned,
        }
    }

    /// The keys of the merge, one a cell.
    pub fn keys(&self) -> Vec<u32> {
        let keys = self.cells.keys().expect(CHECKED);
        keys.into_iter().map(|key| self.table[key as usize]).collect()
    }

    /// Calls `visit` with the values, a block at a time.
    pub fn values(&self, mut visit: impl FnMut(&[u64])) {
        let all = |values: &[u64]| {
            visit(values);
            Some(())
        };
        self.cells.values(all).expect(CHECKED);
    }

    /// More counted is larger, then complete; what is left decides so that order never does.
    pub fn compare(&self, other: &Part, keys: &[CellKey]) -> Ordering {
        let cells = |part: &Part| {
            let keys: Vec<CellKey> = part.keys().iter().map(|&key| keys[key as usize]).collect();
            let mut all = Vec::with_capacity(keys.len());
            part.values(|values| all.extend_from_slice(values));
            (keys, all)
        };
        (self.total, self.unattributed, !self.partial)
            .cmp(&(other.total, other.unattributed, !other.partial))
            .then_with(|| cells(self).cmp(&cells(other)))
            .then_with(|| other.apportioned.cmp(&self.apportioned))
    }
}
