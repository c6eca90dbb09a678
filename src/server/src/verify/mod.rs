//! Comparing the replicas of a group while they serve.
//!
//! Any node can coordinate. It chooses an entry a little ahead of the newest replica, has all
//! replicas take a digest of their rows when exactly that entry is the last applied one, and has
//! the leader bring the group there where no writes do. A replica that was past the entry already
//! misses it: then another one is chosen, further ahead.
//!
//! ```text
//!   ask the replicas how far they are --> X = the newest + some
//!   arm all of them for X             --> one is past X: again, further ahead
//!   the leader advances to X          --> proposals that change nothing, where the group is idle
//!   each replica: view at X, digest   --> overtaken by writes: again
//!   verdict
//! ```

mod coordinate;
mod peer;
mod service;
mod stats;
mod verdict;

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use keyviz_catalog_group::CatalogGroup;
use keyviz_directory::Directory;
use keyviz_raft::Groups;
use keyviz_types::{GroupId, NodeId};

use keyviz_peer::PeerClient;

pub(crate) use service::Updates;
pub(crate) use stats::Totals;
pub use verdict::{GroupReport, Replicas, Verdict};

/// Digests that a node computes at the same time, over all its groups.
const MOST_DIGESTS: usize = 4;

/// Verifications that a node coordinates at the same time.
const MOST_RUNS: usize = 2;

/// The parts of a verification.
pub struct VerificationParts {
    /// This node.
    pub node: NodeId,
    /// The catalog.
    pub catalog: Arc<CatalogGroup>,
    /// Raft groups held here.
    pub groups: Groups,
    /// Members and placement.
    pub directory: Arc<Directory>,
    /// Other nodes.
    pub peers: Arc<PeerClient>,
    /// Milliseconds since 1970.
    pub now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Ends what is under way.
    pub stop: CancellationToken,
}

/// Verifies groups from this node, and takes digests of its replicas for others.
pub struct Verification {
    node: NodeId,
    catalog: Arc<CatalogGroup>,
    groups: Groups,
    directory: Arc<Directory>,
    peers: Arc<PeerClient>,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    stop: CancellationToken,
    digests: Arc<Semaphore>,
    runs: Arc<Semaphore>,
    stats: stats::Stats,
}

impl Verification {
    /// Of these parts.
    pub fn new(parts: VerificationParts) -> Arc<Self> {
        let VerificationParts { node, catalog, groups, directory, peers, now_ms, stop } = parts;
        Arc::new(Verification {
            node,
            catalog,
            groups,
            directory,
            peers,
            now_ms,
            stop,
            digests: Arc::new(Semaphore::new(MOST_DIGESTS)),
            runs: Arc::new(Semaphore::new(MOST_RUNS)),
            stats: stats::Stats::default(),
        })
    }

    /// All groups of the cluster, the catalog group first.
    pub fn group_ids(&self) -> Vec<GroupId> {
        let placement = self.directory.placement();
        std::iter::once(GroupId::CATALOG).chain(placement.keys().copied()).collect()
    }

    /// Verifies one group, records the result, and logs replicas that differ.
    pub fn verify(&self, group: GroupId, bytes_per_s: u64) -> BoxFuture<'_, GroupReport> {
        async move { self.verify_telling(group, bytes_per_s, &coordinate::Untold).await }.boxed()
    }

    async fn verify_telling(
        &self,
        group: GroupId,
        bytes_per_s: u64,
        told: &impl coordinate::Told,
    ) -> GroupReport {
        let report = self.coordinate(group, bytes_per_s, told).await;
        self.stats.note(&report, (self.now_ms)());
        let words = report.words().unwrap_or_default();
        match report.verdict {
            Verdict::Agree => tracing::debug!(%group, index = report.index, "all replicas agree"),
            Verdict::Differ { .. } => tracing::error!("{words}"),
            Verdict::Incomplete => tracing::warn!("{words}"),
        }
        report
    }

    /// Forgets the results of groups: another node continues the verification.
    pub fn forget(&self) {
        self.stats.forget();
    }

    pub(crate) fn totals(&self) -> Totals {
        self.stats.totals()
    }
}
