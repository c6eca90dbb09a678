//! One node: the only place that knows every part, and puts them together.

mod addresses;
mod archive;
mod balancer;
mod bootstrap;
mod check;
mod config;
mod disk;
mod disks;
mod error;
mod first_start;
mod flusher;
mod founding;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod history_handoffs;
mod identity;
mod join;
mod leader_terms;
mod membership_probe;
mod mover;
mod placement_reconciler;
mod restore;
mod running;
mod salvage;
#[cfg(test)]
mod simulation;
mod start;
mod supervisor;
mod verifier;

pub use archive::ArchiveError;
pub use bootstrap::{BootstrapSpec, BootstrapSpecError};
pub use check::check;
pub use config::{DEFAULT_CACHE_BYTES, DEFAULT_REQUEST_TIMEOUT, KeyvizConfig, NodeConfig, Origin};
pub use error::NodeError;
pub use restore::{Restore, RestoreError, Restored};
pub use running::Node;
pub use salvage::{Salvage, SalvageError, Salvaged, SalvagedGroup};

/// Threads that a node needs beside those of its runtime's workers: its storage with the database
/// of the history, those that compute a matrix and compare replicas, and four in which it waits for
/// the disk, which the runtime has more of where the system gives them.
pub const THREADS: usize = keyviz_raft::THREADS + 1 + 2 + 4;
