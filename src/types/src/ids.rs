//! Ids. Each is a newtype, so that a term cannot be passed as a group.

use std::fmt;
use std::num::NonZeroU64;

/// The durable identity of a route, assigned by the catalog's state machine. Ids start at 1 and are
/// never reused, not even after the route was split or merged away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteId(NonZeroU64);

impl RouteId {
    /// The first id that a catalog assigns.
    pub const FIRST: RouteId = RouteId(NonZeroU64::MIN);

    /// `None` for 0, which is not a route id.
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
    /// One run of a node's sampler, from start to stop. A restarted node gets a larger number, so
    /// (node, incarnation, column) identifies a contribution permanently.
    Incarnation
}

/// Identifies a data folder: 16 random bytes, created with the folder. The node id identifies a
/// member; the disk id shows that the member still has its acknowledged entries. Written as 32 hex
/// digits.
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
