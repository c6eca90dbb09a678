//! The answer: a heatmap with everything that there is to know about its cells.

mod blocks;
mod holders;
mod label;
mod local;
mod merge;
mod part;
mod sums;

use crate::query::Role;
use crate::query::axis::ColumnSpan;
use crate::query::column_set::ColumnSet;
use crate::sampler::counts::Series;
use keyviz_types::{GroupId, Incarnation, KeyRange, NodeId, RouteId, Term};

pub use blocks::{Block, MAX_BLOCKS};
pub use label::{LABEL_CHARS, label};
pub use local::{MatrixError, MatrixSize};
pub use merge::{Merge, merge};

/// Rows (key ranges) by columns (time spans) of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    /// What the values count.
    pub series: Series,
    /// Only this role, or all.
    pub role: Option<Role>,
    /// Version of the catalog whose routes the rows are.
    pub catalog_version: u64,
    /// The step of which columns are whole multiples.
    pub step_ms: u64,
    /// Oldest first, contiguous.
    pub columns: Vec<ColumnSpan>,
    /// In key order, without gap or overlap.
    pub rows: Vec<Row>,
    /// What was counted for more than one cell, by column and then row.
    pub blocks: Vec<Block>,
    /// Sum of all values, and of the blocks that do not straddle.
    pub total: u64,
    /// Sum of the blocks that reach beyond the keys or the time asked for. What happened inside is
    /// at least `total`, and at most this much more.
    pub straddling_total: u64,
    /// A name for the keys of the rows: equal where all rows begin and end at the same keys.
    pub axis_id: u64,
    /// Of rows that the asker brought: how many times as many rows planned anew would tell the load
    /// apart. See [`RowPlan::gain`](crate::query::RowPlan::gain).
    pub axis_gain: Option<f64>,
    /// Operations (or bytes of them) that have no route; in no row and not in the total.
    pub unattributed: u64,
    /// A value, or a sum of them, reached the largest number and is at least that.
    pub saturated: bool,
    /// One for each member asked.
    pub nodes: Vec<NodeStatus>,
    /// Members that answered.
    pub responded: u32,
    /// Members asked.
    pub expected: u32,
    /// Every (group, term) that several nodes claim to have led.
    pub conflicts: Vec<Conflict>,
    /// What the total is made of by node: one for each node that answered, ascending.
    pub by_node: Vec<NodeShare>,
}

/// What one node brought to a matrix. Of a contested claim the larger counts, and of equal ones
/// that of the smaller node, so that all shares add up to the matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeShare {
    /// The node.
    pub node: NodeId,
    /// Its part of the total.
    pub total: u64,
    /// The same by role.
    pub roles: RoleTotals,
    /// Its part of each row; what it counted in blocks is in no row.
    pub rows: Vec<u64>,
    /// Its part of the blocks that are in the total.
    pub blocks: u64,
    /// Its part of the straddling total.
    pub straddling: u64,
    /// Operations that it counted without a route.
    pub unattributed: u64,
}

/// One row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// `route:<id>`, `route:<id>#<n>` or `virtual:<first id>-<hash>`.
    pub bucket_id: String,
    /// Keys.
    pub range: KeyRange,
    /// The first key, for people.
    pub label: String,
    /// The row has several routes.
    pub aggregate: bool,
    /// The routes in key order, not all of them if truncated.
    pub route_ids: Vec<RouteId>,
    /// Exact number of routes.
    pub route_count: u64,
    /// Some routes are not named.
    pub route_ids_truncated: bool,
    /// The sum of its values by role.
    pub roles: RoleTotals,
    /// The Raft group of all its routes, if it is one.
    pub group: Option<GroupId>,
    /// What was counted for exactly the row and each column. `u64::MAX`: at least that many.
    pub values: Vec<u64>,
    /// Columns whose value is in part an estimate: on request ([`Matrix::spread`]), or where a node
    /// of an earlier version answered.
    pub apportioned: ColumnSet,
    /// Columns whose value may miss counts.
    pub partial: ColumnSet,
    /// Columns in which two nodes claim the same writes; the larger claim is shown.
    pub conflict: ColumnSet,
}

/// A row's sum by role, in units of the series.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RoleTotals {
    /// Writes, by the leaders that proposed them.
    pub leader_write: u64,
    /// Reads that leaders served.
    pub leader_read: u64,
    /// Reads that other replicas served.
    pub follower_read: u64,
}

impl RoleTotals {
    /// The total of one role.
    pub(crate) fn get(&self, role: Role) -> u64 {
        match role {
            Role::LeaderWrite => self.leader_write,
            Role::LeaderRead => self.leader_read,
            Role::FollowerRead => self.follower_read,
        }
    }

    /// Adds to the total of one role, saturating.
    pub(crate) fn add(&mut self, role: Role, value: u64) {
        let total = match role {
            Role::LeaderWrite => &mut self.leader_write,
            Role::LeaderRead => &mut self.leader_read,
            Role::FollowerRead => &mut self.follower_read,
        };
        *total = total.saturating_add(value);
    }
}

/// How one member answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct NodeStatus {
    /// The member; `None` where the address was all that was known.
    pub node: Option<NodeId>,
    /// Where it was asked.
    pub address: String,
    /// It answered in full.
    pub ok: bool,
    /// What was wrong if it did not.
    pub error: Option<String>,
    /// Its clock minus the asker's.
    pub clock_skew_ms: i64,
    /// Time to its answer.
    pub latency_ms: u64,
    /// Columns that it holds.
    pub columns: u64,
    /// Start of the oldest of them.
    pub oldest_ms: Option<u64>,
    /// Start of its open column: earlier ones do not change any more.
    pub open_ms: Option<u64>,
    /// End of the newest column that it holds.
    pub newest_ms: Option<u64>,
    /// It holds columns after the end of the matrix, although the window reaches to the asker's now
    /// or beyond: a clock is or was ahead. What was counted in them is not shown.
    pub beyond_end: bool,
    /// Its present life.
    pub incarnation: Option<Incarnation>,
    /// End of the newest column that it, or a node whose columns it keeps, dropped for space; 0:
    /// none.
    pub forgotten_before_ms: u64,
    /// The window begins before that: what the node counted there is gone.
    pub past_history: bool,
}

/// Several nodes claim to have led one group in one term.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Conflict {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: Term,
    /// The nodes, ascending.
    pub nodes: Vec<NodeId>,
}

impl Matrix {
    /// The sum of one column over all rows and the blocks that lie in it, saturating.
    pub fn column_total(&self, column: usize) -> u64 {
        let inside = |block: &&Block| {
            block.column as usize == column && block.column_count == 1 && !block.straddling
        };
        let blocks = self.blocks.iter().filter(inside).map(|block| block.value);
        self.rows.iter().map(|row| row.values[column]).chain(blocks).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
