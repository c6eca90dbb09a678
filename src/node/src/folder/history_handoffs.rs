//! The columns of nodes that have left, on the disk of the one that keeps them: one set of rows a
//! node that left, beside the groups.

use std::io;
use std::sync::Arc;

use keyviz_core::NodeId;
use keyviz_core::history::HistoryHandoff;
use keyviz_fanout::{HandoffRecord, HandoffStore, LocalMatrix};
use keyviz_raft::Storage;

/// Names of the rows begin so; the id of the node that left follows.
pub(super) const ROWS: &str = "inherited.";

/// Bytes of records that are written as one batch.
const BATCH_BYTES: usize = 4 << 20;

/// What was handed_over, on disk.
pub(crate) struct HistoryHandoffs {
    storage: Storage,
}

impl HistoryHandoffs {
    /// Opens what earlier lives stored and gives it back to the history. What cannot be read is
    /// left out and named.
    pub(crate) fn open(storage: &Storage, local: &LocalMatrix) -> Arc<Self> {
        let names = storage.side_names(ROWS).unwrap_or_else(|error| {
            tracing::warn!(%error, "columns of nodes that left cannot be listed");
            Vec::new()
        });
        for name in names {
            let node = name.strip_prefix(ROWS).and_then(|id| id.parse().ok()).map(NodeId);
            let rows = storage.open_side(&name).and_then(|side| side.rows().map_err(Into::into));
            match (node, rows) {
                (Some(node), Ok(rows)) => match HistoryHandoff::of_records(node, rows) {
                    Some((handoff, damaged)) => {
                        if !damaged.is_empty() {
                            let damaged = damaged.len();
                            let what = "columns of a node that left are damaged and were left out";
                            tracing::warn!(%node, damaged, "{what}");
                        }
                        local.history().take_handoff(handoff);
                    }
                    // It was never acknowledged, so the node that left kept it then.
                    None => tracing::warn!(%node, "columns of a node that left were not whole"),
                },
                (_, Err(error)) => {
                    tracing::warn!(name, %error, "columns of a node that left cannot be read")
                }
                (None, Ok(_)) => tracing::warn!(name, "rows of no known node"),
            }
        }
        Arc::new(HistoryHandoffs { storage: storage.clone() })
    }
}

impl HandoffStore for HistoryHandoffs {
    fn store(&self, node: NodeId, records: &[HandoffRecord]) -> io::Result<()> {
        let side = self.storage.open_side(&format!("{ROWS}{node}"))?;
        let before = side.rows().map_err(io::Error::from)?;
        let stale = before.into_iter().map(|(key, _)| key.to_vec());
        // The summary goes with the others: rows without it are none.
        side.apply([], stale)?;
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(key, value)| {
                bytes += key.len() + value.len();
                bytes <= BATCH_BYTES
            });
            let (batch, after) = rest.split_at(fits.count().max(1));
            side.apply(batch.iter().cloned(), [])?;
            rest = after;
        }
        side.sync()
    }
}
