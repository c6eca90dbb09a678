//! The types with which openraft is instantiated.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A member of the cluster, as Raft knows it.
pub type RaftNodeId = u64;

/// A command, opaque to Raft. An empty command does not allocate.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command(#[serde(with = "opaque")] pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A reply of the state machine, opaque to Raft. Blank and membership entries have an empty reply,
/// which does not allocate.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply(#[serde(with = "opaque")] pub Bytes);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} bytes)", self.0.len())
    }
}

// openraft wants its types serializable; nothing here is stored or sent that way.
mod opaque {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` of its gRPC server.
    pub addr: String,
    /// `host:port` of its HTTP server; empty: it has none.
    pub http: String,
}

impl Member {
    /// A member that serves gRPC only.
    pub fn grpc(addr: impl Into<String>) -> Self {
        Self { addr: addr.into(), http: String::new() }
    }
}

// One leader a term, as in the Raft paper: counts are attributed to (group, term), so two leaders
// in one term must be impossible rather than ordered by node id.
openraft::declare_raft_types!(
    /// The types of every group.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = RaftNodeId,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, RaftNodeId>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Payload = openraft::EntryPayload<Command, RaftNodeId, Member>;
pub(crate) type Membership = openraft::Membership<RaftNodeId, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type IoFlushed = openraft::storage::IOFlushed<Types>;

/// The position of an entry in a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term in which a leader proposed it.
    pub term: u64,
    /// Its number, from 0, without gap.
    pub index: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl From<LogId> for LogPosition {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogPosition> for LogId {
    fn from(at: LogPosition) -> Self {
        LogId::new(CommittedLeaderId::new(at.term), at.index)
    }
}
