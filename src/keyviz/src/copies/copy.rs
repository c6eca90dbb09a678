//! The copy of one node's history: an index in memory, columns in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::messages::{CopyError, CopyPush, CopyRecord, CopyStore, HeldCopy, Inventory, Taken};
use super::summary::Summary;
use crate::history::archive::{Archive, chunk_key, column_key, column_of, hot_keys_key};
use crate::history::codec::{self, RecordError};
use crate::history::column::{Column, ColumnId};
use crate::history::config::{MAX_STEP_MS, MAX_TIME_MS};
use crate::history::open::AxisInterner;
use crate::history::slots::Chunk;
use crate::history::tiers::LAST_TIER_MS;
use crate::history::view::{Answering, Holdings};
use crate::history::window::Window;
use keyviz_types::{Incarnation, NodeId};

/// A column that begins this much later than now is refused: the clock of who counted is wrong.
const FUTURE_MS: u64 = 24 * 3_600_000;

/// The copy of one node's history.
#[derive(Debug)]
pub(super) struct Copy {
    pub node: NodeId,
    pub summary: Summary,
    generation: u64,
    archive: Archive,
    /// Bytes of each record, by key without the prefix of the node.
    sizes: HashMap<Vec<u8>, u32>,
    pub bytes: usize,
    fingerprints: BTreeMap<ColumnId, u64>,
    /// Columns that were there and cannot be read.
    pub lost: BTreeSet<ColumnId>,
    /// The newest column, which is about to come again with more in it.
    newest: Option<Arc<Column>>,
}

/// The number that tells whether two nodes have the same column.
pub fn fingerprint(column: &Column) -> u64 {
    let hot_keys = codec::encode_hot_keys(column);
    fingerprint_of(&codec::encode_column(column), hot_keys.as_deref())
}

/// Of both records, each by itself, because they are read one after the other.
fn fingerprint_of(column: &[u8], hot_keys: Option<&[u8]>) -> u64 {
    xxh3_64(column) ^ hot_keys.map_or(0, fingerprint_of_hot_keys)
}

fn fingerprint_of_hot_keys(record: &[u8]) -> u64 {
    xxh3_64(record).rotate_left(1)
}

/// Keys of one node's records begin so.
pub(super) fn prefix(node: NodeId) -> Vec<u8> {
    [&b"n"[..], &node.0.to_be_bytes()].concat()
}

/// The node of a key, and the rest of it.
pub(super) fn split_key(key: &[u8]) -> Option<(NodeId, &[u8])> {
    let (node, rest) = key.strip_prefix(b"n")?.split_first_chunk()?;
    Some((NodeId(u64::from_be_bytes(*node)), rest))
}

/// A push whose records were read.
struct Read {
    columns: Vec<Column>,
    missing: bool,
}

impl Copy {
    pub fn new(node: NodeId, generation: u64) -> Self {
        Copy {
            node,
            summary: Summary::default(),
            generation,
            archive: Archive::default(),
            sizes: HashMap::new(),
            bytes: 0,
            fingerprints: BTreeMap::new(),
            lost: BTreeSet::new(),
            newest: None,
        }
    }

    /// Notes a stored record at the start, in the order of keys.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        if key == Summary::KEY {
            self.summary = Summary::decode(value).ok_or(RecordError::Malformed)?;
            return Ok(());
        }
        let noted = self.archive.index(key, value);
        if noted.is_err() {
            self.lost.extend(column_of(key));
        }
        if let Some(id) = noted? {
            // Hot keys come after their column.
            let print = match self.fingerprints.get(&id) {
                None => fingerprint_of(value, None),
                Some(column) => column ^ fingerprint_of_hot_keys(value),
            };
            self.fingerprints.insert(id, print);
        }
        self.note_size(key, value.len());
        Ok(())
    }

    fn note_size(&mut self, key: &[u8], value: usize) {
        let size = u32::try_from(key.len() + value).unwrap_or(u32::MAX);
        let before = self.sizes.insert(key.to_vec(), size).unwrap_or(0);
        self.bytes = self.bytes + size as usize - before as usize;
    }

    /// What is there, for whoever sends the rest.
    pub fn inventory(&self) -> Inventory {
        Inventory {
            generation: self.generation,
            columns: self.fingerprints.iter().map(|(id, print)| (*id, *print)).collect(),
            complete_to_ms: self.summary.complete_to_ms,
            forgotten_before_ms: self.summary.forgotten_before_ms,
        }
    }

    /// What a member tells others that it holds.
    pub fn held(&self) -> HeldCopy {
        let Holdings { oldest_ms, newest_ms, columns, .. } = self.holdings();
        HeldCopy {
            node: self.node,
            incarnation: self.summary.incarnation,
            oldest_ms,
            newest_ms,
            complete_to_ms: self.summary.complete_to_ms,
            left_ms: self.summary.left_ms,
            forgotten_before_ms: self.summary.forgotten_before_ms,
            columns,
            lost: self.lost.len() as u64,
        }
    }

    fn holdings(&self) -> Holdings {
        let newest = self.archive.ids().next_back();
        Holdings {
            columns: self.fingerprints.len() as u64,
            oldest_ms: self.archive.ids().next().map_or(u64::MAX, |id| id.start_ms),
            open_ms: newest.map_or(u64::MAX, |id| id.start_ms),
            newest_ms: self.archive.ids().map(|id| id.end_ms).max().unwrap_or(0),
            forgotten_before_ms: self.summary.forgotten_before_ms,
            bytes: self.bytes,
            hot_key_bytes: 0,
        }
    }

    pub fn answering(&self) -> Answering {
        let incarnation = self.summary.incarnation;
        Answering { node: self.node, incarnation, holdings: self.holdings() }
    }

    /// The columns that share time with a window, by start.
    pub fn ids_in(&self, window: Window) -> Vec<ColumnId> {
        let from = window.from_ms.saturating_sub(MAX_STEP_MS.max(LAST_TIER_MS));
        let of = |id: &ColumnId| {
            id.start_ms >= from && id.end_ms > window.from_ms && !self.lost.contains(id)
        };
        self.archive.ids().take_while(|id| id.start_ms < window.to_ms).filter(of).collect()
    }

    /// Checks a push and stores it.
    pub fn take(
        &mut self,
        push: CopyPush,
        step_ms: u64,
        now_ms: u64,
        store: &dyn CopyStore,
        interner: &AxisInterner,
    ) -> Result<Taken, CopyError> {
        let (node, theirs) = (push.node, push.incarnation.0);
        let known = self.summary.incarnation.0;
        if theirs < known {
            return Err(CopyError::Stale { node, theirs, known });
        }
        let read = self.read(&push.records, store, interner)?;
        if read.missing {
            return Ok(Taken::MissingChunks);
        }
        for column in &read.columns {
            check(column, push.incarnation, step_ms, now_ms)?;
        }
        let mut columns = read.columns;
        // The newest come first, and may have made the oldest give way already.
        columns.retain(|column| column.end_ms() > self.summary.forgotten_before_ms);
        for column in &mut columns {
            if let Some(earlier) = self.earlier(column.id(), store, interner)? {
                column.keep_more_of(&earlier);
            }
        }
        // A column replaces what was folded into it; a push names these.
        let here: BTreeSet<ColumnId> = columns.iter().map(Column::id).collect();
        let removed: Vec<ColumnId> =
            push.removed.iter().filter(|id| !here.contains(id)).copied().collect();
        let mut batch = self.archive.batch(&columns, &removed);
        // A chunk that came although it is there may be one that cannot be read.
        let again = push.records.iter().filter(|(key, _)| self.sizes.contains_key(key));
        batch.puts.extend(again.filter(|(key, _)| key[0] == codec::CHUNK).cloned());
        batch.puts.retain(|(key, _)| !batch.deletes.contains(key));
        self.summary.incarnation = push.incarnation;
        self.summary.left_ms = push.left_ms;
        if let Some(complete_to_ms) = push.complete_to_ms {
            self.summary.complete_to_ms = self.summary.complete_to_ms.max(complete_to_ms);
        }
        for id in &removed {
            self.fingerprints.remove(id);
            self.lost.remove(id);
        }
        let closes = columns.iter().any(Column::closed);
        let newest = columns.iter().max_by_key(|column| column.id()).cloned().map(Arc::new);
        if let Some(newest) = newest {
            self.newest = Some(newest);
        }
        for column in &columns {
            let (start_ms, end_ms) = (column.start_ms(), column.end_ms());
            self.lost.retain(|id| id.start_ms < start_ms || id.end_ms > end_ms);
            self.fingerprints.insert(column.id(), fingerprint(column));
        }
        self.store(batch.puts, batch.deletes, store, closes)?;
        Ok(Taken::Stored { generation: self.generation })
    }

    fn store(
        &mut self,
        puts: Vec<CopyRecord>,
        deletes: Vec<Vec<u8>>,
        store: &dyn CopyStore,
        sync: bool,
    ) -> io::Result<()> {
        for key in &deletes {
            self.bytes -= self.sizes.remove(key).unwrap_or(0) as usize;
        }
        for (key, value) in &puts {
            self.note_size(key, value.len());
        }
        let prefix = prefix(self.node);
        let prefixed = |key: Vec<u8>| [&prefix[..], &key].concat();
        let summary = (Summary::KEY.to_vec(), self.summary.encode());
        let puts = puts.into_iter().chain([summary]);
        let puts = puts.map(|(key, value)| (prefixed(key), value)).collect();
        store.apply(puts, deletes.into_iter().map(prefixed).collect(), sync)
    }

    /// Takes note that the node is no member any more.
    pub fn leave(&mut self, at_ms: u64, store: &dyn CopyStore) -> io::Result<()> {
        self.summary.left_ms = Some(at_ms);
        self.store(Vec::new(), Vec::new(), store, true)
    }

    /// Drops the oldest columns, as many as have at least these bytes.
    pub fn drop_oldest(&mut self, bytes: usize, store: &dyn CopyStore) -> io::Result<()> {
        let target = self.bytes.saturating_sub(bytes);
        while self.bytes > target {
            let oldest: Vec<ColumnId> = self.archive.ids().take(16).collect();
            let Some(last) = oldest.iter().map(|id| id.end_ms).max() else { return Ok(()) };
            self.summary.forgotten_before_ms = self.summary.forgotten_before_ms.max(last);
            let batch = self.archive.batch([], &oldest);
            for id in &oldest {
                self.fingerprints.remove(id);
                self.lost.remove(id);
            }
            self.store(batch.puts, batch.deletes, store, false)?;
        }
        Ok(())
    }

    /// The keys of everything that is stored.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let prefix = prefix(self.node);
        let own = self.sizes.keys().map(Vec::as_slice).chain([Summary::KEY]);
        own.map(|key| [&prefix[..], key].concat()).collect()
    }

    fn read(
        &self,
        records: &[CopyRecord],
        store: &dyn CopyStore,
        interner: &AxisInterner,
    ) -> Result<Read, CopyError> {
        let node = self.node;
        let damaged = |error| CopyError::Damaged { node, error };
        let mut chunks: HashMap<u128, Arc<Chunk>> = HashMap::new();
        let mut columns: BTreeMap<ColumnId, Column> = BTreeMap::new();
        let mut missing = false;
        for (_, value) in records.iter().filter(|(key, _)| key.first() == Some(&codec::CHUNK)) {
            let chunk = codec::decode_chunk(value).map_err(damaged)?;
            chunks.insert(chunk.digest(), Arc::new(chunk));
        }
        for (key, value) in records {
            match key.first() {
                Some(&codec::CHUNK) => {}
                Some(&codec::COLUMN) => match self.decode(value, &mut chunks, store, interner) {
                    Ok(column) if column_key(column.id()) == *key => {
                        columns.insert(column.id(), column);
                    }
                    Ok(_) => return Err(damaged(RecordError::Malformed)),
                    Err(CopyError::Damaged { error: RecordError::MissingChunk { .. }, .. }) => {
                        missing = true
                    }
                    Err(error) => return Err(error),
                },
                Some(&codec::HOT_KEYS) => {
                    let (id, parts) = codec::decode_hot_keys(value).map_err(damaged)?;
                    match columns.get_mut(&id) {
                        Some(column) => parts.into_iter().for_each(|(incarnation, keys)| {
                            column.set_hot_keys(incarnation, keys);
                        }),
                        None if missing => {}
                        None => return Err(damaged(RecordError::Malformed)),
                    }
                }
                _ => return Err(damaged(RecordError::Malformed)),
            }
        }
        Ok(Read { columns: columns.into_values().collect(), missing })
    }

    /// A column of its record. Chunks are taken from `chunks`, the newest column or the store.
    fn decode(
        &self,
        record: &[u8],
        chunks: &mut HashMap<u128, Arc<Chunk>>,
        store: &dyn CopyStore,
        interner: &AxisInterner,
    ) -> Result<Column, CopyError> {
        let damaged = |error| CopyError::Damaged { node: self.node, error };
        let (_, digests) = codec::column_head(record).map_err(damaged)?;
        let known = self.newest.as_ref().map(|newest| newest.chunks()).unwrap_or_default();
        for digest in digests {
            if chunks.contains_key(&digest) {
                continue;
            }
            if let Some(chunk) = known.get(&digest) {
                chunks.insert(digest, Arc::clone(chunk));
            } else if self.archive.has_chunk(digest)
                && let Some(record) = store.get(&[prefix(self.node), chunk_key(digest)].concat())?
                && let Ok(chunk) = codec::decode_chunk(&record)
            {
                chunks.insert(digest, Arc::new(chunk));
            }
        }
        let find = |digest| chunks.get(&digest).cloned();
        let mut interner = interner.lock();
        codec::decode_column(record, &mut interner, find).map_err(damaged)
    }

    /// The form of a column that is there already.
    fn earlier(
        &mut self,
        id: ColumnId,
        store: &dyn CopyStore,
        interner: &AxisInterner,
    ) -> Result<Option<Arc<Column>>, CopyError> {
        if let Some(newest) = self.newest.as_ref().filter(|newest| newest.id() == id) {
            return Ok(Some(Arc::clone(newest)));
        }
        let there = self.fingerprints.contains_key(&id);
        Ok(if there { self.read_column(id, &mut HashMap::new(), store, interner)? } else { None })
    }

    /// A stored column; `None` where it cannot be read, of which note is taken.
    pub fn read_column(
        &mut self,
        id: ColumnId,
        chunks: &mut HashMap<u128, Arc<Chunk>>,
        store: &dyn CopyStore,
        interner: &AxisInterner,
    ) -> io::Result<Option<Arc<Column>>> {
        let record = store.get(&[prefix(self.node), column_key(id)].concat())?;
        let read = record
            .ok_or(CopyError::Damaged { node: self.node, error: RecordError::Short { bytes: 0 } });
        let read = read.and_then(|record| self.decode(&record, chunks, store, interner));
        let mut column = match read {
            Ok(column) if column.id() == id => column,
            Err(CopyError::Store(error)) => return Err(error),
            _ => {
                // Sent again once the sender compares.
                self.generation = self.generation.wrapping_add(1);
                self.fingerprints.remove(&id);
                self.lost.insert(id);
                return Ok(None);
            }
        };
        if self.archive.has_hot_keys(id)
            && let Some(record) = store.get(&[prefix(self.node), hot_keys_key(id)].concat())?
            && let Ok((of, parts)) = codec::decode_hot_keys(&record)
            && of == id
        {
            parts.into_iter().for_each(|(incarnation, keys)| {
                column.set_hot_keys(incarnation, keys);
            });
        }
        Ok(Some(Arc::new(column)))
    }
}

/// Checks that a column may come from this node now.
fn check(column: &Column, latest: Incarnation, step_ms: u64, now_ms: u64) -> Result<(), CopyError> {
    let id = column.id();
    let length_ms = id.end_ms - id.start_ms;
    let whole = id.start_ms.is_multiple_of(step_ms) && id.end_ms.is_multiple_of(step_ms);
    if !whole || length_ms > 2 * MAX_STEP_MS.max(LAST_TIER_MS) || id.end_ms > MAX_TIME_MS {
        return Err(CopyError::Interval { id, step_ms });
    }
    if id.start_ms > now_ms.saturating_add(FUTURE_MS) {
        return Err(CopyError::Future { start_ms: id.start_ms, now_ms });
    }
    match column.newest_incarnation() {
        Some(found) if found > latest => {
            Err(CopyError::Unborn { found: found.0, latest: latest.0 })
        }
        _ => Ok(()),
    }
}
