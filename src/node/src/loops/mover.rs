//! Moves routes to other groups, on the node that leads the catalog group.
//!
//! What a move has come to is recorded: its phase in the catalog, and what the target has taken in
//! the target's own log. So this can be killed anywhere, and the next leader's goes on; and while
//! two of them believe that they lead, each step is made once, whoever's it is.
//!
//! ```text
//!   copying     Track at the source, Receive at the target; rows and noted keys, chunk by chunk,
//!               until the noted keys that are left fit in one; recorded as sealing
//!   sealing     Seal at the source; the last noted keys; Adopt at the target; committed
//!   cleaning    Clear at the source until it has no row of the range; finished
//!   abandoning  Untrack at the source, Drop at the target; finished
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use keyviz_catalog::{MoveCommand, MoveError, MoveId, MovePhase, RouteMove};
use keyviz_catalog_group::{CatalogChangeError, CatalogGroup};
use keyviz_kv::{
    Coordinator, KvError, MoveChunk, MoveEntry, MoveRead, MoveRefusal, MoveReply, Progress,
};
use keyviz_types::GroupId;

use super::pace::Pace;

/// Whether this node leads is looked at this often, and what is under way with it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The pause after a step that could not be made.
const AGAIN: Duration = Duration::from_millis(200);

/// A change of the catalog takes so long at most.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// A move whose steps fail for so long is taken back, while it can be.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Chunks of rows between two of noted keys.
const CHUNKS_A_ROUND: u32 = 8;

/// Noted keys are copied for so long after the last row. If they still do not fit in one chunk,
/// the move is taken back.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);

/// What a simulation leaves out, to show that it is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Omission {
    /// The target takes over before the source seals.
    Seal,
    /// The keys that changed last are not copied.
    Tail,
    /// A chunk that was sent before is sent again as a new one.
    Order,
    /// The source keeps its rows.
    Clear,
}

/// What moving needs.
pub(crate) struct Mover {
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) coordinator: Arc<Coordinator>,
    /// Bytes a second of rows that are copied, over all moves; 0: no limit.
    pub(crate) bytes_per_s: u64,
    pub(crate) pace: Pace,
    pub(crate) omits: Option<Omission>,
    pub(crate) stop: CancellationToken,
}

/// Why a move cannot go on.
enum Trouble {
    /// It may go on later.
    Waits(String),
    /// It must be taken back.
    Never(String),
    /// It must be taken back although it was to be sealed: the source refuses, now and for ever.
    Unsealable(String),
}

impl From<KvError> for Trouble {
    fn from(error: KvError) -> Self {
        match error {
            KvError::DiskFull { .. } => Trouble::Never(error.to_string()),
            error => Trouble::Waits(error.to_string()),
        }
    }
}

impl From<CatalogChangeError> for Trouble {
    fn from(error: CatalogChangeError) -> Self {
        Trouble::Waits(error.to_string())
    }
}

/// Trouble from a reply that the step does not expect.
fn unexpected(group: GroupId, reply: &MoveReply) -> Trouble {
    match reply {
        MoveReply::Refused(refusal @ MoveRefusal::Busy) => {
            Trouble::Waits(format!("group {group}: {refusal}"))
        }
        MoveReply::Refused(refusal) => Trouble::Never(format!("group {group}: {refusal}")),
        reply => Trouble::Waits(format!("group {group} said {reply:?}")),
    }
}

/// The task of a move; aborted when this is dropped.
struct Driving(JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Mover {
    /// The mover of a node.
    pub(crate) fn new(
        catalog: &Arc<CatalogGroup>,
        coordinator: &Arc<Coordinator>,
        bytes_per_s: u64,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Mover {
            catalog: Arc::clone(catalog),
            coordinator: Arc::clone(coordinator),
            bytes_per_s,
            pace: Pace::default(),
            omits: None,
            stop: stop.clone(),
        })
    }

    /// Runs until stopped. On a node that does not lead the catalog group it only waits.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut watch = self.catalog.applied().watch_moves();
        let mut driving: BTreeMap<MoveId, Driving> = BTreeMap::new();
        loop {
            let moves = Arc::clone(&watch.borrow_and_update());
            let leads = self.catalog.group().is_some_and(|group| group.is_leader());
            driving.retain(|id, task| leads && moves.get(*id).is_some() && !task.0.is_finished());
            let counters = self.coordinator.move_counters();
            counters.of_moves.lock().retain(|id, _| driving.contains_key(id));
            for moving in moves.under_way().iter().filter(|_| leads) {
                driving
                    .entry(moving.id)
                    .or_insert_with(|| Driving(tokio::spawn(Arc::clone(&self).drive(moving.id))));
            }
            tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Takes a move to its end.
    async fn drive(self: Arc<Self>, id: MoveId) {
        let mut since = None;
        let mut said = String::new();
        while let Some(moving) = self.moving(id) {
            let trouble = match self.advance(&moving).await {
                Ok(()) => {
                    since = None;
                    continue;
                }
                Err(trouble) => trouble,
            };
            let began = *since.get_or_insert_with(Instant::now);
            let (reason, unsealable, over) = match trouble {
                Trouble::Waits(reason) => (reason, false, began.elapsed() > GIVE_UP_AFTER),
                Trouble::Never(reason) => (reason, false, true),
                Trouble::Unsealable(reason) => (reason, true, true),
            };
            if reason != said {
                tracing::warn!(id, route = %moving.route_id, "a move waits: {reason}");
                said.clone_from(&reason);
            }
            if over && (unsealable || moving.phase == MovePhase::Copying) {
                let abandon = MoveCommand::Abandon { id, reason, unsealable };
                match self.catalog.change_move(&abandon, CHANGE_WITHIN).await {
                    Ok(_) | Err(CatalogChangeError::MoveRefused(_)) => continue,
                    Err(error) => tracing::warn!(id, "a move was not taken back: {error}"),
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn is_copying(&self, id: MoveId) -> bool {
        self.moving(id).is_some_and(|now| now.phase == MovePhase::Copying)
    }

    fn moving(&self, id: MoveId) -> Option<RouteMove> {
        self.catalog.applied().moves().get(id).cloned()
    }

    async fn advance(&self, moving: &RouteMove) -> Result<(), Trouble> {
        match moving.phase {
            MovePhase::Copying => self.copy(moving).await,
            MovePhase::Sealing => self.hand_over(moving).await,
            MovePhase::Cleaning => self.clear(moving).await,
            MovePhase::Abandoning { .. } => self.take_back(moving).await,
        }
    }

    /// Copies until what is left to copy fits in one chunk, or the move is taken back.
    async fn copy(&self, moving: &RouteMove) -> Result<(), Trouble> {
        let RouteMove { id, from, .. } = *moving;
        let tracks = self.coordinator.move_step(from, &MoveEntry::track(id, &moving.range)).await?;
        if tracks != (MoveReply::Done { more: false }) {
            return Err(unexpected(from, &tracks));
        }
        let mut progress = self.received(moving).await?;
        let mut catching_up = None;
        let mut sent = None;
        while self.is_copying(id) {
            if !progress.copied {
                let (next, chunk) = self.copy_rows(moving, progress).await?;
                progress = next;
                if self.omits == Some(Omission::Order) {
                    sent.get_or_insert(chunk);
                }
            }
            let noted = MoveRead::Noted { id, after: progress.drained };
            // What the target has is forgotten while the next keys are read: they follow it.
            let (read, trimmed) = tokio::join!(
                self.coordinator.move_read(from, &noted),
                self.trim(moving, &progress)
            );
            let mut chunk = read?;
            trimmed?;
            if chunk.overflowed {
                return Err(Trouble::Never(MoveRefusal::Overflowed.to_string()));
            }
            let copied = progress.copied;
            if !copied {
                leave_to_the_copy(&mut chunk, progress.cursor.as_deref());
            }
            // Also where nothing changed, to see that the target answers.
            progress = self.ingest_noted(moving, &progress, &chunk).await?;
            if let Some(sent) = sent.take_if(|_| copied) {
                progress = self.ingest(moving, progress, &sent).await?;
            }
            if copied && !chunk.more {
                self.catalog.change_move(&MoveCommand::Seal { id }, CHANGE_WITHIN).await?;
                return Ok(());
            }
            if copied && catching_up.get_or_insert_with(Instant::now).elapsed() > CATCH_UP_WITHIN {
                let reason = "keys changed as fast as they could be copied";
                return Err(Trouble::Never(reason.to_owned()));
            }
        }
        Ok(())
    }

    /// How far the target has come.
    async fn received(&self, moving: &RouteMove) -> Result<Progress, Trouble> {
        let receive = MoveEntry::receive(moving.id, &moving.range);
        match self.coordinator.move_step(moving.to, &receive).await? {
            MoveReply::Progress(progress) => Ok(progress),
            reply => Err(unexpected(moving.to, &reply)),
        }
    }

    /// Copies some chunks of rows; each is read while the one before it is taken. Where the target
    /// has come to, and the first chunk.
    ///
    /// No noted keys are taken in between, so that no chunk that is read ahead is older than what
    /// the target has: see [`MoveRead::Rows`].
    async fn copy_rows(
        &self,
        moving: &RouteMove,
        mut progress: Progress,
    ) -> Result<(Progress, MoveChunk), Trouble> {
        let mut chunk = self.read_rows(moving, &progress).await?;
        let mut first = None;
        for left in (0..CHUNKS_A_ROUND).rev() {
            let next = Progress {
                cursor: chunk.last_key.as_ref().map(|key| key.to_vec()).or(progress.cursor),
                copied: !chunk.more,
                ..progress
            };
            let goes_on = chunk.more && left > 0 && self.is_copying(moving.id);
            let ahead = async {
                match goes_on {
                    true => self.read_rows(moving, &next).await.map(Some),
                    false => Ok(None),
                }
            };
            let (taken, ahead) = tokio::join!(self.ingest(moving, next.clone(), &chunk), ahead);
            let taken = taken?;
            // Else it is another driver that took the move further.
            let is_ours = taken.cursor == next.cursor && taken.drained == next.drained;
            progress = taken;
            let following = ahead?.filter(|_| is_ours);
            let before = std::mem::take(&mut chunk);
            first.get_or_insert(before);
            match following {
                Some(following) => chunk = following,
                None => break,
            }
        }
        Ok((progress, first.unwrap_or_default()))
    }

    async fn read_rows(
        &self,
        moving: &RouteMove,
        progress: &Progress,
    ) -> Result<MoveChunk, Trouble> {
        let after = progress.cursor.clone().map(Into::into);
        let applied = progress.drained.index;
        let read = MoveRead::Rows { id: moving.id, after, applied };
        let chunk = self.coordinator.move_read(moving.from, &read).await?;
        self.pace.take(chunk.bytes, self.bytes_per_s).await;
        Ok(chunk)
    }

    async fn ingest_noted(
        &self,
        moving: &RouteMove,
        progress: &Progress,
        chunk: &MoveChunk,
    ) -> Result<Progress, Trouble> {
        self.pace.take(chunk.bytes, self.bytes_per_s).await;
        let next = Progress { drained: chunk.last_note, ..progress.clone() };
        self.ingest(moving, next, chunk).await
    }

    /// Offers a chunk to the target. What it has come to may be another driver's doing.
    async fn ingest(
        &self,
        moving: &RouteMove,
        progress: Progress,
        chunk: &MoveChunk,
    ) -> Result<Progress, Trouble> {
        let entry = MoveEntry::Ingest { id: moving.id, progress, rows: rows_of(chunk) };
        match self.coordinator.move_step(moving.to, &entry).await? {
            MoveReply::Progress(progress) => {
                self.count(moving.id, chunk);
                Ok(progress)
            }
            reply => Err(unexpected(moving.to, &reply)),
        }
    }

    fn count(&self, id: MoveId, chunk: &MoveChunk) {
        let counters = self.coordinator.move_counters();
        let rows = chunk.rows.len() as u64;
        let mut of_moves = counters.of_moves.lock();
        let copied = of_moves.entry(id).or_default();
        copied.rows += rows;
        copied.bytes += chunk.bytes;
        drop(of_moves);
        counters.rows.fetch_add(rows, Ordering::Relaxed);
        counters.bytes.fetch_add(chunk.bytes, Ordering::Relaxed);
    }

    /// Lets the source forget what the target has.
    async fn trim(&self, moving: &RouteMove, progress: &Progress) -> Result<(), Trouble> {
        if progress.drained.index == 0 {
            return Ok(());
        }
        let trim = MoveEntry::Trim { id: moving.id, upto: progress.drained };
        match self.coordinator.move_step(moving.from, &trim).await? {
            MoveReply::Done { .. } => Ok(()),
            reply => Err(unexpected(moving.from, &reply)),
        }
    }

    /// Takes the range from the source and gives it to the target.
    async fn hand_over(&self, moving: &RouteMove) -> Result<(), Trouble> {
        let RouteMove { id, from, to, .. } = *moving;
        let began = Instant::now();
        let seals = self.omits != Some(Omission::Seal);
        let seal = MoveEntry::Seal { id };
        match if seals { self.coordinator.move_step(from, &seal).await? } else { SEALED } {
            MoveReply::Done { .. } => {}
            MoveReply::Refused(refusal @ MoveRefusal::Overflowed) => {
                return Err(Trouble::Unsealable(format!("group {from}: {refusal}")));
            }
            reply => return Err(unexpected(from, &reply)),
        }
        let adopted_at = loop {
            let receive = MoveEntry::receive(id, &moving.range);
            let progress = match self.coordinator.move_step(to, &receive).await? {
                MoveReply::Progress(progress) => progress,
                MoveReply::Adopted { at } => break at,
                reply => return Err(unexpected(to, &reply)),
            };
            let noted = MoveRead::Noted { id, after: progress.drained };
            let chunk = self.coordinator.move_read(from, &noted).await?;
            if !chunk.sealed && seals {
                // A replica that has not applied the seal yet.
                tokio::time::sleep(AGAIN / 20).await;
                continue;
            }
            if chunk.more {
                let next = Progress { drained: chunk.last_note, ..progress };
                self.ingest(moving, next, &chunk).await?;
                continue;
            }
            let tail =
                if self.omits == Some(Omission::Tail) { Vec::new() } else { rows_of(&chunk) };
            let adopt = MoveEntry::Adopt { id, number: progress.next, rows: tail };
            match self.coordinator.move_step(to, &adopt).await? {
                MoveReply::Adopted { at } => {
                    self.count(moving.id, &chunk);
                    break at;
                }
                // Another driver was faster.
                MoveReply::Progress(_) => {}
                reply => return Err(unexpected(to, &reply)),
            }
        };
        let commit = MoveCommand::Commit { id, adopted_at, time_ms: 0 };
        self.catalog.change_move(&commit, CHANGE_WITHIN).await?;
        let sealed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let counters = self.coordinator.move_counters();
        counters.moved.fetch_add(1, Ordering::Relaxed);
        counters.sealed_us.fetch_add(sealed_us, Ordering::Relaxed);
        counters.longest_sealed_us.fetch_max(sealed_us, Ordering::Relaxed);
        tracing::info!(id, route = %moving.route_id, %from, %to, sealed_us, "a route has moved");
        Ok(())
    }

    /// Deletes what the source still has of the range.
    async fn clear(&self, moving: &RouteMove) -> Result<(), Trouble> {
        if self.omits == Some(Omission::Seal) {
            self.coordinator.move_step(moving.from, &MoveEntry::Seal { id: moving.id }).await?;
        }
        if self.omits != Some(Omission::Clear) {
            self.delete(moving.from, &MoveEntry::Clear { id: moving.id }).await?;
        }
        self.finish(moving.id).await
    }

    /// Undoes a move that did not seal.
    async fn take_back(&self, moving: &RouteMove) -> Result<(), Trouble> {
        let id = moving.id;
        self.delete(moving.from, &MoveEntry::Untrack { id }).await?;
        self.delete(moving.to, &MoveEntry::Drop { id }).await?;
        self.finish(id).await?;
        self.coordinator.move_counters().abandoned.fetch_add(1, Ordering::Relaxed);
        tracing::info!(id, route = %moving.route_id, "a move was abandoned");
        Ok(())
    }

    async fn delete(&self, group: GroupId, entry: &MoveEntry<'_>) -> Result<(), Trouble> {
        loop {
            match self.coordinator.move_step(group, entry).await? {
                MoveReply::Done { more: true } => {
                    self.pace.take(DELETED_BYTES, self.bytes_per_s).await;
                }
                MoveReply::Done { more: false } | MoveReply::Refused(MoveRefusal::Ended) => {
                    return Ok(());
                }
                reply => return Err(unexpected(group, &reply)),
            }
        }
    }

    async fn finish(&self, id: MoveId) -> Result<(), Trouble> {
        let finish = MoveCommand::Finish { id, time_ms: 0 };
        match self.catalog.change_move(&finish, CHANGE_WITHIN).await {
            Ok(_) | Err(CatalogChangeError::MoveRefused(MoveError::NotUnderWay { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

const SEALED: MoveReply = MoveReply::Done { more: false };

/// What a page of deleted rows is taken to cost.
const DELETED_BYTES: u64 = 256 * 1024;

fn rows_of(chunk: &MoveChunk) -> Vec<(&[u8], Option<&[u8]>)> {
    chunk.rows.iter().map(|(key, value)| (key.as_ref(), value.as_deref())).collect()
}

/// Leaves out the noted rows that are yet to be copied: they are read no earlier than these. Keys
/// without a row stay, since nothing else would take a row of theirs from the target.
fn leave_to_the_copy(noted: &mut MoveChunk, cursor: Option<&[u8]>) {
    noted.rows.retain(|(key, value)| value.is_none() || cursor.is_some_and(|at| **key <= *at));
    noted.bytes = noted
        .rows
        .iter()
        .map(|(key, value)| (key.len() + value.as_ref().map_or(0, |value| value.len())) as u64)
        .sum();
}
