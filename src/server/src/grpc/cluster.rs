//! Members of the cluster, and whether this node is ready.

mod capabilities;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Status;

use keyviz_catalog::DiskError;
use keyviz_catalog_group::{CatalogGroup, DiskChangeError};
use keyviz_directory::{Directory, MembershipState};
use keyviz_kv::{Coordinator, KvError};
use keyviz_proto as proto;
use keyviz_proto::join_response;
use keyviz_raft::{Fault, Group, Groups, Member, NotServed, Storage};
use keyviz_security::Security;
use keyviz_types::{DiskId, GroupId, NodeId};

use crate::alerts::AlertService;
use crate::loops::LoopHealth;
use crate::peer::handoff::Handoffs;
use crate::verify::Verification;
use keyviz_peer::client::PeerClient;

pub(crate) struct ClusterService {
    pub(crate) node: NodeId,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<PeerClient>,
    pub(crate) handoffs: Handoffs,
    pub(crate) storage: Storage,
    pub(crate) security: Security,
    pub(crate) verification: Arc<Verification>,
    /// HTTP address of this node; empty: none.
    pub(crate) http: String,
    pub(crate) started: Instant,
    pub(crate) timeout: Duration,
    pub(crate) loops: Arc<LoopHealth>,
    pub(crate) alerts: Arc<AlertService>,
}

/// Why a node cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// A control loop ended.
    #[error("{0}")]
    Loop(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] Fault),
    /// The node is no longer a member.
    #[error("{0}")]
    Removed(String),
    /// The node has just started.
    #[error("this node has not applied a route catalog yet")]
    NoRoutes,
    /// A replica was closed because it contradicts its leader.
    #[error("Raft group {group} is closed on this node: {reason}")]
    Closed { group: GroupId, reason: String },
    /// Groups without a leader or quorum.
    #[error("{}", unserved_words(.0))]
    Unserved(Vec<(GroupId, NotServed)>),
}

impl ClusterService {
    /// Checks whether this node can serve.
    pub(crate) fn readiness(&self) -> Result<(), NotReady> {
        if let Some(failure) = self.loops.failure() {
            return Err(NotReady::Loop(failure.to_owned()));
        }
        if let Some(fault) = self.storage.fault() {
            return Err(NotReady::Storage(fault));
        }
        if let Some(reason) = self.removed() {
            return Err(NotReady::Removed(reason));
        }
        if !self.coordinator.has_routes() {
            return Err(NotReady::NoRoutes);
        }
        if let Some((group, reason)) = self.groups.closed().into_iter().next() {
            return Err(NotReady::Closed { group, reason });
        }
        let placement = self.directory.placement();
        let placed = |group: &GroupId| {
            let replicas = placement.get(group);
            replicas.is_none_or(|replicas| replicas.contains(&self.node))
        };
        // A replica that is added or removed does not serve.
        let groups = self.groups.list().into_iter().filter(|group| placed(&group.id()));
        let unserved: Vec<_> =
            groups.filter_map(|group| Some((group.id(), group.served_by().err()?))).collect();
        if unserved.is_empty() { Ok(()) } else { Err(NotReady::Unserved(unserved)) }
    }

    /// Why this node no longer serves; `None`: it is a member.
    pub(crate) fn removed(&self) -> Option<String> {
        match self.directory.membership_state() {
            MembershipState::Member | MembershipState::Asking => None,
            MembershipState::Removed => Some(KvError::Removed { node: self.node }.to_string()),
            MembershipState::Refused => Some(self.directory.refusal().as_str().to_owned()),
        }
    }

    /// Why this node is excluded; empty: it is not.
    pub(crate) fn refused(&self) -> String {
        let refused = self.directory.membership_state() == MembershipState::Refused;
        if refused { self.directory.refusal().as_str().to_owned() } else { String::new() }
    }

    /// Why this node accepts no writes; `None`: it does.
    pub(crate) fn read_only(&self) -> Option<String> {
        self.storage.check_space().err().map(|full| full.to_string())
    }

    /// Makes a node a learner of the catalog group. `Err(hint)`: this node does not lead it.
    pub(crate) async fn add_learner(
        &self,
        id: u64,
        address: String,
        http: String,
        disk: &[u8],
    ) -> Result<Result<(), Option<NodeId>>, Status> {
        if id == 0 {
            return Err(Status::invalid_argument("node ids start at 1"));
        }
        check_address(&address)?;
        let members = self.directory.members();
        if let Some((other, _)) =
            members.iter().find(|(other, member)| other.0 != id && member.address == address)
        {
            return Err(Status::failed_precondition(format!(
                "{address} is the address of node {other} already"
            )));
        }
        let Some(group) = self.catalog.group() else { return Ok(Err(None)) };
        if group.leader() != Some(self.node) {
            return Ok(Err(group.leader()));
        }
        self.admit(NodeId(id)).await?;
        if !disk.is_empty() {
            let disk = DiskId::from_bytes(disk)
                .ok_or_else(|| Status::invalid_argument("a disk id has 16 bytes"))?;
            self.admit_disk(&group, NodeId(id), disk).await?;
        }
        let member = Member { addr: address, http };
        if let Some(known) = group.status().members.get(&id) {
            return self.move_member(&group, NodeId(id), known, member).await.map(Ok);
        }
        let added = tokio::time::timeout(self.timeout, group.add_learner(id, member)).await;
        match added {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded(
                "the catalog group did not take the node in time; try again",
            )),
        }
    }

    /// Checks that a joining node may have this id: no other node has it or had it.
    async fn admit_disk(&self, group: &Group, id: NodeId, disk: DiskId) -> Result<(), Status> {
        let in_use = || {
            Status::failed_precondition(format!(
                "node {id} is a member of this cluster with another disk, and ids are never used \
                 again. If node {id} lost its disk, start this one with a new --id, then run \
                 `keyviz cluster replace-node {id} --with NEW_ID`"
            ))
        };
        let roster = self.groups.peers().roster();
        let known = roster.and_then(|roster| roster.known_disk(id));
        let status = group.status();
        match known {
            Some(known) if known == disk => return Ok(()),
            Some(_) => return Err(in_use()),
            // It was a member before its disk was recorded, and must still have the entries that
            // were sent to it.
            None if status.members.contains_key(&id.0)
                && status.matched.get(&id.0).copied().flatten().is_some() =>
            {
                return Err(in_use());
            }
            None => {}
        }
        if self.catalog.applied().disks().is_empty() {
            return Ok(());
        }
        self.catalog.record_disk(id, disk).await.map_err(|error| match error {
            DiskChangeError::Refused(DiskError::InUse { .. }) => in_use(),
            DiskChangeError::Refused(_) => Status::failed_precondition(error.to_string()),
            DiskChangeError::Unavailable(_) => Status::unavailable(error.to_string()),
        })
    }

    /// The same, through the leader.
    pub(crate) async fn add_node(&self, add: proto::AddNodeRequest) -> Result<(), Status> {
        let added =
            self.add_learner(add.id, add.address.clone(), add.http.clone(), &add.disk).await?;
        let leader = match added {
            Ok(()) => return Ok(()),
            Err(leader) => leader.filter(|leader| *leader != self.node),
        };
        let no_leader = || Status::unavailable("the catalog group has no leader; try again");
        let join = proto::JoinRequest {
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            id: add.id,
            address: add.address,
            http: add.http,
            disk: add.disk,
        };
        match self.peers.join(leader.ok_or_else(no_leader)?, join).await?.outcome {
            Some(join_response::Outcome::ClusterId(_)) => Ok(()),
            _ => Err(no_leader()),
        }
    }
}

/// Most groups that are named one by one.
const MOST_NAMED: usize = 8;

fn unserved_words(unserved: &[(GroupId, NotServed)]) -> String {
    let named = unserved.iter().take(MOST_NAMED);
    let named = named.map(|(group, why)| format!("Raft group {group}: {why}"));
    let mut words = format!("{} of the Raft groups here cannot be served: ", unserved.len());
    words += &named.collect::<Vec<_>>().join("; ");
    match unserved.len().saturating_sub(MOST_NAMED) {
        0 => words,
        more => format!("{words}; and {more} more"),
    }
}

/// `host:port`, as a member is reached.
pub(crate) fn check_address(address: &str) -> Result<(), Status> {
    let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if sound {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("address {address:?} is not host:port")))
}
