//! Requests of the key-value plane to other nodes.

use bytes::Bytes;
use futures::future::BoxFuture;

use keyviz_types::{GroupId, NodeId};

use super::consistency::Consistency;
use super::error::KvError;
use super::moves::{MoveChunk, MoveRead};
use super::page::{Page, ScanRange};

/// What a peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerOutcome<T> {
    /// It did what was asked.
    Done(T),
    /// It does not lead the group and did nothing; the leader, as far as it knows.
    NotLeader(Option<NodeId>),
}

/// Why a peer gave no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// The request did not reach the peer, so nothing happened.
    #[error("node {node} could not be reached: {reason}")]
    NotSent {
        /// The peer.
        node: NodeId,
        /// What failed.
        reason: String,
    },
    /// The request was sent and not answered, so it may have happened.
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

/// The interface to other nodes. A peer never forwards a request.
pub trait PeerKv: Send + Sync + 'static {
    /// Proposes a command in a group that `to` should lead.
    fn propose(
        &self,
        to: NodeId,
        group: GroupId,
        command: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>>;

    /// Requests the index that a linearizable read must wait for from `to`, which should lead the
    /// group.
    fn read_index(
        &self,
        to: NodeId,
        group: GroupId,
    ) -> BoxFuture<'static, Result<PeerOutcome<u64>, PeerError>>;

    /// Lets `to` serve a read from its replica of the group.
    fn read(
        &self,
        to: NodeId,
        group: GroupId,
        consistency: Consistency,
        read: PeerRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<PeerReadReply>, PeerError>>;

    /// Proposes a step of a move in a group that `to` should lead.
    fn move_step(
        &self,
        to: NodeId,
        group: GroupId,
        step: Bytes,
    ) -> BoxFuture<'static, Result<PeerOutcome<Bytes>, PeerError>>;

    /// Reads a part of a range that moves from the replica of `to`.
    fn move_read(
        &self,
        to: NodeId,
        group: GroupId,
        read: MoveRead,
    ) -> BoxFuture<'static, Result<PeerOutcome<MoveChunk>, PeerError>>;
}
