//! Queries: what a matrix is requested for, how a node answers both rounds, how rows and columns
//! are planned, and the limits of all of these.

mod answers;
pub(crate) mod axis;
pub(crate) mod block;
mod budget;
pub(crate) mod column_set;
pub(crate) mod contribution;
mod density;
mod placing;
mod resample;
pub(crate) mod row_plan;
pub(crate) mod spread;
pub(crate) mod summing;
pub(crate) mod totals;

use crate::history::window::Window;
use crate::sampler::counts::{Counts, Series};
use keyviz_types::{KeyRange, Term};

pub use answers::WantedView;
pub use axis::{AxisError, ColumnPlan, ColumnSpan, RowAxis, plan_columns};
pub use block::{BlockSpan, MAX_SPANS};
pub use column_set::ColumnSet;
pub use density::RangeTotal;
pub use row_plan::{
    DEFAULT_ROW_ROUTE_IDS, PlanError, PlanRequest, PlannedRow, RowKind, RowPlan, check_boundaries,
    plan,
};
pub use totals::{MAX_TOTALS, NodeTotals, TotalsError};

/// Rows of a matrix if the query names no number.
pub const DEFAULT_ROWS: usize = 256;
/// The maximum number of rows of a matrix.
pub const MAX_ROWS: usize = 1024;
/// The maximum number of boundaries that a query may bring: see [`PlanRequest::boundaries`].
pub const MAX_BOUNDARIES: usize = MAX_ROWS;
/// The maximum number of rows on such boundaries: one more, because the first key of the range need
/// not be among them.
pub const MAX_AXIS_ROWS: usize = MAX_BOUNDARIES + 1;
/// Columns of a matrix if the query names no number.
pub const DEFAULT_COLUMNS: usize = 480;
/// The maximum number of columns of a matrix.
pub const MAX_COLUMNS: usize = 2048;

/// In which role a node counted an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// A write, proposed by the leader of its group.
    LeaderWrite,
    /// A read that the leader served.
    LeaderRead,
    /// A read that another replica served.
    FollowerRead,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::LeaderWrite, Role::LeaderRead, Role::FollowerRead];

    /// The role in which a node counts `series`: as the leader of the group in term `lead`, or
    /// (`None`) as a follower.
    pub(crate) const fn of(series: Series, lead: Option<Term>) -> Role {
        match (is_write(series), lead) {
            (true, _) => Role::LeaderWrite,
            (false, Some(_)) => Role::LeaderRead,
            (false, None) => Role::FollowerRead,
        }
    }

    /// Whether cells of `series` can have this role.
    pub const fn has(self, series: Series) -> bool {
        match self {
            Role::LeaderWrite => is_write(series),
            Role::LeaderRead | Role::FollowerRead => !is_write(series),
        }
    }
}

/// Whether a series counts writes, each by the leader that proposed it, rather than reads, each by
/// the node that served it.
pub(crate) const fn is_write(series: Series) -> bool {
    matches!(series, Series::Writes | Series::WriteBytes)
}

/// A query for a matrix. Both rounds of a cluster query use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The time. A column that the window touches is included whole.
    pub window: Window,
    /// The keys. What was counted together with other keys is reported as a block.
    pub range: KeyRange,
    /// Which of the four series.
    pub series: Series,
    /// Only operations of this role; `None`: all.
    pub role: Option<Role>,
}

impl Query {
    /// Whether the query includes what a node counts as the leader in term `lead`, or (`None`) as a
    /// follower.
    pub(crate) fn wants(&self, lead: Option<Term>) -> bool {
        self.role.is_none_or(|role| role == Role::of(self.series, lead))
    }

    /// The unattributed operations to report. Reads without a route have no role, so only a query
    /// for all roles reports them.
    pub(crate) fn unattributed(&self, counts: &Counts) -> u64 {
        match self.role {
            None => counts.get(self.series),
            Some(Role::LeaderWrite) if is_write(self.series) => counts.get(self.series),
            Some(_) => 0,
        }
    }
}
