//! The commands of the catalog group.

use bincode::{Decode, Encode};

use super::codec::{self, CodecError, Kind};
use crate::limits::MAX_COMMAND_BYTES;
use crate::members::cluster::{ClusterId, GroupPlacement};
use keyviz_types::RouteId;

/// A change that a leader proposes. Times are Unix milliseconds of the proposing leader, so that
/// all replicas agree.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum CatalogCommand {
    /// Creates the cluster: its groups and first routes. Applied once; the cluster id distinguishes
    /// a retry from a second attempt.
    Bootstrap {
        /// Id of the new cluster.
        cluster_id: ClusterId,
        /// Data groups with their first replicas.
        groups: Vec<GroupPlacement>,
        /// Boundaries between the first routes, ascending. Route `i` goes to group
        /// `1 + i % groups`.
        split_keys: Vec<Vec<u8>>,
        /// Time of the proposal.
        time_ms: u64,
    },
    /// Retires a route and creates two in its place.
    Split {
        /// The route.
        route_id: RouteId,
        /// First key of the right child; strictly inside the route.
        key: Vec<u8>,
        /// Expected catalog version; 0: any.
        expected_version: u64,
        /// A command with the same id is applied once; empty: no such guarantee.
        request_id: String,
        /// Time of the proposal.
        time_ms: u64,
    },
    /// Retires two neighbours of one group and creates one route in their place.
    Merge {
        /// The route with the smaller keys.
        left_id: RouteId,
        /// The route that starts where the other ends.
        right_id: RouteId,
        /// Expected catalog version; 0: any.
        expected_version: u64,
        /// A command with the same id is applied once; empty: no such guarantee.
        request_id: String,
        /// Time of the proposal.
        time_ms: u64,
    },
}

impl CatalogCommand {
    /// Bytes for the log, at most [`MAX_COMMAND_BYTES`].
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] if they would be more.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_COMMAND_BYTES, _>(Kind::Command, self)
    }

    /// The command in `bytes`.
    ///
    /// # Errors
    /// The bytes are not exactly one command of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode::<MAX_COMMAND_BYTES, _>(Kind::Command, bytes)
    }
}
