//! The gRPC services of clients.

pub(crate) mod backup;
pub(crate) mod cluster;
mod cluster_status;
pub(crate) mod findings;
pub(crate) mod keyviz;
pub(crate) mod kv;
pub(crate) mod leaders;
mod members;
mod moved;
pub(crate) mod routes;
pub(crate) mod visualizer;
