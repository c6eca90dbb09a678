//! Errors of requests. Writes that were definitely not applied, writes of unknown outcome and
//! invalid requests stay distinct up to the client.

use bytes::Bytes;

use keyviz_types::{GroupId, NodeId};

use super::limits::InvalidRequest;

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KvError {
    /// The request is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The keys of a batch are in several groups.
    #[error(
        "the batch touches Raft groups {first} and {second}; a batch is atomic within one group, \
         so its keys must be in one (see `keyviz routes list`)"
    )]
    CrossGroup {
        /// Group of the first key.
        first: GroupId,
        /// Another.
        second: GroupId,
    },
    /// This node has no route table yet.
    #[error("this node has not applied a route catalog yet; try again or ask another node")]
    NotReady,
    /// This node is no longer a member of the cluster.
    #[error(
        "node {node} has left the cluster or was removed from it, and no longer serves requests; \
         ask another node"
    )]
    Removed {
        /// This node.
        node: NodeId,
    },
    /// This node has lost acknowledged entries, and is excluded.
    #[error("this node serves nothing: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// No leader could be reached in time; nothing was proposed.
    #[error("no leader of Raft group {group} could be reached in time; nothing was changed")]
    NoLeader {
        /// The group.
        group: GroupId,
    },
    /// No replica could serve the read in time.
    #[error("no replica of Raft group {group} could serve the read in time: {reason}")]
    ReadUnavailable {
        /// The group.
        group: GroupId,
        /// What the last one said.
        reason: String,
    },
    /// The keys are on their way from one group to another; nothing was changed.
    #[error(
        "the keys are being moved from Raft group {group} to another one, which took too long; \
         nothing was changed, try again"
    )]
    Moving {
        /// The group that has or had them.
        group: GroupId,
    },
    /// Too many requests are in flight; nothing was proposed.
    #[error("Raft group {group} has too many requests in flight; slow down and try again")]
    Overloaded {
        /// The group.
        group: GroupId,
    },
    /// This node is at its limits; nothing was done.
    #[error("this node has too many {what} under way; slow down and try again")]
    Busy {
        /// Of what.
        what: &'static str,
    },
    /// The leader's disk is full; nothing was proposed.
    #[error("the write was refused: {reason}")]
    DiskFull {
        /// Which disk, and how full.
        reason: String,
    },
    /// The write may or may not have been applied.
    #[error(
        "the write was sent to Raft group {group} but its outcome is unknown ({reason}); read the \
         key before trying again"
    )]
    UnknownOutcome {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// A range delete failed on its way.
    #[error(
        "the range was deleted in part: {deleted} keys were deleted, all before {}; {}; delete the \
         range from {} on again for the rest",
        shown(.next), .cause.after_a_part(), shown(.next)
    )]
    RangeCut {
        /// Keys that were removed.
        deleted: u64,
        /// First key of the rest.
        next: Bytes,
        /// Why it went no further.
        cause: Box<KvError>,
    },
    /// The storage of this node failed and it stopped serving.
    #[error("storage failed on this node: {reason}")]
    Storage {
        /// The first fault.
        reason: String,
    },
    /// Bytes of a peer or of the log cannot be decoded.
    #[error("undecodable internal data: {reason}")]
    Undecodable {
        /// What was wrong.
        reason: String,
    },
}

/// A key in words, so that it can be told from them.
fn shown(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

impl KvError {
    /// The reason, where an earlier part of the request was done: then something was changed.
    fn after_a_part(&self) -> String {
        match self {
            KvError::NoLeader { group } => {
                format!("then no leader of Raft group {group} could be reached in time")
            }
            KvError::Moving { group } => {
                format!("then its keys were being moved from Raft group {group}, for too long")
            }
            KvError::UnknownOutcome { group, reason } => format!(
                "the next part was sent to Raft group {group} and its outcome is unknown ({reason})"
            ),
            other => format!("then {other}"),
        }
    }

    /// Whether it is certain that nothing was written.
    pub fn not_applied(&self) -> bool {
        match self {
            KvError::Invalid(_)
            | KvError::CrossGroup { .. }
            | KvError::NotReady
            | KvError::Removed { .. }
            | KvError::Refused { .. }
            | KvError::NoLeader { .. }
            | KvError::ReadUnavailable { .. }
            | KvError::Moving { .. }
            | KvError::Overloaded { .. }
            | KvError::Busy { .. }
            | KvError::DiskFull { .. } => true,
            KvError::UnknownOutcome { .. }
            | KvError::RangeCut { .. }
            | KvError::Storage { .. }
            | KvError::Undecodable { .. } => false,
        }
    }
}
