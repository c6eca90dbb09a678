//! The form of records in `meta`: a value and its CRC-32.

use std::io;

/// The record of a value.
pub(super) fn seal(value: &[u8]) -> Vec<u8> {
    [value, &crc32fast::hash(value).to_le_bytes()[..]].concat()
}

/// The value of a record.
///
/// # Errors
/// It is not what was written.
pub(super) fn unseal(record: &[u8]) -> io::Result<&[u8]> {
    record
        .split_last_chunk::<4>()
        .filter(|(value, crc)| crc32fast::hash(value).to_le_bytes() == **crc)
        .map(|(value, _)| value)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a node record is corrupt"))
}
