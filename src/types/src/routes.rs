//! Key ranges, and the routes that cover the key space.

use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

use bytes::Bytes;

use super::ids::{GroupId, RouteId};

/// Keys from `start` (inclusive) to `end` (exclusive; `None`: unbounded). An empty `start` is the
/// beginning of the key space.
///
/// Rust's half-open ranges convert into it:
///
/// ```
/// use keyviz_types::KeyRange;
///
/// let users = KeyRange::from("user/".."user0");
/// assert!(users.contains(b"user/42"));
/// assert_eq!(KeyRange::from(..), KeyRange::all());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyRange {
    /// First key, inclusive.
    pub start: Bytes,
    /// First key after the range; `None` if the range has no upper bound.
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

    /// Whether no key is in the range: its end is not after its start.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }
}

impl From<RangeFull> for KeyRange {
    fn from(_: RangeFull) -> Self {
        KeyRange::all()
    }
}

impl<T: Into<Bytes>> From<Range<T>> for KeyRange {
    fn from(range: Range<T>) -> Self {
        KeyRange { start: range.start.into(), end: Some(range.end.into()) }
    }
}

impl<T: Into<Bytes>> From<RangeFrom<T>> for KeyRange {
    fn from(range: RangeFrom<T>) -> Self {
        KeyRange { start: range.start.into(), end: None }
    }
}

impl<T: Into<Bytes>> From<RangeTo<T>> for KeyRange {
    fn from(range: RangeTo<T>) -> Self {
        KeyRange { start: Bytes::new(), end: Some(range.end.into()) }
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

/// Why routes do not form a table.
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
