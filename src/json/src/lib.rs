//! The JSON of matrices, routes and members, for the commands and the HTTP API.
//!
//! Field names are those of the protos. A key is text if it is printable UTF-8, otherwise `hex:`
//! and its bytes. A key that begins with `hex:` is written in hex too, so [`parse_key`] inverts
//! [`key_text`] for every key. An absent `end` is null. The values borrow from the message and are
//! serialized without copying its cells.

mod cluster;
mod matrix;
mod names;
mod packed;
mod routes;
mod text;

use serde::{Serialize, Serializer};

use cluster::{GroupJson, MemberJson, MoveJson, ReplicaJson};
use matrix::{ColumnJson, ConflictJson, EventJson, NodeJson, RowJson, ShareJson};
use routes::{DeltaJson, RetiredJson};

pub use cluster::ClusterJson;
pub use matrix::MatrixJson;
pub use names::{
    axis_from_name, axis_name, role_from_name, role_name, series_from_name, series_name,
};
pub use packed::PackedJson;
pub use routes::{
    Deltas, RouteChangeJson, RouteHistoryJson, RouteJson, Routes, RoutesJson, WatchJson,
};
pub use text::{HEX_PREFIX, KeyTextError, is_printable, key_text, parse_key, value_text};

/// A key, serialized as [`key_text`].
#[derive(Clone, Copy, Debug)]
pub struct Key<'a>(pub &'a [u8]);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key_text(self.0))
    }
}

/// A list that is converted item by item during serialization.
#[derive(Clone, Copy, Debug)]
struct List<'a, T>(&'a [T]);

impl<'a, T> Serialize for List<'a, T>
where
    &'a T: Into<Item<'a>>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Into::into))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Column(ColumnJson),
    Row(Box<RowJson<'a>>),
    Node(NodeJson<'a>),
    Conflict(ConflictJson<'a>),
    Share(ShareJson<'a>),
    Route(RouteJson<'a>),
    Delta(DeltaJson<'a>),
    Event(EventJson<'a>),
    Retired(RetiredJson<'a>),
    Member(MemberJson<'a>),
    Move(MoveJson<'a>),
    Group(GroupJson<'a>),
    Replica(ReplicaJson<'a>),
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
