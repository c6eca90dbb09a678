//! Timing and bounds of the groups of a node.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::transport::MAX_MESSAGE_BYTES;

/// The longest command: a batch of the key-value interface at its bound, with room for its frame.
pub const MAX_COMMAND_BYTES: usize = MAX_MESSAGE_BYTES / 2;

/// How the groups of a node behave. The defaults suit a LAN.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// How often an idle leader lets its followers hear of it.
    pub heartbeat: Duration,
    /// A follower that hears nothing campaigns after a random time from this on.
    pub election_min: Duration,
    /// The longest such time; a leader's lease lasts as long.
    pub election_max: Duration,
    /// Entries after which the log is compacted.
    pub compact_entries: u64,
    /// Bytes of entries after which the log is compacted.
    pub compact_bytes: u64,
    /// Compacted entries that are kept for followers that lag.
    pub keep_entries: u64,
    /// Proposals of one group that may be under way; beyond, they are refused as overload.
    pub proposals: u32,
    /// Bytes of proposals that may be under way, over all groups of the node; beyond, they are
    /// refused as overload. As many may be on their way from each peer, or to each.
    pub queue_bytes: u64,
    /// How long a proposal may take before its outcome counts as unknown.
    pub proposal_timeout: Duration,
    /// Bytes a second of rows that this node sends to replicas that need them, over all groups; 0:
    /// no limit. At least [`GroupOptions::MIN_MOVE_BYTES_PER_S`] otherwise.
    pub move_bytes_per_s: u64,
    /// How old a quorum's last word may be for a lease read. `None`: four fifths of
    /// [`GroupOptions::election_max`], which leaves a margin for clocks that run at different
    /// speeds and for the time between the check and the read.
    pub lease: Option<Duration>,
    /// Lets a leader overwrite what a replica has committed, rather than to close the group there.
    /// For simulations that show what it costs.
    pub overwrites_committed: bool,
}

impl GroupOptions {
    /// Default of [`GroupOptions::move_bytes_per_s`].
    pub const MOVE_BYTES_PER_S: u64 = 64 << 20;
    /// A run of rows must not take longer than its receiver is waited for.
    pub const MIN_MOVE_BYTES_PER_S: u64 = 64 << 10;
    /// Default of [`GroupOptions::queue_bytes`].
    pub const QUEUE_BYTES: u64 = 64 * 1024 * 1024;
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(1_000),
            election_max: Duration::from_millis(2_000),
            compact_entries: 10_000,
            compact_bytes: 64 * 1024 * 1024,
            keep_entries: 5_000,
            proposals: 8_192,
            queue_bytes: Self::QUEUE_BYTES,
            proposal_timeout: Duration::from_secs(10),
            move_bytes_per_s: Self::MOVE_BYTES_PER_S,
            lease: None,
            overwrites_committed: false,
        }
    }
}

/// The options contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these Raft settings do not work together: {0}")]
pub struct OptionsError(pub String);

impl GroupOptions {
    pub(crate) fn config(&self) -> Result<Arc<Config>, OptionsError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: "keyviz".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // Bounds one append request; the reader also bounds its bytes.
            max_payload_entries: 1024,
            max_append_entries: Some(4096),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.compact_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: (self.compact_entries / 8).clamp(1, 256),
            // A follower further behind than what is kept needs the rows rather than the log.
            replication_lag_threshold: self.compact_entries + self.keep_entries,
            api_channel_size: Some(u64::from(self.proposals) * 2),
            enable_pre_vote: Some(true),
            // A leader that goes on in its old term after a restart knows neither what it committed
            // last nor an entry of its own that would tell: its reads could miss what it had
            // acknowledged. A new term begins with such an entry.
            enable_leader_restore: Some(false),
            backoff: "50ms 100ms 200ms ...1000ms".into(),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| OptionsError(error.to_string()))
    }

    /// How old a quorum's last word may be for a lease read.
    pub(crate) fn lease(&self) -> Duration {
        self.lease.unwrap_or(self.election_max * 4 / 5)
    }
}
