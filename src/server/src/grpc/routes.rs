//! The `Routes` service.

mod pages;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use keyviz_catalog::{CatalogCommand, Delta, Retired, Route};
use keyviz_catalog_group::CatalogGroup;
use keyviz_directory::{Directory, MembershipState};
use keyviz_kv::KvError;
use keyviz_proto as proto;
use keyviz_raft::Groups;
use keyviz_types::{GroupId, NodeId, RouteId};

use super::route_status::change_status;
use crate::audit;
use keyviz_peer::PeerClient;
use keyviz_peer::status::kv_status;
use keyviz_proto::metadata::NOT_APPLIED_METADATA;

/// Routes as a stream.
type RouteStream = Pin<Box<dyn Stream<Item = Result<proto::ListRoutesResponse, Status>> + Send>>;

pub(crate) struct RoutesService {
    pub(crate) node: NodeId,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) groups: Groups,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<PeerClient>,
    pub(crate) timeout: Duration,
    /// Ends every watch when the node stops.
    pub(crate) stop: CancellationToken,
}

impl RoutesService {
    /// Refuses if this node is no longer a member, because its routes are outdated.
    pub(crate) fn check_member(&self) -> Result<(), Status> {
        match self.directory.membership_state() {
            MembershipState::Member | MembershipState::Asking => Ok(()),
            MembershipState::Removed => Err(kv_status(KvError::Removed { node: self.node })),
            MembershipState::Refused => {
                let reason = self.directory.refusal().as_str().to_owned();
                Err(kv_status(KvError::Refused { reason }))
            }
        }
    }

    /// The cluster that catalog versions are of.
    pub(crate) fn cluster_id(&self) -> String {
        self.directory.cluster_id().as_str().to_owned()
    }

    /// Refuses a catalog version of another cluster, or of this one before it was restored.
    pub(crate) fn check_cluster(&self, asked: &str) -> Result<(), Status> {
        let ours = self.directory.cluster_id();
        if asked.is_empty() || asked == ours.as_str() {
            return Ok(());
        }
        if ours.is_empty() {
            return Err(kv_status(KvError::NotReady));
        }
        let mut status = Status::failed_precondition(format!(
            "the catalog version is of cluster {asked}, and this is cluster {ours}: another \
             cluster, or the same after a restore; read the routes again"
        ));
        status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
        Err(status)
    }

    fn route_to_wire(&self, route: &Route) -> proto::Route {
        route_to_wire(route, self.leader_of(route.group()))
    }

    /// The node that leads a group, as this node knows.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        match self.groups.get(group) {
            Some(local) => local.served_by().ok().map(NodeId),
            None => self.directory.leader_hint(group).filter(|leader| !self.is_silent(*leader)),
        }
    }

    /// Whether a node was not reached when it was last called.
    fn is_silent(&self, node: NodeId) -> bool {
        self.groups.peers().roster().is_some_and(|roster| roster.is_silent(node))
    }

    async fn change(&self, command: CatalogCommand) -> Result<proto::RouteChangeResponse, Status> {
        self.check_member()?;
        let delta = self.catalog.change(&command, self.timeout).await.map_err(change_status)?;
        audit::note(changed_words(&delta));
        Ok(proto::RouteChangeResponse {
            catalog_version: delta.version,
            created: delta.created.iter().map(|route| self.route_to_wire(route)).collect(),
            retired: delta.retired.iter().map(|id| id.get()).collect(),
            cluster_id: self.cluster_id(),
        })
    }
}

/// A change for the audit log: ids alone.
fn changed_words(delta: &Delta) -> String {
    fn ids(of: impl Iterator<Item = RouteId>) -> String {
        of.map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
    }
    let (kind, version) = (delta.kind.name(), delta.version);
    let created = ids(delta.created.iter().map(Route::id));
    format!("{kind}: {} became {created} at version {version}", ids(delta.retired.iter().copied()))
}

fn route_to_wire(route: &Route, leader: Option<NodeId>) -> proto::Route {
    proto::Route {
        route_id: route.id().get(),
        start: route.range().start.clone(),
        end: route.range().end.clone(),
        group_id: route.group().0,
        leader: leader.map(|leader| leader.0),
        parents: route.origin.parents.iter().map(RouteId::get).collect(),
        created_version: route.origin.created_version,
        created_ms: route.origin.created_ms,
    }
}

fn delta_to_wire(delta: &Delta) -> proto::RouteDelta {
    proto::RouteDelta {
        catalog_version: delta.version,
        kind: delta.kind.name().to_owned(),
        time_ms: delta.time_ms,
        retired: delta.retired.iter().map(|id| id.get()).collect(),
        created: delta.created.iter().map(|route| route_to_wire(route, None)).collect(),
    }
}

fn retired_to_wire(old: &Retired) -> proto::RetiredRoute {
    proto::RetiredRoute {
        route: Some(route_to_wire(&old.route, None)),
        retired_version: old.retired_version,
        retired_ms: old.retired_ms,
        children: old.children.iter().map(RouteId::get).collect(),
    }
}

/// One gRPC service over shared state.
#[derive(Clone)]
pub(crate) struct SharedRoutes(pub(crate) Arc<RoutesService>);

#[tonic::async_trait]
impl proto::routes_server::Routes for SharedRoutes {
    type StreamRoutesStream = RouteStream;
    type WatchRoutesStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchRoutesResponse, Status>> + Send>>;

    async fn list_routes(
        &self,
        request: Request<proto::ListRoutesRequest>,
    ) -> Result<Response<proto::ListRoutesResponse>, Status> {
        self.0.list(&request.into_inner()).map(Response::new)
    }

    async fn stream_routes(
        &self,
        request: Request<proto::ListRoutesRequest>,
    ) -> Result<Response<RouteStream>, Status> {
        self.0.stream(&request.into_inner()).map(Response::new)
    }

    async fn split_route(
        &self,
        request: Request<proto::SplitRouteRequest>,
    ) -> Result<Response<proto::RouteChangeResponse>, Status> {
        let split = request.into_inner();
        audit::note(format_args!("split route {}", split.route_id));
        self.0.check_cluster(&split.cluster_id)?;
        let command = CatalogCommand::Split {
            route_id: route_id("route_id", split.route_id)?,
            key: split.key.to_vec(),
            expected_version: split.expected_version,
            request_id: request_id(split.request_id),
            time_ms: 0,
        };
        self.0.change(command).await.map(Response::new)
    }

    async fn merge_routes(
        &self,
        request: Request<proto::MergeRoutesRequest>,
    ) -> Result<Response<proto::RouteChangeResponse>, Status> {
        let merge = request.into_inner();
        audit::note(format_args!("merge routes {} and {}", merge.left_id, merge.right_id));
        self.0.check_cluster(&merge.cluster_id)?;
        let command = CatalogCommand::Merge {
            left_id: route_id("left_id", merge.left_id)?,
            right_id: route_id("right_id", merge.right_id)?,
            expected_version: merge.expected_version,
            request_id: request_id(merge.request_id),
            time_ms: 0,
        };
        self.0.change(command).await.map(Response::new)
    }

    async fn move_route(
        &self,
        request: Request<proto::MoveRouteRequest>,
    ) -> Result<Response<proto::MoveRouteResponse>, Status> {
        self.0.move_route(request.into_inner()).await.map(Response::new)
    }

    async fn cancel_move(
        &self,
        request: Request<proto::CancelMoveRequest>,
    ) -> Result<Response<proto::CancelMoveResponse>, Status> {
        self.0.cancel_move(request.into_inner()).await.map(Response::new)
    }

    async fn route_history(
        &self,
        request: Request<proto::RouteHistoryRequest>,
    ) -> Result<Response<proto::RouteHistoryResponse>, Status> {
        self.0.check_member()?;
        let asked = request.into_inner();
        self.0.check_cluster(&asked.cluster_id)?;
        Ok(Response::new(self.0.history(&asked)))
    }

    async fn watch_routes(
        &self,
        request: Request<proto::WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        self.0.check_member()?;
        let stream = self.0.watch(request.into_inner())?;
        let stream = stream.take_until(self.0.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }
}

pub(crate) fn route_id(name: &str, id: u64) -> Result<RouteId, Status> {
    RouteId::new(id)
        .ok_or_else(|| Status::invalid_argument(format!("{name} is 0; route ids start at 1")))
}

/// A retry within the server must not apply a change twice, so each change gets an id.
pub(crate) fn request_id(given: String) -> String {
    if given.is_empty() { format!("server-{:032x}", rand::random::<u128>()) } else { given }
}
