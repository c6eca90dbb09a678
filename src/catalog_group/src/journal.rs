//! Commands of the journal in the catalog's log.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use keyviz_catalog::{EntryId, JournalCommand, JournalError};

use super::group::{CatalogChangeError, CatalogGroup};
use super::replies;

impl CatalogGroup {
    /// Carries out a command of the journal through the leader, and waits until it is applied here
    /// too; returns the entry that it is about. A command that begins an act is sent again after an
    /// unknown outcome only if it has a request id.
    ///
    /// # Errors
    /// It was refused, or nobody can tell whether it was carried out.
    pub async fn change_journal(
        &self,
        command: &JournalCommand,
        timeout: Duration,
    ) -> Result<EntryId, CatalogChangeError> {
        let repeatable = match command {
            JournalCommand::Begin { begun } => !begun.request_id.is_empty(),
            JournalCommand::Open | JournalCommand::Measure { .. } => true,
            // Repeated, they would be refused for what they did themselves.
            JournalCommand::End { .. } => false,
            JournalCommand::SetMode { expected_revision, .. } => *expected_revision == 0,
        };
        let encoded = Bytes::from(command.encode()?);
        let deadline = Instant::now() + timeout;
        let before = self.applied().journal().revision();
        let reply = self.propose(encoded, repeatable, deadline).await?;
        let id = replies::decode::<Result<EntryId, JournalError>>(&reply)??;
        // A caller that changed the journal here sees the change here. Late is not lost, so this
        // gives up quietly.
        let mut journal = self.applied().watch_journal();
        let seen = journal.wait_for(|journal| match command {
            JournalCommand::Begin { .. } => id == 0 || journal.get(id).is_some(),
            _ => journal.revision() > before,
        });
        let within = deadline.min(Instant::now() + SHOWN_WITHIN);
        let _ = tokio::time::timeout_at(within, seen).await;
        Ok(id)
    }
}

/// What was applied by the leader is applied here soon, or this node is behind.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
