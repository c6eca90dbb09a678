//! Entries of moves in the log of a group, and the machine's replies to them.
//!
//! ```text
//! byte 0      format, 2: a version that knows no moves names the version to upgrade to
//! bytes 1..   bincode 2 (standard configuration) of `MoveEntry`
//! ```

use bincode::config::{Configuration, Limit, standard};
use bytes::Bytes;

use keyviz_types::KeyRange;

use crate::command::CommandError;

const FORMAT: u8 = 2;

/// Maximum size of an entry: a chunk, its longest last row, and its frame.
const MAX_ENTRY_BYTES: usize = 4 << 20;

type Config =
    Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<MAX_ENTRY_BYTES>>;

const CONFIG: Config = standard().with_limit::<MAX_ENTRY_BYTES>();

/// The place of a note: the entry that changed the key, and which of its changes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, bincode::Encode, bincode::Decode,
)]
pub struct NotePosition {
    /// Index of the entry.
    pub index: u64,
    /// Number of the change in it.
    pub part: u32,
}

/// How far a target has taken a range.
#[derive(Clone, PartialEq, Eq, Default, Debug, bincode::Encode, bincode::Decode)]
pub struct Progress {
    /// Number of the next chunk.
    pub next: u64,
    /// Rows up to and with this key were copied; `None`: none yet.
    pub cursor: Option<Vec<u8>>,
    /// All rows were copied.
    pub copied: bool,
    /// The noted keys up to and with this note were taken.
    pub drained: NotePosition,
}

/// A row to put, or a key to delete.
pub(super) type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// A step of a move in one group.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::BorrowDecode)]
pub enum MoveEntry<'a> {
    /// Source: notes the keys of the range that change from here on.
    Track {
        /// The move.
        id: u64,
        /// First key of the range.
        start: &'a [u8],
        /// First key after it.
        end: Option<&'a [u8]>,
    },
    /// Source: forgets notes that the target has taken.
    Trim {
        /// The move.
        id: u64,
        /// The last of them.
        upto: NotePosition,
    },
    /// Source: refuses the range from here on.
    Seal {
        /// The move.
        id: u64,
    },
    /// Source, after the target has taken over: deletes rows of the range, a page an entry.
    Clear {
        /// The move.
        id: u64,
    },
    /// Source, before it sealed: forgets the move, a page of notes an entry.
    Untrack {
        /// The move.
        id: u64,
    },
    /// Target: is ready to take the range.
    Receive {
        /// The move.
        id: u64,
        /// First key of the range.
        start: &'a [u8],
        /// First key after it.
        end: Option<&'a [u8]>,
    },
    /// Target: takes a chunk, if it is the next one.
    Ingest {
        /// The move.
        id: u64,
        /// What the target has come to with it; `next` is the chunk's own number.
        progress: Progress,
        /// The rows.
        rows: Vec<Change<'a>>,
    },
    /// Target: takes the last chunk, and owns the range from here on.
    Adopt {
        /// The move.
        id: u64,
        /// Number of the chunk.
        number: u64,
        /// The rows.
        rows: Vec<Change<'a>>,
    },
    /// Target, before the source sealed: deletes what it took, a page an entry.
    Drop {
        /// The move.
        id: u64,
    },
}

/// Whether bytes of the log are an entry of a move.
pub(crate) fn is_move_entry(bytes: &[u8]) -> bool {
    bytes.first() == Some(&FORMAT)
}

impl<'a> MoveEntry<'a> {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        bincode::encode_into_std_write(self, &mut bytes, CONFIG)
            .expect("an entry within the bounds of a chunk encodes into memory");
        Bytes::from(bytes)
    }

    /// Reads what [`MoveEntry::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are not exactly one entry.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let (&format, body) = bytes.split_first().ok_or(CommandError::Empty)?;
        if format != FORMAT {
            return Err(CommandError::Format { found: format });
        }
        let (entry, used) = bincode::borrow_decode_from_slice(body, CONFIG)
            .map_err(|error| CommandError::Malformed { reason: error.to_string() })?;
        match body.len() - used {
            0 => Ok(entry),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }

    /// An entry that begins to note the changes of a range.
    pub fn track(id: u64, range: &'a KeyRange) -> Self {
        MoveEntry::Track { id, start: &range.start, end: range.end.as_deref() }
    }

    /// An entry that begins to take a range.
    pub fn receive(id: u64, range: &'a KeyRange) -> Self {
        MoveEntry::Receive { id, start: &range.start, end: range.end.as_deref() }
    }
}

/// Why a group refused a step. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, bincode::Encode, bincode::Decode)]
pub enum MoveRefusal {
    /// The move ended here before.
    #[error("the move has ended in this group")]
    Ended,
    /// The group does not know the move, or is at another step of it.
    #[error("the group is not at that step of the move")]
    NotAtThatStep,
    /// Another move has keys of the range here.
    #[error("another move has keys of the range in this group")]
    Busy,
    /// More keys changed than are noted, so it is never sealed.
    #[error("more keys changed meanwhile than the group notes")]
    Overflowed,
    /// There are rows in the range already.
    #[error("the group has rows of the range already")]
    NotEmpty,
}

/// What the machine says to a step.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
pub enum MoveReply {
    /// It was made, now or before. `more`: the next page is to follow.
    Done {
        /// Whether there is more to delete.
        more: bool,
    },
    /// How far the target has come; a chunk with another number than the next was not taken.
    Progress(Progress),
    /// The target owns the range since the entry of this index.
    Adopted {
        /// The index.
        at: u64,
    },
    /// Nothing changed.
    Refused(MoveRefusal),
}

impl MoveReply {
    pub(crate) fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, CONFIG).expect("a reply has at most a key").into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let (reply, used) = bincode::decode_from_slice(bytes, CONFIG)
            .map_err(|error| CommandError::Malformed { reason: error.to_string() })?;
        match bytes.len() - used {
            0 => Ok(reply),
            bytes => Err(CommandError::Trailing { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::KvCommand;

    fn samples() -> Vec<MoveEntry<'static>> {
        let progress = Progress {
            next: 3,
            cursor: Some(b"m".to_vec()),
            copied: false,
            drained: NotePosition { index: 7, part: 1 },
        };
        vec![
            MoveEntry::Track { id: 1, start: b"", end: None },
            MoveEntry::Trim { id: 1, upto: NotePosition { index: 300, part: 2 } },
            MoveEntry::Seal { id: 1 },
            MoveEntry::Clear { id: 1 },
            MoveEntry::Untrack { id: 1 },
            MoveEntry::Receive { id: 1, start: b"a", end: Some(b"b") },
            MoveEntry::Ingest { id: 1, progress, rows: vec![(b"k", Some(b"v")), (b"d", None)] },
            MoveEntry::Adopt { id: 1, number: 4, rows: vec![] },
            MoveEntry::Drop { id: 1 },
        ]
    }

    #[test]
    fn entries_and_replies_survive_the_log_and_are_told_from_commands() {
        for entry in samples() {
            let bytes = entry.encode();
            assert!(is_move_entry(&bytes));
            assert_eq!(MoveEntry::decode(&bytes), Ok(entry));
            assert_eq!(KvCommand::decode(&bytes), Err(CommandError::Format { found: 2 }));
            for cut in 0..bytes.len() {
                assert!(MoveEntry::decode(&bytes[..cut]).is_err());
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(MoveEntry::decode(&longer), Err(CommandError::Trailing { bytes: 1 }));
        }
        let replies = [
            MoveReply::Done { more: true },
            MoveReply::Progress(Progress::default()),
            MoveReply::Adopted { at: 9 },
            MoveReply::Refused(MoveRefusal::Busy),
        ];
        for reply in replies {
            assert_eq!(MoveReply::decode(&reply.encode()), Ok(reply));
        }
    }
}
