//! The tree that holds the rows of a group, and how a batch is written to it.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::leaf_order::leaf_order;
use super::{redo, value};
use crate::storage::engine::Tree;
use crate::types::{LogPosition, StoredMembership};
use crate::wire;

/// One row.
pub type KeyValue = (Bytes, Bytes);

/// The tree that holds the rows.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) tree: Tree,
    pub(crate) generation: u64,
    /// Whether a long value was ever written to it.
    pub(crate) long_rows: bool,
    pub(crate) sequence: u64,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Arc<StoredMembership>,
}

/// Rows of a staged tree that are looked up before they are removed.
const CLEARED_ROWS: usize = 1_024;

pub(in crate::storage) const MEMBERSHIP_KEY: &[u8] = b"\0raft\0membership";

impl Current {
    /// Opens a tree and finishes the batch that a crash may have cut short.
    pub(crate) fn open(tree: Tree, generation: u64) -> io::Result<Self> {
        let mut parts = tree.range(value::PART_PREFIX..&b"\0raft\0q"[..]);
        let long_rows = parts.next().transpose()?.is_some();
        let mut current = Self {
            tree,
            generation,
            long_rows,
            sequence: 0,
            applied: None,
            membership: Arc::default(),
        };
        if let Some(last) = redo::read(&current.tree)? {
            current.sequence = last.sequence;
            current.applied = last.applied;
            for (key, value) in &last.changes {
                current.change(key, value.as_ref())?;
            }
        }
        if let Some(record) = current.tree.get(MEMBERSHIP_KEY)? {
            let bytes = value::read(&current.tree, MEMBERSHIP_KEY, &record)?;
            current.membership = Arc::new(decode_membership(bytes)?);
        }
        Ok(current)
    }

    /// The rows as they lie there, for reading; a batch that a crash cut short stays as it is.
    pub(crate) fn unopened(tree: Tree, generation: u64, applied: Option<LogPosition>) -> Self {
        let membership = Arc::default();
        Self { tree, generation, long_rows: true, sequence: 0, applied, membership }
    }

    fn change(&mut self, key: &[u8], value: Option<&Bytes>) -> io::Result<()> {
        match value {
            Some(value) => {
                self.long_rows |= value::is_long(value.len());
                value::write(&self.tree, key, value, self.long_rows)
            }
            None => value::remove(&self.tree, key, self.long_rows),
        }
    }

    /// Writes a batch: all of it or, after a crash, none as far as the commands that follow can
    /// tell.
    ///
    /// A batch of commands that may all be applied again ([`Batch::allow_replay`]) may be cut short
    /// by a crash: its rows go first, its position last, and applying it again makes it good. The
    /// changes of any other batch go into the record of the position, which goes first, and so do
    /// long values, whose parts must not be found mixed.
    ///
    /// [`Batch::allow_replay`]: crate::storage::Batch::allow_replay
    pub(crate) fn write(&mut self, batch: &Changes) -> io::Result<()> {
        self.sequence += 1;
        let mut values = batch.rows.values().flatten();
        let long = self.long_rows || values.any(|value| value::is_long(value.len()));
        let record_first = batch.once || long;
        if record_first {
            redo::write(&self.tree, self.sequence, batch.applied, batch.rows.iter())?;
        }
        for (key, value) in leaf_order(batch.rows.iter()) {
            self.change(key, value.as_ref())?;
        }
        if !record_first {
            redo::write(&self.tree, self.sequence, batch.applied, std::iter::empty())?;
        }
        self.applied = batch.applied;
        if let Some(membership) = &batch.membership {
            self.membership = membership.clone();
        }
        Ok(())
    }

    /// Writes ascending rows of a received snapshot, which is not current yet.
    pub(crate) fn load(&mut self, rows: &[KeyValue]) -> io::Result<()> {
        leaf_order(rows.iter()).try_for_each(|(key, value)| self.change(key, Some(value)))
    }

    /// Removes the rows after `from` up to and with `to` of a received snapshot, which is not
    /// current yet. An absent end is open.
    pub(crate) fn clear(&mut self, from: Option<&[u8]>, to: Option<&[u8]>) -> io::Result<()> {
        let to = to.map_or(Bound::Unbounded, Bound::Included);
        let mut from = from.map(Bytes::copy_from_slice);
        loop {
            let after = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.rows(after, to).take(CLEARED_ROWS);
            let keys = rows.map(|row| Ok(row?.0)).collect::<io::Result<Vec<Bytes>>>()?;
            for key in &keys {
                self.change(key, None)?;
            }
            match keys.last() {
                Some(last) if keys.len() == CLEARED_ROWS => from = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self.tree.get(key)? {
            Some(record) => value::read(&self.tree, key, &record).map(Some),
            None => Ok(None),
        }
    }

    /// Rows in order that are not Raft's own.
    pub(crate) fn rows(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = io::Result<KeyValue>> + use<> {
        // The reserved keys are consecutive: read what is before and what is after them.
        let before = (from, lower_end(to, Bound::Excluded(value::RESERVED_PREFIX)));
        let after = (higher_start(from, Bound::Included(AFTER_RESERVED)), to);
        let tree = self.tree.clone();
        let ranges =
            [before, after].map(|(from, to)| ordered(from, to).then(|| tree.range((from, to))));
        ranges.into_iter().flatten().flatten().map(move |row| {
            let (key, record) = row?;
            let value = value::read(&tree, &key, &record)?;
            Ok((Bytes::copy_from_slice(&key), value))
        })
    }
}

/// The first key after all that start with [`RESERVED_PREFIX`](crate::storage::RESERVED_PREFIX).
const AFTER_RESERVED: &[u8] = b"\0raft\x01";

fn lower_end<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    match (a, b) {
        (Bound::Unbounded, end) | (end, Bound::Unbounded) => end,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y) | Bound::Excluded(y)) => {
            if x < y { a } else { b }
        }
    }
}

fn higher_start<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    match (a, b) {
        (Bound::Unbounded, start) | (start, Bound::Unbounded) => start,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y) | Bound::Excluded(y)) => {
            if x >= y { a } else { b }
        }
    }
}

/// Whether a range can hold anything; sled panics on one that ends before it starts.
fn ordered(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
    }
}

/// What one batch changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rows: std::collections::BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: Option<Arc<StoredMembership>>,
    /// One command changed several rows.
    pub(crate) several: bool,
    /// Some command's changes must not be applied a second time.
    pub(crate) once: bool,
}

impl Changes {
    pub(crate) fn set_membership(&mut self, membership: StoredMembership) {
        let bytes = encode_membership(&membership);
        self.rows.insert(Bytes::from_static(MEMBERSHIP_KEY), Some(bytes));
        self.once = true;
        self.membership = Some(Arc::new(membership));
    }
}

fn encode_membership(membership: &StoredMembership) -> Bytes {
    use prost::Message as _;
    let header = keyviz_proto::RaftSnapshotHeader {
        membership_at: membership.log_id().map(wire::log_id_to_proto),
        membership: Some(wire::membership_to_proto(membership.membership())),
        ..Default::default()
    };
    header.encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: Bytes) -> io::Result<StoredMembership> {
    use prost::Message as _;
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "the membership is corrupt");
    let header = keyviz_proto::RaftSnapshotHeader::decode(bytes).map_err(|_| corrupt())?;
    wire::stored_membership(header.membership_at, header.membership).map_err(|_| corrupt())
}
