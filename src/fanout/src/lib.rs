//! One exact matrix from every node: ask all members for what they carried, plan one key axis, ask
//! for the counts on that axis, merge.
//!
//! ```text
//!            round 1: totals by range          round 2: columns on the planned axis
//! members ---------------------------> plan ---------------------------------------> merge
//!    |  at most half of the deadline             each under what is left of it
//!    +-- who did not answer is a status in the answer, never a gap in it
//! ```
//!
//! Members come from Raft membership. Peers never ask on. Identical questions share one answer, a node
//! does a bounded amount of matrix work at a time, and work that nobody waits for any more ends. Knows nothing of gRPC: peers are reached
//! through [`PeerMatrix`], which the edge implements.

mod cluster;
#[cfg(test)]
mod cluster_tests;
mod estates;
mod feed;
mod local;
mod member;
mod parts;
mod peers;
mod request;
mod shared;
mod work;

pub use cluster::{DEFAULT_DEADLINE, Fanout, FanoutCounters};
pub use estates::{EstateError, EstateRecord, EstateStore, Incoming};
pub use feed::{ColumnsUpdate, FeedError, Feeds, MAX_FEEDS, MAX_SUBSCRIBERS, Subscription};
pub use local::{Clock, FlushStats, LocalMatrix};
pub use parts::FanoutParts;
pub use peers::{PeerMatrix, PeerTotals};
pub use request::{Axis, MatrixAnswer, MatrixError, MatrixRequest};
pub use work::{
    Asker, Busy, MAX_QUERIES, MAX_WAITING_COMPUTATIONS, MAX_WAITING_QUERIES, Place, Work, WorkError,
};
