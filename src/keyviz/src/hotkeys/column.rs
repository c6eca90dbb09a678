//! The hot keys of one part of a column: reads and writes.

use std::sync::Arc;

use super::summary::{CHECKPOINT_BYTES, OPEN_BYTES, OPEN_KEYS, Summary};

/// The hot keys of reads and of writes: of a harvest, or of a part of a column.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ColumnHotKeys {
    /// Of reads.
    pub reads: Summary,
    /// Of writes.
    pub writes: Summary,
    /// Operations were counted whose keys were not looked at.
    pub missing: bool,
}

impl ColumnHotKeys {
    /// Of operations that were counted without a look at their keys.
    pub(crate) fn unknown(reads: u64, writes: u64) -> Self {
        ColumnHotKeys {
            reads: Summary::of_unnamed(reads),
            writes: Summary::of_unnamed(writes),
            missing: reads > 0 || writes > 0,
        }
    }

    /// Whether they can be of cells with these operations.
    pub(crate) fn fits(&self, reads: u64, writes: u64) -> bool {
        self.reads.fits(reads) && self.writes.fits(writes)
    }

    pub(crate) fn each(&self) -> [&Summary; 2] {
        [&self.reads, &self.writes]
    }

    fn each_mut(&mut self) -> [&mut Summary; 2] {
        [&mut self.reads, &mut self.writes]
    }

    /// Adds what other incarnations, nodes or times counted.
    pub(crate) fn add(&mut self, other: &ColumnHotKeys) {
        self.missing |= other.missing;
        self.each_mut().into_iter().zip(other.each()).for_each(|(mine, its)| mine.add(its));
    }

    /// Adds what the same sampler counted next.
    pub(crate) fn append(&mut self, next: &ColumnHotKeys) {
        self.missing |= next.missing;
        for (mine, its) in self.each_mut().into_iter().zip(next.each()) {
            mine.append(its);
            mine.prune(OPEN_KEYS);
            mine.prune_to_bytes(OPEN_BYTES);
        }
    }

    /// Keeps what a closed column needs.
    pub(crate) fn prune_to_matter(&mut self) {
        self.each_mut().into_iter().for_each(Summary::prune_to_matter);
    }

    /// Keeps what the record of a column in progress has.
    pub(crate) fn prune_to_checkpoint(&mut self) {
        self.prune_to_matter();
        self.each_mut().into_iter().for_each(|summary| summary.prune_to_bytes(CHECKPOINT_BYTES));
    }

    /// Keeps at most so many keys of each series.
    pub(crate) fn prune(&mut self, most: usize) {
        self.each_mut().into_iter().for_each(|summary| summary.prune(most));
    }

    /// The most keys of a series.
    pub(crate) fn len(&self) -> usize {
        self.each().map(|summary| summary.keys().len()).into_iter().max().unwrap_or(0)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.each().into_iter().flat_map(Summary::keys).map(|named| &named.key)
    }

    pub(crate) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Arc<[u8]>> {
        self.each_mut().into_iter().flat_map(Summary::keys_mut)
    }

    /// Bytes of memory, without the keys, which columns share.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.each().map(Summary::bytes).iter().sum::<usize>()
    }
}
