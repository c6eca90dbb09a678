//! Helpers for tests of several crates. Only tests and the targets of `fuzz/` depend on this crate.

pub mod fuzz;
pub mod golden;
