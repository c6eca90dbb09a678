//! One node: the only place that knows every part, and puts them together.

mod config;
mod error;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod loops;
mod running;
#[cfg(test)]
mod simulation;
mod start;
mod startup;

pub use keyviz_server::alerts;

pub use config::{DEFAULT_CACHE_BYTES, DEFAULT_REQUEST_TIMEOUT, KeyvizConfig, NodeConfig, Origin};
pub use error::NodeError;
pub use folder::archive::ArchiveError;
pub use folder::check::check;
pub use folder::restore::{Restore, RestoreError, Restored};
pub use folder::salvage::{Salvage, SalvageError, Salvaged, SalvagedGroup};
pub use keyviz_server::AutopilotConfig;
pub use loops::supervisor::LoopWrap;
pub use running::Node;
pub use startup::bootstrap::{BootstrapSpec, BootstrapSpecError};

/// Threads that a node needs beside those of its runtime's workers: its storage with the database
/// of the history, those that compute a matrix and compare replicas, and four in which it waits for
/// the disk, which the runtime has more of where the system gives them.
pub const THREADS: usize = keyviz_raft::THREADS + 1 + 2 + 4;
