//! Why a record that a node stored about itself cannot be read.

use std::str::Utf8Error;

/// Why a stored record of a node is damaged or of another version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It has another length than records of its kind.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// The bytes found.
        found: usize,
        /// The bytes that such a record has.
        expected: usize,
    },
    /// It has a format that this version does not read.
    #[error("it has format {found}, and this version reads {expected}")]
    Format {
        /// The format found.
        found: u8,
        /// The format of this version.
        expected: u8,
    },
    /// Its body does not decode.
    #[error("it does not decode: {0}")]
    Body(String),
    /// Bytes follow its body.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// It is text, but not UTF-8.
    #[error("it is not UTF-8: {0}")]
    Text(#[from] Utf8Error),
    /// It is a flag with another value than 0 or 1.
    #[error("it is neither 0 nor 1, but {0:?}")]
    Flag(Vec<u8>),
    /// Nodes store no record of that name.
    #[error("no record of that name is known")]
    Unknown,
}
