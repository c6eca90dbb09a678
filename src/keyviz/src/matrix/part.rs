//! The counts of one incarnation in one column, as a merge stores them.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::query::block::BlockSpan;
use crate::query::contribution::{CellKey, Place, Source};
use crate::wire::{PackedCells, PackedPart};
use keyviz_types::{Incarnation, NodeId};

/// Why a part can be read.
const CHECKED: &str = "only columns that were checked are merged";

/// The nodes whose contributions have a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claimants {
    /// One node.
    One(NodeId),
    /// Several nodes.
    Several,
}

/// The identity of a part. A merge holds one part for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PartKey {
    /// The node that counted.
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub column: u32,
    /// The member that keeps the counts.
    pub held_by: NodeId,
}

/// One incarnation's counts in a column.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub total: u128,
    /// The number of columns of its longest block; 1 if it has none.
    pub columns: u32,
    pub partial: bool,
    pub unattributed: u64,
    /// For each key of the contribution, the key of the merge. The parts of a chunk share it.
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
            columns: 1,
            partial: part.partial,
            unattributed: part.unattributed,
            table: Arc::clone(table),
            cells: part.cells,
            apportioned: part.apportioned,
        }
    }

    /// The keys of the merge, one per cell.
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

    /// A total order: the part with more counts is larger, then the complete one. The rest of the
    /// order only makes the result independent of the order of additions.
    pub fn compare(&self, other: &Part, keys: &[CellKey], spans: &[BlockSpan]) -> Ordering {
        // Spans are numbered in the order in which they were added, so they are compared by value.
        let named = |&key: &u32| -> (u32, Option<&BlockSpan>, Source) {
            let CellKey { place, source } = keys[key as usize];
            match place {
                Place::Row(row) => (row, None, source),
                Place::Block(span) => (u32::MAX, Some(&spans[span as usize]), source),
            }
        };
        let cells = |part: &Part| {
            let keys: Vec<_> = part.keys().iter().map(named).collect();
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
