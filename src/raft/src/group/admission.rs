//! Limits what is under way: proposals per group, and bytes of proposals per node.
//!
//! An admitted proposal counts until its outcome is known, even if its caller has gone away: its
//! entry stays in the queues, and a stalled disk would accumulate entries without end. The number
//! of admitted proposals therefore bounds what waits for the log writer and for followers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Overhead of an entry on top of its command: its place in the log's cache, in openraft's queues
/// and in the list of waiting callers.
const ENTRY_BYTES: u64 = 512;

/// Bytes of proposals under way on a node, over all groups.
#[derive(Debug)]
pub(crate) struct NodeQueue {
    limit: u64,
    bytes: AtomicU64,
}

/// Proposals under way in a group.
#[derive(Debug)]
pub(crate) struct GroupQueue {
    node: Arc<NodeQueue>,
    limit: u64,
    proposals: AtomicU64,
    load: LoadCounts,
}

#[derive(Debug, Default)]
struct LoadCounts {
    proposals: AtomicU64,
    bytes: AtomicU64,
    reads: AtomicU64,
}

/// Requests to a group on this node since the group was opened here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupLoad {
    /// Commands that this node proposed.
    pub proposals: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Reads that this node served.
    pub reads: u64,
}

/// One proposal under way; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    queue: Arc<GroupQueue>,
    bytes: u64,
}

/// Adds `amount` unless the sum exceeds the limit. The counter never includes a refused amount,
/// which could make a smaller amount of another caller exceed the limit. Relaxed: the counter
/// guards nothing else.
fn take(counter: &AtomicU64, amount: u64, limit: u64) -> bool {
    let within = |before: u64| before.checked_add(amount).filter(|after| *after <= limit);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
}

impl NodeQueue {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, bytes: AtomicU64::new(0) })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl GroupQueue {
    pub(crate) fn new(node: Arc<NodeQueue>, limit: u32) -> Arc<Self> {
        Arc::new(Self {
            node,
            limit: limit.into(),
            proposals: AtomicU64::new(0),
            load: LoadCounts::default(),
        })
    }

    pub(crate) fn proposals(&self) -> u64 {
        self.proposals.load(Ordering::Relaxed)
    }

    /// Bytes of proposals under way on the node.
    pub(crate) fn bytes_on_node(&self) -> u64 {
        self.node.bytes()
    }

    /// Requests to the group on this node.
    pub(crate) fn load(&self) -> GroupLoad {
        let load = &self.load;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        GroupLoad {
            proposals: read(&load.proposals),
            bytes: read(&load.bytes),
            reads: read(&load.reads),
        }
    }

    pub(crate) fn count_read(&self) {
        self.load.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Admits a command of this size; `None`: too much is under way.
    pub(crate) fn admit(self: &Arc<Self>, command_bytes: usize) -> Option<Admitted> {
        let bytes = command_bytes as u64 + ENTRY_BYTES;
        if !take(&self.proposals, 1, self.limit) {
            return None;
        }
        // From here on, dropping it returns the amount.
        let mut admitted = Admitted { queue: self.clone(), bytes: 0 };
        if !take(&self.node.bytes, bytes, self.node.limit) {
            return None;
        }
        admitted.bytes = bytes;
        Some(admitted)
    }
}

impl Admitted {
    /// Counts the command as proposed.
    pub(crate) fn count(&self) {
        let load = &self.queue.load;
        load.proposals.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(self.bytes - ENTRY_BYTES, Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.queue.node.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.queue.proposals.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_both_limits_hold_and_everything_is_given_back() {
        let node = NodeQueue::new(3 * (1_000 + ENTRY_BYTES));
        let (a, b) = (GroupQueue::new(node.clone(), 2), GroupQueue::new(node.clone(), 9));
        let first = a.admit(1_000).expect("there is room");
        let _second = a.admit(1_000).expect("there is room");
        assert!(a.admit(0).is_none(), "two of this group are under way");
        let _third = b.admit(1_000).expect("another group has its own number");
        assert!(b.admit(0).is_none(), "the node has no bytes left");
        assert_eq!((a.proposals(), b.proposals(), node.bytes()), (2, 1, node.limit));
        drop(first);
        assert_eq!((a.proposals(), node.bytes()), (1, 2 * (1_000 + ENTRY_BYTES)));
        assert!(a.admit(1_001).is_none(), "one byte too many");
        assert!(a.admit(1_000).is_some());
    }

    #[test]
    fn bounds_what_is_refused_is_never_seen_and_keeps_nobody_out() {
        let node = NodeQueue::new(10_000);
        let queue = GroupQueue::new(node.clone(), u32::MAX);
        let _most = queue.admit(8_000).expect("there is room");
        std::thread::scope(|threads| {
            let refused = threads.spawn(|| {
                let tries = (0..200_000).filter(|_| queue.admit(5_000).is_some());
                tries.count()
            });
            while !refused.is_finished() {
                assert!(node.bytes() <= 10_000, "{} bytes under way", node.bytes());
                assert!(queue.admit(100).is_some(), "there is room for a small one");
            }
            assert_eq!(refused.join().unwrap(), 0);
        });
    }
}
