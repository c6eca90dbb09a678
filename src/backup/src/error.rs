//! Why a backup cannot be read.

use std::io;

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file does not begin like a backup.
    #[error("the file is no backup of keyviz")]
    NotABackup,
    /// A later version wrote it.
    #[error(
        "the backup has another format than this program knows (1); use the version that wrote it \
         or a later one"
    )]
    OtherFormat,
    /// A chunk is damaged.
    #[error("the backup is damaged in chunk {chunk}, at offset {offset}: {what}")]
    Damaged {
        /// Number of the chunk, from 0.
        chunk: u64,
        /// Offset of the chunk in the file, in bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An error of the operating system.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
}
