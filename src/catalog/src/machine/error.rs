//! Why the catalog refuses a command. A refusal changes nothing.

use bincode::{Decode, Encode};

use crate::limits::{
    MAX_BOUNDARY_BYTES, MAX_KEY_BYTES, MAX_REQUEST_ID_BYTES, MAX_ROUTES, MAX_TIME_MS,
    RESERVED_PREFIX,
};
use crate::members::cluster::{ClusterId, PlacementError};
use keyviz_types::{GroupId, RouteId};

/// Why a key cannot be a boundary between routes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum KeyError {
    /// No byte.
    #[error("the key is empty")]
    Empty,
    /// Longer than any key of the store.
    #[error("the key has {len} bytes; the limit is {MAX_KEY_BYTES}")]
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// Belongs to the server.
    #[error("keys that start with byte {RESERVED_PREFIX:#04x} are reserved")]
    Reserved,
}

/// Checks that a route may start at `key`.
///
/// # Errors
/// The key is empty, too long or reserved.
pub fn check_boundary(key: &[u8]) -> Result<(), KeyError> {
    match key {
        [] => Err(KeyError::Empty),
        [RESERVED_PREFIX, ..] => Err(KeyError::Reserved),
        _ if key.len() > MAX_KEY_BYTES => Err(KeyError::TooLong { len: key.len() as u64 }),
        _ => Ok(()),
    }
}

/// Why a command was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum CatalogError {
    /// There is no cluster yet.
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    /// There is a cluster already. If the id is the caller's own, its bootstrap succeeded.
    #[error("the cluster is bootstrapped already; its id is {cluster_id}")]
    AlreadyBootstrapped {
        /// Id of the existing cluster.
        cluster_id: ClusterId,
    },
    /// The groups do not make a cluster.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The boundaries of the first routes are not in ascending order.
    #[error("split key {index} (from 0) is not greater than the one before it")]
    SplitKeysOrder {
        /// Position of the key that is out of order.
        index: u64,
    },
    /// The key cannot be a boundary.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A route cannot be split where it starts.
    #[error("route {route_id} already starts at the key")]
    KeyAtStart {
        /// The route.
        route_id: RouteId,
    },
    /// The key lies in another route.
    #[error("the key lies outside route {route_id}, in route {in_route}")]
    KeyOutside {
        /// The route that was to be split.
        route_id: RouteId,
        /// The route that holds the key.
        in_route: RouteId,
    },
    /// No route has ever had this id.
    #[error("there is no route {route_id}")]
    UnknownRoute {
        /// The id.
        route_id: RouteId,
    },
    /// The route was split or merged away.
    #[error("route {route_id} was retired{}", in_its_place(successors, *more))]
    RetiredRoute {
        /// The id.
        route_id: RouteId,
        /// The first live routes with its keys; empty if its lineage was dropped.
        successors: Vec<RouteId>,
        /// Live routes with its keys beyond those named.
        more: u64,
    },
    /// The catalog has another version than expected.
    #[error("expected catalog version {expected}, the current one is {current}")]
    WrongVersion {
        /// The expected version.
        expected: u64,
        /// The current version.
        current: u64,
    },
    /// A route cannot be merged with itself.
    #[error("route {route_id} cannot be merged with itself")]
    SameRoute {
        /// The route.
        route_id: RouteId,
    },
    /// The left route does not end where the right one starts.
    #[error("route {right_id} does not start where route {left_id} ends")]
    NotNeighbours {
        /// The left route.
        left_id: RouteId,
        /// The right route.
        right_id: RouteId,
    },
    /// The routes are in different groups, and a merge moves no data.
    #[error(
        "route {left_id} is in group {left_group}, route {right_id} in group {right_group}: \
         only routes of one group can be merged"
    )]
    AcrossGroups {
        /// The left route.
        left_id: RouteId,
        /// Its group.
        left_group: GroupId,
        /// The right route.
        right_id: RouteId,
        /// Its group.
        right_group: GroupId,
    },
    /// The number of routes is at its limit.
    #[error("the catalog would have more than {MAX_ROUTES} routes")]
    TooManyRoutes,
    /// The size of the boundaries is at its limit.
    #[error("the start keys of all routes would have more than {MAX_BOUNDARY_BYTES} bytes")]
    TooManyBoundaryBytes,
    /// The request id is too long.
    #[error("the request id has {len} bytes; the limit is {MAX_REQUEST_ID_BYTES}")]
    RequestIdTooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// The request id was used for another change.
    #[error("the request id was used for another change, which made catalog version {version}")]
    RequestIdReused {
        /// Version that the other change made.
        version: u64,
    },
    /// The time of the proposer is out of range.
    #[error("time {time_ms} ms is beyond the last that a change may bear, {MAX_TIME_MS} ms")]
    TimeOutOfRange {
        /// Time of the proposal.
        time_ms: u64,
    },
    /// Ids or versions ran out.
    #[error("no route id or catalog version is left")]
    Exhausted,
    /// Keys of the route are being moved to another group.
    #[error(
        "route {route_id} is being moved to another group (move {move_id}); wait until it has \
         moved, or cancel the move"
    )]
    Moving {
        /// The route.
        route_id: RouteId,
        /// The move.
        move_id: u64,
    },
}

fn in_its_place(successors: &[RouteId], more: u64) -> String {
    if successors.is_empty() {
        return String::new();
    }
    let named: Vec<String> = successors.iter().map(RouteId::to_string).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("; its keys are in {}{more}", named.join(", "))
}
