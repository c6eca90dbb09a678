//! Parts of a range that moves, read from a replica of its source.
//!
//! Any replica will do that has applied enough: what it says to have noted and what its rows have
//! were written by the same entries. The ledger is read first, so that whatever changes a row after
//! it was read is noted, and a range that is sealed has all its notes.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use keyviz_raft::{Keyspace, MachineError, PageLimit};

use super::entry::NotePosition;
use super::ledger::{Stage, note_key, notes_of, place_of_note, stored_sending};
use crate::limits::first_client_key;

/// Bytes of keys and values in a chunk of rows; its last row may go beyond.
const CHUNK_BYTES: usize = 512 * 1024;

/// The same for noted keys: what changes in the time that a chunk takes should fit in one.
const NOTED_BYTES: usize = 2 * 1024 * 1024;

/// Rows in a chunk.
const CHUNK_ROWS: usize = 4_096;

/// What to read of a range that moves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MoveRead {
    /// The next rows in key order.
    Rows {
        /// The move.
        id: u64,
        /// Rows after this key; `None`: from the first one on.
        after: Option<Bytes>,
        /// The replica must have applied this entry: what the target has taken already is from
        /// there.
        applied: u64,
    },
    /// The present rows of the next noted keys.
    Noted {
        /// The move.
        id: u64,
        /// Keys noted after this place.
        after: NotePosition,
    },
}

/// A row, or a key that has none.
pub type MovedRow = (Bytes, Option<Bytes>);

/// A part of a range that moves.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MoveChunk {
    /// The rows.
    pub rows: Vec<MovedRow>,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Where it ends: at its last row.
    pub last_key: Option<Bytes>,
    /// Where it ends: at its last note.
    pub last_note: NotePosition,
    /// Rows or notes follow.
    pub more: bool,
    /// The range is sealed, so nothing is noted any more.
    pub sealed: bool,
    /// More changed than is noted: the notes are not complete.
    pub overflowed: bool,
}

/// The chunk, or `None` where this replica has not applied enough.
pub(crate) fn read_chunk(
    keyspace: &Keyspace,
    read: &MoveRead,
) -> Result<Option<MoveChunk>, MachineError> {
    let id = match read {
        MoveRead::Rows { id, .. } | MoveRead::Noted { id, .. } => *id,
    };
    let Some(sending) = stored_sending(keyspace, id)? else { return Ok(None) };
    let has_applied = |index| keyspace.applied().is_some_and(|at| at.index >= index);
    // The rows of a batch may become visible one by one: what was changed before the first note
    // must be there too.
    if !has_applied(sending.since) {
        return Ok(None);
    }
    let mut chunk = MoveChunk {
        sealed: sending.stage == Stage::Sealed,
        overflowed: sending.stage == Stage::Overflowed,
        ..MoveChunk::default()
    };
    match read {
        MoveRead::Rows { after, applied, .. } => {
            if !has_applied(*applied) {
                return Ok(None);
            }
            let first = first_client_key(&sending.range.start);
            let from = after.as_deref().map_or(Bound::Included(first), Bound::Excluded);
            let to = sending.range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let limit = PageLimit { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };
            let page = keyspace.scan(from, to, limit)?;
            chunk.more = page.more;
            chunk.last_key = page.rows.last().map(|(key, _)| key.clone());
            for (key, value) in page.rows {
                chunk.bytes += (key.len() + value.len()) as u64;
                chunk.rows.push((key, Some(value)));
            }
        }
        MoveRead::Noted { after, .. } => {
            chunk.last_note = *after;
            let (from, to) = (note_key(id, *after), notes_of(id.saturating_add(1)));
            let limit = PageLimit { rows: CHUNK_ROWS, bytes: NOTED_BYTES };
            let notes = keyspace.scan(Bound::Excluded(&from), Bound::Excluded(&to), limit)?;
            chunk.more = notes.more;
            let mut seen = BTreeSet::new();
            for (place, key) in notes.rows {
                if chunk.bytes >= NOTED_BYTES as u64 {
                    chunk.more = true;
                    break;
                }
                let place = place_of_note(&place)
                    .ok_or_else(|| MachineError::Corrupt("a note without a place".to_owned()))?;
                chunk.last_note = place;
                if !seen.insert(key.clone()) {
                    continue;
                }
                let value = keyspace.get(&key)?;
                chunk.bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
                chunk.rows.push((key, value));
            }
        }
    }
    Ok(Some(chunk))
}
