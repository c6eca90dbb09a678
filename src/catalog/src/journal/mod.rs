//! The journal: what changed the layout of the cluster, who did it, why, what was forecast and what
//! came of it; and whether the autopilot may act.
//!
//! Entries of the autopilot are recorded before it acts, as of a revision: of two leaders that
//! decided on the same state one acts, and a switch that came first wins. Splits, merges and moves
//! that were asked for by anybody else are entered by the state machine itself as it carries them
//! out, so that the journal and the routes cannot disagree.
//!
//! Nothing is recorded before the first command, which nobody proposes before all members know
//! it: a version that does not could not apply it.

pub(crate) mod apply;
pub(crate) mod command;
pub(crate) mod entry;
pub(crate) mod error;
#[cfg(test)]
mod tests;
