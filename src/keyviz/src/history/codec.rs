//! Columns and chunks of slots as bytes to store.
//!
//! ```text
//! record:  'K' 'V' | kind u8 ('a' chunk, 'c' column, 'f' forgotten, 'h' hot keys)
//!          | version u8 (1) | body
//!          | CRC-32 of all before, u32 LE
//!
//! chunk:   bounds | unbounded u8
//!          | per bound: shared, rest, rest bytes
//!                (front coding: `shared` bytes of the bound before, then the rest)
//!          | slots
//!          | per slot: next range * 2 + aggregate, group, route (zigzag difference)
//! column:  start_ms | end_ms - start_ms | closed u8
//!          | chunks | per chunk: digest u128 LE
//!          | parts | per part: incarnation | partial u8 | catalog version
//!                | unattributed: reads, writes, read bytes, write bytes
//!                | runs | per run: chunks | per chunk: index | leads | per lead: group, term
//!                      | cells, see `cells`
//! ```
//! forgotten: kind 'f', before_ms
//! hot keys: kind 'h', of one column: see `hotkeys::codec`
//!
//! Numbers without a type are varints; plurals are counts. Nothing is allocated by a count that is
//! not backed by as many bytes, and trailing bytes are an error.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::bitpack::{put_varint, take_varint};
use super::cells::Cells;
use super::column::{CellRun, Column, ColumnId, Part};
use super::config::MAX_TIME_MS;
use super::slots::{Chunk, ChunkSlot, Interner, LeaderTerms, MAX_CHUNK_SLOTS, chunk_body};
use crate::hotkeys::codec::{put_part, take_part};
use crate::hotkeys::column::ColumnHotKeys;
use crate::sampler::counts::Counts;
use keyviz_types::{GroupId, Incarnation, RouteId, Term};

/// Version of the records that are written; others are refused.
pub const RECORD_VERSION: u8 = 1;

/// Most bytes of keys in a chunk that is read: front coding could make much of little.
const MAX_CHUNK_KEYS: usize = 16 << 20;
/// Most slots of a column's axis that is read.
const MAX_AXIS_SLOTS: usize = 1 << 28;

pub(crate) const CHUNK: u8 = b'a';
pub(crate) const COLUMN: u8 = b'c';
pub(crate) const FORGOTTEN: u8 = b'f';
pub(crate) const HOT_KEYS: u8 = b'h';

/// A stored record that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than any record has.
    #[error("{bytes} bytes are no record")]
    Short {
        /// Length.
        bytes: usize,
    },
    /// The checksum does not fit: bits were lost, or it is no record of keyviz.
    #[error("the checksum does not fit")]
    Checksum,
    /// A record of another kind than its place says.
    #[error("no record of kind {kind:?}")]
    Kind {
        /// The kind expected.
        kind: char,
    },
    /// A version that this build cannot read.
    #[error("version {version} of the record is not {RECORD_VERSION}")]
    Version {
        /// Of the record.
        version: u8,
    },
    /// The checksum fits, yet the body makes no sense.
    #[error("the body is malformed")]
    Malformed,
    /// The column's slots are in a chunk that was not stored or cannot be read.
    #[error("chunk {digest:032x} is missing")]
    MissingChunk {
        /// Digest of the chunk.
        digest: u128,
    },
}

/// Head and checksum around a body.
pub(crate) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(body.len() + 8);
    record.extend_from_slice(&[b'K', b'V', kind, RECORD_VERSION]);
    record.extend_from_slice(body);
    let checksum = crc32fast::hash(&record);
    record.extend_from_slice(&checksum.to_le_bytes());
    record
}

fn body(kind: u8, record: &[u8]) -> Result<&[u8], RecordError> {
    let Some((content, checksum)) = record.split_last_chunk::<4>() else {
        return Err(RecordError::Short { bytes: record.len() });
    };
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(RecordError::Checksum);
    }
    match content {
        [b'K', b'V', found, RECORD_VERSION, body @ ..] if *found == kind => Ok(body),
        [b'K', b'V', found, version, ..] if *found == kind => {
            Err(RecordError::Version { version: *version })
        }
        _ => Err(RecordError::Kind { kind: char::from(kind) }),
    }
}

/// The record that says up to when columns were forgotten.
pub(crate) fn encode_forgotten(before_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    put_varint(before_ms, &mut out);
    record(FORGOTTEN, &out)
}

/// Reads [`encode_forgotten`].
pub(crate) fn decode_forgotten(record: &[u8]) -> Result<u64, RecordError> {
    let mut rest = body(FORGOTTEN, record)?;
    let before_ms = take_varint(&mut rest).ok_or(RecordError::Malformed)?;
    if rest.is_empty() { Ok(before_ms) } else { Err(RecordError::Malformed) }
}

/// The record of a column's hot keys; `None` where nobody looked at them.
pub(crate) fn encode_hot_keys(column: &Column) -> Option<Vec<u8>> {
    let known = |part: &Part| part.hot_keys.as_ref().map(|keys| (part.incarnation, keys.clone()));
    let parts: Vec<_> = column.parts().iter().filter_map(known).collect();
    if parts.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    put_varint(column.start_ms(), &mut out);
    put_varint(column.end_ms() - column.start_ms(), &mut out);
    put_varint(parts.len() as u64, &mut out);
    parts.iter().for_each(|(incarnation, keys)| put_part(*incarnation, keys, &mut out));
    Some(record(HOT_KEYS, &out))
}

/// The hot keys of a column's parts.
pub(crate) type PartHotKeys = Vec<(Incarnation, ColumnHotKeys)>;

/// Reads [`encode_hot_keys`].
pub(crate) fn decode_hot_keys(record: &[u8]) -> Result<(ColumnId, PartHotKeys), RecordError> {
    let mut input = body(HOT_KEYS, record)?;
    let parts = take_hot_keys(&mut input).ok_or(RecordError::Malformed)?;
    if input.is_empty() { Ok(parts) } else { Err(RecordError::Malformed) }
}

fn take_hot_keys(input: &mut &[u8]) -> Option<(ColumnId, PartHotKeys)> {
    let start_ms = take_varint(input)?;
    let end_ms = start_ms.checked_add(take_varint(input)?)?;
    let mut parts = Vec::new();
    for _ in 0..take_varint(input)? {
        parts.push(take_part(input)?);
    }
    Some((ColumnId { start_ms, end_ms }, parts))
}

/// A chunk's record.
pub(crate) fn encode_chunk(chunk: &Chunk) -> Vec<u8> {
    let bounds: Vec<&[u8]> = chunk.bounds().collect();
    record(CHUNK, &chunk_body(&bounds, chunk.unbounded(), chunk.slots()))
}

/// A chunk from its record.
pub(crate) fn decode_chunk(record: &[u8]) -> Result<Chunk, RecordError> {
    let body = body(CHUNK, record)?;
    read_chunk(body).ok_or(RecordError::Malformed)
}

fn read_chunk(body: &[u8]) -> Option<Chunk> {
    let input = &mut { body };
    let count = take_varint(input)?;
    let unbounded = take_flag(input)?;
    let mut bounds: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    for _ in 0..count {
        let shared = usize::try_from(take_varint(input)?).ok()?;
        let rest = take_bytes(input)?;
        let bound = match bounds.last() {
            None if shared == 0 => rest.to_vec(),
            None => return None,
            Some(before) => [before.get(..shared)?, rest].concat(),
        };
        bytes += bound.len();
        if bytes > MAX_CHUNK_KEYS || bounds.len() > MAX_CHUNK_SLOTS {
            return None;
        }
        if bounds.last().is_some_and(|before| *before >= bound) {
            return None;
        }
        bounds.push(bound);
    }
    let ranges = if unbounded { bounds.len() } else { bounds.len().checked_sub(1)? };
    let count = take_varint(input)?;
    let mut slots: Vec<ChunkSlot> = Vec::new();
    let (mut range, mut route) = (0u16, 0u64);
    for _ in 0..count {
        let place = take_varint(input)?;
        range = range.checked_add(u16::try_from(place >> 1).ok().filter(|&next| next <= 1)?)?;
        let group = GroupId(take_varint(input)?);
        let difference = take_varint(input)?;
        route = route.wrapping_add(difference >> 1 ^ (difference & 1).wrapping_neg());
        let known = slots.len() < MAX_CHUNK_SLOTS && usize::from(range) < ranges;
        let starts = !slots.is_empty() || range == 0;
        let slot =
            ChunkSlot { range, aggregate: place & 1 == 1, group, route: RouteId::new(route)? };
        if !known || !starts {
            return None;
        }
        slots.push(slot);
    }
    if !input.is_empty() || usize::from(range) + 1 != ranges || slots.is_empty() {
        return None;
    }
    let bounds: Vec<&[u8]> = bounds.iter().map(Vec::as_slice).collect();
    Some(Chunk::new(xxh3_128(body), &bounds, unbounded, slots))
}

/// A column's record. Its chunks are stored by themselves.
pub(crate) fn encode_column(column: &Column) -> Vec<u8> {
    let chunks = column.chunks();
    let indices: HashMap<u128, u64> = chunks.keys().copied().zip(0..).collect();
    let mut out = Vec::new();
    put_varint(column.start_ms(), &mut out);
    put_varint(column.end_ms() - column.start_ms(), &mut out);
    out.push(u8::from(column.closed()));
    put_varint(chunks.len() as u64, &mut out);
    chunks.keys().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
    put_varint(column.parts().len() as u64, &mut out);
    for part in column.parts() {
        put_varint(part.incarnation.0, &mut out);
        out.push(u8::from(part.partial));
        put_varint(part.catalog_version, &mut out);
        let Counts { reads, writes, read_bytes, write_bytes } = part.unattributed;
        [reads, writes, read_bytes, write_bytes].into_iter().for_each(|n| put_varint(n, &mut out));
        put_varint(part.runs.len() as u64, &mut out);
        for run in &part.runs {
            put_varint(run.axis.chunks().len() as u64, &mut out);
            for chunk in run.axis.chunks() {
                put_varint(indices[&chunk.digest()], &mut out);
            }
            put_varint(run.leads.iter().len() as u64, &mut out);
            for (group, term) in run.leads.iter() {
                put_varint(group.0, &mut out);
                put_varint(term.0, &mut out);
            }
            run.cells.encode(&mut out);
        }
    }
    record(COLUMN, &out)
}

/// A column from its record; `chunk` finds a chunk by its digest.
pub(crate) fn decode_column(
    record: &[u8],
    interner: &mut Interner,
    chunk: impl Fn(u128) -> Option<Arc<Chunk>>,
) -> Result<Column, RecordError> {
    let mut input = body(COLUMN, record)?;
    let head = take_head(&mut input).ok_or(RecordError::Malformed)?;
    let find = |&digest: &u128| chunk(digest).ok_or(RecordError::MissingChunk { digest });
    let chunks = head.digests.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let column = take_parts(&mut input, &head, &chunks, interner).ok_or(RecordError::Malformed)?;
    if input.is_empty() { Ok(column) } else { Err(RecordError::Malformed) }
}

/// The interval of a column's record and the chunks that it refers to, without its counts.
pub(crate) fn column_head(record: &[u8]) -> Result<(ColumnId, Vec<u128>), RecordError> {
    let mut input = body(COLUMN, record)?;
    let Head { start_ms, end_ms, digests, .. } =
        take_head(&mut input).ok_or(RecordError::Malformed)?;
    Ok((ColumnId { start_ms, end_ms }, digests))
}

struct Head {
    start_ms: u64,
    end_ms: u64,
    closed: bool,
    digests: Vec<u128>,
}

fn take_head(input: &mut &[u8]) -> Option<Head> {
    let start_ms = take_varint(input)?;
    let end_ms = start_ms.checked_add(take_varint(input)?)?;
    if end_ms <= start_ms || end_ms > 2 * MAX_TIME_MS {
        return None;
    }
    let closed = take_flag(input)?;
    let mut digests = Vec::new();
    for _ in 0..take_varint(input)? {
        let (digest, rest) = input.split_first_chunk::<16>()?;
        *input = rest;
        digests.push(u128::from_le_bytes(*digest));
    }
    Some(Head { start_ms, end_ms, closed, digests })
}

fn take_parts(
    input: &mut &[u8],
    head: &Head,
    chunks: &[Arc<Chunk>],
    interner: &mut Interner,
) -> Option<Column> {
    let mut column = Column::new(head.start_ms, head.end_ms);
    column.set_closed(head.closed);
    for _ in 0..take_varint(input)? {
        let incarnation = Incarnation(take_varint(input)?);
        let partial = take_flag(input)?;
        let catalog_version = take_varint(input)?;
        let mut number = || take_varint(input);
        let unattributed = Counts {
            reads: number()?,
            writes: number()?,
            read_bytes: number()?,
            write_bytes: number()?,
        };
        let mut part = Part { partial, catalog_version, unattributed, ..Part::new(incarnation) };
        for _ in 0..take_varint(input)? {
            part.runs.push(take_run(input, chunks, interner)?);
        }
        column.push_part(part)?;
    }
    Some(column)
}

fn take_run(input: &mut &[u8], chunks: &[Arc<Chunk>], interner: &mut Interner) -> Option<CellRun> {
    let mut own = Vec::new();
    let mut slots = 0;
    for _ in 0..take_varint(input)? {
        own.push(Arc::clone(chunks.get(usize::try_from(take_varint(input)?).ok()?)?));
        slots += own[own.len() - 1].slots().len();
        if slots > MAX_AXIS_SLOTS {
            return None;
        }
    }
    let mut leads = Vec::new();
    for _ in 0..take_varint(input)? {
        leads.push((GroupId(take_varint(input)?), Term(take_varint(input)?)));
    }
    let axis = interner.axis(&own);
    let cells = Cells::decode(input, axis.len())?;
    Some(CellRun { axis, leads: interner.leads(LeaderTerms::new(leads)), cells })
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

fn take_flag(input: &mut &[u8]) -> Option<bool> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
