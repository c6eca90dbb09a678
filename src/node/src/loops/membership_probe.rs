//! Checks with the other members whether this node still is one.
//!
//! A node that is removed while it is down does not learn of that by itself: the others no longer
//! send to it, and its own disk still lists it as a member. So it asks them at start, whenever the
//! catalog group has no leader here, and periodically. Stale reads wait for the first answer, for
//! [`ASK_WITHIN`] at most: a node that reaches no other serves stale reads, as any partitioned node
//! does.
//!
//! A removal is recorded on disk, so that the node serves nothing after its next start either, even
//! if it reaches no other.
//!
//! Only two answers count: that of the catalog group's leader, confirmed by a majority, and that of
//! any member whose catalog records this node as gone, which is final.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;

use keyviz_catalog::AppliedCatalog;
use keyviz_directory::{Directory, MembershipState};
use keyviz_peer::PeerClient;
use keyviz_raft::{Group, Storage};
use keyviz_types::{GroupId, NodeId};

use crate::folder::identity::Identity;

/// The others have this long to answer.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The pause between checks whether to ask.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Checks after which the node asks without cause.
const LOOKS_WITHOUT_CAUSE: u32 = 20;

/// What asking needs.
pub(crate) struct MembershipProbe {
    pub(crate) node: NodeId,
    pub(crate) storage: Storage,
    pub(crate) catalog: AppliedCatalog,
    pub(crate) group: Arc<Group>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) client: Arc<PeerClient>,
    pub(crate) stop: CancellationToken,
}

impl MembershipProbe {
    /// Makes stale reads wait for the first answer if there are other members. A node that is known
    /// to be `removed` serves nothing until then.
    pub(crate) fn begin(&self, removed: bool) {
        if removed {
            self.directory.set_membership_state(MembershipState::Removed);
        }
        let asks = self.catalog.cluster().is_some() && self.others().next().is_some();
        if asks && self.directory.membership_state() == MembershipState::Member {
            self.directory.set_membership_state(MembershipState::Asking);
        }
    }

    /// Asks until stopped.
    pub(crate) async fn run(self) {
        let mut answered = self.ask().await;
        let mut looks = 0;
        while tokio::time::timeout(LOOK_EVERY, self.stop.cancelled()).await.is_err() {
            looks += 1;
            let doubt = !answered || self.group.leader().is_none();
            if doubt || looks >= LOOKS_WITHOUT_CAUSE {
                (answered, looks) = (self.ask().await, 0);
            }
        }
    }

    /// Asks all others at once and takes the first answer that counts; whether there was one.
    async fn ask(&self) -> bool {
        let asked = tokio::time::timeout(ASK_WITHIN, self.is_member()).await;
        let answer = asked.ok().flatten();
        let removed = answer == Some(false) || self.catalog.placement().is_gone(self.node);
        let before = self.directory.membership_state();
        let standing = match answer {
            _ if removed => MembershipState::Removed,
            // An answer holds until another one contradicts it.
            None if before == MembershipState::Removed => MembershipState::Removed,
            _ => MembershipState::Member,
        };
        if standing != before && standing == MembershipState::Removed {
            tracing::error!(
                "this node was removed from the cluster and no longer serves requests; stop it and \
                 delete its folder"
            );
        }
        self.directory.set_membership_state(standing);
        if (before == MembershipState::Removed) != (standing == MembershipState::Removed) {
            self.remember(standing == MembershipState::Removed).await;
        }
        answer.is_some()
    }

    async fn remember(&self, removed: bool) {
        if let Err(error) = Identity::remember_removed(&self.storage, removed).await {
            tracing::error!(%error, "the removal of this node could not be recorded");
        }
    }

    /// `None`: no node knew.
    async fn is_member(&self) -> Option<bool> {
        // A node without a cluster is not a member and was not removed.
        self.catalog.cluster()?;
        if self.group.is_leader() {
            return self.group.confirms_member(self.node.0).await.ok();
        }
        let asks: FuturesUnordered<_> = self
            .others()
            .map(|other| self.client.is_member(other, GroupId::CATALOG, self.node))
            .collect();
        let answers =
            asks.filter_map(|answer| std::future::ready(answer.ok().and_then(Result::ok)));
        std::pin::pin!(answers).next().await
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        let members = self.directory.members();
        let others: Vec<NodeId> =
            members.keys().copied().filter(|member| *member != self.node).collect();
        others.into_iter()
    }
}
