//! The edge: gRPC and HTTP. Protobuf and JSON stop here; below are the types of each layer.

mod activity;
mod backup_service;
mod cluster_service;
mod cluster_status;
mod estates;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod health;
mod host;
mod http;

mod keyviz_service;
mod kv_service;
mod leaders;
mod malformed;
mod matrix_peer;
mod matrix_wire;
mod members;
mod metrics;
mod moved;
mod peer_catalog;
mod peer_client;
mod peer_matrix;
mod peer_members;
mod peer_service;
mod picture;
mod proposed;
mod request_id;
mod route_changes;
mod routes_service;
mod server;
mod status;
mod stream;
mod totals_wire;
mod verify;

pub use matrix_peer::MatrixPeer;
pub use peer_client::PeerClient;
pub use picture::Picture;
pub use server::{Edge, Services};
pub use verify::{GroupReport, Replicas, Verdict, Verification, VerificationParts};
