//! Moves of routes: the calls of the `Routes` service that begin and end them.

use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_catalog::{MoveCommand, MoveId};
use keyviz_peer::snapshot::STATUS_DEADLINE;
use keyviz_proto as proto;
use keyviz_proto::metadata::NOT_APPLIED_METADATA;
use keyviz_types::{GroupId, NodeId};

use super::move_wire::all;
use super::route_status::change_status;
use super::routes::{RoutesService, request_id, route_id};
use crate::audit;

impl RoutesService {
    pub(crate) async fn move_route(
        &self,
        request: proto::MoveRouteRequest,
    ) -> Result<proto::MoveRouteResponse, Status> {
        let (route, to) = (request.route_id, request.to_group);
        audit::note(format_args!("move route {route} to group {to}"));
        self.check_member()?;
        self.check_cluster(&request.cluster_id)?;
        let command = MoveCommand::Start {
            route_id: route_id("route_id", request.route_id)?,
            to: GroupId(request.to_group),
            expected_version: request.expected_version,
            request_id: request_id(request.request_id),
            time_ms: 0,
        };
        self.check_all_know_moves().await?;
        let id = self.catalog.change_move(&command, self.timeout).await.map_err(change_status)?;
        Ok(proto::MoveRouteResponse {
            r#move: self.known(id),
            catalog_version: self.catalog.applied().hub().table().version(),
            cluster_id: self.cluster_id(),
        })
    }

    pub(crate) async fn cancel_move(
        &self,
        request: proto::CancelMoveRequest,
    ) -> Result<proto::CancelMoveResponse, Status> {
        audit::note(format_args!("cancel the move of route {}", request.route_id));
        self.check_member()?;
        self.check_cluster(&request.cluster_id)?;
        let command = MoveCommand::Cancel { route_id: route_id("route_id", request.route_id)? };
        let id = self.catalog.change_move(&command, self.timeout).await.map_err(change_status)?;
        Ok(proto::CancelMoveResponse { r#move: self.known(id) })
    }

    fn known(&self, id: MoveId) -> Option<proto::RouteMove> {
        all(&self.catalog.applied().moves()).into_iter().find(|known| known.move_id == id)
    }

    /// Before the first move of a cluster: a version that knows no moves cannot apply what they
    /// write. After it such a version cannot open the catalog, so nobody needs to be asked again.
    async fn check_all_know_moves(&self) -> Result<(), Status> {
        if !self.catalog.applied().moves().is_empty() {
            return Ok(());
        }
        let members = self.directory.members();
        let others = members.keys().copied().filter(|node| *node != self.node);
        let asked = futures::future::join_all(others.map(|node| self.knows_moves(node))).await;
        asked.into_iter().collect()
    }

    async fn knows_moves(&self, node: NodeId) -> Result<(), Status> {
        let reason = match self.peers.node_status(node, STATUS_DEADLINE).await {
            Ok(status) if status.moves_routes => return Ok(()),
            Ok(status) => format!("runs version {}, which does not", status.version),
            Err(reason) => format!("does not answer: {reason}"),
        };
        let mut status = Status::failed_precondition(format!(
            "before the first move of a cluster all members must answer and be of a version that \
             knows moves; node {node} {reason}"
        ));
        status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
        Err(status)
    }
}
