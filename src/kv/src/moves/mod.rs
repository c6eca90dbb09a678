//! Moves of key ranges between groups, as the groups' own logs have them.
//!
//! Which group owns a range is decided by entries of the two groups, in this order, and by nothing
//! else: no clock, and no version of the catalog that a node has seen.
//!
//! ```text
//!   source's log                              target's log
//!   Track   changed keys are noted            Receive  the range is refused here
//!           rows are read on a replica -----> Ingest   rows, hidden by the refusal; each chunk
//!           noted keys are read ------------> Ingest   names its place, and is taken once
//!   Trim    notes that were taken go
//!   Seal    the range is refused from here on
//!           the last noted keys ------------> Adopt    the last rows; the range is owned here
//!   Clear   rows of the range are deleted
//!
//!   Untrack, until it seals: without a trace  Drop     what was taken is deleted
//! ```
//!
//! Every entry names its move, and does nothing for a move that ended in its group, so an entry of
//! a driver that was replaced may arrive at any time. Of two drivers whose chunks name the same
//! place the group takes one, and each of the two was made from what the target had then.

mod chunk;
mod entry;
mod ledger;
mod ownership;
mod ranges;
mod steps;

pub use chunk::{MoveChunk, MoveRead, MovedRow};
pub use entry::{MoveEntry, MoveRefusal, MoveReply, NotePosition, Progress};
pub use ownership::{Ownership, Ownerships};

pub(super) use chunk::read_chunk;
pub(super) use entry::is_move_entry;
pub(super) use ledger::Ledger;
