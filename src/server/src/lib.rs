//! The edge: gRPC and HTTP. Protobuf and JSON stop here; below are the types of each layer.

mod gate;
mod grpc;
mod http;
mod loops;
mod metrics;
mod peer;
mod request_id;
mod server;
mod verify;

pub use loops::LoopHealth;
pub use peer::matrix::MatrixPeer;
pub use server::{Edge, Services};
pub use verify::{GroupReport, Replicas, Verdict, Verification, VerificationParts};
