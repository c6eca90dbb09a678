//! Calls from node to node: the client side of everything that a node does for another, and the
//! forms that both sides share.
//!
//! Independent of clients, HTTP and metrics. `keyviz-server` serves these calls, and the node
//! assembles both. Addresses are looked up at each call, over the one connection that Raft has to
//! each peer.

pub mod answers;
mod catalog;
pub mod client;
pub mod copies_wire;
pub mod digests;
mod error;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hot_keys_wire;
mod matrix;
pub mod matrix_wire;
pub mod members;
mod moves;
pub mod moves_wire;
pub mod request_id;
pub mod snapshot;
pub mod status;
pub mod totals_wire;
pub mod trace;

pub use client::PeerClient;
pub use copies_wire::CopyCallError;
pub use error::CallError;
pub use snapshot::ClusterSnapshot;
