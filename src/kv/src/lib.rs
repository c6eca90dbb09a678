//! The key-value plane: routes a request, samples it where it is served, proposes or reads it, or
//! forwards it once to the node that can.
//!
//! Knows nothing of gRPC: peers are reached through [`PeerKv`], which the edge implements.

mod admission;
mod command;
mod coordinator;
mod delete_range;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod machine;
mod peer;
mod read;
mod rounds;
mod scan;
mod write;

pub use admission::{Admitted, MAX_REQUESTS, MAX_SCANS};
pub use command::{CommandError, KvCommand, KvWrite};
pub use coordinator::{Consistency, Coordinator, CoordinatorParts, KvCounters};
pub use delete_range::{DELETE_STEP_BYTES, DELETE_STEP_KEYS, RangeDeleted};
pub use error::{InvalidRequest, KvError};
pub use limits::{
    MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES, RESERVED_PREFIX,
    check_batch, check_key, check_range, check_value,
};
pub use machine::{KvMachine, Page, Row, read_key, read_page};
pub use peer::{PeerError, PeerKv, PeerOutcome, PeerRead, PeerReadReply};
pub use scan::{SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, ScanRange};
pub use write::CasOutcome;
