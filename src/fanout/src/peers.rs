//! Other nodes, as the fan-out sees them.

use std::sync::Arc;

use futures::future::BoxFuture;

use keyviz_core::hotkeys::{HotKeysPart, HotKeysQuery};
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

/// What a node says of hot keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeHotKeys {
    /// What it counted itself first, then what it keeps of nodes that have left.
    pub parts: Vec<HotKeysPart>,
    /// Keys are hashes.
    pub hashed: bool,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
    /// End of the newest column that it dropped; 0: none.
    pub forgotten_before_ms: u64,
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

    /// The hot keys at `to`. Nothing in them is trusted.
    fn hot_keys(
        &self,
        to: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, String>>;
}
