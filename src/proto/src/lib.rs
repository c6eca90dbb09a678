//! The wire types of `proto/keyviz/v1`, as generated. They stop at the edge: only `api`, `fanout`,
//! the transport and the client side of the commands see them.

#![allow(missing_docs)]

pub mod codec;
pub mod failure;
pub mod metadata;

tonic::include_proto!("keyviz.v1");

/// The descriptor set that reflection serves.
pub const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/keyviz_descriptor.bin"));
