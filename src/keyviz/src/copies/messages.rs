//! What passes between a node that counts and those that keep copies of its columns.

use std::io;

use crate::history::codec::RecordError;
use crate::history::column::ColumnId;
use keyviz_types::{Incarnation, NodeId};

/// Key and value of a record.
pub type CopyRecord = (Vec<u8>, Vec<u8>);

/// Records that hold copies, in an ordered store. One writer.
pub trait CopyStore: Send + Sync + 'static {
    /// The record of a key.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Shows all records in the order of their keys.
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()>;

    /// Writes and deletes: all of it or, after a crash, none. With `sync` it survives a power loss
    /// when the call returns.
    fn apply(&self, puts: Vec<CopyRecord>, deletes: Vec<Vec<u8>>, sync: bool) -> io::Result<()>;
}

/// Columns of one node on their way to one that keeps copies of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyPush {
    /// The node that counted.
    pub node: NodeId,
    /// Its latest life.
    pub incarnation: Incarnation,
    /// Its step.
    pub step_ms: u64,
    /// With these records the holder has everything that the node counted before this time, but
    /// what it dropped itself; `None`: it lacks something yet.
    pub complete_to_ms: Option<u64>,
    /// The node is no member any more, since this time at the latest.
    pub left_ms: Option<u64>,
    /// End of the newest column that the node dropped for space; 0: none.
    pub forgotten_before_ms: u64,
    /// Records of columns, their hot keys and the chunks of slots that they refer to.
    pub records: Vec<CopyRecord>,
    /// Columns that the node does not keep by themselves any more.
    pub removed: Vec<ColumnId>,
}

impl CopyPush {
    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// What became of a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is stored. The number changes when a copy loses something by itself: who sends has to
    /// compare again.
    Stored {
        /// See [`Inventory::generation`].
        generation: u64,
    },
    /// Columns refer to chunks that came neither with them nor before; nothing was stored.
    MissingChunks,
}

/// What a holder has of one node, for whoever sends the rest.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Inventory {
    /// Changes when the copy loses something by itself, as at a restart.
    pub generation: u64,
    /// Columns and the fingerprints of their records.
    pub columns: Vec<(ColumnId, u64)>,
    /// Everything before is there.
    pub complete_to_ms: u64,
    /// End of the newest column that was dropped for space; 0: none.
    pub forgotten_before_ms: u64,
}

/// What a member holds in the name of another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldCopy {
    /// The node that counted.
    pub node: NodeId,
    /// Its latest life, as far as the holder knows.
    pub incarnation: Incarnation,
    /// Start of the oldest column.
    pub oldest_ms: u64,
    /// End of the newest column.
    pub newest_ms: u64,
    /// Everything that the node counted before is there, but what was dropped for space.
    pub complete_to_ms: u64,
    /// Since when it is no member, if it is none.
    pub left_ms: Option<u64>,
    /// End of the newest column that was dropped for space; 0: none.
    pub forgotten_before_ms: u64,
    /// The number of columns.
    pub columns: u64,
    /// Columns that were there and cannot be read.
    pub lost: u64,
}

/// Why a push is refused. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No copies are stored now.
    #[error("this node keeps no copies of histories now: {reason}")]
    Closed {
        /// Why.
        reason: &'static str,
    },
    /// The holder's own columns.
    #[error("node {0} is this node, which has its own columns")]
    Own(NodeId),
    /// Columns of another width cannot be joined.
    #[error(
        "its columns are {theirs_ms} ms wide, those of this node {ours_ms} ms; give all nodes the \
         same --keyviz-step"
    )]
    Step {
        /// Its step.
        theirs_ms: u64,
        /// The step of this node.
        ours_ms: u64,
    },
    /// A life before the one that is known.
    #[error("it is start {theirs} of node {node}, and start {known} is known already")]
    Stale {
        /// The node that counted.
        node: NodeId,
        /// Its life, according to the push.
        theirs: u64,
        /// The latest that is known.
        known: u64,
    },
    /// Counts of a life that has not begun.
    #[error("a column has counts of start {found}, and start {latest} is the latest")]
    Unborn {
        /// The life of the counts.
        found: u64,
        /// The latest according to the push.
        latest: u64,
    },
    /// A column that has not begun.
    #[error(
        "a column begins at {start_ms} ms, more than a day after {now_ms} ms, the time of this node"
    )]
    Future {
        /// Start of the column.
        start_ms: u64,
        /// The clock of the holder.
        now_ms: u64,
    },
    /// An interval that no history has.
    #[error("a column from {} to {} ms is none of {step_ms} ms", .id.start_ms, .id.end_ms)]
    Interval {
        /// The interval.
        id: ColumnId,
        /// The step of this node.
        step_ms: u64,
    },
    /// A record that cannot be read.
    #[error("a record of node {node} is damaged: {error}")]
    Damaged {
        /// The node that counted.
        node: NodeId,
        /// What is wrong with it.
        error: RecordError,
    },
    /// More bytes than a push may have.
    #[error("{bytes} bytes of records, at most {limit} are accepted at once")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Copies of too many nodes.
    #[error("copies of {limit} nodes are kept here, and no more are accepted")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// They could not be stored or read.
    #[error("the stored copies cannot be used: {0}")]
    Store(#[from] io::Error),
}
