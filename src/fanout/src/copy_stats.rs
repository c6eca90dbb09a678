//! What came of sending copies of this node's columns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use keyviz_core::NodeId;

/// What came of sending copies since the start of the node.
#[derive(Default, Debug)]
pub struct CopyStats {
    holders: AtomicU64,
    sent_bytes: AtomicU64,
    pushes: AtomicU64,
    failures: AtomicU64,
    /// Of the column in progress when it was last sent to one holder.
    open_bytes: AtomicU64,
    complete_to_ms: Mutex<BTreeMap<NodeId, u64>>,
}

impl CopyStats {
    /// So many members are to hold copies of this node's columns.
    pub fn set_holders(&self, holders: u64) {
        // Relaxed, as all of these: each number is read by itself.
        self.holders.store(holders, Ordering::Relaxed);
    }

    /// A push of so many bytes was answered.
    pub fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pushes.fetch_add(1, Ordering::Relaxed);
    }

    /// A push was not.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The column in progress takes so many bytes.
    pub fn set_open_bytes(&self, bytes: u64) {
        self.open_bytes.store(bytes, Ordering::Relaxed);
    }

    /// As last told.
    pub fn open_bytes(&self) -> u64 {
        self.open_bytes.load(Ordering::Relaxed)
    }

    /// A holder has everything that was counted before this time.
    pub fn set_complete(&self, holder: NodeId, to_ms: u64) {
        self.complete_to_ms.lock().insert(holder, to_ms);
    }

    /// Members that are to hold copies.
    pub fn holders(&self) -> u64 {
        self.holders.load(Ordering::Relaxed)
    }

    /// Bytes of records sent.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Pushes that were answered.
    pub fn pushes(&self) -> u64 {
        self.pushes.load(Ordering::Relaxed)
    }

    /// Pushes that were not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Milliseconds of counts that the holder who has most lacks yet at `now_ms`; `None`: none has
    /// everything of any time.
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        let newest = self.complete_to_ms.lock().values().max().copied();
        newest.map(|newest| now_ms.saturating_sub(newest))
    }
}
