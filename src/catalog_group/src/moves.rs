//! Commands of moves in the catalog's log.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use keyviz_catalog::{MoveCommand, MoveError, MoveId, RouteMoves};

use super::group::{CatalogChangeError, CatalogGroup};
use super::replies;

impl CatalogGroup {
    /// Carries out a command of a move through the leader, and waits until it is applied here too;
    /// returns the move. A command that is repeated has no further effect; one that starts a move
    /// needs a request id for that.
    ///
    /// # Errors
    /// It was refused, or nobody can tell whether it was carried out.
    pub async fn change_move(
        &self,
        command: &MoveCommand,
        timeout: Duration,
    ) -> Result<MoveId, CatalogChangeError> {
        let repeatable = match command {
            MoveCommand::Start { request_id, .. } => !request_id.is_empty(),
            // Repeated, it would say that the route is not being moved.
            MoveCommand::Cancel { .. } => false,
            _ => true,
        };
        let encoded = Bytes::from(command.encode()?);
        let deadline = Instant::now() + timeout;
        let reply = self.propose(encoded, repeatable, deadline).await?;
        let id = replies::decode::<Result<MoveId, MoveError>>(&reply)??;
        self.wait_for_move(id, command, deadline).await;
        Ok(id)
    }

    /// A caller that changed a move here sees the change here. Late is not lost, so this gives up
    /// quietly at the deadline.
    async fn wait_for_move(&self, id: MoveId, command: &MoveCommand, deadline: Instant) {
        let mut moves = self.applied().watch_moves();
        let seen = moves.wait_for(|moves| shows(moves, id, command));
        let _ = tokio::time::timeout_at(deadline, seen).await;
    }
}

/// Whether the moves show that a command was carried out.
fn shows(moves: &RouteMoves, id: MoveId, command: &MoveCommand) -> bool {
    let ended = moves.ended().any(|ended| ended.id == id);
    let Some(moving) = moves.get(id) else { return ended };
    let name = moving.phase.name();
    match command {
        MoveCommand::Start { .. } => true,
        MoveCommand::Cancel { .. } | MoveCommand::Abandon { .. } => name == "abandoning",
        MoveCommand::Seal { .. } => name != "copying",
        MoveCommand::Commit { .. } => name == "cleaning",
        MoveCommand::Finish { .. } => false,
    }
}
