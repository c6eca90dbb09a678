//! Tests of the whole system: real `keyviz` processes as their users run them, and nodes and peers
//! over real connections. One binary, because each one links every crate; a module per subject.
//!
//! One subject at a time:
//!
//! ```text
//! cargo test --test system lost_disk::
//! ```

mod acts;
mod alerts;
mod anywhere;
mod autopilot;
mod backup;
mod bad_input;
mod bad_peers;
mod client;
mod cluster;
mod command;
mod copies;
mod counted;
mod deploy;
mod docs;
mod edge;
mod export;
mod findings;
mod full_disk;
mod hot_keys;
mod hot_ledger;
mod large;
mod leaders;
#[cfg(target_os = "linux")]
mod limits;
mod load;
mod loads;
mod lost_disk;
mod measured;
mod members;
#[cfg(target_os = "linux")]
mod memory;
mod monitoring;
mod moved;
mod moves;
mod moves_killed;
mod moves_mixed;
mod otlp;
mod prometheus;
mod python;
mod readiness;
mod replaced;
mod request_ids;
mod restart;
mod routes;
mod routes_refused;
mod salvage;
mod security;
mod stderr;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod verify;
