//! Why a node does not start.

use std::io;
use std::net::SocketAddr;

use keyviz_catalog::PlanError;
use keyviz_core::NodeId;
use keyviz_core::history::HistoryConfigError;
use keyviz_core::sampler::SamplerConfigError;
use keyviz_raft::{CreateError, OpenError, RecordError};
use keyviz_security::SecurityError;

use super::startup::bootstrap::BootstrapSpecError;

/// Every way in which a start fails, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Node 0.
    #[error("node ids start at 1")]
    ZeroId,
    /// The port is taken, or the address is not this machine's.
    #[error(
        "cannot listen on {address} for {what}: {source}; \
         choose another address or stop what uses it"
    )]
    Listen {
        /// gRPC or HTTP.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate, token or secret cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Sampler flags.
    #[error(transparent)]
    Sampler(#[from] SamplerConfigError),
    /// History flags.
    #[error(transparent)]
    History(#[from] HistoryConfigError),
    /// Bootstrap flags.
    #[error(transparent)]
    Spec(#[from] BootstrapSpecError),
    /// Bootstrap flags that make no cluster.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A Raft group does not start.
    #[error(transparent)]
    Group(#[from] CreateError),
    /// The folder is another node's.
    #[error(
        "the folder {folder} holds the data of node {found}, not of node {id}; \
         start with --id {found} or another --data"
    )]
    OtherNode {
        /// The folder.
        folder: String,
        /// Whose it is.
        found: NodeId,
        /// The node that asks.
        id: NodeId,
    },
    /// The folder was bootstrapped differently.
    #[error(
        "the folder {folder} already holds a cluster that was bootstrapped with {found}; a second \
         bootstrap with {asked} is refused. Restart without --bootstrap, or give an empty --data"
    )]
    SecondBootstrap {
        /// The folder.
        folder: String,
        /// How it was made.
        found: String,
        /// What is asked now.
        asked: String,
    },
    /// The folder belongs to a node that joined, and is now asked to bootstrap.
    #[error(
        "the folder {folder} holds a node that joined a cluster; bootstrapping it is refused. \
         Restart without --bootstrap, or give an empty --data"
    )]
    JoinedBefore {
        /// The folder.
        folder: String,
    },
    /// An empty folder without instructions.
    #[error(
        "the folder {folder} holds no node; give --bootstrap with all first members, or --join \
         with the address of a member"
    )]
    NothingToStart {
        /// The folder.
        folder: String,
    },
    /// The cluster that was to be joined did not take the node.
    #[error("node {id} could not join through {through}: {reason}")]
    Join {
        /// This node.
        id: NodeId,
        /// The member asked.
        through: String,
        /// What it said.
        reason: String,
    },
    /// The cluster exists, and knows this node with another disk.
    #[error(
        "node {id} has an empty folder ({folder}), but its cluster exists: {reason}. A first start \
         with --bootstrap is refused, because this node would have forgotten what it acknowledged"
    )]
    ClusterExists {
        /// This node.
        id: NodeId,
        /// Its folder.
        folder: String,
        /// The member, and what it said.
        reason: String,
    },
    /// A record of the folder could not be written.
    #[error("the record {name:?} could not be written to the folder {folder}: {source}")]
    Record {
        /// The folder.
        folder: String,
        /// The record.
        name: &'static str,
        /// What the storage said.
        source: io::Error,
    },
    /// Records of the folder that do not decode.
    #[error(
        "the record {name:?} in the folder {folder} is damaged: {reason}. Keep the folder, \
         and do not \
         put a copy in its place: a copy has forgotten writes that this node acknowledged. Replace \
         the node: start one with a new id and an empty folder (--join), then run `keyviz cluster \
         replace-node`"
    )]
    Damaged {
        /// The folder.
        folder: String,
        /// The record.
        name: &'static str,
        /// What is wrong.
        reason: RecordError,
    },
}
