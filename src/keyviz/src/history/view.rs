//! What a history held of a window at one moment. The query side answers from it.

use std::sync::Arc;

use super::column::Column;
use super::open::{AxisInterner, OpenColumn};
use crate::sampler::counts::Harvest;
use keyviz_types::{Incarnation, NodeId};

/// What a node holds, for its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Columns, the open one included.
    pub columns: u64,
    /// Start of the oldest column.
    pub oldest_ms: u64,
    /// Start of the open column.
    pub open_ms: u64,
    /// End of the newest column. A clock that was set back leaves columns after the open one.
    pub newest_ms: u64,
    /// End of the newest column that was dropped for space; 0: none was.
    pub forgotten_before_ms: u64,
    /// Bytes of all columns and what they share.
    pub bytes: usize,
    /// Bytes of the hot keys of closed columns.
    pub hot_key_bytes: usize,
}

/// Who answers, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answering {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub holdings: Holdings,
}

/// A consistent picture of the columns in a window, taken under the history's lock and read without
/// it.
#[derive(Debug)]
pub struct HistoryView {
    pub(crate) answering: Answering,
    /// By start.
    pub(crate) closed: Vec<Arc<Column>>,
    /// The open column and what was not harvested yet, if it is in the window.
    pub(crate) open: Option<(OpenColumn, Harvest)>,
    /// What is kept of it for nodes that have left.
    pub(crate) handed_over: Vec<(Answering, Vec<Arc<Column>>)>,
    pub(crate) interner: Arc<AxisInterner>,
}

impl HistoryView {
    /// What the history held at that moment.
    pub fn holdings(&self) -> Holdings {
        self.answering.holdings
    }

    /// All columns by start, the open one packed.
    pub(crate) fn columns_held(&self) -> Vec<Arc<Column>> {
        let mut columns = self.closed.clone();
        if let Some((open, peek)) = &self.open {
            let at = columns.partition_point(|column| column.id() < open.id());
            columns.insert(at, Arc::new(open.clone().peek(peek.clone(), &self.interner)));
        }
        columns
    }
}
