//! The JSON of matrices, routes and members, for the commands and the HTTP API.
//!
//! Field names are those of the protos. A key is text if it is printable UTF-8, otherwise `hex:`
//! and its bytes. A key that begins with `hex:` is written in hex too, so [`parse_key`] inverts
//! [`key_text`] for every key. An absent `end` is null. The values borrow from the message and are
//! serialized without copying its cells. The id of a node is a number up to 2^53 - 1, and text
//! above.

mod autopilot;
mod capabilities;
mod cluster;
mod findings;
mod hot_keys;
mod ids;
mod list;
mod loads;
mod matrix;
mod names;
mod packed;
mod routes;
mod text;

pub use autopilot::{ActPreviewJson, AutopilotJson, JournalEntryJson, JournalJson};
pub use capabilities::CapabilitiesJson;
pub use cluster::ClusterJson;
pub use findings::FindingsJson;
pub use hot_keys::HotKeysJson;
pub use ids::{NodeIdJson, NodeIdsJson};
pub use loads::{LoadsJson, TopRangesJson};
pub use matrix::MatrixJson;
pub use names::{
    axis_from_name, axis_name, grouping_from_name, rank_from_name, rank_name, role_from_name,
    role_name, series_from_name, series_name,
};
pub use packed::PackedJson;
pub use routes::{
    Deltas, MoveJson, RouteChangeJson, RouteHistoryJson, RouteJson, Routes, RoutesJson, WatchJson,
};
pub use text::{HEX_PREFIX, Key, KeyTextError, is_printable, key_text, parse_key, value_text};

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
