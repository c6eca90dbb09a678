//! Why a run of the workload could not be made or finished.

use std::io;
use std::path::PathBuf;

use super::super::client::CallError;
use super::trace::TraceError;

/// Why a run could not be started or finished.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No node accepts a connection.
    #[error(transparent)]
    NoNode(#[from] CallError),
    /// The trace is bad.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The record cannot be written.
    #[error("cannot write the record {}: {error}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A client task panicked.
    #[error("a client of the workload failed: {0}")]
    Client(#[from] tokio::task::JoinError),
}
