//! The nodes of a cluster: addresses, credentials, connections, leaders.

pub(crate) mod access;
pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod leaders;
pub(crate) mod pool;
