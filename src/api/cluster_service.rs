//! The `Cluster` service, and what this node says of itself to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tonic::{Request, Response, Status};

use crate::keyviz::{GroupId, NodeId};
use crate::kv::{Coordinator, Directory};
use crate::proto;
use crate::proto::{join_response, propose_response};
use crate::raft::{CatalogGroup, CatalogOutcome, Group, Groups, Member, Role, Storage};

use super::estates::Estates;
use super::peer_client::PeerClient;
use super::peer_service::{check_cluster, not_leader};
use super::picture::{Picture, STATUS_DEADLINE};
use super::routes_service::change_status;

pub(super) struct ClusterService {
    pub(super) node: NodeId,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) catalog: Arc<CatalogGroup>,
    pub(super) groups: Groups,
    pub(super) directory: Arc<Directory>,
    pub(super) peers: Arc<PeerClient>,
    pub(super) estates: Estates,
    pub(super) storage: Storage,
    /// Where this node serves HTTP; empty: nowhere.
    pub(super) http: String,
    pub(super) started: Instant,
    pub(super) timeout: Duration,
}

impl ClusterService {
    /// Whether this node can serve; else why not.
    pub(super) fn readiness(&self) -> Result<(), String> {
        if let Some(fault) = self.storage.fault() {
            return Err(fault.to_string());
        }
        if !self.coordinator.has_routes() {
            return Err("this node has not applied a route catalog yet".to_owned());
        }
        if self.catalog.applied().placement().is_gone(self.node) {
            return Err("this node has left the cluster; stop it".to_owned());
        }
        let placement = self.directory.placement();
        let placed = |group: &GroupId| {
            let replicas = placement.get(group);
            replicas.is_none_or(|replicas| replicas.contains(&self.node))
        };
        // A replica that comes or goes serves nobody yet, or no more.
        let mut groups = self.groups.list().into_iter().filter(|group| placed(&group.id()));
        let leaderless = groups.find(|group| group.leader().is_none());
        match leaderless {
            Some(group) => Err(format!("Raft group {} has no leader", group.id())),
            None => Ok(()),
        }
    }

    /// Why this node takes no writes; `None`: it does.
    pub(super) fn read_only(&self) -> Option<String> {
        self.storage.check_room().err().map(|full| full.to_string())
    }

    /// Every member and every group, asked live.
    pub(super) async fn status(&self) -> Result<proto::ClusterStatus, Status> {
        let members = self.directory.members();
        let asks = members.iter().map(|(id, address)| async move {
            let asked = Instant::now();
            let said = if *id == self.node {
                Ok(self.node_status())
            } else {
                self.peers.node_status(*id, STATUS_DEADLINE).await
            };
            (*id, address.clone(), said, asked.elapsed())
        });
        let said = join_all(asks).await;
        let voters = self.voters(GroupId::CATALOG, &said_by(&said));
        let placed = self.catalog.applied().placement();
        let picture = Picture::of(said.iter().map(|(id, ..)| *id), said_by(&said));
        let moves: Vec<_> = picture.moving(&placed).into_iter().collect();
        let members = said.iter().map(|(id, address, said, latency)| {
            let ok = said.as_ref().ok();
            proto::Member {
                id: id.0,
                address: address.address.clone(),
                http: ok.map_or_else(|| address.http.clone(), |said| said.http.clone()),
                ok: ok.is_some(),
                error: said.as_ref().err().cloned().unwrap_or_default(),
                catalog_version: ok.map_or(0, |said| said.catalog_version),
                version: ok.map_or_else(String::new, |said| said.version.clone()),
                voter: voters.contains(&id.0),
                uptime_ms: ok.map_or(0, |said| said.uptime_ms),
                read_only: ok.map_or_else(String::new, |said| said.read_only.clone()),
                latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
                leaving: placed.departures().contains_key(id),
            }
        });
        let table = self.catalog.applied().table();
        let mut routes: BTreeMap<GroupId, u64> = BTreeMap::new();
        for spec in table.specs().iter() {
            *routes.entry(spec.group).or_default() += 1;
        }
        let placement = self.directory.placement();
        let all = std::iter::once(GroupId::CATALOG).chain(placement.keys().copied());
        let said_by = said_by(&said);
        let groups = all.map(|group| {
            let routes = routes.get(&group).copied().unwrap_or(0);
            self.group_status(group, routes, &said_by)
        });
        Ok(proto::ClusterStatus {
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            catalog_version: table.version(),
            members: members.collect(),
            groups: groups.collect(),
            moves_left: picture.balance(&placed).moves_left() + moves.len() as u64,
            moves,
            replication: placed.replication() as u64,
            leaders_due: placed.leaders_due(),
        })
    }

    /// Voters of a group, as the replica with the newest term sees them.
    fn voters(&self, group: GroupId, said: &SaidBy<'_>) -> BTreeSet<u64> {
        let views = said.values().filter_map(|said| view(said, group));
        let newest = views.max_by_key(|view| (view.term, view.applied_index));
        newest.map(|view| view.voters.iter().copied().collect()).unwrap_or_default()
    }

    fn group_status(&self, group: GroupId, routes: u64, said: &SaidBy<'_>) -> proto::Group {
        let views: BTreeMap<u64, &proto::PeerGroupStatus> =
            said.iter().filter_map(|(node, said)| Some((*node, view(said, group)?))).collect();
        let newest = views.values().max_by_key(|view| (view.term, view.applied_index));
        let leader = newest.and_then(|view| (view.leader != 0).then_some(view.leader));
        let head = leader.and_then(|leader| views.get(&leader)).map(|view| view.last_log_index);
        let voters = newest
            .map(|view| view.voters.clone())
            .unwrap_or_else(|| self.directory.replicas(group).iter().map(|node| node.0).collect());
        let learners = newest.map(|view| view.learners.clone()).unwrap_or_default();
        let replicas = voters
            .iter()
            .map(|node| (*node, true))
            .chain(learners.iter().map(|node| (*node, false)))
            .map(|(node_id, voter)| {
                let view = views.get(&node_id);
                proto::Replica {
                    node_id,
                    voter,
                    role: view.map_or_else(String::new, |view| view.role.clone()),
                    last_log_index: view.map_or(0, |view| view.last_log_index),
                    applied_index: view.map_or(0, |view| view.applied_index),
                    snapshot_rows: view.and_then(|view| view.snapshot_rows),
                    lag: head.zip(view).map(|(head, view)| head.saturating_sub(view.applied_index)),
                }
            })
            .collect();
        proto::Group {
            group_id: group.0,
            leader,
            term: newest.map_or(0, |view| view.term),
            routes,
            replicas,
        }
    }

    fn node_status(&self) -> proto::PeerStatusResponse {
        proto::PeerStatusResponse {
            node_id: self.node.0,
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            catalog_version: self.catalog.applied().table().version(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http: self.http.clone(),
            read_only: self.read_only().unwrap_or_default(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            groups: self.groups.list().into_iter().map(|group| group_to_wire(&group)).collect(),
        }
    }

    /// Makes a node a learner of the catalog group. `Err(hint)`: this node does not lead it.
    async fn add_learner(
        &self,
        id: u64,
        address: String,
        http: String,
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
        if members.get(&NodeId(id)).is_some_and(|known| known.address == address) {
            return Ok(Ok(()));
        }
        let member = Member { addr: address, http };
        let added = tokio::time::timeout(self.timeout, group.add_learner(id, member)).await;
        match added {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded(
                "the catalog group did not take the node in time; try again",
            )),
        }
    }

    /// The same, through the leader.
    async fn add_node(&self, add: proto::AddNodeRequest) -> Result<(), Status> {
        let leader = match self.add_learner(add.id, add.address.clone(), add.http.clone()).await? {
            Ok(()) => return Ok(()),
            Err(leader) => leader.filter(|leader| *leader != self.node),
        };
        let no_leader = || Status::unavailable("the catalog group has no leader; try again");
        let join = proto::JoinRequest {
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            id: add.id,
            address: add.address,
            http: add.http,
        };
        match self.peers.join(leader.ok_or_else(no_leader)?, join).await?.outcome {
            Some(join_response::Outcome::ClusterId(_)) => Ok(()),
            _ => Err(no_leader()),
        }
    }
}

type Said =
    Vec<(NodeId, crate::kv::MemberAddress, Result<proto::PeerStatusResponse, String>, Duration)>;
type SaidBy<'a> = BTreeMap<u64, &'a proto::PeerStatusResponse>;

fn said_by(said: &Said) -> SaidBy<'_> {
    said.iter().filter_map(|(id, _, said, _)| Some((id.0, said.as_ref().ok()?))).collect()
}

fn view(said: &proto::PeerStatusResponse, group: GroupId) -> Option<&proto::PeerGroupStatus> {
    said.groups.iter().find(|view| view.group_id == group.0)
}

pub(super) fn group_to_wire(group: &Group) -> proto::PeerGroupStatus {
    let status = group.status();
    let role = match status.role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Stopping => "stopping",
    };
    proto::PeerGroupStatus {
        group_id: status.group.0,
        role: role.to_owned(),
        term: status.term.0,
        leader: status.leader.as_ref().map_or(0, |(leader, _)| *leader),
        last_log_index: status.last_log.unwrap_or(0),
        applied_index: status.applied.map_or(0, |applied| applied.index),
        snapshot_rows: status.receiving.map(|progress| progress.rows),
        voters: status.voters.iter().copied().collect(),
        learners: status
            .members
            .keys()
            .filter(|node| !status.voters.contains(node))
            .copied()
            .collect(),
        received_bytes: group.received_bytes(),
    }
}

/// `host:port`, as a member is reached.
pub(super) fn check_address(address: &str) -> Result<(), Status> {
    let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if sound {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("address {address:?} is not host:port")))
}

/// One gRPC service over shared state.
#[derive(Clone)]
pub(super) struct SharedCluster(pub(super) Arc<ClusterService>);

#[tonic::async_trait]
impl proto::cluster_server::Cluster for SharedCluster {
    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::ClusterStatus>, Status> {
        self.0.status().await.map(Response::new)
    }

    async fn add_node(
        &self,
        request: Request<proto::AddNodeRequest>,
    ) -> Result<Response<proto::AddNodeResponse>, Status> {
        self.0.add_node(request.into_inner()).await?;
        let cluster_id = self.0.directory.cluster_id().as_str().to_owned();
        Ok(Response::new(proto::AddNodeResponse { cluster_id }))
    }

    async fn remove_node(
        &self,
        request: Request<proto::RemoveNodeRequest>,
    ) -> Result<Response<proto::RemoveNodeResponse>, Status> {
        let gone = self.0.leave(request.into_inner().id).await?;
        Ok(Response::new(proto::RemoveNodeResponse { gone }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let transfer = request.into_inner();
        let id = GroupId(transfer.group_id);
        let group = self.0.groups.get(id).ok_or_else(|| {
            Status::not_found(format!(
                "this node has no replica of Raft group {id}; ask one that has"
            ))
        })?;
        let moved = group.transfer_leader(transfer.to, self.0.timeout).await;
        moved.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let term = group.status().term.0;
        Ok(Response::new(proto::TransferLeaderResponse { leader: transfer.to, term }))
    }
}

#[tonic::async_trait]
impl proto::cluster_peer_server::ClusterPeer for SharedCluster {
    async fn node_status(
        &self,
        request: Request<proto::PeerStatusRequest>,
    ) -> Result<Response<proto::PeerStatusResponse>, Status> {
        check_cluster(&self.0.directory, &request.into_inner().cluster_id)?;
        Ok(Response::new(self.0.node_status()))
    }

    async fn propose_catalog(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let propose = request.into_inner();
        check_cluster(&self.0.directory, &propose.cluster_id)?;
        let outcome = self.0.catalog.propose_here(&propose.command).await.map_err(change_status)?;
        let outcome = match outcome {
            CatalogOutcome::Done(reply) => propose_response::Outcome::Reply(reply),
            CatalogOutcome::NotLeader(leader) => {
                propose_response::Outcome::NotLeader(not_leader(leader))
            }
            CatalogOutcome::NotSent(reason) => return Err(Status::unavailable(reason)),
            CatalogOutcome::DiskFull(reason) => {
                let full = crate::raft::CatalogChangeError::DiskFull { reason };
                return Err(change_status(full));
            }
            CatalogOutcome::Unknown(reason) => return Err(Status::unknown(reason)),
        };
        Ok(Response::new(proto::ProposeResponse { outcome: Some(outcome) }))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let join = request.into_inner();
        check_cluster(&self.0.directory, &join.cluster_id)?;
        let outcome = match self.0.add_learner(join.id, join.address, join.http).await? {
            Ok(()) => {
                let cluster_id = self.0.directory.cluster_id();
                join_response::Outcome::ClusterId(cluster_id.as_str().to_owned())
            }
            Err(leader) => join_response::Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::JoinResponse { outcome: Some(outcome) }))
    }

    async fn leave(
        &self,
        request: Request<proto::LeaveRequest>,
    ) -> Result<Response<proto::LeaveResponse>, Status> {
        use proto::leave_response::Outcome;

        let leave = request.into_inner();
        check_cluster(&self.0.directory, &leave.cluster_id)?;
        let outcome = match self.0.leave_here(NodeId(leave.id)).await? {
            Ok(gone) => Outcome::Gone(gone),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::LeaveResponse { outcome: Some(outcome) }))
    }

    async fn reshape(
        &self,
        request: Request<proto::ReshapeRequest>,
    ) -> Result<Response<proto::ReshapeResponse>, Status> {
        let reshape = request.into_inner();
        check_cluster(&self.0.directory, &reshape.cluster_id)?;
        let outcome = self.0.reshape_here(reshape).await?;
        Ok(Response::new(proto::ReshapeResponse { outcome: Some(outcome) }))
    }

    async fn is_member(
        &self,
        request: Request<proto::IsMemberRequest>,
    ) -> Result<Response<proto::IsMemberResponse>, Status> {
        use proto::is_member_response::Outcome;

        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let outcome = self.0.is_member_here(GroupId(ask.group_id), NodeId(ask.node_id)).await?;
        let outcome = match outcome {
            Ok(member) => Outcome::Member(member),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::IsMemberResponse { outcome: Some(outcome) }))
    }

    async fn hand_over(
        &self,
        request: Request<proto::HandOverRequest>,
    ) -> Result<Response<proto::HandOverResponse>, Status> {
        use proto::hand_over_response::Outcome;

        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let outcome = match self.0.hand_over_here(GroupId(ask.group_id), NodeId(ask.to)).await? {
            Ok(()) => Outcome::Done(true),
            Err(leader) => Outcome::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::HandOverResponse { outcome: Some(outcome) }))
    }

    async fn bequeath(
        &self,
        request: Request<proto::BequeathRequest>,
    ) -> Result<Response<proto::BequeathResponse>, Status> {
        let ask = request.into_inner();
        check_cluster(&self.0.directory, &ask.cluster_id)?;
        let records = self.0.estates.bequeath(NodeId(ask.heir), &self.0.peers).await?;
        Ok(Response::new(proto::BequeathResponse { records }))
    }

    async fn inherit(
        &self,
        request: Request<tonic::Streaming<proto::InheritChunk>>,
    ) -> Result<Response<proto::InheritResponse>, Status> {
        let records = self.0.estates.inherit(request.into_inner()).await?;
        Ok(Response::new(proto::InheritResponse { records }))
    }
}
