//! The `Routes` service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use keyviz_catalog::{
    CatalogCommand, ChangesError, Delta, Retired, Route, RouteTable, Subscription, WatchEvent,
};
use keyviz_catalog_group::CatalogGroup;
use keyviz_directory::{Directory, MembershipState};
use keyviz_kv::KvError;
use keyviz_proto as proto;
use keyviz_proto::watch_routes_response::Event;
use keyviz_raft::Groups;
use keyviz_types::{NodeId, RouteId};

use super::move_wire;
use super::route_status::change_status;
use keyviz_peer::PeerClient;
use keyviz_peer::status::kv_status;
use keyviz_proto::metadata::NOT_APPLIED_METADATA;

/// Interval of progress messages to an idle subscriber.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Routes in one message of a snapshot: 8 MiB with keys of maximum length.
const SNAPSHOT_ROUTES: usize = 1_024;

/// Maximum number of changes and of retired routes in one answer.
const MAX_HISTORY: usize = 1_024;

/// Version of the bootstrap, which is not among the retained changes.
const BOOTSTRAP_VERSION: u64 = 1;

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

    /// All routes as applied here.
    pub(crate) fn list(&self) -> Result<proto::ListRoutesResponse, Status> {
        self.check_member()?;
        // The published table rather than the applied one, which may not be written yet: a watch
        // after the listed version must not be ahead of the node.
        let table = self.catalog.applied().hub().table();
        Ok(proto::ListRoutesResponse {
            catalog_version: table.version(),
            routes: table.iter().map(|route| self.route_to_wire(&route)).collect(),
            cluster_id: self.cluster_id(),
            moves: move_wire::under_way(&self.catalog.applied().moves()),
        })
    }

    fn route_to_wire(&self, route: &Route) -> proto::Route {
        let group = route.group();
        let leader = match self.groups.get(group) {
            Some(local) => local.served_by().ok().map(NodeId),
            None => self.directory.leader_hint(group).filter(|leader| !self.is_silent(*leader)),
        };
        route_to_wire(route, leader)
    }

    /// Whether a node was not reached when it was last called.
    fn is_silent(&self, node: NodeId) -> bool {
        self.groups.peers().roster().is_some_and(|roster| roster.is_silent(node))
    }

    fn history(&self, asked: &proto::RouteHistoryRequest) -> proto::RouteHistoryResponse {
        let most = match asked.limit as usize {
            0 => MAX_HISTORY,
            limit => limit.min(MAX_HISTORY),
        };
        let after = asked.after_version;
        self.catalog.applied().with(|catalog| {
            let later = catalog.log().filter(|delta| delta.version > after);
            let retired = catalog.lineage().filter(|old| old.retired_version > after);
            let (changes, retired): (Vec<_>, Vec<_>) = (later.collect(), retired.collect());
            let (skip, skip_retired) =
                (changes.len().saturating_sub(most), retired.len().saturating_sub(most));
            // The retained changes begin after the requested version.
            let hole = changes
                .first()
                .is_some_and(|first| first.version > after.max(BOOTSTRAP_VERSION) + 1);
            proto::RouteHistoryResponse {
                catalog_version: catalog.version(),
                changes: changes[skip..].iter().map(|delta| delta_to_wire(delta)).collect(),
                retired: retired[skip_retired..].iter().map(|old| retired_to_wire(old)).collect(),
                truncated: hole || skip > 0 || skip_retired > 0,
                cluster_id: self.cluster_id(),
                moves: move_wire::all(catalog.moves()),
            }
        })
    }

    async fn change(&self, command: CatalogCommand) -> Result<proto::RouteChangeResponse, Status> {
        self.check_member()?;
        let delta = self.catalog.change(&command, self.timeout).await.map_err(change_status)?;
        Ok(proto::RouteChangeResponse {
            catalog_version: delta.version,
            created: delta.created.iter().map(|route| self.route_to_wire(route)).collect(),
            retired: delta.retired.iter().map(|id| id.get()).collect(),
            cluster_id: self.cluster_id(),
        })
    }
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
    type WatchRoutesStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchRoutesResponse, Status>> + Send>>;

    async fn list_routes(
        &self,
        _request: Request<proto::ListRoutesRequest>,
    ) -> Result<Response<proto::ListRoutesResponse>, Status> {
        self.0.list().map(Response::new)
    }

    async fn split_route(
        &self,
        request: Request<proto::SplitRouteRequest>,
    ) -> Result<Response<proto::RouteChangeResponse>, Status> {
        let split = request.into_inner();
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
        let proto::WatchRoutesRequest { after_version, cluster_id } = request.into_inner();
        let ours = self.0.cluster_id();
        // At an equal version another cluster has other routes.
        let foreign = after_version > 0 && !cluster_id.is_empty() && cluster_id != ours;
        let after = if foreign { 0 } else { after_version };
        let subscription = self.0.catalog.applied().hub().subscribe(after).map_err(|error| {
            let message = error.to_string();
            match error {
                ChangesError::CursorAhead { .. } => Status::out_of_range(message),
                ChangesError::Hole { .. } => Status::data_loss(message),
            }
        })?;
        let watch = Watch { subscription, pending: Vec::new(), foreign, cluster_id: Some(ours) };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|response| (Ok(response), watch))
        });
        let stream = stream.take_until(self.0.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One subscriber's stream.
struct Watch {
    subscription: Subscription,
    /// The rest of a snapshot, last message first.
    pending: Vec<proto::RouteSnapshot>,
    /// It came with a version of another cluster, and has not received the reset yet.
    foreign: bool,
    /// Until it is told.
    cluster_id: Option<String>,
}

impl Watch {
    async fn next(&mut self) -> Option<proto::WatchRoutesResponse> {
        let mut response = self.next_event().await?;
        response.cluster_id = self.cluster_id.take().unwrap_or_default();
        Some(response)
    }

    async fn next_event(&mut self) -> Option<proto::WatchRoutesResponse> {
        if let Some(part) = self.pending.pop() {
            return Some(response(Event::Snapshot(part)));
        }
        let event = match tokio::time::timeout(PROGRESS_EVERY, self.subscription.next()).await {
            Ok(event) => event?,
            Err(_) => match self.subscription.progress() {
                Some(progress) => progress,
                None => self.subscription.next().await?,
            },
        };
        Some(response(match event {
            WatchEvent::Snapshot { table, reset } => {
                let reset = reset || std::mem::take(&mut self.foreign);
                self.pending = snapshot_messages(&table, reset);
                self.pending.reverse();
                Event::Snapshot(self.pending.pop()?)
            }
            WatchEvent::Deltas(deltas) => {
                let deltas = deltas.iter().map(|delta| delta_to_wire(delta)).collect();
                Event::Deltas(proto::RouteDeltas { deltas })
            }
            WatchEvent::Progress(catalog_version) => {
                Event::Progress(proto::RouteProgress { catalog_version })
            }
        }))
    }
}

fn response(event: Event) -> proto::WatchRoutesResponse {
    proto::WatchRoutesResponse { event: Some(event), cluster_id: String::new() }
}

/// A table as messages, at least one.
fn snapshot_messages(table: &RouteTable, reset: bool) -> Vec<proto::RouteSnapshot> {
    let catalog_version = table.version();
    let routes: Vec<proto::Route> = table.iter().map(|route| route_to_wire(&route, None)).collect();
    let parts = routes.chunks(SNAPSHOT_ROUTES);
    let last = parts.len().saturating_sub(1);
    let mut messages: Vec<proto::RouteSnapshot> = parts
        .enumerate()
        .map(|(index, part)| proto::RouteSnapshot {
            catalog_version,
            routes: part.to_vec(),
            more: index < last,
            reset,
        })
        .collect();
    if messages.is_empty() {
        messages.push(proto::RouteSnapshot { catalog_version, reset, ..Default::default() });
    }
    messages
}

pub(crate) fn route_id(name: &str, id: u64) -> Result<RouteId, Status> {
    RouteId::new(id)
        .ok_or_else(|| Status::invalid_argument(format!("{name} is 0; route ids start at 1")))
}

/// A retry within the server must not apply a change twice, so each change gets an id.
pub(crate) fn request_id(given: String) -> String {
    if given.is_empty() { format!("server-{:032x}", rand::random::<u128>()) } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_still_one_message() {
        let messages = snapshot_messages(&RouteTable::empty(), false);
        assert_eq!(messages.len(), 1);
        assert!(!messages[0].more);
    }
}
