//! The edge: gRPC and HTTP. Protobuf and JSON stop here; below are the types of each layer.

pub mod alerts;
mod audit;
mod autopilot;
mod calls;
mod gate;
mod grpc;
mod health;
mod http;
mod intake;
mod loops;
mod malformed;
mod metrics;
mod peer;
mod request_id;
mod server;
mod verify;

pub use autopilot::AutopilotConfig;
pub use loops::LoopHealth;
pub use peer::matrix::MatrixPeer;
pub use server::{ServerDeps, Services};
pub use verify::{GroupReport, Replicas, Verdict, Verification, VerificationParts};
