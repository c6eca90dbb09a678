//! The commands that read and write keys.

pub(crate) mod batch;
pub(crate) mod cas;
pub(crate) mod delete_range;
pub(crate) mod kv;
