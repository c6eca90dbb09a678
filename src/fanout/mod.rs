//! One exact matrix from every node: ask all members for what they carried, plan one key axis, ask
//! for the counts on that axis, merge.
//!
//! ```text
//!            round 1: totals by range          round 2: columns on the planned axis
//! members ---------------------------> plan ---------------------------------------> merge
//!    |  each under the deadline                  each under what is left of it
//!    +-- who did not answer is a status in the answer, never a gap in it
//! ```
//!
//! Members come from Raft membership. Peers never ask on. Knows nothing of gRPC: peers are reached
//! through [`PeerMatrix`], which the edge implements.

mod cluster;
mod feed;
mod local;

pub use cluster::{
    Axis, DEFAULT_DEADLINE, Fanout, FanoutCounters, FanoutParts, MatrixAnswer, MatrixError,
    MatrixRequest, PeerMatrix, PeerTotals,
};
pub use feed::{ColumnsUpdate, FeedError, Feeds, MAX_FEEDS, MAX_SUBSCRIBERS, Subscription};
pub use local::{Clock, FlushStats, LocalMatrix};
