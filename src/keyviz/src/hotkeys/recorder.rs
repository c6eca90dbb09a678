//! The summary of one thread and series: written by the thread, read by the flusher.
//!
//! ```text
//!   wanted   generation that the flusher wants written     stored by the flusher
//!   entered  generation that the writer is in              stored by the writer
//!   tables   generation g is in tables[g % 2]
//!
//!   writer, each record:  wanted != entered? start tables[wanted % 2], entered := wanted
//!                         count in tables[entered % 2]
//!   flusher, each take:   entered == wanted? wanted += 1, then read the table of before
//! ```
//!
//! The flusher asks for the next generation before it reads, so a table that is taken gets at most
//! the one record that was under way. What that adds is known by its number at the next take, and
//! counts as unnamed there: it widens the bounds by itself. An idle writer needs no part in any of
//! this: its table is read where it lies. The flusher never asks again before the writer has come,
//! so the writer starts a table only after the flusher has read what was in it: `wanted` is stored
//! with release after that, and loaded with acquire.
//!
//! Takes and peeks exclude each other by a lock of the ledger, which the writer never takes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::set::HashedKey;
use super::summary::{NamedKey, Summary};
use super::table::Table;
use crate::sampler::sync::{AtomicU64, Ordering};

pub(crate) struct Recorder {
    seed: u64,
    wanted: AtomicU64,
    entered: AtomicU64,
    tables: [Table; 2],
}

/// What the flusher knows of a recorder.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Taken {
    /// Operations in the table that was taken last, when it was.
    operations: u64,
}

impl Recorder {
    pub fn new(seed: u64) -> Self {
        Recorder {
            seed,
            wanted: AtomicU64::new(1),
            entered: AtomicU64::new(0),
            tables: [Table::new(), Table::new()],
        }
    }

    /// Bytes of memory.
    pub fn bytes() -> usize {
        2 * Table::bytes()
    }

    /// Keys that lost their counter to another.
    pub fn replaced(&self) -> u64 {
        self.tables.iter().map(Table::replaced).sum()
    }

    /// Counts operations of a key. Only for the one writer.
    #[inline(never)]
    pub fn record(&self, key: &[u8], ops: u64, bytes: u64) {
        if ops == 0 {
            return;
        }
        let wanted = self.wanted.load(Ordering::Acquire);
        let table = &self.tables[(wanted % 2) as usize];
        if self.entered.load(Ordering::Relaxed) != wanted {
            table.start(wanted);
            // Release: who sees it sees a table that has started.
            self.entered.store(wanted, Ordering::Release);
        }
        table.count(&HashedKey::new(key, xxh3_64_with_seed(key, self.seed)), ops, bytes);
    }

    /// What was counted since the last take. Only for the one flusher.
    pub fn take(&self, taken: &mut Taken) -> Summary {
        self.read(taken, true)
    }

    /// What [`Recorder::take`] would give.
    pub fn peek(&self, taken: &Taken) -> Summary {
        self.read(&mut { *taken }, false)
    }

    fn read(&self, taken: &mut Taken, take: bool) -> Summary {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if self.entered.load(Ordering::Acquire) != wanted {
            return Summary::default();
        }
        let [current, before] = [wanted, wanted + 1].map(|n| &self.tables[(n % 2) as usize]);
        let late = before.operations().saturating_sub(taken.operations);
        if take {
            // Release: the writer that sees it starts a table that was read.
            self.wanted.store(wanted + 1, Ordering::Release);
        }
        // Before the sets: they have at least these operations.
        let operations = current.operations();
        let readout = current.read();
        taken.operations = operations;
        let unnamed = late.saturating_add(current.unnamed());
        let keys = readout.keys.into_iter().map(|counted| NamedKey {
            key: counted.key,
            counted: counted.upper.saturating_sub(counted.missed),
            missed: counted.missed,
            bytes: counted.bytes,
        });
        Summary::new(keys.collect(), readout.floor, unnamed, operations.saturating_add(late))
    }
}
