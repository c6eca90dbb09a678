//! How a group applies the steps of moves. Each is made once however often it arrives, and none
//! after its move ended.

use std::ops::Bound;

use bytes::Bytes;

use keyviz_raft::{Batch, LogPosition, MachineError, PageLimit};
use keyviz_types::KeyRange;

use super::entry::{Change, MoveEntry, MoveRefusal, MoveReply, NotePosition, Progress};
use super::ledger::{Ledger, Receiving, Sending, Stage, note_key, notes_of, overlap};
use crate::limits::first_client_key;

/// Rows that one entry deletes at most.
const DELETE_PAGE: PageLimit = PageLimit { rows: 1_024, bytes: 1 << 20 };
const NOTES_PAGE: PageLimit = PageLimit { rows: 4_096, bytes: 4 << 20 };

/// The next chunk of a target that takes no more: what it took is being deleted.
const NO_MORE: u64 = u64::MAX;

const DONE: MoveReply = MoveReply::Done { more: false };
const MORE: MoveReply = MoveReply::Done { more: true };

impl Ledger {
    /// Applies a step. Keys and values are slices of `command`, which are not copied.
    pub(crate) fn step(
        &mut self,
        at: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        let entry = MoveEntry::decode(command)
            .map_err(|error| MachineError::Corrupt(format!("log entry {at}: {error}")))?;
        let range = |start, end: Option<&[u8]>| KeyRange {
            start: Bytes::copy_from_slice(start),
            end: end.map(Bytes::copy_from_slice),
        };
        match entry {
            MoveEntry::Track { id, start, end } => self.track(at, id, range(start, end), batch),
            MoveEntry::Trim { id, upto } => self.trim(id, upto, batch),
            MoveEntry::Seal { id } => self.seal(id, batch),
            MoveEntry::Clear { id } => self.clear(id, batch),
            MoveEntry::Untrack { id } => self.untrack(id, batch),
            MoveEntry::Receive { id, start, end } => self.receive(id, range(start, end), batch),
            MoveEntry::Ingest { id, progress, rows } => {
                self.ingest(id, progress, &rows, command, batch)
            }
            MoveEntry::Adopt { id, number, rows } => {
                self.adopt(at, id, number, &rows, command, batch)
            }
            MoveEntry::Drop { id } => self.drop_taken(id, batch),
        }
    }

    fn track(
        &mut self,
        at: LogPosition,
        id: u64,
        range: KeyRange,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        if self.ended.contains_key(&id) {
            return Ok(MoveReply::Refused(MoveRefusal::Ended));
        }
        if self.sending.contains_key(&id) {
            return Ok(DONE);
        }
        if self.is_busy(&range) {
            return Ok(MoveReply::Refused(MoveRefusal::Busy));
        }
        if self.gone.touches(&range.start, range.end.as_deref()) {
            return Ok(MoveReply::Refused(MoveRefusal::NotAtThatStep));
        }
        self.notes.insert(id, 0);
        self.sending.insert(id, Sending { range, stage: Stage::Tracking, since: at.index });
        self.store(batch)?;
        Ok(DONE)
    }

    fn is_busy(&self, range: &KeyRange) -> bool {
        let sending = self.sending.values().map(|sending| &sending.range);
        let receiving = self.receiving.values().map(|receiving| &receiving.range);
        sending.chain(receiving).any(|taken| overlap(taken, &range.start, range.end.as_deref()))
    }

    fn trim(
        &mut self,
        id: u64,
        upto: NotePosition,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        if !self.sending.contains_key(&id) {
            return Ok(self.absent(id));
        }
        let last = note_key(id, upto);
        self.delete_notes(id, Bound::Included(&last), batch).map(|more| MoveReply::Done { more })
    }

    /// Deletes a page of notes from the first one on; whether there are more up to `to`.
    fn delete_notes(
        &mut self,
        id: u64,
        to: Bound<&[u8]>,
        batch: &mut Batch<'_>,
    ) -> Result<bool, MachineError> {
        let page = batch.scan(Bound::Included(&notes_of(id)), to, NOTES_PAGE)?;
        for (key, _) in &page.rows {
            batch.delete(key.clone())?;
        }
        if let Some(notes) = self.notes.get_mut(&id) {
            *notes = notes.saturating_sub(page.rows.len() as u64);
        }
        Ok(page.more)
    }

    fn seal(&mut self, id: u64, batch: &mut Batch<'_>) -> Result<MoveReply, MachineError> {
        let Some(sending) = self.sending.get_mut(&id) else { return Ok(self.absent(id)) };
        match sending.stage {
            Stage::Sealed => return Ok(DONE),
            Stage::Overflowed => return Ok(MoveReply::Refused(MoveRefusal::Overflowed)),
            Stage::Tracking => {}
        }
        sending.stage = Stage::Sealed;
        let range = sending.range.clone();
        // Before anything of it can be seen.
        self.ownership.refuse(&range);
        self.gone.add(&range);
        // Two rows of one command: whoever sees the seal sees all that was written before it.
        self.store_gone(batch)?;
        self.store(batch)?;
        Ok(DONE)
    }

    fn clear(&mut self, id: u64, batch: &mut Batch<'_>) -> Result<MoveReply, MachineError> {
        let Some(sending) = self.sending.get(&id) else { return Ok(self.absent(id)) };
        if sending.stage != Stage::Sealed {
            return Ok(MoveReply::Refused(MoveRefusal::NotAtThatStep));
        }
        let range = sending.range.clone();
        if delete_rows(&range, batch)? || self.delete_all_notes(id, batch)? {
            return Ok(MORE);
        }
        self.end(id, 0, batch)?;
        Ok(DONE)
    }

    fn untrack(&mut self, id: u64, batch: &mut Batch<'_>) -> Result<MoveReply, MachineError> {
        match self.sending.get_mut(&id) {
            None if self.ended.contains_key(&id) => return Ok(DONE),
            // A step of this move that arrives later is refused.
            None => {}
            Some(Sending { stage: Stage::Sealed, .. }) => {
                return Ok(MoveReply::Refused(MoveRefusal::NotAtThatStep));
            }
            Some(sending) => {
                sending.stage = Stage::Overflowed;
                self.store(batch)?;
                if self.delete_all_notes(id, batch)? {
                    return Ok(MORE);
                }
            }
        }
        self.end(id, 0, batch)?;
        Ok(DONE)
    }

    fn delete_all_notes(&mut self, id: u64, batch: &mut Batch<'_>) -> Result<bool, MachineError> {
        let end = notes_of(id.saturating_add(1));
        self.delete_notes(id, Bound::Excluded(&end), batch)
    }

    fn receive(
        &mut self,
        id: u64,
        range: KeyRange,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        if let Some(&at) = self.ended.get(&id) {
            return Ok(ended(at));
        }
        if let Some(receiving) = self.receiving.get(&id) {
            return Ok(state_of(receiving));
        }
        if self.is_busy(&range) {
            return Ok(MoveReply::Refused(MoveRefusal::Busy));
        }
        let one = PageLimit { rows: 1, bytes: 1 };
        if !rows_of(&range, one, batch)?.0.is_empty() {
            return Ok(MoveReply::Refused(MoveRefusal::NotEmpty));
        }
        // Before any of its rows can be seen.
        self.ownership.refuse(&range);
        let progress = Progress { next: 1, ..Progress::default() };
        self.receiving.insert(id, Receiving { range, progress: progress.clone() });
        self.store(batch)?;
        Ok(MoveReply::Progress(progress))
    }

    fn ingest(
        &mut self,
        id: u64,
        progress: Progress,
        rows: &[Change<'_>],
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        let Some(receiving) = self.receiving.get_mut(&id) else { return Ok(self.absent(id)) };
        if progress.next != receiving.progress.next || progress.next == NO_MORE {
            return Ok(state_of(receiving));
        }
        put_rows(&receiving.range, rows, command, batch)?;
        receiving.progress = Progress { next: progress.next + 1, ..progress };
        let now = receiving.progress.clone();
        self.store(batch)?;
        Ok(MoveReply::Progress(now))
    }

    fn adopt(
        &mut self,
        at: LogPosition,
        id: u64,
        number: u64,
        rows: &[Change<'_>],
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<MoveReply, MachineError> {
        let Some(receiving) = self.receiving.get(&id) else { return Ok(self.absent(id)) };
        if number != receiving.progress.next || number == NO_MORE {
            return Ok(state_of(receiving));
        }
        let range = receiving.range.clone();
        put_rows(&range, rows, command, batch)?;
        self.gone.remove(&range);
        self.store_gone(batch)?;
        // It is served once all of it is written.
        self.unpublished = true;
        self.end(id, at.index, batch)?;
        Ok(MoveReply::Adopted { at: at.index })
    }

    fn drop_taken(&mut self, id: u64, batch: &mut Batch<'_>) -> Result<MoveReply, MachineError> {
        match self.receiving.get_mut(&id) {
            None if self.ended.contains_key(&id) => return Ok(DONE),
            // A step of this move that arrives later is refused.
            None => {}
            Some(receiving) => {
                let range = receiving.range.clone();
                // Nothing more is taken meanwhile.
                receiving.progress.next = NO_MORE;
                self.store(batch)?;
                if delete_rows(&range, batch)? {
                    return Ok(MORE);
                }
                self.unpublished = true;
            }
        }
        self.end(id, 0, batch)?;
        Ok(DONE)
    }

    /// The move has ended here.
    fn end(&mut self, id: u64, at: u64, batch: &mut Batch<'_>) -> Result<(), MachineError> {
        self.sending.remove(&id);
        self.receiving.remove(&id);
        self.notes.remove(&id);
        self.ended.insert(id, at);
        self.store(batch)
    }

    /// What a step of a move gets that is not under way here.
    fn absent(&self, id: u64) -> MoveReply {
        match self.ended.get(&id) {
            Some(&at) => ended(at),
            None => MoveReply::Refused(MoveRefusal::NotAtThatStep),
        }
    }
}

/// What a step gets that is not the next one of a target.
fn state_of(receiving: &Receiving) -> MoveReply {
    match receiving.progress.next {
        NO_MORE => MoveReply::Refused(MoveRefusal::Ended),
        _ => MoveReply::Progress(receiving.progress.clone()),
    }
}

fn ended(at: u64) -> MoveReply {
    match at {
        0 => MoveReply::Refused(MoveRefusal::Ended),
        at => MoveReply::Adopted { at },
    }
}

fn rows_of(
    range: &KeyRange,
    limit: PageLimit,
    batch: &Batch<'_>,
) -> Result<(Vec<Bytes>, bool), MachineError> {
    let start = first_client_key(&range.start);
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let page = batch.scan(Bound::Included(start), end, limit)?;
    Ok((page.rows.into_iter().map(|(key, _)| key).collect(), page.more))
}

/// Deletes a page of rows; whether there are more.
fn delete_rows(range: &KeyRange, batch: &mut Batch<'_>) -> Result<bool, MachineError> {
    let (keys, more) = rows_of(range, DELETE_PAGE, batch)?;
    for key in keys {
        batch.delete(key)?;
    }
    Ok(more)
}

fn put_rows(
    range: &KeyRange,
    rows: &[Change<'_>],
    command: &Bytes,
    batch: &mut Batch<'_>,
) -> Result<(), MachineError> {
    let own = |part: &[u8]| command.slice_ref(part);
    for (key, value) in rows {
        // Keys of the system and of other routes are nobody's to bring.
        if first_client_key(key) != *key || !range.contains(key) {
            return Err(MachineError::Corrupt("a moved row lies outside its range".to_owned()));
        }
        match value {
            Some(value) => batch.put(own(key), own(value))?,
            None => batch.delete(own(key))?,
        }
    }
    Ok(())
}
