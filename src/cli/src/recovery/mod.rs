//! Backups, and the folders of stopped nodes.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod restore;
pub(crate) mod salvage;
