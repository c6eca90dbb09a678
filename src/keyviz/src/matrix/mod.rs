//! The answer to a query: a heatmap, with the marks of its cells and the status of each member.

mod blocks;
mod holders;
mod label;
mod local;
mod merge;
mod part;
mod sums;

use crate::query::Role;
use crate::query::axis::ColumnSpan;
use crate::query::block::BlockSpan;
use crate::query::column_set::ColumnSet;
use crate::query::contribution::CellKey;
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
    /// The only role that is counted; `None`: all.
    pub role: Option<Role>,
    /// Version of the catalog that the rows were planned from.
    pub catalog_version: u64,
    /// The length in milliseconds that columns are whole multiples of.
    pub step_ms: u64,
    /// Oldest first, contiguous.
    pub columns: Vec<ColumnSpan>,
    /// In key order, without gap or overlap.
    pub rows: Vec<Row>,
    /// The counts that cover more than one cell, by column and then row.
    pub blocks: Vec<Block>,
    /// Sum of all values, and of the blocks that do not straddle.
    pub total: u64,
    /// Sum of the blocks that reach beyond the queried keys or time. The number of operations
    /// inside is at least `total`, and at most this much more.
    pub straddling_total: u64,
    /// Identifies the boundaries of the rows: equal ids, equal boundaries.
    pub axis_id: u64,
    /// How much more detail newly planned rows would show; `None` unless the query brought the
    /// boundaries. See [`RowPlan::gain`](crate::query::RowPlan::gain).
    pub axis_gain: Option<f64>,
    /// Operations (or bytes of them) without a route; in no row and not in the total.
    pub unattributed: u64,
    /// A value or a sum reached the maximum of 64 bits, and is at least that.
    pub saturated: bool,
    /// One status for each member or address that was asked.
    pub nodes: Vec<NodeStatus>,
    /// The number of members that answered.
    pub responded: u32,
    /// The number of members that were asked.
    pub expected: u32,
    /// Every (group, term) that several nodes claim to have led.
    pub conflicts: Vec<Conflict>,
    /// The parts of the total by node: one for each node that answered, ascending.
    pub by_node: Vec<NodeShare>,
}

/// What one node contributed to a matrix. Of several claims to the same writes, the largest is
/// counted, and of equal ones that of the smaller node id, so the parts add up to the matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeShare {
    /// The node.
    pub node: NodeId,
    /// Its part of the total.
    pub total: u64,
    /// The same by role.
    pub roles: RoleTotals,
    /// Its part of each row; its blocks are in no row.
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
    /// A printable preview of the first key.
    pub label: String,
    /// The row has several routes.
    pub aggregate: bool,
    /// The routes in key order, incomplete if `route_ids_truncated`.
    pub route_ids: Vec<RouteId>,
    /// Exact number of routes.
    pub route_count: u64,
    /// Some routes are not listed.
    pub route_ids_truncated: bool,
    /// The sum of its values by role.
    pub roles: RoleTotals,
    /// The Raft group of all its routes; `None` if they have several.
    pub group: Option<GroupId>,
    /// The counts for exactly this row and each column. `u64::MAX`: at least that many.
    pub values: Vec<u64>,
    /// Columns whose value is in part an estimate: on request ([`Matrix::spread`]), or because a
    /// node of an earlier version answered.
    pub apportioned: ColumnSet,
    /// Columns whose value may lack counts.
    pub partial: ColumnSet,
    /// Columns in which several nodes claim the same writes; the largest claim is used.
    pub conflict: ColumnSet,
}

/// Sums by role, in units of the series.
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
    /// The member; `None` if only its address is known.
    pub node: Option<NodeId>,
    /// The address at which it was asked.
    pub address: String,
    /// Its answer was complete.
    pub ok: bool,
    /// Why its answer is missing or incomplete.
    pub error: Option<String>,
    /// Its clock minus that of the coordinating node.
    pub clock_skew_ms: i64,
    /// Time until its answer.
    pub latency_ms: u64,
    /// The number of columns that it holds.
    pub columns: u64,
    /// Start of the oldest of them.
    pub oldest_ms: Option<u64>,
    /// Start of its open column; earlier columns do not change any more.
    pub open_ms: Option<u64>,
    /// End of the newest column that it holds.
    pub newest_ms: Option<u64>,
    /// It holds columns after the end of the matrix, although the window reaches to the present of
    /// the coordinating node or beyond: a clock is or was ahead. Their counts are not shown.
    pub beyond_end: bool,
    /// Its current incarnation.
    pub incarnation: Option<Incarnation>,
    /// End of the newest column that it, or a node whose columns it keeps, dropped for space; 0:
    /// none.
    pub forgotten_before_ms: u64,
    /// The window begins before that time: older counts of the node are gone.
    pub past_history: bool,
    /// Members that answered in its name from copies of its columns.
    pub answered_by: Vec<NodeId>,
    /// They have everything that it counted before this time; `None`: nobody answered in its name.
    pub complete_to_ms: Option<u64>,
}

/// A group and term that several nodes claim to have led.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Conflict {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: Term,
    /// The nodes, ascending.
    pub nodes: Vec<NodeId>,
}

/// What one node counted in one place: of writes, in one term of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceCount {
    /// The node that counted.
    pub node: NodeId,
    /// The column, or the first one of the block.
    pub column: u32,
    /// The row or the block, and who accounts for the count.
    pub key: CellKey,
    /// What was counted.
    pub value: u64,
}

/// The counts that the cells and blocks of a matrix are the sums of.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SourceCounts {
    /// By node.
    pub counts: Vec<SourceCount>,
    /// The blocks, and whether each reaches beyond the queried keys or time.
    pub spans: Vec<(BlockSpan, bool)>,
}

impl Matrix {
    /// The sum of one column over all rows and the blocks that lie inside it, saturating.
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
