//! Moves of routes to other groups: what is recorded of them, and the commands that change it.

pub(crate) mod apply;
pub(crate) mod command;
pub(crate) mod error;
pub(crate) mod record;

#[cfg(test)]
mod tests;
