//! Moves of routes as messages.

use keyviz_catalog::{EndedMove, MovePhase, RouteMove, RouteMoves};
use keyviz_proto as proto;

/// The moves under way.
pub(crate) fn under_way(moves: &RouteMoves) -> Vec<proto::RouteMove> {
    moves.under_way().iter().map(under_way_to_wire).collect()
}

/// The moves under way, with what their drivers say of them.
pub(crate) fn with_progress(
    moves: &RouteMoves,
    driven: &[proto::PeerMoveProgress],
) -> Vec<proto::RouteMove> {
    let mut under_way = under_way(moves);
    for moving in &mut under_way {
        // A former driver forgets a move once it hears that it leads no longer.
        let told = driven.iter().filter(|told| told.move_id == moving.move_id);
        if let Some(most) = told.max_by_key(|told| told.bytes) {
            (moving.copied_rows, moving.copied_bytes) = (Some(most.rows), Some(most.bytes));
        }
    }
    under_way
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
        copied_rows: None,
        copied_bytes: None,
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
        copied_rows: None,
        copied_bytes: None,
    }
}
