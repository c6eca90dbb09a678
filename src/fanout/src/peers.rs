//! Other nodes, as the fan-out sees them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use keyviz_core::copies::HeldCopy;
use keyviz_core::hotkeys::{HotKeysPart, HotKeysQuery, PartError};
use keyviz_core::query::{ColumnPlan, NodeTotals, RowAxis, TotalsError};
use keyviz_core::wire::{ContributionError, PackedColumns};
use keyviz_core::{NodeId, Query};

use super::work::WorkError;

/// The answer of a member in round one.
#[derive(Clone, Debug)]
pub struct PeerTotals {
    /// Its totals.
    pub totals: NodeTotals,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
    /// Its step, in milliseconds.
    pub step_ms: u64,
    /// What it holds in the names of others.
    pub copies: Vec<HeldCopy>,
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
    /// What it holds in the names of others.
    pub copies: Vec<HeldCopy>,
}

/// Why a member gave no usable answer in a round.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RoundError {
    /// The call failed, or the member refused it.
    #[error("{0}")]
    Call(String),
    /// This node could not compute its own part.
    #[error(transparent)]
    Local(#[from] WorkError),
    /// No answer within the deadline.
    #[error("it did not answer within the deadline of {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The answer has no chunk.
    #[error("it answered nothing")]
    Empty,
    /// The answer has a form that this version does not read.
    #[error(
        "it answers in form {theirs}, this node reads form {ours}; bring both to the same version \
         of keyviz"
    )]
    Form {
        /// The form of the answer.
        theirs: u32,
        /// The form of this version.
        ours: u32,
    },
    /// Another cluster answers at the member's address.
    #[error("it belongs to cluster {theirs}, this node to cluster {ours}; check the addresses")]
    OtherCluster {
        /// The cluster that answered.
        theirs: String,
        /// The cluster of this node.
        ours: String,
    },
    /// Another node answers at the member's address. Each node speaks only for itself.
    #[error("it says that it is node {0}")]
    OtherNode(NodeId),
    /// Its columns cannot be joined to those of this node.
    #[error(
        "its columns are {theirs_ms} ms wide, those of this node {ours_ms} ms; give all nodes the \
         same --keyviz-step"
    )]
    Step {
        /// Its step, in milliseconds.
        theirs_ms: u64,
        /// The step of this node, in milliseconds.
        ours_ms: u64,
    },
    /// It was late in round one, and has columns that are not in the plan.
    #[error(
        "it answered after the columns were planned, and holds older ones of the window; ask again"
    )]
    Unplanned,
    /// It sent more ranges than it may.
    #[error("it sent more than {0} ranges")]
    TooManyRanges(usize),
    /// It sent columns out of order, twice, or too many.
    #[error("it sent columns out of order, twice, or too many")]
    Order,
    /// The answer ended early.
    #[error("its answer ends after {reached} of {asked} columns")]
    Incomplete {
        /// The columns received.
        reached: u32,
        /// The columns asked for.
        asked: usize,
    },
    /// The answer contradicts itself.
    #[error("{0}")]
    Malformed(&'static str),
    /// The answer names a source that does not exist.
    #[error("it names a source {0} that does not exist")]
    Source(u32),
    /// The totals break a rule of round one.
    #[error("its answer is not sound: {0}")]
    Totals(#[from] TotalsError),
    /// The columns break a rule of round two.
    #[error("its answer is not sound: {0}")]
    Columns(#[from] ContributionError),
    /// It answers in the name of another node than asked.
    #[error("it answers in the name of node {0}, which it was not asked for")]
    OtherCopy(NodeId),
    /// It is of a version without copies.
    #[error(
        "its version of keyviz keeps no copies of histories yet; bring it to that of this node"
    )]
    NoCopies,
    /// It is of a version without hot keys.
    #[error("its version of keyviz does not know hot keys yet; bring it to that of this node")]
    NoHotKeys,
    /// It sent more hot keys than it may.
    #[error("it sent more than {0} hot keys")]
    TooManyHotKeys(usize),
    /// Its hot keys take more memory than they may.
    #[error("its hot keys take more than {0} bytes")]
    HotKeysTooLarge(usize),
    /// It answers for more nodes than it may.
    #[error("it answers for more than {0} nodes")]
    TooManyParts(usize),
    /// The hot keys break a rule.
    #[error("its answer is not sound: {0}")]
    HotKeys(#[from] PartError),
}

/// Other nodes, as the fan-out sees them. Dropping a call also ends it at the peer.
pub trait PeerMatrix: Send + Sync + 'static {
    /// Round one at `to`.
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>>;

    /// Round two at `to`, in chunks that together answer for every column. The caller checks them.
    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>>;

    /// The hot keys at `to`. Nothing in them is trusted.
    fn hot_keys(
        &self,
        to: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>>;

    /// Round one at the holder `to`, in the name of the node `of`.
    fn copy_totals(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<NodeTotals, RoundError>> {
        let _ = (to, of, query);
        Box::pin(std::future::ready(Err(RoundError::NoCopies)))
    }

    /// Round two at the holder `to`, in the name of the node `of`. The caller checks it.
    fn copy_columns(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        let _ = (to, of, query, rows, columns);
        Box::pin(std::future::ready(Err(RoundError::NoCopies)))
    }

    /// The hot keys at the holder `to`, in the name of the node `of`.
    fn copy_hot_keys(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        let _ = (to, of, query);
        Box::pin(std::future::ready(Err(RoundError::NoCopies)))
    }
}
