//! Why a backup cannot be read.

use std::io;

/// A file that is no sound backup, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins with something else.
    #[error("the file is no backup of keyviz")]
    NotABackup,
    /// A later version wrote it.
    #[error(
        "the backup has another format than this program knows (1); use the version that wrote it or a later one"
    )]
    OtherFormat,
    /// It is not what was written.
    #[error("the backup is damaged in chunk {chunk}, at offset {offset}: {what}")]
    Damaged {
        /// Number of the chunk, from 0.
        chunk: u64,
        /// Where the chunk begins in the file, bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The system refused.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
}
