//! The gRPC services of clients.

pub(crate) mod backup;
pub(crate) mod cluster;
mod cluster_status;
pub(crate) mod cut;
pub(crate) mod findings;
pub(crate) mod findings_wire;
pub(crate) mod hot_keys;
pub(crate) mod keyviz;
pub(crate) mod kv;
pub(crate) mod leaders;
pub(crate) mod loads;
mod members;
mod move_wire;
mod moved;
mod moves;
pub(crate) mod route_status;
pub(crate) mod routes;
pub(crate) mod shared_cluster;
pub(crate) mod visualizer;
