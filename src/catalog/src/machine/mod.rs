//! The state machine: commands in order, their effect, and its records.

pub(crate) mod codec;
pub(crate) mod command;
pub(crate) mod error;
#[cfg(test)]
mod integrity_tests;
pub(crate) mod load;
mod merge;
#[cfg(test)]
mod model_tests;
pub(crate) mod records;
pub(crate) mod split;
pub(crate) mod state;
#[cfg(test)]
mod state_tests;
