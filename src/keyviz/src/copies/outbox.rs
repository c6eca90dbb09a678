//! What one holder has yet to get of this node's columns.
//!
//! The holder says what it has once, at the start and after a fault. From then on the outbox knows
//! what was sent, by the columns themselves: those held by the history are immutable, so another
//! column under the same interval is a change.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::copy::fingerprint;
use super::messages::{CopyRecord, Inventory};
use crate::history::archive::{chunk_key, column_key, hot_keys_key};
use crate::history::codec;
use crate::history::column::{Column, ColumnId};

/// What is on its way to one holder.
#[derive(Debug)]
pub struct Outbox {
    generation: u64,
    /// Columns before are not sent: the holder dropped them for space.
    dropped_before_ms: u64,
    sent: BTreeMap<ColumnId, Arc<Column>>,
    /// Columns that the holder has and that are not among the closed ones that were sent.
    extra: BTreeSet<ColumnId>,
    /// Chunks that the holder has for certain.
    chunks: HashSet<u128>,
}

/// Columns to be sent as one.
#[derive(Clone, Default, Debug)]
pub struct Parcel {
    /// The records of columns, and of chunks that the holder may lack.
    pub records: Vec<CopyRecord>,
    /// Columns that are not kept by themselves any more.
    pub removed: Vec<ColumnId>,
    columns: Vec<Arc<Column>>,
    /// The column in progress, if it is one of them.
    open: Option<ColumnId>,
    chunks: Vec<u128>,
    bytes: usize,
}

impl Parcel {
    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, column: &Column, known: &HashSet<u128>) {
        for (digest, chunk) in column.chunks() {
            if !known.contains(&digest) && !self.chunks.contains(&digest) {
                self.chunks.push(digest);
                self.put(chunk_key(digest), codec::encode_chunk(chunk));
            }
        }
        self.put(column_key(column.id()), codec::encode_column(column));
        if let Some(hot_keys) = codec::encode_hot_keys(column) {
            self.put(hot_keys_key(column.id()), hot_keys);
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.records.push((key, value));
    }
}

impl Outbox {
    /// For a holder that has this already, of a node that holds these closed columns.
    pub fn new(inventory: &Inventory, columns: &[Arc<Column>]) -> Self {
        let there: BTreeMap<ColumnId, u64> = inventory.columns.iter().copied().collect();
        let same = |column: &&Arc<Column>| {
            there.get(&column.id()).is_some_and(|print| *print == fingerprint(column))
        };
        let sent: BTreeMap<ColumnId, Arc<Column>> =
            columns.iter().filter(same).map(|column| (column.id(), Arc::clone(column))).collect();
        let own: BTreeSet<ColumnId> = columns.iter().map(|column| column.id()).collect();
        Outbox {
            generation: inventory.generation,
            dropped_before_ms: inventory.forgotten_before_ms,
            sent,
            extra: there.into_keys().filter(|id| !own.contains(id)).collect(),
            chunks: HashSet::new(),
        }
    }

    /// The number that the holder's answers have while what it has is known.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The next columns, newest first, of about so many bytes; `None` where the holder has all of
    /// the closed `columns`. `open` is the column in progress, and what ended before
    /// `forgotten_before_ms` this node has dropped.
    pub fn next(
        &self,
        columns: &[Arc<Column>],
        open: ColumnId,
        forgotten_before_ms: u64,
        bytes: usize,
    ) -> Option<Parcel> {
        let mut parcel = Parcel::default();
        let is_sent = |column: &Arc<Column>| {
            self.sent.get(&column.id()).is_some_and(|sent| Arc::ptr_eq(sent, column))
        };
        let wanted =
            |column: &&Arc<Column>| column.end_ms() > self.dropped_before_ms && !is_sent(column);
        for column in columns.iter().rev().filter(wanted) {
            if parcel.bytes >= bytes {
                break;
            }
            parcel.add(column, &self.chunks);
            parcel.columns.push(Arc::clone(column));
        }
        let own: BTreeSet<ColumnId> = columns.iter().map(|column| column.id()).collect();
        let longer = |column: &&Arc<Column>| length_ms(column.id()) > length_ms(open);
        let long: Vec<&Arc<Column>> = columns.iter().filter(longer).collect();
        let there = |column: &Arc<Column>| {
            is_sent(column) || parcel.columns.iter().any(|sent| Arc::ptr_eq(sent, column))
        };
        // Gone here, and in another column that the holder has with this parcel.
        let folded = |id: &ColumnId| {
            let around = long.iter().filter(|column| contains(column.id(), *id));
            let mut around = around.peekable();
            around.peek().is_some() && around.all(|column| there(column))
        };
        let gone = |id: &&ColumnId| !own.contains(id) && **id != open;
        let sent = self.sent.keys().filter(gone);
        let sent = sent.filter(|id| folded(id) || id.end_ms <= forgotten_before_ms);
        // What this node lost was not folded into what it has since.
        let extra = self.extra.iter().filter(gone);
        let extra = extra.filter(|id| id.end_ms > forgotten_before_ms && folded(id));
        parcel.removed = sent.chain(extra).copied().collect();
        (!parcel.columns.is_empty() || !parcel.removed.is_empty()).then_some(parcel)
    }

    /// The column in progress as it stands.
    pub fn open(&self, column: &Column) -> Parcel {
        let mut parcel = Parcel::default();
        parcel.add(column, &self.chunks);
        parcel.open = Some(column.id());
        parcel
    }

    /// The holder has stored a parcel.
    pub fn stored(&mut self, parcel: Parcel) {
        self.chunks.extend(parcel.chunks);
        for id in &parcel.removed {
            self.sent.remove(id);
            self.extra.remove(id);
        }
        // The history may fold it before it was sent as a closed one.
        self.extra.extend(parcel.open);
        for column in parcel.columns {
            self.extra.remove(&column.id());
            self.sent.insert(column.id(), column);
        }
    }

    /// The holder lacks chunks that it had: they are sent again.
    pub fn forget_chunks(&mut self) {
        self.chunks.clear();
    }
}

fn length_ms(id: ColumnId) -> u64 {
    id.end_ms - id.start_ms
}

fn contains(outer: ColumnId, inner: ColumnId) -> bool {
    outer != inner && outer.start_ms <= inner.start_ms && inner.end_ms <= outer.end_ms
}
