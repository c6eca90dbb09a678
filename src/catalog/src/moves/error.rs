//! Why a change of the moves is refused. A refusal changes nothing.

use bincode::{Decode, Encode};

use super::record::{MAX_MOVES, MoveId};
use crate::machine::error::CatalogError;
use keyviz_types::{GroupId, RouteId};

/// Why a change of the moves was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum MoveError {
    /// For a reason that changes of routes have too.
    #[error(transparent)]
    Route(#[from] CatalogError),
    /// No such group.
    #[error("there is no data group {group}; see `keyviz cluster status`")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// The route is in the group already.
    #[error("route {route_id} is in group {group} already")]
    SameGroup {
        /// The route.
        route_id: RouteId,
        /// The group.
        group: GroupId,
    },
    /// Its keys are being moved.
    #[error(
        "keys of route {route_id} are in move {id}, which is {phase}; wait until it has ended (see \
         `keyviz routes list`)"
    )]
    Moving {
        /// The route.
        route_id: RouteId,
        /// The move.
        id: MoveId,
        /// Where that stands.
        phase: String,
    },
    /// Too many moves.
    #[error("{MAX_MOVES} moves are under way, the most at a time; try again when one has ended")]
    TooMany,
    /// The request id was used for another move.
    #[error("the request id was used for another move, number {id}")]
    RequestIdReused {
        /// That move.
        id: MoveId,
    },
    /// The route does not move.
    #[error("route {route_id} is not being moved")]
    NotMoving {
        /// The route.
        route_id: RouteId,
    },
    /// No such move is under way.
    #[error("move {id} is not under way")]
    NotUnderWay {
        /// The move.
        id: MoveId,
    },
    /// The move can only be completed.
    #[error("move {id} is {phase} and can only be completed; move the route back afterwards")]
    TooLate {
        /// The move.
        id: MoveId,
        /// Where it stands.
        phase: String,
    },
    /// The step does not follow from the phase.
    #[error("move {id} is {phase}, which that step does not follow")]
    OutOfOrder {
        /// The move.
        id: MoveId,
        /// Where it stands.
        phase: String,
    },
}
