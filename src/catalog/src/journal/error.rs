//! Why a change of the journal is refused. A refusal changes nothing.

use bincode::{Decode, Encode};

use super::entry::EntryId;
use crate::machine::error::CatalogError;

/// Why a change of the journal was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Encode, Decode)]
pub enum JournalError {
    /// For a reason that changes of routes have too.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Something was recorded meanwhile.
    #[error("the journal is at revision {current}, not {expected}; look at it again")]
    WrongRevision {
        /// Expected.
        expected: u64,
        /// Its revision.
        current: u64,
    },
    /// The autopilot may not act.
    #[error("the autopilot is switched to another mode than act")]
    NotActing,
    /// The request id was used for another act.
    #[error("the request id was used for another act, number {id} of the journal")]
    RequestIdReused {
        /// That act.
        id: EntryId,
    },
    /// No such entry.
    #[error("the journal has no entry {id}, or no longer")]
    UnknownEntry {
        /// The entry.
        id: EntryId,
    },
    /// The act has ended.
    #[error("act {id} of the journal has ended already")]
    Ended {
        /// The entry.
        id: EntryId,
    },
    /// The act has not ended.
    #[error("act {id} of the journal has not ended yet")]
    UnderWay {
        /// The entry.
        id: EntryId,
    },
}
