//! What is stored of a history, as records for any ordered key-value store.
//!
//! A column's record names the chunks of slots that it counts in, which are records of their own,
//! written once. The archive knows which chunks are stored and who needs them, so that each batch
//! has just the records that change. Each batch has to be applied as one: a fold replaces columns
//! by their sum.
//!
//! ```text
//! keys:  'a' | digest u128, big-endian                a chunk of slots
//!        'c' | start_ms u64, big-endian | end_ms u64  a column
//!        'f'                                          up to when columns were forgotten
//!        'h' | start_ms | end_ms                      the hot keys of a column
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::codec::{self, RecordError};
use super::column::{Column, ColumnId};
use super::config::MAX_STEP_MS;
use super::slots::{Chunk, Interner};
use super::tiers::LAST_TIER_MS;

/// Which chunks are stored, and for which columns. One writer owns it.
#[derive(Default, Debug)]
pub struct Archive {
    /// Stored columns that need each chunk.
    chunks: HashMap<u128, usize>,
    /// The chunks that each stored column needs.
    columns: BTreeMap<ColumnId, Vec<u128>>,
    /// Columns whose hot keys are stored.
    hot_keys: BTreeSet<ColumnId>,
    /// Up to when columns are stored as forgotten.
    forgotten_before_ms: u64,
}

/// Changes to the store, to be applied together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[must_use = "the archive takes a batch for stored"]
pub struct Batch {
    /// Records to write.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys to delete.
    pub deletes: Vec<Vec<u8>>,
}

/// A stored record that was passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub error: RecordError,
}

/// What was found in the store.
#[derive(Debug)]
pub struct Opened {
    /// Goes on from there.
    pub archive: Archive,
    /// For [`super::History::restore`].
    pub columns: Vec<Column>,
    /// Records that cannot be read. The others are not harmed by them.
    pub damaged: Vec<Damaged>,
    /// The columns among them, for [`super::History::lose`].
    pub lost: Vec<ColumnId>,
    /// End of the newest column that was dropped for space, for [`super::History::forget_before`];
    /// 0: none was.
    pub forgotten_before_ms: u64,
    /// Chunks that no readable column needs, to be deleted.
    pub garbage: Batch,
}

impl Archive {
    /// Reads all stored records, in the order of their keys.
    pub fn open<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Opened {
        let mut interner = Interner::new();
        let mut chunks: HashMap<u128, Arc<Chunk>> = HashMap::new();
        let (mut archive, mut columns) = (Archive::default(), BTreeMap::new());
        let mut orphans = Vec::new();
        let (mut damaged, mut lost) = (Vec::new(), Vec::new());
        for (key, value) in records {
            let (key, value) = (key.as_ref(), value.as_ref());
            let error = match key.first() {
                Some(&codec::CHUNK) => match codec::decode_chunk(value) {
                    Ok(chunk) if chunk_key(chunk.digest()) == key => {
                        archive.chunks.insert(chunk.digest(), 0);
                        chunks.insert(chunk.digest(), Arc::new(chunk));
                        continue;
                    }
                    Ok(_) => RecordError::Malformed,
                    Err(error) => error,
                },
                Some(&codec::FORGOTTEN) if key.len() == 1 => match codec::decode_forgotten(value) {
                    Ok(forgotten_before_ms) => {
                        archive.forgotten_before_ms = forgotten_before_ms;
                        continue;
                    }
                    Err(error) => error,
                },
                Some(&codec::HOT_KEYS) => match codec::decode_hot_keys(value) {
                    // Columns come before, by their keys.
                    Ok((id, parts)) if hot_keys_key(id) == key => {
                        match columns.get_mut(&id) {
                            Some(column) => {
                                let column: &mut Column = column;
                                parts.into_iter().for_each(|(of, keys)| {
                                    column.set_hot_keys(of, keys);
                                });
                                archive.hot_keys.insert(id);
                            }
                            None => orphans.push(key.to_vec()),
                        }
                        continue;
                    }
                    Ok(_) => RecordError::Malformed,
                    Err(error) => error,
                },
                _ => {
                    let find = |digest| chunks.get(&digest).cloned();
                    match codec::decode_column(value, &mut interner, find) {
                        Ok(column) if column_key(column.id()) == key => {
                            archive.hold(&column);
                            columns.insert(column.id(), column);
                            continue;
                        }
                        Ok(_) => RecordError::Malformed,
                        Err(error) => error,
                    }
                }
            };
            lost.extend(column_of(key));
            damaged.push(Damaged { key: key.to_vec(), error });
        }
        let mut deletes = archive.collect();
        deletes.append(&mut orphans);
        let columns = columns.into_values().collect();
        let garbage = Batch { puts: Vec::new(), deletes };
        let forgotten_before_ms = archive.forgotten_before_ms;
        Opened { archive, columns, damaged, lost, forgotten_before_ms, garbage }
    }

    /// Notes a stored record, in the order of keys, without what it counted; the column of a record
    /// of one.
    pub(crate) fn index(
        &mut self,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<ColumnId>, RecordError> {
        match key.first() {
            Some(&codec::CHUNK) => {
                let chunk = codec::decode_chunk(value)?;
                if chunk_key(chunk.digest()) != key {
                    return Err(RecordError::Malformed);
                }
                self.chunks.insert(chunk.digest(), 0);
                Ok(None)
            }
            Some(&codec::COLUMN) => {
                let (id, digests) = codec::column_head(value)?;
                if column_key(id) != key {
                    return Err(RecordError::Malformed);
                }
                let missing = digests.iter().find(|digest| !self.chunks.contains_key(digest));
                if let Some(&digest) = missing {
                    return Err(RecordError::MissingChunk { digest });
                }
                for digest in &digests {
                    *self.chunks.get_mut(digest).expect("just found") += 1;
                }
                self.columns.insert(id, digests);
                Ok(Some(id))
            }
            Some(&codec::HOT_KEYS) => {
                let (id, _) = codec::decode_hot_keys(value)?;
                if hot_keys_key(id) != key || !self.columns.contains_key(&id) {
                    return Err(RecordError::Malformed);
                }
                self.hot_keys.insert(id);
                Ok(Some(id))
            }
            _ => Err(RecordError::Malformed),
        }
    }

    /// Stored columns.
    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = ColumnId> + '_ {
        self.columns.keys().copied()
    }

    /// Whether a chunk is stored.
    pub(crate) fn has_chunk(&self, digest: u128) -> bool {
        self.chunks.contains_key(&digest)
    }

    /// Whether the hot keys of a column are stored.
    pub(crate) fn has_hot_keys(&self, id: ColumnId) -> bool {
        self.hot_keys.contains(&id)
    }

    /// The records for columns that were closed or changed, or are a checkpoint of the open one,
    /// and for ids of columns that are no longer kept.
    pub fn batch<'a>(
        &mut self,
        columns: impl IntoIterator<Item = &'a Column>,
        removed: &[ColumnId],
    ) -> Batch {
        let mut batch = Batch::default();
        for column in columns {
            for chunk in self.hold(column) {
                batch.puts.push((chunk_key(chunk.digest()), codec::encode_chunk(&chunk)));
            }
            let id = column.id();
            batch.puts.push((column_key(id), codec::encode_column(column)));
            match codec::encode_hot_keys(column) {
                Some(record) => {
                    self.hot_keys.insert(id);
                    batch.puts.push((hot_keys_key(id), record));
                }
                None if self.hot_keys.remove(&id) => batch.deletes.push(hot_keys_key(id)),
                None => {}
            }
        }
        for id in removed {
            if self.release(*id) {
                batch.deletes.push(column_key(*id));
            }
            if self.hot_keys.remove(id) {
                batch.deletes.push(hot_keys_key(*id));
            }
        }
        batch.deletes.extend(self.collect());
        batch
    }

    /// The record for what is forgotten, where it is not stored so yet. It goes with the columns
    /// that were forgotten.
    pub fn note_forgotten(&mut self, before_ms: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        if before_ms == self.forgotten_before_ms {
            return None;
        }
        self.forgotten_before_ms = before_ms;
        Some((vec![codec::FORGOTTEN], codec::encode_forgotten(before_ms)))
    }

    /// Notes a column as stored in the place of an earlier one; the chunks that are new.
    fn hold(&mut self, column: &Column) -> Vec<Arc<Chunk>> {
        let chunks = column.chunks();
        let mut new = Vec::new();
        for (&digest, chunk) in &chunks {
            let uses = self.chunks.entry(digest).or_insert_with(|| {
                new.push(Arc::clone(chunk));
                0
            });
            *uses += 1;
        }
        let digests = chunks.into_keys().collect();
        if let Some(before) = self.columns.insert(column.id(), digests) {
            self.unuse(&before);
        }
        new
    }

    fn release(&mut self, id: ColumnId) -> bool {
        let Some(digests) = self.columns.remove(&id) else { return false };
        self.unuse(&digests);
        true
    }

    fn unuse(&mut self, digests: &[u128]) {
        for digest in digests {
            *self.chunks.get_mut(digest).expect("held with its column") -= 1;
        }
    }

    /// Forgets the chunks that no column needs; their keys.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        let mut unused: Vec<u128> =
            self.chunks.iter().filter(|(_, uses)| **uses == 0).map(|(digest, _)| *digest).collect();
        unused.sort_unstable();
        self.chunks.retain(|_, uses| *uses > 0);
        unused.into_iter().map(chunk_key).collect()
    }
}

pub(crate) fn chunk_key(digest: u128) -> Vec<u8> {
    [&[codec::CHUNK][..], &digest.to_be_bytes()].concat()
}

pub(crate) fn column_key(id: ColumnId) -> Vec<u8> {
    [&[codec::COLUMN][..], &id.start_ms.to_be_bytes(), &id.end_ms.to_be_bytes()].concat()
}

pub(crate) fn hot_keys_key(id: ColumnId) -> Vec<u8> {
    [&[codec::HOT_KEYS][..], &id.start_ms.to_be_bytes(), &id.end_ms.to_be_bytes()].concat()
}

/// Whether a record of this key has hot keys, which earlier versions do not know.
pub(crate) fn is_hot_keys(key: &[u8]) -> bool {
    key.first() == Some(&codec::HOT_KEYS)
}

/// The column of a key, if it is one that a history may have.
pub(crate) fn column_of(key: &[u8]) -> Option<ColumnId> {
    let (start, end) = key.strip_prefix(&[codec::COLUMN])?.split_first_chunk()?;
    let id = ColumnId {
        start_ms: u64::from_be_bytes(*start),
        end_ms: u64::from_be_bytes(end.try_into().ok()?),
    };
    let width_ms = id.end_ms.checked_sub(id.start_ms)?;
    (1..=MAX_STEP_MS.max(LAST_TIER_MS)).contains(&width_ms).then_some(id)
}
