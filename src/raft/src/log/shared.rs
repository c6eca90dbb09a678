//! State shared by the reader, the store and the writer of one log: the newest entries, and which
//! blocks are on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::record;
use crate::types::{Entry, LogId, Vote};
use keyviz_types::GroupId;

/// Memory for recent entries, shared by the groups of a node in equal parts.
#[derive(Debug)]
pub(crate) struct CacheBudget {
    pub(super) bytes: u64,
    pub(super) groups: AtomicU64,
}

impl CacheBudget {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, groups: AtomicU64::new(0) })
    }

    pub(super) fn share(&self) -> usize {
        // Relaxed: a share that is momentarily off by one group is still a bound.
        let groups = self.groups.load(Ordering::Relaxed).max(1);
        usize::try_from(self.bytes / groups).unwrap_or(usize::MAX)
    }
}

/// State shared by the reader, the store and the writer of one log.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(super) group: GroupId,
    pub(super) state: Mutex<State>,
    pub(super) blocks: Mutex<BlockIndex>,
    pub(super) budget: Arc<CacheBudget>,
    /// Entries before this index are durable; [`FAILED`]: nothing will be any more. Changed under
    /// the lock of the state.
    pub(super) durable_end: watch::Sender<u64>,
}

/// Value of [`LogShared::durable_end`] after a failed write or sync.
pub(super) const FAILED: u64 = u64::MAX;

/// Some entries on their way to the disk.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(super) log: Arc<LogShared>,
    /// Index after the last one.
    pub(super) end: u64,
    /// Truncations issued before them.
    pub(super) truncations: u64,
}

impl Appended {
    /// They are durable, or will never be.
    pub(crate) fn done(&self, durable: bool) {
        let state = self.log.state();
        self.log.durable_end.send_if_modified(|end| {
            let now = match durable {
                false => FAILED,
                // A truncation issued since means that these entries are about to go; others
                // follow.
                true if state.truncations != self.truncations => *end,
                true => (*end).max(self.end),
            };
            std::mem::replace(end, now) != now
        });
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// Index of the first entry that is not purged.
    pub(super) first: u64,
    /// Consecutive entries up to `last`; may be empty.
    pub(super) cache: VecDeque<Entry>,
    pub(super) cache_bytes: usize,
    /// Entries before this index are on disk.
    pub(super) stored_end: u64,
    /// Truncations issued.
    pub(super) truncations: u64,
    /// Bytes of entries since the log was opened, for the purge by size.
    pub(super) appended_bytes: u64,
}

impl State {
    pub(super) fn end(&self) -> u64 {
        self.last.map_or(self.first, |last| last.index + 1)
    }

    pub(super) fn cache_first(&self) -> u64 {
        self.end() - self.cache.len() as u64
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.cache_bytes += record::entry_bytes(&entry);
        self.last = Some(entry.log_id);
        self.cache.push_back(entry);
    }

    pub(super) fn drop_front(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= record::entry_bytes(&entry);
        }
    }

    pub(super) fn evict(&mut self, budget: usize) {
        while self.cache_bytes > budget && self.cache_first() < self.stored_end {
            self.drop_front();
        }
    }
}

impl LogShared {
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    pub(crate) fn blocks(&self) -> &Mutex<BlockIndex> {
        &self.blocks
    }

    /// The writer put the entries before `end` into the tree, after `truncations` truncations.
    pub(crate) fn stored(&self, end: u64, truncations: u64) {
        let mut state = self.state.lock();
        // A truncation issued since means that these entries are about to go.
        if state.truncations == truncations {
            state.stored_end = state.stored_end.max(end);
            let budget = self.budget.share();
            state.evict(budget);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for LogShared {
    fn drop(&mut self) {
        self.budget.groups.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the last user of a log has gone.
#[derive(Debug)]
pub(crate) struct Released(pub(super) std::sync::Weak<LogShared>);

impl Released {
    pub(crate) fn is_released(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// The blocks on disk by first index. Owned by the log writer once the log is open.
#[derive(Debug, Default)]
pub(crate) struct BlockIndex {
    pub(super) blocks: BTreeMap<u64, Extent>,
    /// Blocks that end before this index may be removed.
    pub(super) purged_before: u64,
    /// Truncations that reached the disk.
    pub(super) truncations: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Index after the last entry.
    pub(super) end: u64,
    pub(super) parts: u16,
}
