//! The cluster-wide matrix: requests the totals of all members, plans one key axis, requests the
//! counts on that axis, and merges them.
//!
//! ```text
//!            round 1: totals by range          round 2: columns on the planned axis
//! members ---------------------------> plan ---------------------------------------> merge
//!    |  at most half of the deadline             each under what is left of it
//!    +-- who did not answer is a status in the answer, never a gap in it
//! ```
//!
//! Members come from Raft membership. Peers never ask other peers. Identical queries share one
//! answer, the matrix work of a node is bounded, and cancelled work ends. This crate does not know
//! gRPC: peers are reached through [`PeerMatrix`], which the edge implements.

mod cluster;
#[cfg(test)]
mod cluster_tests;
mod copies;
mod copies_asked;
#[cfg(test)]
mod copies_tests;
mod copy_stats;
mod feed;
mod findings;
mod handoffs;
mod hot_keys;
mod last_columns;
mod loads;
mod local;
mod member;
mod parts;
mod peers;
mod request;
mod shared;
mod top;
mod work;

pub use cluster::{DEFAULT_DEADLINE, Fanout, FanoutCounters};
pub use copies::CopyAnswerError;
pub use copy_stats::CopyStats;
pub use feed::{ColumnsUpdate, FeedError, Feeds, MAX_FEEDS, MAX_SUBSCRIBERS, Subscription};
pub use findings::{
    Findings, FindingsAnswer, FindingsError, FindingsRequest, MAX_FINDINGS, Served,
};
pub use handoffs::{HandoffError, HandoffRecord, HandoffStore, Incoming};
pub use hot_keys::{HotKeysAnswer, HotKeysError, HotKeysRequest};
pub use last_columns::{LastColumns, ServedCounts};
pub use loads::{
    Grouping, LeaderOf, LoadCounts, LoadEntry, LoadOf, Loads, LoadsError, LoadsPart, LoadsRequest,
    LoadsSummary, MAX_LOAD_IDS, MAX_PREFIX_DEPTH, MAX_PREFIXES,
};
pub use local::{Clock, FlushStats, HotKeysMode, LocalMatrix, StoredRecords};
pub use parts::FanoutParts;
pub use peers::{NodeHotKeys, PeerMatrix, PeerTotals, RoundError};
pub use request::{Axis, MatrixAnswer, MatrixError, MatrixRequest};
pub use top::{
    DEFAULT_TOP, DEFAULT_TOP_WINDOW_MS, MAX_TOP, Rank, Rates, Top, TopAnswer, TopError, TopRange,
    TopRequest, cost,
};
pub use work::{
    Asker, Busy, ComputeSlot, MAX_QUERIES, MAX_WAITING_COMPUTATIONS, MAX_WAITING_QUERIES, Work,
    WorkError,
};
