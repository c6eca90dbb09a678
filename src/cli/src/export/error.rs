//! Why there is no export.

use std::io;
use std::path::PathBuf;

/// Why there is no export. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something has its name.
    #[error("{} exists; name a file that does not", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// An error of the operating system.
        source: io::Error,
    },
    /// Stdout cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The encoder of Parquet fails.
    #[error("the Parquet encoder fails: {0}")]
    Parquet(String),
    /// The node that was asked is too old.
    #[error(
        "the node that was asked is of an earlier version, which cannot list routes and sources; \
         name a node of this version first (--node)"
    )]
    OlderNode,
    /// The routes change all the time.
    #[error("the routes changed during each of {0} attempts; export again, or with --axis then")]
    RoutesChange(u32),
    /// An answer contradicts itself.
    #[error("the answer of the node is damaged: {0}")]
    Damaged(&'static str),
}
