//! The bytes of the replicated log on disk.
//!
//! All groups share one tree. A key is
//!
//! ```text
//! group   u64 big-endian
//! kind    u8     0 vote, 1 purged, 2 block
//! index   u64 big-endian   first entry of the block; 0 for the other kinds
//! part    u16 big-endian   0 for the other kinds
//! ```
//!
//! A block holds consecutive entries of one group that one write made durable. A block costs the
//! tree as much as a single entry. Numbers are little-endian:
//!
//! ```text
//! offset  size
//!      0     1  version, 1
//!      1     4  CRC-32 of everything after this field, over all parts
//!      5     4  length of the whole block, this header included
//!      9     2  parts
//!     11     4  entries, at least 1
//!     15     8  index of the first entry
//!     23     1  1: an entry was known to be committed when this was written, else 0
//!     24     8  its term, or 0
//!     32     8  its index, or 0
//!     40        the entries, each:
//!               8  term
//!               1  kind: 0 blank, 1 command, 2 membership
//!               4  length of the payload
//!                  payload: nothing, the command, or a `RaftMembership` message
//! ```
//!
//! A block longer than a record is split into parts of [`RECORD_BYTES`]; it then holds one entry.
//! Part 0 is written last and removed first, so that a crash leaves either the whole block or parts
//! without a head, which are removed when the log is opened.
//!
//! A vote record is version, CRC-32 of the rest, term u64, node u64, committed u8. A purged record
//! is version, CRC-32 of the rest, term u64, index u64: entries up to it are gone, whether or not
//! their blocks still are.

use bytes::Bytes;
use prost::Message as _;

use crate::storage::RECORD_BYTES;
use crate::types::{Command, Entry, LogId, LogPosition, Payload, Vote};
use crate::wire;
use keyviz_proto as proto;
use keyviz_types::GroupId;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 40;
const ENTRY_HEADER_BYTES: usize = 13;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// A record of a group's log is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of group {group} is corrupt at entry {index}: {what}")]
pub struct CorruptLog {
    /// The group.
    pub group: GroupId,
    /// The entry, or the first entry of the block; 0 for a vote or a purge mark.
    pub index: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

impl From<CorruptLog> for std::io::Error {
    fn from(error: CorruptLog) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// The kind of a record in the log tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Vote,
    Purged,
    Block { first: u64, part: u16 },
}

pub(crate) const KEY_BYTES: usize = 19;

impl Key {
    pub(crate) fn encode(self, group: GroupId) -> [u8; KEY_BYTES] {
        let (kind, index, part) = match self {
            Key::Vote => (0, 0, 0),
            Key::Purged => (1, 0, 0),
            Key::Block { first, part } => (2u8, first, part),
        };
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&group.0.to_be_bytes());
        key[8] = kind;
        key[9..17].copy_from_slice(&index.to_be_bytes());
        key[17..].copy_from_slice(&part.to_be_bytes());
        key
    }

    /// `None` for a key of another group or of no known kind.
    pub(crate) fn decode(group: GroupId, key: &[u8]) -> Option<Self> {
        let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
        if key[..8] != group.0.to_be_bytes() {
            return None;
        }
        let first = u64::from_be_bytes(key[9..17].try_into().expect("8 bytes"));
        let part = u16::from_be_bytes(key[17..].try_into().expect("2 bytes"));
        match key[8] {
            0 => Some(Key::Vote),
            1 => Some(Key::Purged),
            2 => Some(Key::Block { first, part }),
            _ => None,
        }
    }
}

/// Collects consecutive entries into one block.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    first: u64,
    count: u32,
    committed: Option<LogId>,
}

impl BlockBuilder {
    pub(crate) fn new(first: u64) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], first, count: 0, committed: None }
    }

    /// The index after the last entry.
    pub(crate) fn next_index(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Whether `entry` still fits into one record. The first entry always fits.
    pub(crate) fn has_room_for(&self, entry: &Entry) -> bool {
        self.count == 0 || self.bytes.len() + entry_bytes(entry) <= RECORD_BYTES
    }

    /// Adds the entry with the next index.
    pub(crate) fn push(&mut self, entry: &Entry) {
        assert_eq!(entry.log_id.index, self.next_index(), "a block has no gap");
        let term = entry.log_id.leader_id.term;
        self.bytes.extend_from_slice(&term.to_le_bytes());
        match &entry.payload {
            Payload::Blank => self.push_payload(KIND_BLANK, &[]),
            Payload::Normal(command) => self.push_payload(KIND_COMMAND, &command.0),
            Payload::Membership(membership) => {
                let encoded = wire::membership_to_proto(membership).encode_to_vec();
                self.push_payload(KIND_MEMBERSHIP, &encoded);
            }
        }
        self.count += 1;
    }

    fn push_payload(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("an entry is far below 4 GiB");
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
    }

    pub(crate) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    /// The records of the block, part 0 first.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a block is far below 4 GiB");
        let parts = self.bytes.len().div_ceil(RECORD_BYTES);
        let parts = u16::try_from(parts).expect("an entry is far below 1.25 GiB");
        self.bytes[0] = VERSION;
        self.bytes[5..9].copy_from_slice(&length.to_le_bytes());
        self.bytes[9..11].copy_from_slice(&parts.to_le_bytes());
        self.bytes[11..15].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[15..23].copy_from_slice(&self.first.to_le_bytes());
        if let Some(at) = self.committed {
            self.bytes[23] = 1;
            self.bytes[24..32].copy_from_slice(&at.leader_id.term.to_le_bytes());
            self.bytes[32..40].copy_from_slice(&at.index.to_le_bytes());
        }
        let crc = crc32fast::hash(&self.bytes[5..]);
        self.bytes[1..5].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Bytes that an entry takes in a block.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEADER_BYTES
        + match &entry.payload {
            Payload::Blank => 0,
            Payload::Normal(command) => command.0.len(),
            Payload::Membership(membership) => wire::membership_to_proto(membership).encoded_len(),
        }
}

/// One block, read back.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) entries: Vec<Entry>,
    pub(crate) committed: Option<LogId>,
}

/// How many parts the block has, from its part 0, without checking the rest.
pub(crate) fn parts(group: GroupId, first: u64, head: &[u8]) -> Result<u16, CorruptLog> {
    let corrupt = |what| CorruptLog { group, index: first, what };
    if head.len() < HEADER_BYTES {
        return Err(corrupt("the record is too short"));
    }
    if head[0] != VERSION {
        return Err(corrupt("the record has an unknown version"));
    }
    let length = u32::from_le_bytes(head[5..9].try_into().expect("4 bytes")) as usize;
    let parts = u16::from_le_bytes([head[9], head[10]]);
    if length.div_ceil(RECORD_BYTES) != usize::from(parts) {
        return Err(corrupt("its length and its parts differ"));
    }
    Ok(parts)
}

/// Checks and reads a whole block, all parts joined.
pub(crate) fn decode_block(group: GroupId, first: u64, bytes: Bytes) -> Result<Block, CorruptLog> {
    let corrupt = |what| CorruptLog { group, index: first, what };
    parts(group, first, &bytes)?;
    let length = u32::from_le_bytes(bytes[5..9].try_into().expect("4 bytes")) as usize;
    if length != bytes.len() {
        return Err(corrupt("its length is not the one written"));
    }
    let crc = u32::from_le_bytes(bytes[1..5].try_into().expect("4 bytes"));
    if crc != crc32fast::hash(&bytes[5..]) {
        return Err(corrupt("its checksum does not match"));
    }
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let count = u32::from_le_bytes(bytes[11..15].try_into().expect("4 bytes"));
    if u64_at(15) != first {
        return Err(corrupt("it was written for another index"));
    }
    let committed =
        (bytes[23] == 1).then(|| LogPosition { term: u64_at(24), index: u64_at(32) }.into());

    let mut entries = Vec::with_capacity((count as usize).min(bytes.len() / ENTRY_HEADER_BYTES));
    let mut rest = bytes.slice(HEADER_BYTES..);
    for index in first..first.saturating_add(u64::from(count)) {
        let corrupt = |what| CorruptLog { group, index, what };
        if rest.len() < ENTRY_HEADER_BYTES {
            return Err(corrupt("the entry is cut short"));
        }
        let head = rest.split_to(ENTRY_HEADER_BYTES);
        let term = u64::from_le_bytes(head[..8].try_into().expect("8 bytes"));
        let length = u32::from_le_bytes(head[9..13].try_into().expect("4 bytes")) as usize;
        if rest.len() < length {
            return Err(corrupt("the entry is cut short"));
        }
        let payload = rest.split_to(length);
        let payload = match head[8] {
            KIND_BLANK => Payload::Blank,
            KIND_COMMAND => Payload::Normal(Command(payload)),
            KIND_MEMBERSHIP => {
                let membership = proto::RaftMembership::decode(payload)
                    .ok()
                    .and_then(|membership| wire::membership_from_proto(membership).ok())
                    .ok_or(corrupt("the membership does not decode"))?;
                Payload::Membership(membership)
            }
            _ => return Err(corrupt("the entry is of no known kind")),
        };
        entries.push(Entry { log_id: LogPosition { term, index }.into(), payload });
    }
    if entries.is_empty() || !rest.is_empty() {
        return Err(corrupt("it holds another number of entries than it says"));
    }
    Ok(Block { entries, committed })
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(5 + body.len());
    record.push(VERSION);
    record.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

fn unsealed<const N: usize>(
    group: GroupId,
    record: &[u8],
    what: &'static str,
) -> Result<[u8; N], CorruptLog> {
    let corrupt = CorruptLog { group, index: 0, what };
    let (head, body) = record.split_at_checked(5).ok_or(corrupt.clone())?;
    let body: [u8; N] = body.try_into().map_err(|_| corrupt.clone())?;
    let crc = u32::from_le_bytes(head[1..5].try_into().expect("4 bytes"));
    if head[0] != VERSION || crc != crc32fast::hash(&body) {
        return Err(corrupt);
    }
    Ok(body)
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut body = [0; 17];
    body[..8].copy_from_slice(&vote.leader_id.term.to_le_bytes());
    body[8..16].copy_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    body[16] = u8::from(vote.committed);
    sealed(&body)
}

pub(crate) fn decode_vote(group: GroupId, record: &[u8]) -> Result<Vote, CorruptLog> {
    let body: [u8; 17] = unsealed(group, record, "the vote does not read back")?;
    let term = u64::from_le_bytes(body[..8].try_into().expect("8 bytes"));
    let node = u64::from_le_bytes(body[8..16].try_into().expect("8 bytes"));
    let vote = Vote::new(term, node);
    Ok(if body[16] == 1 { Vote { committed: true, ..vote } } else { vote })
}

/// Key and record of a purge mark.
pub(crate) fn purged_record(group: GroupId, upto: LogId) -> ([u8; KEY_BYTES], Vec<u8>) {
    (Key::Purged.encode(group), encode_purged(upto))
}

/// Key and record of a vote.
pub(crate) fn vote_record(group: GroupId, vote: &Vote) -> ([u8; KEY_BYTES], Vec<u8>) {
    (Key::Vote.encode(group), encode_vote(vote))
}

pub(crate) fn encode_purged(upto: LogId) -> Vec<u8> {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&upto.leader_id.term.to_le_bytes());
    body[8..].copy_from_slice(&upto.index.to_le_bytes());
    sealed(&body)
}

pub(crate) fn decode_purged(group: GroupId, record: &[u8]) -> Result<LogId, CorruptLog> {
    let body: [u8; 16] = unsealed(group, record, "the purge mark does not read back")?;
    let term = u64::from_le_bytes(body[..8].try_into().expect("8 bytes"));
    let index = u64::from_le_bytes(body[8..].try_into().expect("8 bytes"));
    Ok(LogPosition { term, index }.into())
}
