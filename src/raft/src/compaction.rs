//! Compacting a log by its size.
//!
//! openraft compacts a log by number of entries and keeps a number of them for lagging followers.
//! With large entries that number has no bound in bytes, so a group also compacts when its log has
//! grown by a number of bytes, and then keeps no compacted entries.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::group::Group;
use super::loops::{Loops, RaftLoop};

const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Watches the log of a group until the group is dropped.
pub(crate) fn watch(group: &Arc<Group>, compact_bytes: u64, loops: &Loops) {
    loops.spawn(RaftLoop::Compaction, run(Arc::downgrade(group), compact_bytes));
}

async fn run(group: Weak<Group>, compact_bytes: u64) {
    let mut compacted_at_bytes = 0;
    let mut purge_upto = None;
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(group) = group.upgrade() else { return };
        let raft = group.raft();
        let metrics = raft.data_metrics().borrow_watched().clone();
        let snapshot = metrics.snapshot.map(|at| at.index);
        if let Some(upto) = purge_upto.filter(|upto| Some(*upto) <= snapshot) {
            purge_upto = None;
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        let bytes = group.log().appended_bytes();
        if bytes - compacted_at_bytes >= compact_bytes
            && let Some(applied) = metrics.last_applied
        {
            compacted_at_bytes = bytes;
            purge_upto = Some(applied.index);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }
}
