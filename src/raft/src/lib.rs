//! Raft: many groups per node, over one database and one connection per peer.
//!
//! The layers above give a group a [`Machine`] and propose opaque commands; they receive a log
//! position, the term of the leader that proposed the command, and the machine's reply. Reads go to
//! the group's [`Keyspace`] after [`Group::confirm_read`], or after the leader's
//! [`Group::read_index`] and [`Group::wait_applied`].
//!
//! Work is shared, because it dominates the cost of a write: the appends of all groups share one
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
//! This layer is independent of keys, routes and clients, and hides openraft and sled from the
//! layers above.

mod blocking;
mod compaction;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod groups;
mod handshake;
mod log;
mod loops;
mod machine;
mod records;
mod rounds;
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
    Checks, Doubt, HandshakeLoop, Heard, Participation, PastStart, Roster, Start, StoppedNode,
    VouchError, heard_of, judge,
};
pub use log::{BATCH_BUCKETS, CorruptLog, SYNC_BUCKETS, WriterStats};
pub use loops::RaftLoop;
pub use machine::digest::{ArmedDigest, DigestError, DigestProgress, RowsDigest};
pub use machine::dump::Dump;
pub use machine::survivor::{SurvivingReplica, Survivor};
pub use machine::{Machine, MachineError};
pub use records::{RecordError, decode_record, encode_record};
pub use rounds::Rounds;
pub use runtime::Reproducible;
pub use storage::{
    Batch, CheckReport, DATA_FORMAT, Damage, Database, DatabaseRows, DatabaseTree, Databases,
    DiskFull, DiskSpace, Fault, KeyValue, Keyspace, KeyspaceError, MAX_STORED_KEY_BYTES, OpenError,
    Page, PageLimit, RESERVED_PREFIX, Scarce, Seed, SeedError, SeedPoint, SideRows, Storage,
    StorageOptions, THREADS, Unsound, Verify, check_folder,
};
pub use transport::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_MESSAGE_BYTES, PeerError,
    Peers, PeersOptions, RaftMessage, RaftReply, STREAM_WINDOW_BYTES, SnapshotProgress, Wire,
    receive,
};
pub use types::{LogPosition, Member, RaftNodeId};
