//! Raft between nodes: one connection per peer for all groups.
//!
//! Appends and heartbeats of all groups share one bidirectional stream per peer. Requests are
//! numbered, many are in flight, and answers are sent as they are ready, so a slow group does not
//! delay others. Requests that arrive while a frame is being sent share the next one. Votes are
//! separate calls on the same connection, and a snapshot is a stream of its own.
//!
//! No message from a peer can cause a panic here: one that does not decode is answered with an
//! error.

mod delivery;
mod errors;
mod greeting;
pub(super) mod held;
mod identity;
mod in_flight;
mod link;
mod network;
mod overheard;
mod pace;
mod peers;
mod pipeline;
mod raft_network;
pub(super) mod receive;
#[cfg(test)]
mod resume_tests;
mod send;
mod service;
mod wire;

use std::time::Duration;

pub use delivery::receive;
pub use held::SnapshotProgress;
pub(crate) use link::status_words;
pub(crate) use network::GroupNetwork;
pub(crate) use pace::Pace;
pub use peers::{PeerError, Peers, PeersOptions};
pub use wire::{RaftMessage, RaftReply, Wire};

/// The largest message in either direction: an entry at its bound with room for its frame.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// HTTP/2 flow-control window of one stream.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// HTTP/2 flow-control window of a connection: the append stream, a snapshot and calls beside it.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// How often an otherwise quiet connection is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a probe may go unanswered before the connection is given up.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a commit update is held so that the next append of its group can carry it.
pub(crate) const COMMIT_HOLD: Duration = Duration::from_millis(10);

/// How long setting up a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits between attempts to reach a peer, doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);
