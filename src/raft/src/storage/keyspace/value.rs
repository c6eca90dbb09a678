//! How a state machine's rows lie in its tree.
//!
//! ```text
//! key                                value
//! any key not below \0raft\0         0, bytes                          a value that fits a record
//!                                    1, length u32, CRC-32 u32         a longer one; little-endian
//! \0raft\0p, len u16, key, n u16     part n of the value of `key`      numbers big-endian
//! \0raft\0redo                       the last batch, see `space.rs`
//! \0raft\0redo, slot u8, n u16       part n of the last or the last but one batch
//! \0raft\0membership                 the applied membership, as a row
//! ```
//!
//! Long values are cut because a record above a bound would leave sled's synced file.

use std::io;

use bytes::{Bytes, BytesMut};

use crate::storage::engine::{RECORD_BYTES, Tree};

/// Keys that start with this are Raft's own and not seen by state machines.
pub const RESERVED_PREFIX: &[u8] = b"\0raft\0";

/// The longest key of a row: that of the key-value interface and room for a layer's own prefix.
pub const MAX_STORED_KEY_BYTES: usize = 4096 + 64;

const INLINE: u8 = 0;
const PARTED: u8 = 1;

pub(crate) const PART_PREFIX: &[u8] = b"\0raft\0p";

pub(in crate::storage) fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    let length = u16::try_from(key.len()).expect("keys are bounded by MAX_STORED_KEY_BYTES");
    let mut bytes = Vec::with_capacity(PART_PREFIX.len() + 4 + key.len());
    bytes.extend_from_slice(PART_PREFIX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// Whether a value of this length is cut into parts.
pub(crate) fn is_long(length: usize) -> bool {
    length + 1 > RECORD_BYTES
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a row is corrupt: {what}"))
}

/// The value of the row whose record is `record`.
pub(crate) fn read(tree: &Tree, key: &[u8], record: &[u8]) -> io::Result<Bytes> {
    match record.split_first() {
        Some((&INLINE, value)) => Ok(Bytes::copy_from_slice(value)),
        Some((&PARTED, head)) => read_parts(tree, key, head),
        _ => Err(corrupt("its record is of no known kind")),
    }
}

fn long_head(head: &[u8]) -> io::Result<(usize, u32)> {
    let head: &[u8; 8] = head.try_into().map_err(|_| corrupt("the head of a long value"))?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
    let crc = u32::from_le_bytes(head[4..].try_into().expect("4 bytes"));
    Ok((length as usize, crc))
}

fn read_parts(tree: &Tree, key: &[u8], head: &[u8]) -> io::Result<Bytes> {
    let (length, crc) = long_head(head)?;
    let mut value = BytesMut::new();
    for part in 0..parts_of(length)? {
        let record = tree.get(&part_key(key, part))?.ok_or(corrupt("a part is missing"))?;
        value.extend_from_slice(&record);
    }
    if value.len() != length || crc32fast::hash(&value) != crc {
        return Err(corrupt("its checksum does not match"));
    }
    Ok(value.freeze())
}

fn parts_of(length: usize) -> io::Result<u16> {
    u16::try_from(length.div_ceil(RECORD_BYTES)).map_err(|_| corrupt("its length is impossible"))
}

/// Writes a row. `long_rows`: long values exist in the tree, so an old one may have to go.
pub(crate) fn write(tree: &Tree, key: &[u8], value: &[u8], long_rows: bool) -> io::Result<()> {
    let new_parts = if is_long(value.len()) { parts_of(value.len())? } else { 0 };
    if long_rows {
        remove_parts(tree, key, new_parts)?;
    }
    if new_parts == 0 {
        let mut record = Vec::with_capacity(1 + value.len());
        record.push(INLINE);
        record.extend_from_slice(value);
        return tree.put(key, record);
    }
    for (part, chunk) in (0..new_parts).zip(value.chunks(RECORD_BYTES)) {
        tree.put(&part_key(key, part), chunk)?;
    }
    let mut head = vec![PARTED];
    let length = u32::try_from(value.len()).expect("65,536 parts of a record are below 4 GiB");
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    tree.put(key, head)
}

/// Removes a row, whether or not it is there.
pub(crate) fn remove(tree: &Tree, key: &[u8], long_rows: bool) -> io::Result<()> {
    if long_rows {
        remove_parts(tree, key, 0)?;
    }
    tree.delete(key)
}

/// Removes the parts from `keep` on of the value that `key` has now.
fn remove_parts(tree: &Tree, key: &[u8], keep: u16) -> io::Result<()> {
    if let Some(old) = tree.get(key)?
        && let Some((&PARTED, head)) = old.split_first()
    {
        let (length, _) = long_head(head)?;
        for part in keep..parts_of(length)? {
            tree.delete(&part_key(key, part))?;
        }
    }
    Ok(())
}
