//! What a node keeps in its folder beside the groups' data.

pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod history_handoffs;
pub(crate) mod identity;
pub(crate) mod restore;
pub(crate) mod salvage;
