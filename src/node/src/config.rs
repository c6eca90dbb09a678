//! The configuration of a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keyviz_core::{HistoryConfig, NodeId, SamplerConfig};
use keyviz_raft::StorageOptions;
use keyviz_security::SecurityConfig;
use keyviz_server::AutopilotConfig;
use keyviz_server::alerts::AlertOptions;

use super::startup::bootstrap::BootstrapSpec;

/// Memory that a node's storage engine may use for cached pages.
pub const DEFAULT_CACHE_BYTES: u64 = StorageOptions::CACHE_BYTES;

/// How long a request may take inside the server when the client names no deadline.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node, at least 1.
    pub id: NodeId,
    /// Folder for its data.
    pub data: PathBuf,
    /// Where gRPC listens. Port 0: any free port.
    pub listen: SocketAddr,
    /// `host:port` at which other nodes and clients reach it; `None`: the address it listens on.
    pub advertise: Option<String>,
    /// Where HTTP listens; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Further names under which HTTP is reached, such as a proxy's; `http` and the host of
    /// `advertise` are always accepted.
    pub http_hosts: Vec<String>,
    /// How the node comes to its cluster.
    pub origin: Origin,
    /// The sampler and its history.
    pub keyviz: KeyvizConfig,
    /// Bytes a second of rows that this node sends to replicas that need them; 0: no limit.
    pub move_bytes_per_s: u64,
    /// All groups are verified in this time, while this node leads the catalog group; zero: never.
    pub verify_every: Duration,
    /// Bytes of rows a second that each replica reads for that.
    pub verify_bytes_per_s: u64,
    /// A member that has not answered for so long is removed, and its replicas are made again on
    /// others, while this node leads the catalog group; zero: never.
    pub replace_after: Duration,
    /// Mode and limits of the autopilot, while this node leads the catalog group.
    pub autopilot: AutopilotConfig,
    /// Bounds of the storage.
    pub storage: StorageOptions,
    /// Bytes of writes that may be under way.
    pub queue_bytes: u64,
    /// Deadline of a request without one of its own.
    pub request_timeout: Duration,
    /// TLS, tokens and secrets; by default none.
    pub security: SecurityConfig,
    /// Lines of the log that could not be written so far, for the metrics.
    pub lost_log_lines: fn() -> u64,
    /// Spans that were dropped instead of exported so far, for the metrics.
    pub dropped_spans: fn() -> u64,
    /// What is alerted on, while this node leads the catalog group.
    pub alerts: AlertOptions,
}

/// How a node comes to its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is one of the first members. Harmless on a folder that this very bootstrap made.
    Bootstrap(BootstrapSpec),
    /// It joins through a member at this address. Harmless once it has joined.
    Join(String),
    /// The same, in the place of the member that has this node's address. That member has lost its
    /// disk, and cannot return while this node listens there.
    Replace(String),
    /// Its folder knows.
    Restart,
}

impl Origin {
    /// The member that it joins through; `None`: it does not join.
    pub fn through(&self) -> Option<&str> {
        match self {
            Origin::Join(through) | Origin::Replace(through) => Some(through),
            Origin::Bootstrap(_) | Origin::Restart => None,
        }
    }
}

/// The sampler and its history.
#[derive(Clone, Debug)]
pub struct KeyvizConfig {
    /// Routes, slots and shards.
    pub sampler: SamplerConfig,
    /// Columns, steps and budgets.
    pub history: HistoryConfig,
    /// Show hot keys by salted hashes.
    pub hash_keys: bool,
    /// Members that have the columns of this node, itself among them; 1: no copies.
    pub copies: usize,
    /// Bytes of other nodes' columns that this node keeps on its disk.
    pub copies_bytes: usize,
}

impl KeyvizConfig {
    /// Whether this node samples and answers for its key space.
    pub fn enabled(&self) -> bool {
        self.sampler.enabled
    }
}
