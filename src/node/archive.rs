//! Keeps the history over a restart: closed columns as they close, the column in progress every
//! second, all in rows beside the groups.
//!
//! A fault here costs history, never the store: it is said in the log, and tried again with the
//! next flush.

use std::io;

use crate::fanout::LocalMatrix;
use crate::keyviz::{Archive, Column, ColumnId, Counts, Flushed};
use crate::raft::{SideRows, SpaceError, Storage};

/// The name of the rows.
pub(super) const ROWS: &str = "history";

/// Why the history of earlier lives cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The rows could not be opened.
    #[error("the stored history could not be opened: {0}")]
    Open(#[source] io::Error),
    /// The rows could not be read.
    #[error("the stored history could not be read: {0}")]
    Read(#[from] SpaceError),
    /// What follows from reading them could not be written.
    #[error("the stored history could not be put in order: {0}")]
    Write(#[source] io::Error),
}

/// The stored history of one node. One writer owns it: the flusher.
pub(super) struct HistoryArchive {
    rows: SideRows,
    archive: Archive,
    /// The checkpoint stored last, so that a quiet second writes nothing.
    checkpoint: Option<(ColumnId, Counts)>,
}

impl HistoryArchive {
    /// Opens what earlier lives stored and gives it back to the history. Damaged records are
    /// passed over, counted and reported.
    pub(super) fn open(storage: &Storage, local: &LocalMatrix) -> Result<Self, ArchiveError> {
        let rows = storage.open_side(ROWS).map_err(ArchiveError::Open)?;
        let opened = Archive::open(rows.rows()?);
        for damaged in &opened.damaged {
            tracing::warn!(
                key = %crate::api::json::key_text(&damaged.key),
                error = %damaged.error,
                "a stored column is damaged and was left out"
            );
        }
        let damaged = opened.damaged.into_iter().map(|damaged| damaged.key);
        let deletes = opened.garbage.deletes.into_iter().chain(damaged);
        rows.apply(opened.garbage.puts, deletes).map_err(ArchiveError::Write)?;
        let mut archive = HistoryArchive { rows, archive: opened.archive, checkpoint: None };
        let restored = local.history().restore(opened.columns);
        archive.store(&restored, &local.history().checkpoint()).map_err(ArchiveError::Write)?;
        Ok(archive)
    }

    /// Stores what a flush changed, and the column in progress.
    pub(super) fn store(&mut self, flushed: &Flushed, open: &Column) -> io::Result<()> {
        let checkpoint = (open.id(), open.total());
        let quiet = self.checkpoint == Some(checkpoint);
        if quiet && flushed.closed.is_empty() && flushed.removed.is_empty() {
            return Ok(());
        }
        let columns = flushed.closed.iter().map(AsRef::as_ref).chain([open]);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.rows.apply(batch.puts, batch.deletes)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// Stores what a stop in good order closed.
    pub(super) fn finish(&mut self, flushed: &Flushed) -> io::Result<()> {
        let columns = flushed.closed.iter().map(AsRef::as_ref);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.rows.apply(batch.puts, batch.deletes)
    }
}
