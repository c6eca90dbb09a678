//! The commands that change what is recorded of moves.

use bincode::{Decode, Encode};

use super::record::MoveId;
use crate::limits::MAX_COMMAND_BYTES;
use crate::machine::codec::{self, CodecError, Kind};
use keyviz_types::{GroupId, RouteId};

/// A change of what is recorded of moves. Times are Unix milliseconds of the proposing leader.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MoveCommand {
    /// Records that a route shall move.
    Start {
        /// The route.
        route_id: RouteId,
        /// The group that gets it.
        to: GroupId,
        /// Expected catalog version; 0: any.
        expected_version: u64,
        /// A command with the same id is applied once; empty: no such guarantee.
        request_id: String,
        /// Time of the proposal.
        time_ms: u64,
    },
    /// Takes a move back, by request, if it can be taken back still.
    Cancel {
        /// The route.
        route_id: RouteId,
    },
    /// Takes a move back, because it cannot go on, if it can be taken back still.
    Abandon {
        /// The move.
        id: MoveId,
        /// Why.
        reason: String,
        /// Its source refuses to seal, now and for ever, so that it can be taken back though it was
        /// to be sealed.
        unsealable: bool,
    },
    /// From here on the move can only be completed.
    Seal {
        /// The move.
        id: MoveId,
    },
    /// The route is in its new group.
    Commit {
        /// The move.
        id: MoveId,
        /// The entry of that group's log by which it took the range.
        adopted_at: u64,
        /// Time of the proposal.
        time_ms: u64,
    },
    /// Nothing is left to do for the move.
    Finish {
        /// The move.
        id: MoveId,
        /// Time of the proposal.
        time_ms: u64,
    },
}

impl MoveCommand {
    /// Bytes for the log.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] beyond [`MAX_COMMAND_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_COMMAND_BYTES, _>(Kind::Move, self)
    }

    /// The command in `bytes`; `None` for bytes of another kind of command.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        (bytes.first() == Some(&(Kind::Move as u8)))
            .then(|| codec::decode::<MAX_COMMAND_BYTES, _>(Kind::Move, bytes))
    }

    /// Sets the time of the proposal.
    pub fn stamp(&mut self, now_ms: u64) {
        match self {
            MoveCommand::Start { time_ms, .. }
            | MoveCommand::Commit { time_ms, .. }
            | MoveCommand::Finish { time_ms, .. } => *time_ms = now_ms,
            MoveCommand::Cancel { .. } | MoveCommand::Abandon { .. } | MoveCommand::Seal { .. } => {
            }
        }
    }
}
