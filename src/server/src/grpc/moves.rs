//! Moves of routes: the calls of the `Routes` service that begin and end them.

use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_catalog::{EndedMove, MoveCommand, MoveError, MoveId, MovePhase, RouteMove, RouteMoves};
use keyviz_peer::snapshot::STATUS_DEADLINE;
use keyviz_proto as proto;
use keyviz_proto::metadata::NOT_APPLIED_METADATA;
use keyviz_types::{GroupId, NodeId};

use super::routes::{RoutesService, change_status, refusal_status as route_refusal_status};
use super::routes::{request_id, route_id};

impl RoutesService {
    pub(crate) async fn move_route(
        &self,
        request: proto::MoveRouteRequest,
    ) -> Result<proto::MoveRouteResponse, Status> {
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

pub(crate) fn refusal_status(refusal: &MoveError) -> Status {
    let message = refusal.to_string();
    let mut status = match refusal {
        MoveError::Route(refusal) => return route_refusal_status(refusal),
        MoveError::UnknownGroup { .. } => Status::not_found(message),
        MoveError::SameGroup { .. } | MoveError::RequestIdReused { .. } => {
            Status::invalid_argument(message)
        }
        MoveError::TooMany => Status::resource_exhausted(message),
        MoveError::Moving { .. }
        | MoveError::NotMoving { .. }
        | MoveError::NotUnderWay { .. }
        | MoveError::TooLate { .. }
        | MoveError::OutOfOrder { .. } => Status::failed_precondition(message),
    };
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

/// The moves under way.
pub(crate) fn under_way(moves: &RouteMoves) -> Vec<proto::RouteMove> {
    moves.under_way().iter().map(under_way_to_wire).collect()
}

/// The remembered moves that ended, and those under way.
pub(crate) fn all(moves: &RouteMoves) -> Vec<proto::RouteMove> {
    moves.ended().map(ended_to_wire).chain(under_way(moves)).collect()
}

fn under_way_to_wire(moving: &RouteMove) -> proto::RouteMove {
    proto::RouteMove {
        move_id: moving.id,
        route_id: moving.route_id.get(),
        from_group: moving.from.0,
        to_group: moving.to.0,
        phase: moving.phase.name().to_owned(),
        started_ms: moving.started_ms,
        ended_ms: 0,
        moved_version: moving.version,
        moved_ms: moving.moved_ms,
        reason: match &moving.phase {
            MovePhase::Abandoning { reason } => reason.clone(),
            _ => String::new(),
        },
    }
}

fn ended_to_wire(ended: &EndedMove) -> proto::RouteMove {
    proto::RouteMove {
        move_id: ended.id,
        route_id: ended.route_id.get(),
        from_group: ended.from.0,
        to_group: ended.to.0,
        phase: if ended.version > 0 { "moved" } else { "abandoned" }.to_owned(),
        started_ms: ended.started_ms,
        ended_ms: ended.ended_ms,
        moved_version: ended.version,
        moved_ms: ended.moved_ms,
        reason: ended.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_catalog::CatalogError;
    use keyviz_types::RouteId;
    use tonic::Code;

    #[test]
    fn refused_moves_have_the_statuses_of_the_interface() {
        let (id, group) = (RouteId::FIRST, GroupId(9));
        let code = |refusal| refusal_status(&refusal).code();
        assert_eq!(code(MoveError::UnknownGroup { group }), Code::NotFound);
        assert_eq!(code(MoveError::SameGroup { route_id: id, group }), Code::InvalidArgument);
        assert_eq!(code(MoveError::TooMany), Code::ResourceExhausted);
        assert_eq!(code(MoveError::NotMoving { route_id: id }), Code::FailedPrecondition);
        let unknown = CatalogError::UnknownRoute { route_id: id };
        assert_eq!(code(MoveError::Route(unknown)), Code::NotFound);
    }
}
