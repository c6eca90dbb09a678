//! Synchronizes the recorded disks, the handshakes and the standing of this node.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use keyviz_catalog_group::{CatalogGroup, DiskChangeError};
use keyviz_directory::Directory;
use keyviz_raft::{Participation, Roster};
use keyviz_types::NodeId;

/// The leader of the catalog group looks for disks to record this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What it needs.
pub(crate) struct DiskWatcher {
    pub(crate) roster: Roster,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) stop: CancellationToken,
}

impl DiskWatcher {
    /// Applies what is recorded now, before the first message.
    pub(crate) fn take_over(&self) {
        self.roster.set_recorded(&self.catalog.applied().disks().all());
        self.take_over_participation();
    }

    fn take_over_participation(&self) {
        if let Participation::Refused(reason) = self.roster.participation() {
            self.directory.refuse(reason);
        }
    }

    /// Runs until stopped.
    pub(crate) async fn run(self) {
        let mut recorded = self.catalog.applied().watch_disks();
        let mut participation = self.roster.watch_participation();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                changed = recorded.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.roster.set_recorded(&self.catalog.applied().disks().all());
                }
                changed = participation.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_over_participation();
                }
                _ = look.tick() => self.record().await,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Records what was identified, if this node leads the catalog group.
    async fn record(&self) {
        let applied = self.catalog.applied();
        let Some(group) = self.catalog.group().filter(|group| group.is_leader()) else { return };
        if applied.cluster().is_none() {
            return;
        }
        let members: Vec<NodeId> = group.status().members.keys().copied().map(NodeId).collect();
        let (identified, recorded) = (self.roster.identified(), applied.disks());
        // A member of a version without disk ids could not read the first record.
        if recorded.is_empty() && !members.iter().all(|member| identified.contains_key(member)) {
            return;
        }
        for member in members.into_iter().filter(|member| recorded.get(*member).is_none()) {
            let Some(disk) = identified.get(&member) else { continue };
            match self.catalog.record_disk(member, *disk).await {
                Ok(()) => tracing::info!(node = %member, %disk, "recorded the disk of a member"),
                Err(error @ DiskChangeError::Refused(_)) => {
                    tracing::warn!(node = %member, %disk, "{error}");
                }
                Err(error) => tracing::debug!(node = %member, "{error}"),
            }
        }
    }
}
