//! The identities that counts are kept under. Each is a newtype, so that a term can never be
//! passed where a group is meant.

use std::fmt;
use std::num::NonZeroU64;

/// A route's durable identity, given by the catalog's state machine. Starts at 1 and is never
/// used again, not even after the route was split or merged away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteId(NonZeroU64);

impl RouteId {
    /// The first id that a catalog gives out.
    pub const FIRST: RouteId = RouteId(NonZeroU64::MIN);

    /// `None` for 0, which is no route.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(RouteId(id)),
            None => None,
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A Raft group. Group 0 replicates the route catalog, groups from 1 up hold data.
    GroupId
}

impl GroupId {
    /// The group that replicates the route catalog.
    pub const CATALOG: GroupId = GroupId(0);
}

number_id! {
    /// A member of the cluster.
    NodeId
}

number_id! {
    /// A Raft term of one group: at most one node leads the group in it.
    Term
}

number_id! {
    /// One life of one node's sampler, from start to stop. A node that restarts gets a larger one,
    /// so that (node, incarnation, column) names a contribution for ever.
    Incarnation
}

/// Names one data folder for ever: 16 random bytes, made with the folder. A node id says who a
/// member is; the disk id says that it still has what it promised. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub [u8; 16]);

impl DiskId {
    /// The id in bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(DiskId)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskId({self})")
    }
}
