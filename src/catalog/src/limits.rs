//! The limits of the catalog, each with the reason for its size.

pub use keyviz_types::{MAX_KEY_BYTES, RESERVED_PREFIX};

/// Most live routes.
pub const MAX_ROUTES: usize = 100_000;

/// Most bytes in the start keys of all live routes together. 100,000 routes get 671 bytes each.
pub const MAX_BOUNDARY_BYTES: usize = 64 << 20;

/// Most data groups.
pub const MAX_GROUPS: usize = 1_024;

/// Most replicas of one group.
pub const MAX_REPLICAS: usize = 64;

/// Longest request id, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// Largest encoded command. A bootstrap with 99,999 split keys of 36 bytes fits.
pub const MAX_COMMAND_BYTES: usize = 4 << 20;

/// Largest stored record. The placement of 1,024 groups on 64 nodes each is the largest.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Largest snapshot: the live routes (start and end of each: 2 x 64 MiB), the retired ones
/// (64 MiB), the retained changes and requests (2 x 1,024 x at most 25 KiB), and their numbers.
pub const MAX_SNAPSHOT_BYTES: usize = 512 << 20;

/// Maximum time of a change: the end of the year 9999, in Unix milliseconds. A later time is a
/// clock error, and every following change would have to have that time.
pub const MAX_TIME_MS: u64 = 253_402_300_799_999;

/// How much history a catalog keeps. All replicas of a cluster must use the same values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Number of retained changes; a watcher with an older cursor gets a snapshot.
    pub deltas: usize,
    /// Number of changes whose request ids are kept.
    pub requests: usize,
    /// Number of retired routes whose lineage is kept.
    pub retired: usize,
    /// Bytes of the ranges of all retired routes together.
    pub retired_bytes: usize,
}

impl Retention {
    /// What every node uses.
    pub const DEFAULT: Retention =
        Retention { deltas: 1_024, requests: 1_024, retired: 262_144, retired_bytes: 64 << 20 };
}

impl Default for Retention {
    fn default() -> Self {
        Retention::DEFAULT
    }
}
