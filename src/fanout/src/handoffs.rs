//! Receives the columns of nodes that leave.

use std::io;
use std::sync::Arc;

use keyviz_core::NodeId;
use keyviz_core::history::HistoryHandoff;

use super::local::LocalMatrix;

/// A record of a history: key and value.
pub type HandoffRecord = (Vec<u8>, Vec<u8>);

/// The storage of received columns.
pub trait HandoffStore: Send + Sync + 'static {
    /// Replaces the stored records of a node. Durable when it returns. Blocking.
    fn store(&self, node: NodeId, records: &[HandoffRecord]) -> io::Result<()>;
}

/// Why columns were not received.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The records are no handoff.
    #[error("what node {node} counted came damaged or cut short")]
    Damaged {
        /// Who counted.
        node: NodeId,
    },
    /// They are larger than the history budget.
    #[error(
        "what node {node} counted has more than {limit} bytes, the history budget of this node"
    )]
    TooLarge {
        /// Who counted.
        node: NodeId,
        /// The budget.
        limit: usize,
    },
    /// They could not be stored.
    #[error("what node {node} counted could not be stored: {source}")]
    Store {
        /// Who counted.
        node: NodeId,
        /// Why.
        source: io::Error,
    },
}

/// The records of one node that are being received.
#[derive(Debug)]
pub struct Incoming {
    node: NodeId,
    limit: usize,
    bytes: usize,
    records: Vec<HandoffRecord>,
}

impl Incoming {
    /// Nothing yet; refuses more than the history budget of `local`.
    pub fn new(node: NodeId, local: &LocalMatrix) -> Self {
        // Hot keys come on top.
        let limit = local.history().config().bytes / 8 * 9;
        Incoming { node, limit, bytes: 0, records: Vec::new() }
    }

    /// Who counted.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Takes one record.
    ///
    /// # Errors
    /// [`HandoffError::TooLarge`] over the budget.
    pub fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), HandoffError> {
        self.bytes = self.bytes.saturating_add(key.len() + value.len());
        if self.bytes > self.limit {
            return Err(HandoffError::TooLarge { node: self.node, limit: self.limit });
        }
        self.records.push((key, value));
        Ok(())
    }

    /// Stores the received records and answers for them from now on; returns their number.
    /// Blocking.
    ///
    /// # Errors
    /// Where the records are damaged or cannot be stored; nothing is answered for then.
    pub fn finish(
        self,
        local: &LocalMatrix,
        store: &Arc<dyn HandoffStore>,
    ) -> Result<u64, HandoffError> {
        let node = self.node;
        let records = self.records.iter().map(|(key, value)| (key, value));
        let handoff = match HistoryHandoff::of_records(node, records) {
            Some((handoff, damaged)) if damaged.is_empty() => handoff,
            _ => return Err(HandoffError::Damaged { node }),
        };
        store.store(node, &self.records).map_err(|source| HandoffError::Store { node, source })?;
        local.history().take_handoff(handoff);
        Ok(self.records.len() as u64)
    }
}
