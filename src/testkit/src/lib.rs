//! What the tests of several crates share. No crate depends on it outside of its tests and of the
//! targets of `fuzz/`.

pub mod fuzz;
pub mod golden;
