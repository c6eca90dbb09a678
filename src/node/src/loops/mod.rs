//! Control loops, and the supervisor that they run under.

pub(crate) mod addresses;
pub(crate) mod balancer;
pub(crate) mod copier;
mod copy_keeper;
mod copy_loop;
pub(crate) mod disk;
pub(crate) mod disks;
pub(crate) mod flusher;
pub(crate) mod leader_terms;
pub(crate) mod membership_probe;
pub(crate) mod mover;
pub(crate) mod pace;
pub(crate) mod placement_reconciler;
pub(crate) mod supervisor;
pub(crate) mod verifier;
