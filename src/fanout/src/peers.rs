//! Other nodes, as the fan-out sees them.

use std::sync::Arc;

use futures::future::BoxFuture;

use keyviz_core::query::{ColumnPlan, NodeTotals, RowAxis};
use keyviz_core::wire::PackedColumns;
use keyviz_core::{NodeId, Query};

/// What a member said in round one.
#[derive(Clone, Debug)]
pub struct PeerTotals {
    /// Its totals.
    pub totals: NodeTotals,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
    /// Its step, in milliseconds.
    pub step_ms: u64,
}

/// Other nodes, as the fan-out sees them. The error is what a person should read. Dropping a call
/// ends it at the peer too.
pub trait PeerMatrix: Send + Sync + 'static {
    /// Round one at `to`.
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, String>>;

    /// Round two at `to`, in chunks that together answer for every column. Nothing in them is
    /// trusted.
    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, String>>;
}
