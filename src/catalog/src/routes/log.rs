//! The newest changes, contiguous, so that a watcher can resume.

use std::collections::VecDeque;
use std::sync::Arc;

use super::route::Delta;
use super::table::RouteTable;

/// The changes after a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changes {
    /// Every change after the cursor, oldest first; empty if the cursor is current.
    Deltas(Vec<Arc<Delta>>),
    /// The changes are no longer retained; the whole table is needed.
    Snapshot(RouteTable),
}

/// Why the changes after a cursor cannot be returned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangesError {
    /// The cursor is of a version that this node has not applied.
    #[error("version {cursor} is ahead of the catalog, which is at {version}")]
    CursorAhead {
        /// The cursor.
        cursor: u64,
        /// The current version.
        version: u64,
    },
    /// The retained changes are damaged.
    #[error("integrity error: the change after version {after} is missing from the retained ones")]
    Hole {
        /// The version whose successor is missing.
        after: u64,
    },
}

/// The newest changes. Bootstrap is not among them: a cursor of 0 gets the table.
#[derive(Clone, Default, Debug)]
pub(crate) struct DeltaLog {
    deltas: VecDeque<Arc<Delta>>,
}

impl DeltaLog {
    /// `deltas` must be in order.
    pub(crate) fn from_deltas(deltas: Vec<Arc<Delta>>) -> Self {
        DeltaLog { deltas: deltas.into() }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Delta>> {
        self.deltas.iter()
    }

    /// Adds the newest change; gives back the versions that are no longer retained.
    pub(crate) fn push(&mut self, delta: Arc<Delta>, limit: usize) -> Vec<u64> {
        self.deltas.push_back(delta);
        let excess = self.deltas.len().saturating_sub(limit);
        self.deltas.drain(..excess).map(|delta| delta.version).collect()
    }

    /// Checks that every retained change follows the one before it, and the last one made
    /// `version`.
    pub(crate) fn check(&self, version: u64) -> Result<(), ChangesError> {
        match self.deltas.front() {
            Some(oldest) => self.since(oldest.version.saturating_sub(1), version).map(drop),
            None => Ok(()),
        }
    }

    /// Whether all changes after `cursor` are retained.
    pub(crate) fn reaches(&self, cursor: u64) -> bool {
        self.deltas.front().is_some_and(|oldest| oldest.version <= cursor.saturating_add(1))
    }

    /// The changes after `cursor`; the catalog is at `version`.
    pub(crate) fn since(&self, cursor: u64, version: u64) -> Result<Vec<Arc<Delta>>, ChangesError> {
        let skip = self.deltas.partition_point(|delta| delta.version <= cursor);
        let mut after = cursor;
        for delta in self.deltas.range(skip..) {
            if delta.version != after + 1 {
                return Err(ChangesError::Hole { after });
            }
            after = delta.version;
        }
        if after != version {
            return Err(ChangesError::Hole { after });
        }
        Ok(self.deltas.range(skip..).cloned().collect())
    }
}
