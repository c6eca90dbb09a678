//! The flusher's side of all recorders: what was named since the last harvest, and how that fits
//! the cells of the same harvest.
//!
//! A record is counted in its cell first and in its thread's summary after that, and the flusher
//! reads all summaries before the cells. So the cells of a harvest have everything that the
//! summaries have, and perhaps some operations more: those recorded meanwhile. How many is the
//! difference of two sums. They are `late` in this harvest and `early` in the next.
//!
//! Operations of threads without a shard of their own are in no summary: they are unnamed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::column::ColumnHotKeys;
use super::recorder::{Recorder, Taken};
use super::summary::{NamedKey, OPEN_KEYS, Summary};
use crate::sampler::counts::Counts;

/// Keys of operations that were recorded late, between two harvests; further ones are unnamed.
const MAX_LATE_KEYS: usize = 1_024;

/// The recorders of one shard.
pub(crate) struct Recorders {
    pub reads: Recorder,
    pub writes: Recorder,
}

impl Recorders {
    pub fn new(seed: u64) -> Self {
        Recorders { reads: Recorder::new(seed), writes: Recorder::new(seed) }
    }

    fn each(&self) -> [&Recorder; 2] {
        [&self.reads, &self.writes]
    }

    /// Bytes of memory.
    pub fn bytes() -> usize {
        2 * Recorder::bytes()
    }

    /// Keys that lost their counter to another.
    pub fn replaced(&self) -> u64 {
        self.each().iter().map(|recorder| recorder.replaced()).sum()
    }
}

/// Operations in cells: reads and writes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CellTotals {
    /// Of threads with a shard, so that a summary has their keys too.
    pub named: [u64; 2],
    /// Of others.
    pub unnamed: [u64; 2],
}

impl CellTotals {
    pub fn since(&self, before: &CellTotals) -> CellTotals {
        let since = |now: [u64; 2], then: [u64; 2]| {
            [now[0].wrapping_sub(then[0]), now[1].wrapping_sub(then[1])]
        };
        CellTotals {
            named: since(self.named, before.named),
            unnamed: since(self.unnamed, before.unnamed),
        }
    }

    pub fn add(&mut self, other: &CellTotals) {
        let add = |sums: &mut [u64; 2], more: &[u64; 2]| {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
        };
        add(&mut self.named, &other.named);
        add(&mut self.unnamed, &other.unnamed);
    }
}

/// What the flusher knows of all recorders.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeyHarvester {
    /// By shard.
    taken: Vec<[Taken; 2]>,
    /// Operations that summaries had, and that the cells of named operations had, since the start.
    recorded: [u64; 2],
    counted: [u64; 2],
    /// The difference at the last harvest.
    behind: [u64; 2],
    late: [LateKeys; 2],
    /// The threshold of the last harvest.
    error: u64,
}

/// Operations that were recorded late, under the ledger's lock.
#[derive(Clone, Default, Debug)]
struct LateKeys {
    keys: BTreeMap<Box<[u8]>, (u64, u64)>,
    unnamed: u64,
}

impl LateKeys {
    fn summary(&self) -> Summary {
        let named = self.keys.values().map(|(counted, _)| *counted).sum::<u64>();
        let keys = self.keys.iter().map(|(key, &(counted, bytes))| NamedKey {
            key: Arc::from(&**key),
            counted,
            missed: 0,
            bytes,
        });
        Summary::new(keys.collect(), 0, self.unnamed, named + self.unnamed)
    }
}

impl KeyHarvester {
    /// Takes note of operations that were recorded late.
    pub fn add_late(&mut self, key: &[u8], counts: &Counts) {
        let [reads, writes] = &mut self.late;
        let numbers =
            [(reads, counts.reads, counts.read_bytes), (writes, counts.writes, counts.write_bytes)];
        for (late, ops, bytes) in numbers.into_iter().filter(|(_, ops, _)| *ops > 0) {
            let full = late.keys.len() >= MAX_LATE_KEYS;
            match late.keys.get_mut(key) {
                Some((counted, of_them)) => {
                    *counted = counted.saturating_add(ops);
                    *of_them = of_them.saturating_add(bytes);
                }
                None if full => late.unnamed = late.unnamed.saturating_add(ops),
                None => drop(late.keys.insert(key.into(), (ops, bytes))),
            }
        }
    }

    /// Reads all summaries, by shard, before the cells are read.
    pub fn take(&mut self, recorders: &[Option<Arc<Recorders>>]) -> [Summary; 2] {
        self.taken.resize(recorders.len(), Default::default());
        let mut sums: [Summary; 2] = Default::default();
        for (recorders, taken) in recorders.iter().zip(&mut self.taken) {
            let Some(recorders) = recorders else { continue };
            let each = recorders.each().into_iter().zip(taken).zip(&mut sums);
            each.for_each(|((recorder, taken), sum)| sum.add(&recorder.take(taken)));
        }
        self.recorded(&mut sums);
        sums
    }

    /// What [`KeyHarvester::take`] would give. For a copy, which is to be finished too.
    pub fn peek(&mut self, recorders: &[Option<Arc<Recorders>>]) -> [Summary; 2] {
        let mut sums: [Summary; 2] = Default::default();
        for (shard, recorders) in recorders.iter().enumerate() {
            let Some(recorders) = recorders else { continue };
            let taken = self.taken.get(shard).copied().unwrap_or_default();
            let each = recorders.each().into_iter().zip(&taken).zip(&mut sums);
            each.for_each(|((recorder, taken), sum)| sum.add(&recorder.peek(taken)));
        }
        self.recorded(&mut sums);
        sums
    }

    fn recorded(&mut self, sums: &mut [Summary; 2]) {
        for (recorded, sum) in self.recorded.iter_mut().zip(sums.iter_mut()) {
            *recorded = recorded.wrapping_add(sum.operations());
        }
        for (late, sum) in self.late.iter_mut().zip(sums) {
            sum.add(&std::mem::take(late).summary());
        }
    }

    /// Fits the summaries to the cells that were read after them.
    pub fn finish(&mut self, sums: [Summary; 2], cells: &CellTotals) -> ColumnHotKeys {
        let mut index = 0;
        let [reads, writes] = sums.map(|mut sum| {
            let at = index;
            index += 1;
            self.counted[at] = self.counted[at].wrapping_add(cells.named[at]);
            let early = self.behind[at];
            self.behind[at] = self.counted[at].wrapping_sub(self.recorded[at]);
            sum.add(&Summary::of_unnamed(cells.unnamed[at]));
            sum.prune(OPEN_KEYS);
            sum.with_edges(early, self.behind[at])
        });
        self.error = reads.threshold().max(writes.threshold());
        ColumnHotKeys { reads, writes, missing: false }
    }

    /// Operations that summaries had since the start.
    pub fn operations(&self) -> u64 {
        self.recorded.iter().fold(0, |sum, ops| sum.wrapping_add(*ops))
    }

    /// The threshold of the last harvest.
    pub fn error(&self) -> u64 {
        self.error
    }
}
