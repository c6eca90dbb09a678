//! Routes: what they are, the table of the live ones, and the past of the others.

pub(crate) mod lineage;
pub(crate) mod log;
pub(crate) mod past;
pub(crate) mod patch;
pub(crate) mod requests;
pub(crate) mod route;
pub(crate) mod table;
