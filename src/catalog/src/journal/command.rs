//! The commands that change the journal.

use bincode::{Decode, Encode};

use super::entry::{ActForecast, ActOutcome, ActState, AutopilotMode, EntryId, LayoutAct};
use crate::limits::MAX_COMMAND_BYTES;
use crate::machine::codec::{self, CodecError, Kind};
use keyviz_types::{GroupId, NodeId};

/// A change of the journal. Times are Unix milliseconds of the proposing leader.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum JournalCommand {
    /// Sets the mode of the autopilot.
    SetMode {
        /// The mode.
        mode: AutopilotMode,
        /// Expected revision; 0: any.
        expected_revision: u64,
    },
    /// From here on changes of the routes are entered.
    Open,
    /// An act begins.
    Begin {
        /// The act.
        begun: Box<Begun>,
    },
    /// An act has ended.
    End {
        /// The entry.
        id: EntryId,
        /// How.
        state: ActState,
        /// Catalog version that it made last; 0: none.
        version: u64,
        /// Time of the proposal.
        time_ms: u64,
    },
    /// What came of an act.
    Measure {
        /// The entry.
        id: EntryId,
        /// The measurement.
        outcome: Box<ActOutcome>,
    },
}

/// An act that begins.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Begun {
    /// The autopilot acts, which it may in mode [`AutopilotMode::Act`] only.
    pub autopilot: bool,
    /// It was started to act, unless another mode was set at run time.
    pub by_default: bool,
    /// Expected revision; 0: any.
    pub expected_revision: u64,
    /// What will be done.
    pub act: LayoutAct,
    /// Why.
    pub why: String,
    /// The finding that it is a remedy of.
    pub finding: String,
    /// A command with the same id begins one act; empty: no such guarantee.
    pub request_id: String,
    /// The group that has the keys.
    pub from_group: Option<GroupId>,
    /// The node that leads.
    pub from_node: Option<NodeId>,
    /// What it would bring.
    pub forecast: Option<ActForecast>,
    /// The entry that it takes back; 0: none.
    pub undoes: EntryId,
    /// It was done already, by somebody who asked for it.
    pub done: bool,
    /// Time of the proposal.
    pub time_ms: u64,
}

impl JournalCommand {
    /// Bytes for the log.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] beyond [`MAX_COMMAND_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode::<MAX_COMMAND_BYTES, _>(Kind::Journal, self)
    }

    /// The command in `bytes`; `None` for bytes of another kind of command.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        (bytes.first() == Some(&(Kind::Journal as u8)))
            .then(|| codec::decode::<MAX_COMMAND_BYTES, _>(Kind::Journal, bytes))
    }

    /// Sets the time of the proposal.
    pub fn stamp(&mut self, now_ms: u64) {
        match self {
            JournalCommand::Begin { begun } => begun.time_ms = now_ms,
            JournalCommand::End { time_ms, .. } => *time_ms = now_ms,
            JournalCommand::SetMode { .. }
            | JournalCommand::Open
            | JournalCommand::Measure { .. } => {}
        }
    }
}
