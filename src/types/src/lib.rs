//! Types shared by all layers of keyviz: ids, key ranges, routes and limits.
//!
//! Pure and small: no I/O, no clock, no other crate of the workspace.

mod ids;
mod limits;
mod routes;
#[cfg(feature = "bincode")]
mod stored;

pub use ids::{DiskId, GroupId, Incarnation, NodeId, RouteId, Term};
pub use limits::{MAX_KEY_BYTES, RESERVED_PREFIX};
pub use routes::{KeyRange, LayoutError, RouteSpec};
