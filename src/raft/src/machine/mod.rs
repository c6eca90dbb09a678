//! The interface of a group's state machine.

pub(crate) mod apply;
pub(crate) mod digest;
pub(crate) mod dump;
pub(crate) mod survivor;

use bytes::Bytes;

use super::storage::{Batch, Keyspace, KeyspaceError};
use super::types::LogPosition;

/// A state machine cannot continue. The group stops on this node; other groups are not affected.
/// Errors of clients are replies, not this.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The rows could not be read or changed.
    #[error(transparent)]
    Keyspace(#[from] KeyspaceError),
    /// A committed command or a stored row cannot be decoded.
    #[error("the state machine cannot go on: {0}")]
    Corrupt(String),
}

impl From<MachineError> for std::io::Error {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Keyspace(error) => error.into(),
            error @ MachineError::Corrupt(_) => {
                std::io::Error::new(std::io::ErrorKind::InvalidData, error)
            }
        }
    }
}

/// A replicated state machine: a pure function of the commands in log order.
///
/// Rows live in the group's [`Keyspace`]. The changes of a run of entries and the position of the
/// last one are written in one atomic batch, so after a crash `apply` continues exactly after the
/// rows: no command is applied twice or skipped. A machine may keep state in memory, as long as
/// [`restore`](Machine::restore) can rebuild it from the rows.
///
/// `apply` may run on a thread of the asynchronous runtime: it must wait for nothing but the
/// database.
pub trait Machine: Send + 'static {
    /// The rows are now those in `space`: called once before the first entry and after each
    /// snapshot that replaced them.
    fn restore(&mut self, keyspace: &Keyspace) -> Result<(), MachineError>;

    /// The rows are about to be replaced by those of a snapshot: what the machine says of them to
    /// others may be wrong until [`restore`](Machine::restore).
    fn replacing(&mut self) {}

    /// Applies one committed command and answers it. Changes go to `batch`, which also shows them
    /// to the commands that follow in the same batch.
    fn apply(
        &mut self,
        at: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError>;

    /// The changes of all commands up to `last` are in `space` now, and their clients are about to
    /// be answered. The place to publish what was prepared in memory.
    fn written(&mut self, keyspace: &Keyspace, last: LogPosition) {
        let _ = (keyspace, last);
    }
}
