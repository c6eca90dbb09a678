//! The generated wire types of `proto/keyviz/v1`. Only the edge, the transport and clients use
//! them.

#![allow(missing_docs)]

mod batch;
pub mod codec;
pub mod failure;
pub mod metadata;

pub use batch::{BATCH_OPERATIONS_KEPT, BatchRequest};

tonic::include_proto!("keyviz.v1");

/// The descriptor set that reflection serves.
pub const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/keyviz_descriptor.bin"));
