//! Transfers the groups of a node whose disk is full, because it accepts no writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use keyviz_directory::Directory;
use keyviz_peer::PeerClient;
use keyviz_raft::{DiskSpace, Groups, Storage};
use keyviz_types::NodeId;

/// The disk is looked after this often.
const EVERY: Duration = Duration::from_secs(1);

/// A member that does not report space within this time is not asked to lead.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Time limit for a group to elect its new leader.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Transfers groups while the disk is full.
pub(crate) struct DiskWatch {
    pub(crate) node: NodeId,
    pub(crate) storage: Storage,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<PeerClient>,
}

impl DiskWatch {
    /// Watches until stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut full_before = false;
        while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
            let full = self.storage.disk_space() == DiskSpace::Full;
            // Not at once: members on the same disk, or on one as full, notice it a moment later,
            // and a group that moves to such a member loses its leader again.
            let stays_full = full && full_before;
            full_before = full;
            let leads = || self.groups.list().iter().any(|group| group.is_leader());
            if !stays_full || !leads() {
                continue;
            }
            let able = self.members_with_space().await;
            if able.is_empty() {
                // No member has space. Reads continue here.
                continue;
            }
            let moved = self.groups.hand_over_to(&able, HAND_OVER_WITHIN).await;
            if moved > 0 {
                tracing::warn!(moved, "groups were handed to nodes that have room on their disks");
            }
        }
    }

    async fn members_with_space(&self) -> BTreeSet<u64> {
        let members = self.directory.members();
        let others = members.keys().filter(|member| **member != self.node);
        let asked = others.map(|member| async move {
            let status = self.peers.node_status(*member, ASK_WITHIN).await.ok()?;
            status.read_only.is_empty().then_some(member.0)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}
