//! Records that a node stores about itself: their form, and why one cannot be read.
//!
//! ```text
//! record: byte 0     format
//!         bytes 1..  bincode 2 (standard configuration)
//! ```

use std::str::Utf8Error;

use bincode::{Decode, Encode, config};

/// Bounds the memory that a damaged record can make the decoder allocate.
const MAX_BYTES: usize = 64 << 20;

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

/// Encodes a record with the number of its format.
pub fn encode_record(format: u8, record: &impl Encode) -> Vec<u8> {
    let mut bytes = vec![format];
    bincode::encode_into_std_write(record, &mut bytes, config::standard())
        .expect("a record encodes into memory");
    bytes
}

/// Decodes a record of this format.
///
/// # Errors
/// The record is empty, has another format, does not decode, or has bytes after its body.
pub fn decode_record<R: Decode<()>>(format: u8, bytes: &[u8]) -> Result<R, RecordError> {
    let (&found, body) = bytes.split_first().ok_or(RecordError::Empty)?;
    if found != format {
        return Err(RecordError::Format { found, expected: format });
    }
    let config = config::standard().with_limit::<MAX_BYTES>();
    let (record, used) = bincode::decode_from_slice(body, config)
        .map_err(|error| RecordError::Body(error.to_string()))?;
    match body.len() - used {
        0 => Ok(record),
        rest => Err(RecordError::Trailing(rest)),
    }
}
