//! Whether this node is still a member, which only the others can tell it.
//!
//! A node that is removed while it is down hears nothing of that: the others send it nothing any
//! more, and its own disk says that it is a member. So it asks them, when it starts and whenever
//! the catalog group has no leader here, and now and then besides. Stale reads wait for the first
//! answer, for [`ASK_WITHIN`] at most: a node that reaches nobody serves what it has, as it does
//! while it is cut off.
//!
//! That it was removed is remembered on disk, so that a node that reaches nobody after its next
//! start serves nothing either.
//!
//! The answer that counts is the leader's of the catalog group, which a majority confirmed, or
//! anyone's that the catalog has this node down as gone, which is for ever.

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

/// The pause between two looks at whether to ask.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks after which it is asked without cause.
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
    /// Has stale reads wait for the first answer, where there is somebody to ask. A node that is
    /// known to have been `removed` serves nothing meanwhile.
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
            // What was heard once stays true until somebody says otherwise.
            None if before == MembershipState::Removed => MembershipState::Removed,
            _ => MembershipState::Member,
        };
        if standing != before && standing == MembershipState::Removed {
            tracing::error!(
                "this node was removed from the cluster and serves nothing any more; stop it and \
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
            tracing::error!(%error, "that the node was removed is forgotten at the next start");
        }
    }

    /// `None`: nobody could say.
    async fn is_member(&self) -> Option<bool> {
        // A node that has no cluster yet is not a member, and nobody removed it.
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
