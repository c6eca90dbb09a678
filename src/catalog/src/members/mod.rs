//! Who is in the cluster and who holds which group: as recorded, and what should be changed.

pub(crate) mod balance;
pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod leaving;
pub(crate) mod placement;
pub(crate) mod plan;
pub(crate) mod relocate;
