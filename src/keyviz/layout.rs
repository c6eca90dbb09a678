//! What is counted where: the routes of one catalog version, and the slots that a sampler gives
//! them under one resolution plan and one set of leaderships.
//!
//! A [`Layout`] is immutable and shared: the epoch that counts, the columns that were flushed from
//! it and the queries over them all hold the same one.

use bytes::Bytes;
use std::sync::Arc;

use super::ids::{GroupId, RouteId, Term};

/// Keys from `start` (inclusive) to `end` (exclusive; `None`: unbounded). An empty `start` is the
/// beginning of the key space.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyRange {
    /// First key, inclusive.
    pub start: Bytes,
    /// First key after the range; `None` where the range has no upper bound.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// The whole key space.
    pub const fn all() -> Self {
        KeyRange { start: Bytes::new(), end: None }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    /// Whether the range can hold no key.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }
}

/// A route as the catalog publishes it to the sampler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteSpec {
    /// Durable identity.
    pub id: RouteId,
    /// Keys of the route.
    pub range: KeyRange,
    /// The Raft group that holds the keys.
    pub group: GroupId,
}

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

/// Routes that do not form a table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// The first route does not start at the beginning of the key space.
    #[error("the first route (id {first}) does not start at the beginning of the key space")]
    NoStart {
        /// The first route.
        first: RouteId,
    },
    /// A gap or an overlap between two routes.
    #[error("route {left} does not end where route {right} starts")]
    NotContiguous {
        /// Route before the fault.
        left: RouteId,
        /// Route after the fault.
        right: RouteId,
    },
    /// The last route has an upper bound.
    #[error("the last route (id {last}) has an upper bound, so keys after it have no route")]
    NoEnd {
        /// The last route.
        last: RouteId,
    },
    /// There is no route at all.
    #[error("a route table needs at least one route")]
    Empty,
    /// An id occurs twice.
    #[error("route {id} occurs twice")]
    Duplicate {
        /// The id.
        id: RouteId,
    },
}
