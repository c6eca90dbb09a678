//! How the catalog applies the commands of moves.

use std::sync::Arc;

use super::command::MoveCommand;
use super::error::MoveError;
use super::record::{EndedMove, MAX_ENDED_MOVES, MAX_MOVES, MAX_REASON_BYTES, MoveId};
use super::record::{MovePhase, RouteMove, RouteMoves};
use crate::limits::MAX_REQUEST_ID_BYTES;
use crate::machine::error::CatalogError;
use crate::machine::records::{self, RecordChange};
use crate::machine::state::{Catalog, check_time};
use crate::routes::route::{Delta, DeltaKind, Route};
use keyviz_types::{GroupId, RouteId};

/// A command of a move that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveApplied {
    /// The move.
    pub id: MoveId,
    /// The change of the routes, if the command made one.
    pub delta: Option<Arc<Delta>>,
    /// What to write, atomically with the log position that was applied.
    pub records: Vec<RecordChange>,
}

struct Start<'a> {
    route_id: RouteId,
    to: GroupId,
    expected_version: u64,
    request_id: &'a str,
    time_ms: u64,
}

impl Catalog {
    /// What is recorded of moves.
    pub fn moves(&self) -> &Arc<RouteMoves> {
        &self.moves
    }

    /// Carries out a command of a move, or refuses it and changes nothing. A command whose work was
    /// done before is carried out again without effect.
    ///
    /// # Errors
    /// Every reason that it can be refused for.
    pub fn apply_move(&mut self, command: &MoveCommand) -> Result<MoveApplied, MoveError> {
        if self.cluster.is_none() {
            return Err(CatalogError::NotBootstrapped.into());
        }
        match command {
            MoveCommand::Start { route_id, to, expected_version, request_id, time_ms } => self
                .start_move(Start {
                    route_id: *route_id,
                    to: *to,
                    expected_version: *expected_version,
                    request_id,
                    time_ms: *time_ms,
                }),
            MoveCommand::Cancel { route_id } => {
                let moving = self.moves.of_route(*route_id);
                let id = moving.ok_or(MoveError::NotMoving { route_id: *route_id })?.id;
                self.abandon(id, "it was cancelled", false)
            }
            MoveCommand::Abandon { id, reason, unsealable } => {
                self.abandon(*id, reason, *unsealable)
            }
            MoveCommand::Seal { id } => self.pass(*id, |phase| match phase {
                MovePhase::Copying | MovePhase::Sealing => Some(MovePhase::Sealing),
                MovePhase::Cleaning | MovePhase::Abandoning { .. } => None,
            }),
            MoveCommand::Commit { id, adopted_at, time_ms } => {
                self.commit_move(*id, *adopted_at, *time_ms)
            }
            MoveCommand::Finish { id, time_ms } => self.finish_move(*id, *time_ms),
        }
    }

    fn start_move(&mut self, start: Start<'_>) -> Result<MoveApplied, MoveError> {
        let Start { route_id, to, expected_version, request_id, time_ms } = start;
        if request_id.len() > MAX_REQUEST_ID_BYTES {
            return Err(CatalogError::RequestIdTooLong { len: request_id.len() as u64 }.into());
        }
        if let Some((id, route, group)) = self.requested(request_id) {
            if (route, group) != (route_id, to) {
                return Err(MoveError::RequestIdReused { id });
            }
            return Ok(MoveApplied { id, delta: None, records: Vec::new() });
        }
        let current = self.version();
        if expected_version != 0 && expected_version != current {
            let expected = expected_version;
            return Err(CatalogError::WrongVersion { expected, current }.into());
        }
        check_time(time_ms)?;
        let route = self.live(route_id)?.clone();
        if !self.placement.groups().contains_key(&to) {
            return Err(MoveError::UnknownGroup { group: to });
        }
        if let Some(moving) = self.moves.touching(&route.range) {
            let phase = moving.phase.name().to_owned();
            return Err(MoveError::Moving { route_id, id: moving.id, phase });
        }
        if route.group == to {
            return Err(MoveError::SameGroup { route_id, group: to });
        }
        if self.moves.under_way.len() >= MAX_MOVES {
            return Err(MoveError::TooMany);
        }
        let mut moves = RouteMoves::clone(&self.moves);
        moves.last_id = moves.last_id.checked_add(1).ok_or(CatalogError::Exhausted)?;
        let id = moves.last_id;
        moves.under_way.push(RouteMove {
            id,
            route_id,
            range: route.range,
            from: route.group,
            to,
            phase: MovePhase::Copying,
            started_ms: time_ms.max(self.table.changed_ms()),
            request_id: request_id.to_owned(),
            version: 0,
            moved_ms: 0,
        });
        let mut applied = self.record_moves(id, moves);
        let begun = self.moves.get(id).cloned();
        begun.iter().for_each(|moving| self.enter_move(moving, &mut applied.records));
        Ok(applied)
    }

    /// The move that a request was for.
    fn requested(&self, request_id: &str) -> Option<(MoveId, RouteId, GroupId)> {
        if request_id.is_empty() {
            return None;
        }
        let under_way = self
            .moves
            .under_way
            .iter()
            .map(|moving| (&moving.request_id, (moving.id, moving.route_id, moving.to)));
        let ended = self.moves.ended.iter();
        let ended = ended.map(|ended| (&ended.request_id, (ended.id, ended.route_id, ended.to)));
        under_way.chain(ended).find(|(of, _)| *of == request_id).map(|(_, found)| found)
    }

    fn abandon(
        &mut self,
        id: MoveId,
        reason: &str,
        unsealable: bool,
    ) -> Result<MoveApplied, MoveError> {
        let phase = self.under_way(id)?.phase.clone();
        match phase {
            MovePhase::Copying => {}
            MovePhase::Sealing if unsealable => {}
            MovePhase::Abandoning { .. } => {
                return Ok(MoveApplied { id, delta: None, records: Vec::new() });
            }
            MovePhase::Sealing | MovePhase::Cleaning => {
                return Err(MoveError::TooLate { id, phase: phase.name().to_owned() });
            }
        }
        let cut = (0..=MAX_REASON_BYTES.min(reason.len())).rev();
        let cut = cut.into_iter().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        let reason = reason[..cut].to_owned();
        self.pass(id, |_| Some(MovePhase::Abandoning { reason }))
    }

    /// Takes a move to the phase that follows from its own.
    fn pass(
        &mut self,
        id: MoveId,
        next: impl FnOnce(&MovePhase) -> Option<MovePhase>,
    ) -> Result<MoveApplied, MoveError> {
        let phase = &self.under_way(id)?.phase;
        let Some(next) = next(phase) else {
            return Err(MoveError::OutOfOrder { id, phase: phase.name().to_owned() });
        };
        if next == *phase {
            return Ok(MoveApplied { id, delta: None, records: Vec::new() });
        }
        let mut moves = RouteMoves::clone(&self.moves);
        moves.under_way.iter_mut().filter(|moving| moving.id == id).for_each(|moving| {
            moving.phase = next.clone();
        });
        Ok(self.record_moves(id, moves))
    }

    fn commit_move(
        &mut self,
        id: MoveId,
        adopted_at: u64,
        time_ms: u64,
    ) -> Result<MoveApplied, MoveError> {
        let moving = self.under_way(id)?.clone();
        match moving.phase {
            MovePhase::Sealing => {}
            MovePhase::Cleaning => {
                return Ok(MoveApplied { id, delta: None, records: Vec::new() });
            }
            MovePhase::Copying | MovePhase::Abandoning { .. } => {
                let phase = moving.phase.name().to_owned();
                return Err(MoveError::OutOfOrder { id, phase });
            }
        }
        check_time(time_ms)?;
        let version = self.version().checked_add(1).ok_or(CatalogError::Exhausted)?;
        let time_ms = time_ms.max(self.table.changed_ms());
        // A route that moves keeps its id and its origin: it is the same one.
        self.live(moving.route_id)?;
        let route = self.table.by_id(moving.route_id);
        let Route { mut spec, origin } = route.expect("it was just found");
        spec.group = moving.to;
        let delta = Arc::new(Delta {
            version,
            kind: DeltaKind::Move,
            time_ms,
            retired: vec![moving.route_id],
            created: vec![Route { spec, origin }],
        });
        let mut applied = self.commit(Arc::clone(&delta), "");
        let mut moves = RouteMoves::clone(&self.moves);
        moves.last_change = (version, time_ms);
        let adopted = moves.adopted.entry(moving.to).or_default();
        *adopted = adopted_at.max(*adopted);
        moves.under_way.iter_mut().filter(|moving| moving.id == id).for_each(|moving| {
            moving.phase = MovePhase::Cleaning;
            (moving.version, moving.moved_ms) = (version, time_ms);
        });
        let recorded = self.record_moves(id, moves);
        applied.records.extend(recorded.records);
        Ok(MoveApplied { id, delta: Some(delta), records: applied.records })
    }

    fn finish_move(&mut self, id: MoveId, time_ms: u64) -> Result<MoveApplied, MoveError> {
        let Ok(moving) = self.under_way(id) else {
            if id == 0 || id > self.moves.last_id {
                return Err(MoveError::NotUnderWay { id });
            }
            return Ok(MoveApplied { id, delta: None, records: Vec::new() });
        };
        check_time(time_ms)?;
        let reason = match &moving.phase {
            MovePhase::Cleaning => String::new(),
            MovePhase::Abandoning { reason } => reason.clone(),
            MovePhase::Copying | MovePhase::Sealing => {
                let phase = moving.phase.name().to_owned();
                return Err(MoveError::OutOfOrder { id, phase });
            }
        };
        let moving = moving.clone();
        let mut moves = RouteMoves::clone(&self.moves);
        moves.under_way.retain(|moving| moving.id != id);
        let ended = EndedMove {
            id,
            route_id: moving.route_id,
            from: moving.from,
            to: moving.to,
            started_ms: moving.started_ms,
            ended_ms: time_ms.max(self.table.changed_ms()).max(moving.started_ms),
            request_id: moving.request_id,
            version: moving.version,
            moved_ms: moving.moved_ms,
            reason,
        };
        moves.ended.push_back(ended.clone());
        while moves.ended.len() > MAX_ENDED_MOVES {
            moves.ended.pop_front();
        }
        let mut applied = self.record_moves(id, moves);
        self.enter_end_of_move(&ended, &mut applied.records);
        Ok(applied)
    }

    fn under_way(&self, id: MoveId) -> Result<&RouteMove, MoveError> {
        self.moves.get(id).ok_or(MoveError::NotUnderWay { id })
    }

    fn record_moves(&mut self, id: MoveId, moves: RouteMoves) -> MoveApplied {
        self.moves = Arc::new(moves);
        MoveApplied { id, delta: None, records: vec![records::put_moves(&self.moves)] }
    }

    /// Refuses a change of a route whose keys are on their way.
    pub(crate) fn check_held(&self, route_id: RouteId) -> Result<(), CatalogError> {
        let range = &self.live(route_id)?.range;
        match self.moves.holding(range) {
            Some(held) => Err(CatalogError::Moving { route_id, move_id: held.id }),
            None => Ok(()),
        }
    }
}
