//! What the key-value plane asks of other nodes.

use bytes::Bytes;
use futures::future::BoxFuture;

use keyviz_types::{GroupId, NodeId};

use super::consistency::Consistency;
use super::error::KvError;
use super::page::{Page, ScanRange};

/// What a peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerOutcome<T> {
    /// It did what was asked.
    Done(T),
    /// It does not lead the group and did nothing; where it believes the leader to be.
    NotLeader(Option<NodeId>),
}

/// Why a peer gave no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// The request did not reach the peer: nothing happened.
    #[error("node {node} could not be reached: {reason}")]
    NotSent {
        /// The peer.
        node: NodeId,
        /// What failed.
        reason: String,
    },
    /// The request went out and no answer came: it may have happened.
    #[error("node {node} did not answer: {reason}")]
    Lost {
        /// The peer.
        node: NodeId,
        /// What failed.
        reason: String,
    },
    /// The peer refused.
    #[error(transparent)]
    Refused(#[from] KvError),
}

/// A read that a replica can serve by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerRead {
    /// One key.
    Get(Bytes),
    /// One page of a range within one route.
    Page(ScanRange),
}

/// What a replica read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerReadReply {
    /// The value, where there is one.
    Value(Option<Bytes>),
    /// Rows and where the next page starts.
    Page(Page),
}

/// Other nodes, as the key-value plane sees them. A peer never passes a request on.
pub trait PeerKv: Send + Sync + 'static {
    /// Proposes a command in a group that `to` should lead.
    fn propose(
        &self,
        to: NodeId,
        group: GroupId,
        command: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>>;

    /// Asks `to`, which should lead the group, for the index that a linearizable read must wait for.
    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
    ) -> BoxFuture<'static, Result<PeerOutcome<u64>, PeerError>>;

    /// Has `to` serve a read from its replica of the group.
    fn read(
        &self,
        to: NodeId,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<PeerReadReply>, PeerError>>;
}
