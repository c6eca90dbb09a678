//! Layouts: the slots in which a sampler counts the routes of one catalog version, under one
//! resolution plan and one set of leader terms.
//!
//! A [`Layout`] is immutable and shared by the epoch that counts, the columns that were flushed
//! from it and the queries over them.

use std::sync::Arc;

use keyviz_types::{GroupId, KeyRange, RouteId, Term};

/// What a slot counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// One whole route.
    Route(RouteId),
    /// The `index`-th sub-range (from 0, in key order) of a route that has several slots.
    SubRange {
        /// The route.
        route: RouteId,
        /// Position among the route's sub-ranges in this layout.
        index: u32,
    },
    /// Neighbouring cold routes that share a slot.
    Aggregate(Arc<Members>),
}

/// The routes of an aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// Exact number of routes.
    pub count: u64,
    /// The first of them in key order, at most as many as configured; never empty.
    pub first: Vec<RouteId>,
    /// A digest of all route ids, which distinguishes aggregates that begin with the same routes.
    pub digest: u64,
}

/// One slot: a key range whose operations are counted together, in one group, and in the term in
/// which this node leads that group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The keys that it counts.
    pub range: KeyRange,
    /// Which routes they belong to.
    pub bucket: Bucket,
    /// Raft group.
    pub group: GroupId,
    /// The term in which this node leads the group; `None` while it follows or holds no replica.
    pub lead: Option<Term>,
}

/// All slots of one epoch, ordered by range start and then group.
///
/// The ranges cover the key space. The ranges of two slots are disjoint, or equal if an aggregate
/// joins routes of different groups: it has one slot per group over the same range.
#[derive(Debug)]
pub struct Layout {
    /// The catalog version that the routes come from; 0 before any was applied, without slots.
    pub catalog_version: u64,
    /// Slots in order.
    pub slots: Vec<Slot>,
}
