//! Applied changes, for readers in the same process: tables, changes, subscriptions.

pub(crate) mod applied;
pub(crate) mod hub;
#[cfg(test)]
mod hub_tests;
pub(crate) mod replica;
