//! What a group remembers of moves, in rows of its own that no client can name.
//!
//! ```text
//! "\0moves\0gone"                                      ranges that left, sorted
//! "\0moves\0ledger"                                    moves under way and ended
//! "\0moves\0note" move u64, index u64, part u32        key that changed (integers big endian)
//! ```
//!
//! The first two have a format byte, 1, before their bincode.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bincode::config::{Configuration, Limit, standard};
use bincode::{Decode, Encode};
use bytes::Bytes;

use keyviz_raft::{Batch, Keyspace, MachineError, PageLimit};
use keyviz_types::KeyRange;

use super::entry::{NotePosition, Progress};
use super::ownership::Ownership;
use super::ranges::RangeSet;

const GONE: &[u8] = b"\0moves\0gone";
const LEDGER: &[u8] = b"\0moves\0ledger";
const NOTE: &[u8] = b"\0moves\0note";

const FORMAT: u8 = 1;

/// Maximum size of a row: a group that every second of 100,000 routes left.
const MAX_ROW_BYTES: usize = 128 << 20;

const CONFIG: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<MAX_ROW_BYTES>,
> = standard().with_limit::<MAX_ROW_BYTES>();

/// Notes of one move beyond which its source gives up noting.
pub(super) const MAX_NOTES: u64 = 262_144;

/// Ended moves that a group remembers. A step may arrive late, by seconds; so many moves take
/// minutes.
const MAX_ENDED: usize = 256;

const PAGE: PageLimit = PageLimit { rows: 4_096, bytes: 4 << 20 };

/// Where a source stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum Stage {
    /// Changed keys are noted.
    Tracking,
    /// There were too many of them.
    Overflowed,
    /// The range is refused.
    Sealed,
}

/// A range that a move takes away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sending {
    pub(super) range: KeyRange,
    pub(super) stage: Stage,
    /// The entry from which on changed keys are noted.
    pub(super) since: u64,
}

/// A range that a move brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Receiving {
    pub(super) range: KeyRange,
    pub(super) progress: Progress,
}

type StoredRange = (Vec<u8>, Option<Vec<u8>>);

fn stored(range: &KeyRange) -> StoredRange {
    (range.start.to_vec(), range.end.as_ref().map(|end| end.to_vec()))
}

fn range((start, end): StoredRange) -> KeyRange {
    KeyRange { start: start.into(), end: end.map(Bytes::from) }
}

#[derive(Encode, Decode, Default)]
struct Stored {
    sending: Vec<(u64, StoredRange, Stage, u64)>,
    receiving: Vec<(u64, StoredRange, Progress)>,
    ended: Vec<(u64, u64)>,
}

/// What a group remembers of moves. Whatever it is asked or told to keep is in its rows too.
#[derive(Default, Debug)]
pub(crate) struct Ledger {
    /// Ranges that left.
    pub(super) gone: RangeSet,
    pub(super) sending: BTreeMap<u64, Sending>,
    pub(super) receiving: BTreeMap<u64, Receiving>,
    /// Moves that ended here, with the index of the entry that took their range, or 0.
    pub(super) ended: BTreeMap<u64, u64>,
    /// Notes by move.
    pub(super) notes: BTreeMap<u64, u64>,
    pub(super) ownership: Arc<Ownership>,
    /// Less is refused than was published; to be published once it is written.
    pub(super) unpublished: bool,
}

impl Ledger {
    pub(crate) fn new(ownership: Arc<Ownership>) -> Self {
        Ledger { ownership, ..Ledger::default() }
    }

    /// What the rows say.
    pub(crate) fn restore(&mut self, keyspace: &Keyspace) -> Result<(), MachineError> {
        let ownership = Arc::clone(&self.ownership);
        *self = Ledger::new(ownership);
        if let Some(row) = keyspace.get(GONE)? {
            self.gone = decode::<Vec<StoredRange>>(&row)?.into_iter().map(range).collect();
        }
        let stored = stored_ledger(keyspace)?;
        for (id, keys, stage, since) in stored.sending {
            let notes = count_notes(keyspace, id)?;
            self.notes.insert(id, notes);
            self.sending.insert(id, Sending { range: range(keys), stage, since });
        }
        for (id, keys, progress) in stored.receiving {
            self.receiving.insert(id, Receiving { range: range(keys), progress });
        }
        self.ended = stored.ended.into_iter().collect();
        self.publish();
        Ok(())
    }

    /// The rows are about to be replaced.
    pub(crate) fn forget(&self) {
        self.ownership.forget();
    }

    /// The batch is written.
    pub(crate) fn written(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.publish();
        }
    }

    fn publish(&self) {
        let mut refused = self.gone.clone();
        self.receiving.values().for_each(|receiving| refused.add(&receiving.range));
        self.ownership.publish(refused);
    }

    /// Whether no range moves or has left.
    pub(crate) fn is_idle(&self) -> bool {
        self.gone.is_empty() && self.receiving.is_empty() && self.sending.is_empty()
    }

    /// Whether the group does not own a key of `start..end`.
    pub(crate) fn refuses_range(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        self.gone.touches(start, end)
            || self.receiving.values().any(|receiving| overlap(&receiving.range, start, end))
    }

    /// Whether the group does not own a key.
    pub(crate) fn refuses(&self, key: &[u8]) -> bool {
        self.gone.contains(key)
            || self.receiving.values().any(|receiving| receiving.range.contains(key))
    }

    /// Notes that the entry at `index` changes a key, where a move wants to know; whether it does.
    pub(crate) fn note(
        &mut self,
        batch: &mut Batch<'_>,
        index: u64,
        part: &mut u32,
        key: &Bytes,
    ) -> Result<bool, MachineError> {
        let tracked = self
            .sending
            .iter()
            .find(|(_, sending)| sending.stage == Stage::Tracking && sending.range.contains(key));
        let Some((&id, _)) = tracked else { return Ok(false) };
        let notes = self.notes.entry(id).or_default();
        if *notes >= MAX_NOTES {
            if let Some(sending) = self.sending.get_mut(&id) {
                sending.stage = Stage::Overflowed;
            }
            self.store(batch)?;
            return Ok(true);
        }
        *notes += 1;
        batch.put(note_key(id, NotePosition { index, part: *part }), key.clone())?;
        *part += 1;
        Ok(true)
    }

    /// Writes the moves under way and ended.
    pub(super) fn store(&mut self, batch: &mut Batch<'_>) -> Result<(), MachineError> {
        while self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
        let sending = self.sending.iter();
        let receiving = self.receiving.iter();
        let row = Stored {
            sending: sending.map(|(id, of)| (*id, stored(&of.range), of.stage, of.since)).collect(),
            receiving: receiving
                .map(|(id, of)| (*id, stored(&of.range), of.progress.clone()))
                .collect(),
            ended: self.ended.iter().map(|(id, at)| (*id, *at)).collect(),
        };
        batch.put(Bytes::from_static(LEDGER), encode(&row))?;
        Ok(())
    }

    /// Writes the ranges that left.
    pub(super) fn store_gone(&self, batch: &mut Batch<'_>) -> Result<(), MachineError> {
        let gone = Bytes::from_static(GONE);
        if self.gone.is_empty() {
            batch.delete(gone)?;
            return Ok(());
        }
        let rows: Vec<StoredRange> = self.gone.iter().map(|range| stored(&range)).collect();
        batch.put(gone, encode(&rows))?;
        Ok(())
    }
}

/// Whether a range has a key of `start..end`.
pub(super) fn overlap(range: &KeyRange, start: &[u8], end: Option<&[u8]>) -> bool {
    end.is_none_or(|end| range.start.as_ref() < end && start < end)
        && range.end.as_ref().is_none_or(|range_end| start < range_end.as_ref())
}

fn encode<T: Encode>(row: &T) -> Bytes {
    let mut bytes = vec![FORMAT];
    bincode::encode_into_std_write(row, &mut bytes, CONFIG).expect("it encodes into memory");
    bytes.into()
}

fn decode<T: Decode<()>>(row: &[u8]) -> Result<T, MachineError> {
    let corrupt = |reason: String| MachineError::Corrupt(format!("a row of moves: {reason}"));
    let (&format, body) = row.split_first().ok_or_else(|| corrupt("it is empty".to_owned()))?;
    if format != FORMAT {
        return Err(corrupt(format!("format {format}; this version reads {FORMAT}")));
    }
    let (decoded, used) =
        bincode::decode_from_slice(body, CONFIG).map_err(|error| corrupt(error.to_string()))?;
    match body.len() - used {
        0 => Ok(decoded),
        bytes => Err(corrupt(format!("{bytes} bytes after its end"))),
    }
}

fn stored_ledger(keyspace: &Keyspace) -> Result<Stored, MachineError> {
    keyspace.get(LEDGER)?.map_or(Ok(Stored::default()), |row| decode(&row))
}

/// What the rows say of a range that a move takes away.
pub(super) fn stored_sending(
    keyspace: &Keyspace,
    id: u64,
) -> Result<Option<Sending>, MachineError> {
    let stored = stored_ledger(keyspace)?.sending;
    let found = stored.into_iter().find(|(of, ..)| *of == id);
    Ok(found.map(|(_, keys, stage, since)| Sending { range: range(keys), stage, since }))
}

pub(super) fn note_key(id: u64, at: NotePosition) -> Bytes {
    let mut key = notes_of(id);
    key.extend_from_slice(&at.index.to_be_bytes());
    key.extend_from_slice(&at.part.to_be_bytes());
    key.into()
}

/// What the keys of all notes of a move start with.
pub(super) fn notes_of(id: u64) -> Vec<u8> {
    [NOTE, &id.to_be_bytes()[..]].concat()
}

/// The place that the key of a note names.
pub(super) fn place_of_note(key: &[u8]) -> Option<NotePosition> {
    let place = key.get(NOTE.len() + 8..)?;
    let (index, part) = place.split_first_chunk::<8>()?;
    let index = u64::from_be_bytes(*index);
    Some(NotePosition { index, part: u32::from_be_bytes(part.try_into().ok()?) })
}

fn count_notes(keyspace: &Keyspace, id: u64) -> Result<u64, MachineError> {
    let (first, end) = (notes_of(id), notes_of(id.saturating_add(1)));
    let mut from = Bound::Included(Bytes::from(first));
    let mut count = 0;
    loop {
        let start = match &from {
            Bound::Included(key) => Bound::Included(key.as_ref()),
            Bound::Excluded(key) => Bound::Excluded(key.as_ref()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let page = keyspace.scan(start, Bound::Excluded(&end), PAGE)?;
        count += page.rows.len() as u64;
        match page.rows.last() {
            Some((last, _)) if page.more => from = Bound::Excluded(last.clone()),
            _ => return Ok(count),
        }
    }
}
