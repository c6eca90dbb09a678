//! Counters of the log writer, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the sync time: bucket `n` counts syncs below `64us << n`, the last all others.
pub const SYNC_BUCKETS: usize = 16;

/// Buckets of the batch size: bucket `n` counts batches of up to `1 << n` operations, the last all
/// others.
pub const BATCH_BUCKETS: usize = 14;

/// A point-in-time copy of the log writer's counters since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Batches written; each had one sync.
    pub batches: u64,
    /// Operations in them: appends, votes, truncations, purges, records.
    pub operations: u64,
    /// Log entries in them.
    pub entries: u64,
    /// Bytes of blocks in them.
    pub bytes: u64,
    /// Time spent writing into the database, before the sync.
    pub write_time: Duration,
    /// Time spent in syncs.
    pub sync_time: Duration,
    /// Syncs by duration.
    pub sync_buckets: [u64; SYNC_BUCKETS],
    /// Batches by number of operations.
    pub batch_buckets: [u64; BATCH_BUCKETS],
}

impl WriterStats {
    /// The upper bound of sync bucket `n`, `None` for the last.
    pub fn bucket_bound(n: usize) -> Option<Duration> {
        (n + 1 < SYNC_BUCKETS).then(|| Duration::from_micros(64 << n))
    }

    /// The most operations of batch bucket `n`, `None` for the last.
    pub fn batch_bound(n: usize) -> Option<u64> {
        (n + 1 < BATCH_BUCKETS).then(|| 1 << n)
    }
}

// Written by the log-writer thread only, so load and store suffice; Relaxed because readers want
// each number, not an order between them.
#[derive(Default)]
pub(crate) struct WriterCounters {
    batches: AtomicU64,
    operations: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    write_nanos: AtomicU64,
    sync_nanos: AtomicU64,
    sync_buckets: [AtomicU64; SYNC_BUCKETS],
    batch_buckets: [AtomicU64; BATCH_BUCKETS],
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl WriterCounters {
    pub(crate) fn record(
        &self,
        operations: usize,
        entries: u64,
        bytes: u64,
        write: Duration,
        sync: Duration,
    ) {
        add(&self.batches, 1);
        add(&self.operations, operations as u64);
        add(&self.entries, entries);
        add(&self.bytes, bytes);
        add(&self.write_nanos, write.as_nanos() as u64);
        add(&self.sync_nanos, sync.as_nanos() as u64);
        let bucket = (0..SYNC_BUCKETS - 1)
            .find(|n| WriterStats::bucket_bound(*n).is_some_and(|bound| sync < bound))
            .unwrap_or(SYNC_BUCKETS - 1);
        add(&self.sync_buckets[bucket], 1);
        let bucket = (0..BATCH_BUCKETS - 1)
            .find(|n| WriterStats::batch_bound(*n).is_some_and(|bound| operations as u64 <= bound))
            .unwrap_or(BATCH_BUCKETS - 1);
        add(&self.batch_buckets[bucket], 1);
    }

    pub(crate) fn read(&self) -> WriterStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterStats {
            batches: get(&self.batches),
            operations: get(&self.operations),
            entries: get(&self.entries),
            bytes: get(&self.bytes),
            write_time: Duration::from_nanos(get(&self.write_nanos)),
            sync_time: Duration::from_nanos(get(&self.sync_nanos)),
            sync_buckets: std::array::from_fn(|n| get(&self.sync_buckets[n])),
            batch_buckets: std::array::from_fn(|n| get(&self.batch_buckets[n])),
        }
    }
}
