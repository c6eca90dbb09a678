//! What is counted where: the routes of one catalog version, and the slots that a sampler gives
//! them under one resolution plan and one set of leaderships.
//!
//! A [`Layout`] is immutable and shared: the epoch that counts, the columns that were flushed from
//! it and the queries over them all hold the same one.

use std::sync::Arc;

use keyviz_types::{GroupId, KeyRange, RouteId, Term};

/// What a slot counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// One whole route.
    Route(RouteId),
    /// The `index`-th sub-range (from 0, in key order) of a route that is resolved finer.
    SubRange {
        /// The route.
        route: RouteId,
        /// Position among the route's sub-ranges in this layout.
        index: u32,
    },
    /// Neighbouring cold routes that share a slot.
    Aggregate(Arc<Members>),
}

/// The routes behind an aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// Exact number of routes.
    pub count: u64,
    /// The first of them in key order, at most as many as configured; never empty.
    pub first: Vec<RouteId>,
    /// A digest of all member ids, so that two aggregates that start alike stay apart.
    pub digest: u64,
}

/// One slot: a key range whose operations are counted together, in one group, and in the term in
/// which this node leads that group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Keys counted.
    pub range: KeyRange,
    /// What they are.
    pub bucket: Bucket,
    /// Raft group.
    pub group: GroupId,
    /// The term in which this node leads the group; `None` while it follows or holds no replica.
    pub lead: Option<Term>,
}

/// All slots of one epoch, ordered by range start and then group.
///
/// The ranges cover the key space. Two slots' ranges are disjoint, or equal where an aggregate
/// joins routes of different groups: then there is one slot a group over the same range.
#[derive(Debug)]
pub struct Layout {
    /// Catalog version that the routes come from; 0 before any was applied (no slots then).
    pub catalog_version: u64,
    /// Slots in order.
    pub slots: Vec<Slot>,
}
