//! What a node keeps in its folder beside the groups' data.

pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod history_handoffs;
pub(crate) mod identity;
pub(crate) mod restore;
pub(crate) mod salvage;

/// Whether there is no folder, or nothing in it.
pub(crate) fn is_empty(folder: &std::path::Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
