//! What `GetStatus` says: every member and every group, queried live, and the status that this node
//! reports to others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tonic::Status;

use keyviz_proto as proto;
use keyviz_raft::SERVED_WITHIN;
use keyviz_types::{GroupId, NodeId};

use crate::grpc::cluster::ClusterService;
use crate::grpc::move_wire::with_progress;
use keyviz_peer::CallError;
use keyviz_peer::snapshot::{ClusterSnapshot, STATUS_DEADLINE, group_to_wire};

/// Time limit for the catalog here to catch up with its leader.
const CURRENT_WITHIN: Duration = Duration::from_millis(500);

impl ClusterService {
    /// Every member and every group, queried live.
    pub(crate) async fn status(&self) -> Result<proto::ClusterStatus, Status> {
        let members = self.directory.members();
        let asks = members.iter().map(|(id, address)| async move {
            let asked = Instant::now();
            let said = if *id == self.node {
                Ok(self.node_status())
            } else {
                self.peers.node_status(*id, STATUS_DEADLINE).await
            };
            // A node that takes part in nothing counts as silent, with its reason.
            let said = match said {
                Ok(said) if !said.refused.is_empty() => Err(Silence::Refused(said.refused)),
                Ok(said) => Ok(said),
                Err(error) => Err(match self.doubt(*id) {
                    Some(doubt) => Silence::Doubted(doubt),
                    None => Silence::Call(error),
                }),
            };
            (*id, address.clone(), said, asked.elapsed())
        });
        let said = join_all(asks).await;
        let voters = self.voters(GroupId::CATALOG, &said_by(&said));
        let snapshot = ClusterSnapshot::of(said.iter().map(|(id, ..)| *id), said_by(&said));
        let current = self.is_current(&snapshot).await;
        // Read afterwards, so that it is as new as the state waited for.
        let placed = self.catalog.applied().placement();
        let moves: Vec<_> = snapshot.moving(&placed).into_iter().collect();
        let (left, moves_waiting) = snapshot.balance(&placed).moves_left();
        let moves_left = current.then_some(left + moves.len() as u64);
        let members = said.iter().map(|(id, address, said, latency)| {
            let ok = said.as_ref().ok();
            proto::Member {
                id: id.0,
                address: address.address.clone(),
                http: ok.map_or_else(|| address.http.clone(), |said| said.http.clone()),
                ok: ok.is_some(),
                error: said.as_ref().err().map_or_else(String::new, Silence::to_string),
                catalog_version: ok.map_or(0, |said| said.catalog_version),
                version: ok.map_or_else(String::new, |said| said.version.clone()),
                voter: voters.contains(&id.0),
                uptime_ms: ok.map_or(0, |said| said.uptime_ms),
                read_only: ok.map_or_else(String::new, |said| said.read_only.clone()),
                not_ready: ok.map_or_else(String::new, |said| said.not_ready.clone()),
                warning: ok.map_or_else(String::new, |said| said.warning.clone()),
                latency_ms: millis(*latency),
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
        let driven: Vec<_> =
            said_by.values().flat_map(|said| &said.driven_moves).copied().collect();
        let groups = all.map(|group| {
            let routes = routes.get(&group).copied().unwrap_or(0);
            self.group_status(group, routes, &said_by)
        });
        Ok(proto::ClusterStatus {
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            catalog_version: table.version(),
            members: members.collect(),
            groups: groups.collect(),
            moves_waiting: moves_left.map_or(0, |_| moves_waiting),
            moves_left,
            moves,
            replication: placed.replication() as u64,
            leaders_due: placed.leaders_due(),
            removed: self.removed().unwrap_or_default(),
            route_moves: with_progress(&self.catalog.applied().moves(), &driven),
        })
    }

    /// The doubt about a member, if another process claimed its id.
    fn doubt(&self, node: NodeId) -> Option<String> {
        self.groups.peers().roster()?.doubts().remove(&node)
    }

    /// Whether this node has applied all that the catalog group agreed on before the snapshot was
    /// taken, its members included. A node that has just started has not, and its list of moves is
    /// old.
    async fn is_current(&self, snapshot: &ClusterSnapshot) -> bool {
        let (Some(end), Some(group)) = (snapshot.catalog_end(), self.catalog.group()) else {
            return false;
        };
        if group.wait_applied(end, CURRENT_WITHIN).await.is_err() {
            return false;
        }
        let members = group.status().members;
        members.keys().eq(snapshot.nodes().iter().map(|node| &node.0))
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
        let leader = newest
            .map(|view| view.leader)
            .filter(|leader| views.get(leader).is_some_and(|view| leads_with_quorum(view)));
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
                    closed: view.map_or_else(String::new, |view| view.closed.clone()),
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

    /// The replicas of this node, including closed ones.
    fn peer_groups(&self) -> Vec<proto::PeerGroupStatus> {
        let open = self.groups.list().into_iter().map(|group| group_to_wire(&group));
        let closed = self.groups.closed().into_iter().map(|(group, reason)| {
            let (group_id, role) = (group.0, "closed".to_owned());
            proto::PeerGroupStatus { group_id, role, closed: reason, ..Default::default() }
        });
        open.chain(closed).collect()
    }

    fn driven_moves(&self) -> Vec<proto::PeerMoveProgress> {
        let driven = self.coordinator.move_counters().of_moves.lock();
        let told = driven.iter().map(|(id, copied)| proto::PeerMoveProgress {
            move_id: *id,
            rows: copied.rows,
            bytes: copied.bytes,
        });
        told.collect()
    }

    pub(crate) fn node_status(&self) -> proto::PeerStatusResponse {
        proto::PeerStatusResponse {
            moves_routes: true,
            keeps_journal: true,
            can: self.can(),
            node_id: self.node.0,
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            catalog_version: self.catalog.applied().table().version(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http: self.http.clone(),
            read_only: self.read_only().unwrap_or_default(),
            refused: self.refused(),
            not_ready: self.readiness().err().map_or_else(String::new, |error| error.to_string()),
            warning: self.security.warning().unwrap_or_default(),
            uptime_ms: millis(self.started.elapsed()),
            groups: self.peer_groups(),
            driven_moves: self.driven_moves(),
        }
    }
}

/// Why a member has no status.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Doubted(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

type Said = Vec<(
    NodeId,
    keyviz_directory::MemberAddress,
    Result<proto::PeerStatusResponse, Silence>,
    Duration,
)>;
type SaidBy<'a> = BTreeMap<u64, &'a proto::PeerStatusResponse>;

fn said_by(said: &Said) -> SaidBy<'_> {
    said.iter().filter_map(|(id, _, said, _)| Some((id.0, said.as_ref().ok()?))).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn view(said: &proto::PeerStatusResponse, group: GroupId) -> Option<&proto::PeerGroupStatus> {
    said.groups.iter().find(|view| view.group_id == group.0)
}

/// Whether a replica claims to lead with a recently confirmed quorum. One of an earlier version
/// reports no quorum.
fn leads_with_quorum(view: &proto::PeerGroupStatus) -> bool {
    let fresh = |age| u128::from(age) <= SERVED_WITHIN.as_millis();
    view.role == "leader" && view.quorum_age_ms.is_none_or(fresh)
}
