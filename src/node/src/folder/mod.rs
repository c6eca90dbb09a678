//! The parts of a node's folder other than the groups' data.

mod agreement;
pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod history_copies;
pub(crate) mod history_handoffs;
pub(crate) mod identity;
pub(crate) mod restore;
pub(crate) mod salvage;
