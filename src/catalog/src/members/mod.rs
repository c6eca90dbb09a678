//! The members of the cluster and the holders of each group: the record, and the changes it needs.

pub(crate) mod balance;
pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod leaving;
pub(crate) mod placement;
pub(crate) mod plan;
pub(crate) mod relocate;
