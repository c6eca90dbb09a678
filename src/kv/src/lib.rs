//! The key-value plane: routes a request, samples it where it is served, proposes or reads it, or
//! forwards it once to a node that can.
//!
//! It does not know gRPC: peers are reached through [`PeerKv`], which the edge implements.

mod admission;
mod command;
mod consistency;
mod coordinator;
mod delete_range;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod machine;
mod move_calls;
mod moves;
mod page;
mod peer;
mod read;
mod scan;
mod write;

pub use admission::{Admitted, MAX_REQUESTS, MAX_SCANS};
pub use command::{CasOutcome, CommandError, KvCommand, KvWrite};
pub use consistency::Consistency;
pub use coordinator::{Coordinator, CoordinatorParts, KvCounters, MoveCounters};
pub use delete_range::{DELETE_STEP_BYTES, DELETE_STEP_KEYS, RangeDeleted};
pub use error::KvError;
pub use limits::{
    InvalidRequest, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES,
    RESERVED_PREFIX, check_batch, check_key, check_range, check_value,
};
pub use machine::{KvMachine, read_key, read_page};
pub use moves::{
    MoveChunk, MoveEntry, MoveRead, MoveRefusal, MoveReply, MovedRow, NotePosition, Ownership,
    Ownerships, Progress,
};
pub use page::{Page, Row, SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, ScanRange};
pub use peer::{PeerError, PeerKv, PeerOutcome, PeerRead, PeerReadReply};
