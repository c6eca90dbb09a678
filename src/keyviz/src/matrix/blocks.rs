//! The blocks of a matrix: counts that cover more than one cell. See [`crate::query::block`].

use std::collections::BTreeMap;

use super::sums::BlockCell;
use super::{Matrix, RoleTotals};
use crate::history::window::Window;
use crate::query::Role;
use crate::query::axis::RowAxis;
use crate::query::block::BlockSpan;
use crate::query::spread::evenly;
use keyviz_types::KeyRange;

/// The maximum number of blocks of a matrix. Above it, blocks of a column that share rows are
/// joined and, if that does not suffice, all blocks of a column.
pub const MAX_BLOCKS: usize = 65_536;

/// A count for several rows, several columns, or keys or time beyond those queried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The first row that shares keys with it.
    pub first_row: u32,
    /// Number of rows; at least 1.
    pub row_count: u32,
    /// The first column that shares time with it.
    pub column: u32,
    /// Number of columns; at least 1.
    pub column_count: u32,
    /// What was counted. `u64::MAX`: at least that much.
    pub value: u64,
    /// The same by role.
    pub roles: RoleTotals,
    /// The keys that were counted together, which may reach beyond the queried range.
    pub range: KeyRange,
    /// The time that was counted together, if it reaches beyond the columns.
    pub reach: Option<Window>,
    /// It reaches beyond the queried keys or time: its value is not in the total.
    pub straddling: bool,
    /// Two nodes claim the same writes; the larger claim is used.
    pub conflict: bool,
}

impl Block {
    fn place(&self) -> (u32, u32, u32, u32) {
        (self.column, self.column_count, self.first_row, self.row_count)
    }

    fn end_row(&self) -> u32 {
        self.first_row + self.row_count
    }

    /// Adds another block; the result covers both.
    fn join(&mut self, other: &Block) {
        let end = self.end_row().max(other.end_row());
        self.first_row = self.first_row.min(other.first_row);
        self.row_count = end - self.first_row;
        self.value = self.value.saturating_add(other.value);
        for role in Role::ALL {
            self.roles.add(role, other.roles.get(role));
        }
        self.range = hull(&self.range, &other.range);
        self.conflict |= other.conflict;
    }
}

/// The smallest range that contains both.
fn hull(left: &KeyRange, right: &KeyRange) -> KeyRange {
    let start = left.start.clone().min(right.start.clone());
    let end = match (&left.end, &right.end) {
        (Some(left), Some(right)) => Some(left.max(right).clone()),
        _ => None,
    };
    KeyRange { start, end }
}

/// Turns cells into blocks, sorted by column and then row. Cells with the same rows and columns
/// inside the axes become one block; those that straddle become one only if they have the same
/// span.
pub(super) fn blocks(cells: Vec<BlockCell>, spans: &[BlockSpan], rows: &RowAxis) -> Vec<Block> {
    bounded(cells_as_blocks(cells, spans, rows), MAX_BLOCKS)
}

fn cells_as_blocks(cells: Vec<BlockCell>, spans: &[BlockSpan], rows: &RowAxis) -> Vec<Block> {
    let mut inside: BTreeMap<(u32, u32, u32, u32), Block> = BTreeMap::new();
    let mut straddling: BTreeMap<(u32, &BlockSpan), Block> = BTreeMap::new();
    for cell in cells {
        let span = &spans[cell.span as usize];
        let mut roles = RoleTotals::default();
        roles.add(cell.role, cell.value);
        let block = Block {
            first_row: span.first_row,
            row_count: span.rows,
            column: cell.column,
            column_count: span.columns,
            value: cell.value,
            roles,
            range: span.range.clone(),
            reach: span.reach,
            straddling: span.straddles(rows),
            conflict: cell.conflict,
        };
        if block.straddling {
            let known = straddling.entry((cell.column, span));
            known.and_modify(|known| known.join(&block)).or_insert(block);
        } else {
            let known = inside.entry(block.place());
            known.and_modify(|known| known.join(&block)).or_insert(block);
        }
    }
    let mut blocks: Vec<Block> = inside.into_values().chain(straddling.into_values()).collect();
    blocks.sort_by_key(Block::place);
    blocks
}

/// Joins blocks, column by column, until there are at most `most`, or as few as possible.
fn bounded(blocks: Vec<Block>, most: usize) -> Vec<Block> {
    let blocks = if blocks.len() > most {
        joined(blocks, |last, next| next.first_row < last.end_row())
    } else {
        blocks
    };
    if blocks.len() > most { joined(blocks, |_, _| true) } else { blocks }
}

/// Joins neighbours of the same columns and kind where `joins` says so.
fn joined(mut blocks: Vec<Block>, joins: impl Fn(&Block, &Block) -> bool) -> Vec<Block> {
    let kind = |block: &Block| {
        let reach = block.reach.map(|reach| (reach.from_ms, reach.to_ms));
        (block.column, block.column_count, block.straddling, reach)
    };
    blocks.sort_by_key(|block| (kind(block), block.first_row, block.row_count));
    let mut coarse: Vec<Block> = Vec::new();
    for block in blocks {
        match coarse.last_mut() {
            Some(last) if kind(last) == kind(&block) && joins(last, &block) => last.join(&block),
            _ => coarse.push(block),
        }
    }
    coarse.sort_by_key(Block::place);
    coarse
}

impl Matrix {
    /// The sums of the blocks inside and of those that straddle, saturating.
    pub fn in_blocks(&self) -> (u64, u64) {
        self.blocks.iter().fold((0, 0), |(inside, straddling), block| match block.straddling {
            false => (u64::saturating_add(inside, block.value), straddling),
            true => (inside, u64::saturating_add(straddling, block.value)),
        })
    }

    /// Divides each block inside the axes evenly among its cells, in whole numbers, and marks these
    /// as apportioned: an estimate for programs that need a full grid. The total and the straddling
    /// blocks stay the same.
    pub fn spread(&mut self) {
        let (straddling, inside) =
            std::mem::take(&mut self.blocks).into_iter().partition(|block| block.straddling);
        self.blocks = straddling;
        for block in inside {
            self.spread_one(&block);
        }
    }

    fn spread_one(&mut self, block: &Block) {
        let columns = block.column..block.column + block.column_count;
        for role in Role::ALL.into_iter().filter(|&role| block.roles.get(role) > 0) {
            let of_columns = evenly(block.roles.get(role), block.column_count);
            for (column, value) in columns.clone().zip(of_columns) {
                let rows = &mut self.rows[block.first_row as usize..block.end_row() as usize];
                for (row, value) in rows.iter_mut().zip(evenly(value, block.row_count)) {
                    let cell = &mut row.values[column as usize];
                    *cell = cell.saturating_add(value);
                    row.roles.add(role, value);
                    row.conflict.insert(column..column + u32::from(block.conflict));
                }
            }
        }
        for row in &mut self.rows[block.first_row as usize..block.end_row() as usize] {
            row.apportioned.insert(columns.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(column: u32, first_row: u32, row_count: u32, value: u64) -> Block {
        let roles = RoleTotals { leader_write: value, ..RoleTotals::default() };
        let (column_count, range, reach) = (1, KeyRange::all(), None);
        let (straddling, conflict) = (false, false);
        Block {
            first_row,
            row_count,
            column,
            column_count,
            value,
            roles,
            range,
            reach,
            straddling,
            conflict,
        }
    }

    #[test]
    fn bounds_blocks_over_the_limit_are_joined_and_none_is_dropped() {
        let blocks = vec![
            block(0, 0, 2, 1),
            block(0, 1, 3, 2),
            block(0, 6, 2, 4),
            block(1, 0, 2, 8),
            block(1, 4, 2, 16),
        ];
        let places = |most| {
            let blocks = bounded(blocks.clone(), most);
            assert_eq!(blocks.iter().map(|block| block.value).sum::<u64>(), 31);
            blocks.iter().map(|b| (b.column, b.first_row, b.end_row())).collect::<Vec<_>>()
        };
        assert_eq!(places(5).len(), 5);
        assert_eq!(places(4), [(0, 0, 4), (0, 6, 8), (1, 0, 2), (1, 4, 6)]);
        assert_eq!(places(3), [(0, 0, 8), (1, 0, 6)]);
    }
}
