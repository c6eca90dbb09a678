//! The record that makes a batch of row changes atomic.
//!
//! The effects of a batch and the resulting log position are first written as one record, then row
//! by row. After a crash the record is applied again: its effects are plain puts and deletes, so
//! this is idempotent. (sled's own `apply_batch` would need two extra disk writes per batch.) A
//! batch of commands that may be applied again needs no effects in its record, which is then
//! written last.
//!
//! ```text
//! record \0raft\0redo, numbers little-endian:
//!  0  1  version, 1
//!  1  4  CRC-32 of everything after this field and of the body
//!  5  8  sequence number; its lowest bit names the slot of the parts
//! 13  1  1: a position follows, 0: nothing was applied yet
//! 14  8  its term
//! 22  8  its index
//! 30  4  length of the body
//! 34     the body, if it fits the record; else it lies in parts, written before this record
//!
//! body, for each change:
//!     1  0 delete, 1 put
//!     4  length of the key, then the key
//!     4  length of the value, then the value (puts only)
//! ```

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::storage::engine::{RECORD_BYTES, Tree};
use crate::types::LogPosition;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 34;
const KEY: &[u8] = b"\0raft\0redo";

/// The last batch of a tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Redo {
    pub(crate) sequence: u64,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) changes: Vec<Change>,
}

/// A row put or, without value, deleted.
pub(crate) type Change = (Bytes, Option<Bytes>);

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the last batch is corrupt: {what}"))
}

fn part_key(sequence: u64, part: u16) -> Vec<u8> {
    let mut key = KEY.to_vec();
    key.push((sequence & 1) as u8);
    key.extend_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn write<'a>(
    tree: &Tree,
    sequence: u64,
    applied: Option<LogPosition>,
    changes: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
) -> io::Result<()> {
    let mut record = vec![0; HEAD_BYTES];
    for (key, value) in changes {
        record.push(u8::from(value.is_some()));
        push_sized(&mut record, key);
        if let Some(value) = value {
            push_sized(&mut record, value);
        }
    }
    let body_bytes = record.len() - HEAD_BYTES;
    record[0] = VERSION;
    record[5..13].copy_from_slice(&sequence.to_le_bytes());
    if let Some(at) = applied {
        record[13] = 1;
        record[14..22].copy_from_slice(&at.term.to_le_bytes());
        record[22..30].copy_from_slice(&at.index.to_le_bytes());
    }
    let length = u32::try_from(body_bytes).map_err(|_| corrupt("a batch of 4 GiB"))?;
    record[30..34].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&record[5..]);
    record[1..5].copy_from_slice(&crc.to_le_bytes());
    if record.len() > RECORD_BYTES {
        let body = record.split_off(HEAD_BYTES);
        for (part, chunk) in body.chunks(RECORD_BYTES).enumerate() {
            let part = u16::try_from(part).map_err(|_| corrupt("a batch of 1 GiB"))?;
            tree.put(&part_key(sequence, part), chunk)?;
        }
    }
    tree.put(KEY, record)
}

fn push_sized(record: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB");
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(bytes);
}

/// The last batch; `None` for a tree that never had one.
pub(crate) fn read(tree: &Tree) -> io::Result<Option<Redo>> {
    let Some(record) = tree.get(KEY)? else { return Ok(None) };
    if record.len() < HEAD_BYTES || record[0] != VERSION {
        return Err(corrupt("its head"));
    }
    let (head, inline) = record.split_at(HEAD_BYTES);
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let (sequence, length) = (u64_at(5), u32_at(30) as usize);
    let mut body = BytesMut::from(inline);
    if inline.is_empty() {
        for part in 0..length.div_ceil(RECORD_BYTES) {
            let part = u16::try_from(part).map_err(|_| corrupt("its length"))?;
            let part = tree.get(&part_key(sequence, part))?;
            body.extend_from_slice(&part.ok_or(corrupt("a part is missing"))?);
        }
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[5..]);
    crc.update(&body);
    if body.len() != length || crc.finalize() != u32_at(1) {
        return Err(corrupt("its checksum does not match"));
    }
    let applied = (head[13] == 1).then(|| LogPosition { term: u64_at(14), index: u64_at(22) });
    let changes = read_changes(body.freeze()).ok_or(corrupt("its body"))?;
    Ok(Some(Redo { sequence, applied, changes }))
}

pub(crate) fn read_changes(mut body: Bytes) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while body.has_remaining() {
        let put = match body.get_u8() {
            0 => false,
            1 => true,
            _ => return None,
        };
        let key = take_sized(&mut body)?;
        let value = if put { Some(take_sized(&mut body)?) } else { None };
        changes.push((key, value));
    }
    Some(changes)
}

fn take_sized(body: &mut Bytes) -> Option<Bytes> {
    let length = body.try_get_u32_le().ok()? as usize;
    (body.len() >= length).then(|| body.split_to(length))
}
