//! Errors of a group, by operation. Refused, unknown and broken stay different.

use std::io;

use super::group::options::OptionsError;
use super::storage::DiskFull;
use super::types::{Member, RaftNodeId};

/// The leader as far as this node knows.
pub type KnownLeader = Option<(RaftNodeId, Member)>;

/// Why a proposal was not answered with its reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Not proposed: another node leads, or none does.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if known.
        leader: KnownLeader,
    },
    /// Not proposed: too much is under way.
    #[error("the group has too many proposals under way")]
    Overloaded,
    /// Not proposed: the disk is full.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// Not proposed: the command is too long.
    #[error("the command has {bytes} bytes, more than {max}", max = super::MAX_COMMAND_BYTES)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Proposed, and it may or may not take effect: leadership was lost or time ran out.
    #[error("the outcome of the proposal is unknown")]
    Unknown,
    /// The group has stopped on this node; the command may or may not take effect.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}

impl ProposeError {
    /// Whether the command certainly has no effect, so that proposing it again is safe.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::Overloaded
            | Self::DiskFull(_)
            | Self::TooLong { .. } => true,
            Self::Unknown | Self::Stopped(_) => false,
        }
    }
}

/// A write was refused because too few replicas of the group have space for it. Nothing was
/// written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no majority of the group's replicas has space: {}; the group is read-only until there \
     is space",
    listed(.full)
)]
pub struct ReplicasFull {
    /// The replicas that are full.
    pub full: Vec<RaftNodeId>,
}

fn listed(nodes: &[RaftNodeId]) -> String {
    let each = |node: &RaftNodeId| format!("the disk of node {node} is full");
    nodes.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Why a read could not be confirmed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none does.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if known.
        leader: KnownLeader,
    },
    /// No quorum confirmed in time that this node leads.
    #[error("no quorum confirmed the read in time")]
    NoQuorum,
    /// The entry to read was not applied here in time.
    #[error("this node is behind and did not catch up in time")]
    Behind,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}

/// Why a change of members or of the leader did not happen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads, or none does.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if known.
        leader: KnownLeader,
    },
    /// Why the change makes no sense now.
    #[error("the change is refused: {0}")]
    Refused(String),
    /// It may or may not take effect.
    #[error("the outcome of the change is unknown")]
    Unknown,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}

/// Why a group cannot be opened on this node.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It is open already.
    #[error("the group is already open on this node")]
    Exists,
    /// The settings contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Its log or its rows cannot be read; other groups are not touched.
    #[error("the group's data cannot be used: {0}")]
    Data(#[from] io::Error),
    /// It was closed on this node, because its leader contradicted what it has committed.
    #[error(
        "the group is closed on this node: {reason}. Run `keyviz cluster verify`, then replace the \
         node that is wrong (`keyviz cluster replace-node`); keep its folder until all replicas \
         agree"
    )]
    Closed {
        /// Both logs.
        reason: String,
    },
    /// Raft refused what it found.
    #[error("the group's data cannot be used: {0}")]
    Raft(String),
}

/// Why a group cannot be given its first members.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InitializeError {
    /// This node is not one of them.
    #[error("node {0} is not among the first members")]
    NotAMember(RaftNodeId),
    /// The group has stopped on this node.
    #[error("the group has stopped on this node: {0}")]
    Stopped(String),
}
