//! Reads the rows of a group from a running node, for a backup.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::apply::{RUN_BYTES, Transfer};
use crate::error::ReadError;
use crate::group::{Group, ReadGuarantee};
use crate::storage::{KeyValue, SnapshotView};
use crate::types::LogPosition;
use futures::future::{BoxFuture, FutureExt as _};
use keyviz_types::Term;

/// The rows of a group as of one applied entry, read while later entries are applied.
pub struct Dump {
    view: SnapshotView,
    applied: LogPosition,
    term: Term,
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl Group {
    /// The rows with everything acknowledged before the call. Only the leader can provide them.
    pub fn dump(self: &Arc<Self>, limit: Duration) -> BoxFuture<'_, Result<Dump, ReadError>> {
        async move {
            self.confirm_read(ReadGuarantee::Linearizable, limit).await?;
            // Taken by the applying task, so never within a batch.
            let stopped = |reason: String| ReadError::Stopped(reason);
            let snapshot =
                self.raft().get_snapshot().await.map_err(|error| stopped(error.to_string()))?;
            let snapshot = snapshot.ok_or_else(|| stopped("it has no rows".into()))?;
            let Transfer::View(view) = snapshot.snapshot else {
                return Err(stopped("its rows are being replaced".into()));
            };
            let applied = view.applied().ok_or_else(|| stopped("it has no rows".into()))?;
            Ok(Dump { view: *view, applied, term: self.status().term })
        }
        .boxed()
    }
}

impl Dump {
    /// The rows in `view`, of a replica that does not run.
    pub(crate) fn of(view: SnapshotView, term: Term) -> io::Result<Self> {
        let applied = view.applied().ok_or_else(|| io::Error::other("the replica has no rows"))?;
        Ok(Dump { view, applied, term })
    }

    /// The last entry that the rows contain.
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The latest term known when the rows were confirmed.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The next rows in key order; empty at the end. Blocking.
    ///
    /// # Errors
    /// If the database failed, or so much was written meanwhile that the dump must be restarted.
    pub fn next_run(&mut self) -> io::Result<Vec<KeyValue>> {
        self.view.next_run(RUN_BYTES)
    }
}
