//! What an export is of.

use bytes::Bytes;

use keyviz_proto as proto;

/// Most columns of a matrix.
pub(super) const MAX_COLUMNS: u32 = crate::heat::MAX_COLUMNS as u32;

/// What is exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) start: Bytes,
    pub(super) end: Option<Bytes>,
    pub(super) axis: proto::Axis,
    /// One row for each place, whoever counted.
    pub(super) dedup: bool,
    /// Routes of a page.
    pub(super) routes: u32,
}

/// Where a page is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) start: Bytes,
}
