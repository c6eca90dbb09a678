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

mod admission;
mod apply;
mod attempts;
mod batcher;
mod blocking;
mod compaction;
mod confirm;
mod contradiction;
mod digest;
mod dump;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod groups;
mod handshake;
mod log;
mod machine;
mod members;
mod options;
mod plausible;
mod proposals;
mod pulse;
mod reads;
mod reshape;
mod runtime;
mod served;
mod status;
mod storage;
mod survivor;
mod transport;
mod types;
mod wire;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod durable_tests;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod install_tests;
#[cfg(test)]
mod suite_tests;
#[cfg(test)]
mod testing;

pub use admission::GroupLoad;
pub use attempts::Attempts;
pub use batcher::Batcher;
pub use blocking::blocking;
pub use digest::{ArmedDigest, DigestError, DigestProgress, RowsDigest};
pub use dump::Dump;
pub use error::{
    ChangeError, CreateError, InitializeError, KnownLeader, ProposeError, ReadError, ReplicasFull,
};
pub use group::{Group, Proposed, ReadGuarantee};
pub use groups::Groups;
pub use handshake::{
    Checks, Doubt, HandshakeLoop, Heard, Participation, PastStart, Roster, Start, heard_of, judge,
};
pub use log::{BATCH_BUCKETS, CorruptLog, SYNC_BUCKETS, WriterStats};
pub use machine::{Machine, MachineError};
pub use options::{GroupOptions, MAX_COMMAND_BYTES, OptionsError};
pub use pulse::SERVED_WITHIN;
pub use reshape::{Reshaped, Shape};
pub use runtime::Reproducible;
pub use served::NotServed;
pub use status::{GroupStatus, Leadership, Role};
pub use storage::{
    Batch, CheckReport, DATA_FORMAT, Damage, Database, DatabaseRows, DatabaseTree, Databases,
    DiskFull, DiskSpace, Fault, KeyValue, Keyspace, KeyspaceError, MAX_STORED_KEY_BYTES, OpenError,
    Page, PageLimit, RESERVED_PREFIX, Scarce, Seed, SeedError, SeedPoint, SideRows, Storage,
    StorageOptions, THREADS, Verify, check_folder,
};
pub use survivor::{SurvivingReplica, Survivor};
pub use transport::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_MESSAGE_BYTES, PeerError,
    Peers, PeersOptions, RaftMessage, RaftReply, STREAM_WINDOW_BYTES, SnapshotProgress, Wire,
    receive,
};
pub use types::{LogPosition, Member, RaftNodeId};
