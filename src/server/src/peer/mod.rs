//! What this node does for other nodes. A peer's request is never passed on.

pub(crate) mod checks;
pub(crate) mod handoff;
pub(crate) mod kv;
pub(crate) mod matrix;
mod proposed;
