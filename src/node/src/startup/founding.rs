//! How first members form a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use keyviz_catalog::{BootstrapPlan, ClusterId};
use keyviz_catalog_group::{CatalogChangeError, CatalogGroup};
use keyviz_fanout::Clock;
use keyviz_raft::{Group, HandshakeLoop, Member};

use super::first_start::FirstStart;
use crate::loops::supervisor::{ControlLoop, Supervisor};

/// The pause between attempts to join or to bootstrap.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What makes a cluster out of its first members.
pub(crate) struct Founding {
    pub(crate) first_start: FirstStart,
    pub(crate) handshakes: HandshakeLoop,
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) plan: BootstrapPlan,
    /// The name that the cluster gets if this member is the one that succeeds.
    pub(crate) cluster_id: ClusterId,
    pub(crate) group: Arc<Group>,
    pub(crate) changes: Arc<CatalogGroup>,
    pub(crate) clock: Clock,
    pub(crate) supervisor: Supervisor,
    pub(crate) stop: CancellationToken,
}

impl Founding {
    /// Asks the others whether the cluster exists, unless this node knows, then forms the catalog
    /// group and writes the first catalog. Every first member does this; one of them succeeds, the
    /// others find it done.
    pub(crate) async fn run(self) {
        let knows_cluster =
            self.changes.applied().cluster().is_some() || self.group.is_initialized().await;
        if !knows_cluster && let Err(error) = self.first_start.run().await {
            self.supervisor.fail(error.to_string());
            return;
        }
        let handshakes = self.handshakes.clone();
        self.supervisor.run_once(ControlLoop::Handshakes, &self.stop, handshakes.run());
        if let Err(error) = self.group.initialize(self.members.clone()).await {
            self.supervisor.fail(format!("the catalog group did not form: {error}"));
            return;
        }
        let command = self.plan.command(self.cluster_id, self.clock.now_ms());
        while self.changes.applied().cluster().is_none() {
            if self.group.is_leader() {
                match self.changes.change(&command, Duration::from_secs(5)).await {
                    Ok(_)
                    | Err(CatalogChangeError::NoLeader | CatalogChangeError::Unknown { .. }) => {}
                    Err(error) => tracing::debug!(%error, "the first catalog was not written here"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.check_agreement();
    }

    /// A first member whose flags disagree with what the cluster was made with says so and stops,
    /// rather than to run on a promise that nobody keeps.
    fn check_agreement(&self) {
        let Some(cluster) = self.changes.applied().cluster() else { return };
        if cluster.groups != self.plan.groups {
            self.supervisor.fail(format!(
                "the cluster was bootstrapped with {} groups on other nodes than this node's flags \
                 say ({} groups); give every first member the same --bootstrap, --groups and \
                 --replication",
                cluster.groups.len(),
                self.plan.groups.len()
            ));
        }
    }
}
