//! keyviz: a sharded, Raft-replicated key-value cluster that shows its operators, exactly and
//! live, where their key space is hot.
//!
//! The layers, from the bottom: [`keyviz`] samples and draws (pure), then the catalog, the Raft
//! glue, the key-value plane, the fan-out, the edge, and one node that assembles them.

// Under loom only the sampler is built: its atomics are loom's then, and fit nobody else.
#[cfg(not(loom))]
pub mod api;
#[cfg(not(loom))]
pub mod backup;
#[cfg(not(loom))]
pub mod catalog;
#[cfg(not(loom))]
pub mod cli;
#[cfg(not(loom))]
pub mod fanout;
#[cfg(all(not(loom), any(test, feature = "fuzzing")))]
pub mod fuzzing;
pub mod keyviz;
#[cfg(not(loom))]
pub mod kv;
#[cfg(not(loom))]
pub mod node;
#[cfg(not(loom))]
pub mod proto;
#[cfg(not(loom))]
pub mod raft;
#[cfg(not(loom))]
pub mod security;
