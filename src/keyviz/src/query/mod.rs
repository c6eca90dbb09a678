//! What a matrix is asked for, and the limits of an answer.

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
mod summing;
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

/// Rows of an answer when the asker names no number.
pub const DEFAULT_ROWS: usize = 256;
/// Most rows of an answer.
pub const MAX_ROWS: usize = 1024;
/// Most boundaries that an asker may bring: see [`PlanRequest::boundaries`].
pub const MAX_BOUNDARIES: usize = MAX_ROWS;
/// Most rows on boundaries that an asker brings, none of which needs to be the first key.
pub const MAX_AXIS_ROWS: usize = MAX_BOUNDARIES + 1;
/// Columns of an answer when the asker names no number.
pub const DEFAULT_COLUMNS: usize = 480;
/// Most columns of an answer.
pub const MAX_COLUMNS: usize = 2048;

/// The part that a node plays in an operation.
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

    /// The role of a node in what it counts of `series` while it leads the group in `lead`, or
    /// follows.
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

/// Whether a series counts writes, which one leader a term accounts for, or reads, which every
/// node that serves them accounts for.
pub(crate) const fn is_write(series: Series) -> bool {
    matches!(series, Series::Writes | Series::WriteBytes)
}

/// One question. Both rounds of a cluster query ask it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Columns that the window touches are served whole.
    pub window: Window,
    /// Keys; what was counted together with others is told as a block.
    pub range: KeyRange,
    /// Which of the four numbers.
    pub series: Series,
    /// Only operations of this role; `None`: all.
    pub role: Option<Role>,
}

impl Query {
    /// Whether the answer has what is counted while the node leads in `lead`, or follows.
    pub(crate) fn wants(&self, lead: Option<Term>) -> bool {
        self.role.is_none_or(|role| role == Role::of(self.series, lead))
    }

    /// The series as counted in `counts`. Reads that have no route have no role either, so they
    /// show in answers for all roles only.
    pub(crate) fn unattributed(&self, counts: &Counts) -> u64 {
        match self.role {
            None => counts.get(self.series),
            Some(Role::LeaderWrite) if is_write(self.series) => counts.get(self.series),
            Some(_) => 0,
        }
    }
}
