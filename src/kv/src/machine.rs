//! The state machine of a data group: it stores keys and values of clients unchanged.
//!
//! Client keys never start with a zero byte, so they cannot collide with the rows of Raft in the
//! same tree, nor with those that a group keeps of moves. Replies: nothing for a put or a batch, a
//! count for deletes, the outcome for a compare-and-swap, and one byte that none of these begins
//! with where the group does not own a key: then nothing was changed.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use keyviz_raft::{Batch, Keyspace, LogPosition, Machine, MachineError, PageLimit};
use keyviz_types::GroupId;

use super::command::{CasOutcome, KvCommand, KvWrite};
use super::error::KvError;
use super::limits::first_client_key;
use super::moves::{Ledger, Ownerships, is_move_entry};
use super::page::{Page, Row, SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, ScanRange};

/// Number of rows that a range delete reads at a time.
const DELETE_PAGE: PageLimit = PageLimit { rows: 1_024, bytes: 1 << 20 };

/// The reply to a command whose keys the group does not own.
const NOT_OWNED: Bytes = Bytes::from_static(&[0xFF]);

/// Whether the machine refused a command because its group does not own the keys.
pub(super) fn is_not_owned(reply: &[u8]) -> bool {
    reply == NOT_OWNED
}

/// The reply of [`is_not_owned`].
pub(super) fn not_owned() -> Bytes {
    NOT_OWNED
}

/// The data machine. Has no state but the rows, and what it keeps in memory of those about moves.
#[derive(Default)]
pub struct KvMachine {
    ledger: Ledger,
}

impl KvMachine {
    /// The machine of a group, which tells `ownerships` what it refuses.
    pub fn of(ownerships: &Ownerships, group: GroupId) -> Self {
        KvMachine { ledger: Ledger::new(ownerships.renew(group)) }
    }

    fn refuses(&self, command: &KvCommand<'_>) -> bool {
        match command {
            KvCommand::Put { key, .. }
            | KvCommand::Delete { key }
            | KvCommand::CompareAndSwap { key, .. } => self.ledger.refuses(key),
            KvCommand::DeleteRange { start, end } => self.ledger.refuses_range(start, *end),
            KvCommand::Batch(writes) => writes.iter().any(|write| self.ledger.refuses(write.key())),
        }
    }
}

impl Machine for KvMachine {
    fn restore(&mut self, keyspace: &Keyspace) -> Result<(), MachineError> {
        self.ledger.restore(keyspace)
    }

    fn replacing(&mut self) {
        self.ledger.forget();
    }

    fn written(&mut self, _keyspace: &Keyspace, _last: LogPosition) {
        self.ledger.written();
    }

    fn apply(
        &mut self,
        at: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError> {
        if is_move_entry(command) {
            return Ok(self.ledger.step(at, command, batch)?.encode());
        }
        let decoded = KvCommand::decode(command)
            .map_err(|error| MachineError::Corrupt(format!("log entry {at}: {error}")))?;
        // Keys and values are slices of the command; they are not copied.
        let own = |part: &[u8]| command.slice_ref(part);
        let still = self.ledger.is_idle();
        if !still && self.refuses(&decoded) {
            return Ok(NOT_OWNED);
        }
        let mut part = 0;
        let ledger = &mut self.ledger;
        let mut note = |batch: &mut Batch<'_>, key: &Bytes| match still {
            true => Ok(false),
            false => ledger.note(batch, at.index, &mut part, key),
        };
        match decoded {
            KvCommand::Put { key, value } => {
                batch.put(own(key), own(value))?;
                // A row and its note are seen together.
                if !note(batch, &own(key))? {
                    batch.allow_replay();
                }
                Ok(Bytes::new())
            }
            KvCommand::Delete { key } => {
                let existed = batch.get(key)?.is_some();
                if existed {
                    batch.delete(own(key))?;
                    note(batch, &own(key))?;
                }
                Ok(encode_count(u64::from(existed)))
            }
            KvCommand::DeleteRange { start, end } => {
                delete_range(batch, start, end, note).map(encode_count)
            }
            KvCommand::Batch(writes) => {
                for write in writes {
                    match write {
                        KvWrite::Put { key, value } => batch.put(own(key), own(value))?,
                        KvWrite::Delete { key } => batch.delete(own(key))?,
                    }
                    note(batch, &own(write.key()))?;
                }
                Ok(Bytes::new())
            }
            KvCommand::CompareAndSwap { key, expected, value } => {
                let actual = batch.get(key)?;
                if actual.as_deref() != expected {
                    return Ok(encode_cas(&CasOutcome::Mismatch(actual)));
                }
                match value {
                    Some(value) => batch.put(own(key), own(value))?,
                    None => batch.delete(own(key))?,
                }
                note(batch, &own(key))?;
                Ok(encode_cas(&CasOutcome::Swapped))
            }
        }
    }
}

fn delete_range(
    batch: &mut Batch<'_>,
    start: &[u8],
    end: Option<&[u8]>,
    mut note: impl FnMut(&mut Batch<'_>, &Bytes) -> Result<bool, MachineError>,
) -> Result<u64, MachineError> {
    let to = end.map_or(Bound::Unbounded, Bound::Excluded);
    let mut deleted = 0;
    let mut from = Bytes::copy_from_slice(first_client_key(start));
    if end.is_some_and(|end| end <= from.as_ref()) {
        return Ok(0);
    }
    loop {
        let page = batch.scan(Bound::Included(&from), to, DELETE_PAGE)?;
        for (key, _) in &page.rows {
            batch.delete(key.clone())?;
            note(batch, key)?;
        }
        deleted += page.rows.len() as u64;
        match page.rows.last() {
            Some((last, _)) if page.more => from = after(last),
            _ => return Ok(deleted),
        }
    }
}

/// The smallest key after `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// The value of `key`, as applied.
pub fn read_key(keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>, KvError> {
    keyspace.get(key).map_err(|error| KvError::Storage { reason: error.to_string() })
}

/// One page of a range, as applied. Limits over those of a scan are lowered to them.
pub fn read_page(keyspace: &Keyspace, range: &ScanRange) -> Result<Page, KvError> {
    let limit = PageLimit {
        rows: range.max_rows.clamp(1, SCAN_PAGE_ROWS) as usize,
        bytes: range.max_bytes.min(SCAN_PAGE_BYTES) as usize,
    };
    let to = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let page = keyspace
        .scan(Bound::Included(first_client_key(&range.start)), to, limit)
        .map_err(|error| KvError::Storage { reason: error.to_string() })?;
    let next = page.rows.last().filter(|_| page.more).map(|(last, _)| after(last));
    let rows = page
        .rows
        .into_iter()
        .map(|(key, value)| Row { key, value: if range.keys_only { Bytes::new() } else { value } })
        .collect();
    Ok(Page { rows, next })
}

fn encode_count(count: u64) -> Bytes {
    Bytes::copy_from_slice(&count.to_be_bytes())
}

/// The count in a reply to a delete.
pub(super) fn decode_count(reply: &[u8]) -> Result<u64, KvError> {
    let bytes = reply.try_into().map_err(|_| KvError::Undecodable {
        reason: format!("a count of {} bytes", reply.len()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reply to a compare-and-swap: 1 swapped; 2 mismatch, no value; 3 mismatch, then the value.
fn encode_cas(outcome: &CasOutcome) -> Bytes {
    match outcome {
        CasOutcome::Swapped => Bytes::from_static(&[1]),
        CasOutcome::Mismatch(None) => Bytes::from_static(&[2]),
        CasOutcome::Mismatch(Some(actual)) => {
            let mut reply = BytesMut::with_capacity(actual.len() + 1);
            reply.put_u8(3);
            reply.put_slice(actual);
            reply.freeze()
        }
    }
}

pub(super) fn decode_cas(reply: &Bytes) -> Result<CasOutcome, KvError> {
    let mut value = reply.clone();
    if value.has_remaining() {
        match (value.get_u8(), value.is_empty()) {
            (1, true) => return Ok(CasOutcome::Swapped),
            (2, true) => return Ok(CasOutcome::Mismatch(None)),
            (3, _) => return Ok(CasOutcome::Mismatch(Some(value))),
            _ => {}
        }
    }
    Err(KvError::Undecodable { reason: "a compare-and-swap without an outcome".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_survive_the_way_back() {
        let outcomes = [
            CasOutcome::Swapped,
            CasOutcome::Mismatch(None),
            CasOutcome::Mismatch(Some(Bytes::new())),
            CasOutcome::Mismatch(Some(Bytes::from_static(b"\x01x"))),
        ];
        for outcome in outcomes {
            assert_eq!(decode_cas(&encode_cas(&outcome)), Ok(outcome));
        }
        assert_eq!(decode_count(&encode_count(7)), Ok(7));
    }

    #[test]
    fn replies_that_are_none_are_typed_errors() {
        for reply in [&b""[..], b"\x00", b"\x01x", b"\x02x", b"\x09"] {
            assert!(decode_cas(&Bytes::copy_from_slice(reply)).is_err());
        }
        assert!(decode_count(b"1234567").is_err());
    }
}
