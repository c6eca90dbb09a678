//! Serves requests of other nodes. A peer's request is never forwarded.

pub(crate) mod checks;
pub(crate) mod copies;
pub(crate) mod handoff;
pub(crate) mod kv;
pub(crate) mod matrix;
mod proposed;
mod statuses;
