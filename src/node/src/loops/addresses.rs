//! Where members are reached, after one has moved.
//!
//! A node that starts at another address than its cluster knows tells a member so, again and again
//! until the catalog group has the new address; the leader of that group checks that it is this
//! node's disk (`server/moved.rs`). Whoever leads another group takes the addresses of its members
//! over from the catalog group's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use keyviz_directory::Directory;
use keyviz_proto as proto;
use keyviz_raft::{Group, Groups, Member};
use keyviz_security::Security;
use keyviz_types::{DiskId, GroupId, NodeId};

use crate::startup::join::ask_to_add;

/// How often it is looked whether addresses differ.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The log says again at most this often that nobody took the new address.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A change that is not agreed on in this time is made again.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// What following addresses needs.
pub(crate) struct Addresses {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// Where this node is reached.
    pub(crate) own: Member,
    /// A member that is asked beside those that are known.
    pub(crate) through: Option<String>,
    pub(crate) catalog: Arc<Group>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) security: Security,
    pub(crate) stop: CancellationToken,
}

impl Addresses {
    /// Runs until stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut told: Option<(String, tokio::time::Instant)> = None;
        loop {
            self.follow_catalog().await;
            if let Some(known) = self.known_elsewhere() {
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

    /// Where the cluster knows this node, if that is elsewhere.
    fn known_elsewhere(&self) -> Option<Member> {
        if self.directory.cluster_id().is_empty() {
            return None;
        }
        let members = self.catalog.status().members;
        // Where it serves HTTP others hear from the node itself.
        members.get(&self.node.0).filter(|known| known.addr != self.own.addr).cloned()
    }

    /// Tells a member where this node is; why none took it.
    async fn announce(&self, known: &Member) -> Result<(), String> {
        let members = self.directory.members();
        let others = members.iter().filter(|(id, _)| **id != self.node);
        let others = others.map(|(_, member)| member.address.clone());
        if self.catalog.is_leader() {
            // It knows best where it is, and a quorum follows it there already.
            let own = [(self.node.0, self.own.clone())].into();
            return within(self.catalog.set_addresses(own)).await;
        }
        let mut why = "no other member is known".to_owned();
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
                    tracing::info!(
                        "told {address} that this node is at {own}, no more at {before}"
                    );
                    return Ok(());
                }
                Ok(Err((again, reason))) => {
                    why = format!("{address} says: {reason}");
                    if !again {
                        return Err(why);
                    }
                }
                Err(_) => why = format!("{address} does not answer"),
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
                    let current = current.get(&id).filter(|current| current.addr != known.addr)?;
                    Some((id, current.clone()))
                })
                .collect();
            if moved.is_empty() {
                continue;
            }
            // What fails is done at the next look.
            if let Err(error) = within(group.set_addresses(moved)).await {
                tracing::debug!(group = %group.id(), error, "addresses were not taken over yet");
            }
        }
    }
}

async fn within(
    change: impl Future<Output = Result<(), keyviz_raft::ChangeError>>,
) -> Result<(), String> {
    match tokio::time::timeout(CHANGE_WITHIN, change).await {
        Ok(changed) => changed.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no quorum within {} s", CHANGE_WITHIN.as_secs())),
    }
}
