//! Backup files: parts in checksummed chunks, read and written without interpreting the rows.
//!
//! This crate knows bytes and the parts of `backup.proto`, but not Raft, the network or the folder
//! of a node.

mod error;
mod order;
mod reader;
mod writer;

pub use error::BackupError;
pub use reader::BackupReader;
pub use writer::{BackupWriter, FilePosition};

use keyviz_proto as proto;

/// The format of the files that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The first bytes of a file. The number is the format's version.
pub const MAGIC: &[u8; 16] = b"keyviz backup 1\n";

/// Maximum size of a part: a row of maximum size after a run of rows, and the framing.
pub const MAX_PART_BYTES: usize = 16 * 1024 * 1024;

/// One part of a backup.
pub type Part = proto::backup_part::Part;

/// The checksum of a chunk covers its number and its bytes, which detects a chunk in the wrong
/// place.
fn checksum(number: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests;
