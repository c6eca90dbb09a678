//! Raft: many groups a node over one database and one connection a peer.
//!
//! The layers above give a group a [`Machine`] and propose opaque commands; what they get back is
//! a place in the log, the term of the leader that proposed it, and the machine's reply. Reads go
//! to the group's [`Keyspace`] after [`Group::confirm_read`], or after the leader's
//! [`Group::read_index`] and [`Group::wait_applied`].
//!
//! What is done together, because it is what a write costs: the appends of all groups share one
//! sync ([`Storage`]), the appends of all groups to a peer share frames, readers share quorum
//! rounds, and entries are applied in runs, each one atomic batch.
//!
//! ```text
//!   propose ──> openraft core ──> log ──────────> log writer ──> sled, fdatasync
//!                  │   │                           (one a node)
//!                  │   └──> network ──> link ──> one gRPC stream a peer ──> service ──> core
//!                  └──> apply ──> Machine ──> Batch ──> Keyspace (one tree a group)
//! ```
//!
//! This layer knows no keys, no routes and no clients, and nothing above it sees openraft or sled.

mod blocking;
mod compaction;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod groups;
mod handshake;
mod log;
mod machine;
mod runtime;
mod storage;
mod transport;
mod types;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use blocking::blocking;
pub use error::{
    ChangeError, CreateError, InitializeError, KnownLeader, ProposeError, ReadError, ReplicasFull,
};
pub use group::admission::GroupLoad;
pub use group::attempts::Attempts;
pub use group::batcher::Batcher;
pub use group::options::{GroupOptions, MAX_COMMAND_BYTES, OptionsError};
pub use group::pulse::SERVED_WITHIN;
pub use group::reshape::{Reshaped, Shape};
pub use group::served::NotServed;
pub use group::status::{GroupStatus, Leadership, Role};
pub use group::{Group, Proposed, ReadGuarantee};
pub use groups::Groups;
pub use handshake::{
    Checks, Doubt, HandshakeLoop, Heard, Participation, PastStart, Roster, Start, heard_of, judge,
};
pub use log::{BATCH_BUCKETS, CorruptLog, SYNC_BUCKETS, WriterStats};
pub use machine::digest::{ArmedDigest, DigestError, DigestProgress, RowsDigest};
pub use machine::dump::Dump;
pub use machine::survivor::{SurvivingReplica, Survivor};
pub use machine::{Machine, MachineError};
pub use runtime::Reproducible;
pub use storage::{
    Batch, CheckReport, DATA_FORMAT, Damage, Database, DatabaseRows, DatabaseTree, Databases,
    DiskFull, DiskSpace, Fault, KeyValue, Keyspace, KeyspaceError, MAX_STORED_KEY_BYTES, OpenError,
    Page, PageLimit, RESERVED_PREFIX, Scarce, Seed, SeedError, SeedPoint, SideRows, Storage,
    StorageOptions, THREADS, Verify, check_folder,
};
pub use transport::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_MESSAGE_BYTES, PeerError,
    Peers, PeersOptions, RaftMessage, RaftReply, STREAM_WINDOW_BYTES, SnapshotProgress, Wire,
    receive,
};
pub use types::{LogPosition, Member, RaftNodeId};
