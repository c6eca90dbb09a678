//! Commands of a data group, as stored in its log.
//!
//! ```text
//! byte 0      format, 1
//! bytes 1..   bincode 2 (standard configuration) of `KvCommand`
//! ```
//!
//! The log adds the checksum. A command is encoded once, where the request enters the cluster, and
//! passed as bytes to every replica.

use bincode::config::{Configuration, Limit, standard};
use bytes::Bytes;

use super::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES};

const FORMAT: u8 = 1;

/// Maximum size of a command: a full batch and the framing of its operations.
const MAX_COMMAND_BYTES: usize =
    MAX_BATCH_BYTES + MAX_BATCH_OPERATIONS * 32 + 4 * MAX_KEY_BYTES + 1_024;

const CONFIG: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<MAX_COMMAND_BYTES>,
> = standard().with_limit::<MAX_COMMAND_BYTES>();

/// A change to the data of one group.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::BorrowDecode)]
pub enum KvCommand<'a> {
    /// Stores a value.
    Put {
        /// Key.
        key: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// Removes a key; returns whether it existed.
    Delete {
        /// Key.
        key: &'a [u8],
    },
    /// Removes the keys of a range within one route; returns their number.
    DeleteRange {
        /// First key, inclusive.
        start: &'a [u8],
        /// First key after the range.
        end: Option<&'a [u8]>,
    },
    /// Several puts and deletes at once.
    Batch(Vec<KvWrite<'a>>),
    /// Writes if the value is the expected one; returns the outcome.
    CompareAndSwap {
        /// Key.
        key: &'a [u8],
        /// Value expected; `None`: no key.
        expected: Option<&'a [u8]>,
        /// Value to store; `None`: delete.
        value: Option<&'a [u8]>,
    },
}

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::BorrowDecode)]
pub enum KvWrite<'a> {
    /// Stores a value.
    Put {
        /// Key.
        key: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// Key.
        key: &'a [u8],
    },
}

/// Bytes that are not a command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// Nothing there.
    #[error("a command of no bytes")]
    Empty,
    /// A format that this version does not know.
    #[error("command format {found}; this version reads {FORMAT}: upgrade this node")]
    Format {
        /// The format byte.
        found: u8,
    },
    /// Not a command in this format.
    #[error("a command that does not decode: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// More bytes than the command has.
    #[error("{bytes} bytes after the end of a command")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl<'a> KvCommand<'a> {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(64 + self.payload_bytes());
        bytes.push(FORMAT);
        bincode::encode_into_std_write(self, &mut bytes, CONFIG)
            .expect("a command within the request limits encodes into memory");
        Bytes::from(bytes)
    }

    /// Reads what [`KvCommand::encode`] wrote.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let (&format, body) = bytes.split_first().ok_or(CommandError::Empty)?;
        if format != FORMAT {
            return Err(CommandError::Format { found: format });
        }
        let (command, used) = bincode::borrow_decode_from_slice(body, CONFIG)
            .map_err(|error| CommandError::Malformed { reason: error.to_string() })?;
        match body.len() - used {
            0 => Ok(command),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            KvCommand::Put { key, value } => key.len() + value.len(),
            KvCommand::Delete { key } => key.len(),
            KvCommand::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
            KvCommand::Batch(writes) => {
                writes.iter().map(|write| write.payload_bytes() + 16).sum::<usize>()
            }
            KvCommand::CompareAndSwap { key, expected, value } => {
                key.len() + expected.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
            }
        }
    }
}

impl<'a> KvWrite<'a> {
    /// The key written.
    pub fn key(&self) -> &'a [u8] {
        match self {
            KvWrite::Put { key, .. } | KvWrite::Delete { key } => key,
        }
    }

    /// Bytes of key and value.
    pub fn payload_bytes(&self) -> usize {
        match self {
            KvWrite::Put { key, value } => key.len() + value.len(),
            KvWrite::Delete { key } => key.len(),
        }
    }
}

/// The outcome of a compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CasOutcome {
    /// The value was the expected one and was replaced.
    Swapped,
    /// The value was another one, and nothing changed; the value found.
    Mismatch(Option<Bytes>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<KvCommand<'static>> {
        vec![
            KvCommand::Put { key: b"a", value: b"" },
            KvCommand::Delete { key: b"\xff" },
            KvCommand::DeleteRange { start: b"", end: None },
            KvCommand::DeleteRange { start: b"a", end: Some(b"b") },
            KvCommand::Batch(vec![
                KvWrite::Put { key: b"k", value: b"v" },
                KvWrite::Delete { key: b"d" },
            ]),
            KvCommand::CompareAndSwap { key: b"k", expected: None, value: Some(b"v") },
        ]
    }

    #[test]
    fn every_command_survives_the_log() {
        for command in samples() {
            assert_eq!(KvCommand::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn a_cut_longer_or_newer_command_is_a_typed_error() {
        for command in samples() {
            let bytes = command.encode();
            for cut in 0..bytes.len() {
                assert!(KvCommand::decode(&bytes[..cut]).is_err());
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(KvCommand::decode(&longer), Err(CommandError::Trailing { bytes: 1 }));
            let mut newer = bytes.to_vec();
            newer[0] = 2;
            assert_eq!(KvCommand::decode(&newer), Err(CommandError::Format { found: 2 }));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = KvCommand::decode(&bytes);
        }
    }
}
