//! Addresses of members, after one has moved.
//!
//! A node that starts at a new address announces it to a member, repeatedly, until the catalog
//! group has recorded it; the leader of that group checks that it is this node's disk
//! (`server/moved.rs`). The leaders of other groups copy the addresses of their members from the
//! catalog group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use keyviz_directory::Directory;
use keyviz_proto as proto;
use keyviz_raft::{ChangeError, Group, Groups, Member};
use keyviz_security::Security;
use keyviz_types::{DiskId, GroupId, NodeId};

use crate::startup::join::ask_to_add;

/// The interval between comparisons of addresses.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A failed announcement is logged again at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A change that is not agreed on in this time is made again.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// The loop that keeps addresses current.
pub(crate) struct Addresses {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// Where this node is reached.
    pub(crate) own: Member,
    /// A member to try in addition to the known ones.
    pub(crate) through: Option<String>,
    pub(crate) catalog: Arc<Group>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) security: Security,
    pub(crate) stop: CancellationToken,
}

/// Why the members of a group did not change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum NotChanged {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("no quorum within {} s", CHANGE_WITHIN.as_secs())]
    NoQuorum,
}

/// Why no member accepted the new address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum AnnounceError {
    #[error("no other member is known")]
    Alone,
    #[error("{address} refuses: {reason}")]
    Refused { address: String, reason: String },
    #[error("{address} does not answer")]
    Silent { address: String },
    #[error(transparent)]
    Change(#[from] NotChanged),
}

impl Addresses {
    /// Runs until stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut told: Option<(AnnounceError, tokio::time::Instant)> = None;
        // A leader of an earlier version keeps the old HTTP address: not again at once.
        let mut told_http: Option<tokio::time::Instant> = None;
        loop {
            self.follow_catalog().await;
            let fresh = told_http.is_none_or(|at| at.elapsed() >= TELL_EVERY);
            if let Some(known) = self.known_elsewhere(fresh) {
                told_http = Some(tokio::time::Instant::now());
                match self.announce(&known).await {
                    Ok(()) => told = None,
                    Err(why) => {
                        let said = told
                            .as_ref()
                            .is_some_and(|(last, at)| *last == why && at.elapsed() < TELL_EVERY);
                        if !said {
                            let own = &self.own.addr;
                            tracing::warn!(
                                "the cluster knows this node at {}, it is at {own}, and the change \
                                 was not made yet: {why}",
                                known.addr
                            );
                            told = Some((why, tokio::time::Instant::now()));
                        }
                    }
                }
            }
            if tokio::time::timeout(LOOK_EVERY, self.stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// The recorded member of this node, if its address differs, or, with `http`, its HTTP address.
    fn known_elsewhere(&self, http: bool) -> Option<Member> {
        if self.directory.cluster_id().is_empty() {
            return None;
        }
        let members = self.catalog.status().members;
        let known = members.get(&self.node.0)?;
        (known.addr != self.own.addr || http && self.http_moved(known)).then(|| known.clone())
    }

    /// Whether the recorded HTTP address differs. First members have none on record: each reports
    /// its own.
    fn http_moved(&self, known: &Member) -> bool {
        !known.http.is_empty() && !self.own.http.is_empty() && known.http != self.own.http
    }

    /// Sends the new address to members until one accepts it.
    async fn announce(&self, known: &Member) -> Result<(), AnnounceError> {
        let members = self.directory.members();
        let others = members.iter().filter(|(id, _)| **id != self.node);
        let others = others.map(|(_, member)| member.address.clone());
        if self.catalog.is_leader() {
            // The member itself knows its address best, and a quorum already follows it there.
            let own = [(self.node.0, self.own.clone())].into();
            return Ok(within(self.catalog.set_addresses(own)).await?);
        }
        let mut why = AnnounceError::Alone;
        for address in self.through.iter().cloned().chain(others) {
            let add = proto::AddNodeRequest {
                id: self.node.0,
                address: self.own.addr.clone(),
                http: self.own.http.clone(),
                disk: self.disk.0.to_vec().into(),
            };
            let asked = ask_to_add(&address, add, &self.security);
            match tokio::time::timeout(CHANGE_WITHIN, asked).await {
                Ok(Ok(())) => {
                    let (own, before) = (&self.own.addr, &known.addr);
                    match own == before {
                        true => tracing::info!("announced the HTTP address to {address}"),
                        false => tracing::info!(
                            "announced the new address {own} to {address}; it was {before}"
                        ),
                    }
                    return Ok(());
                }
                Ok(Err((again, reason))) => {
                    why = AnnounceError::Refused { address, reason };
                    if !again {
                        return Err(why);
                    }
                }
                Err(_) => why = AnnounceError::Silent { address },
            }
        }
        Err(why)
    }

    /// Takes addresses over into the groups that this node leads.
    async fn follow_catalog(&self) {
        let members = self.directory.members();
        let current: BTreeMap<u64, Member> = members
            .iter()
            .map(|(id, member)| {
                (id.0, Member { addr: member.address.clone(), http: member.http.clone() })
            })
            .collect();
        for group in self.groups.list() {
            if group.id() == GroupId::CATALOG || !group.is_leader() {
                continue;
            }
            let moved: BTreeMap<u64, Member> = group
                .status()
                .members
                .into_iter()
                .filter_map(|(id, known)| {
                    let current = current.get(&id).filter(|current| **current != known)?;
                    Some((id, current.clone()))
                })
                .collect();
            if moved.is_empty() {
                continue;
            }
            // A failure is retried at the next comparison.
            if let Err(error) = within(group.set_addresses(moved)).await {
                tracing::debug!(group = %group.id(), %error, "addresses were not changed yet");
            }
        }
    }
}

async fn within(change: impl Future<Output = Result<(), ChangeError>>) -> Result<(), NotChanged> {
    match tokio::time::timeout(CHANGE_WITHIN, change).await {
        Ok(changed) => Ok(changed?),
        Err(_) => Err(NotChanged::NoQuorum),
    }
}
