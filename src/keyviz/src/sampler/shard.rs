//! Shards: which thread may write which counters.
//!
//! A sampler has a fixed number of shards. A thread leases one when it first records, and keeps it
//! until it ends (or rests); the lease is the only right to write the shard's counter blocks, so
//! recording is a plain relaxed load and store, never an atomic read-modify-write. Threads that
//! find no free shard write the overflow block, with `fetch_add`.
//!
//! Who touches what:
//!
//! ```text
//!   Block.cells, Block.records   written: the thread that leases the shard (overflow: anyone)
//!                                read:    the flusher, any time
//!   Shards.free                  lease and return, under its mutex
//!   Recorders                    as the cells; see `hotkeys::recorder`
//!   Shards.reservoirs            the lessee, every so many calls, if it gets the lock at once;
//!                                whoever re-plans, under the lock
//! ```
//!
//! Hand-over: the returning thread's stores happen before the next lessee's loads, because both
//! pass through the mutex of the free list. Without that the next lessee could start from an old
//! counter value and so take counts back.

use std::cell::Cell as LocalCell;
use std::sync::Arc as Shared;
use std::sync::atomic::AtomicBool;

use super::counts::Counts;
use super::resolution::samples::{Reservoir, Sample};
use super::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering};
use crate::hotkeys::harvest::Recorders;

/// What was done to a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A read served by this node.
    Read,
    /// A write proposed by this node (a delete is a write).
    Write,
}

/// The counters of one slot in one shard. Monotonic modulo 2^64; readers take differences.
struct Cell {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
}

impl Cell {
    fn new() -> Self {
        Cell {
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
        }
    }

    #[inline]
    fn of(&self, op: Op) -> (&AtomicU64, &AtomicU64) {
        match op {
            Op::Read => (&self.reads, &self.read_bytes),
            Op::Write => (&self.writes, &self.write_bytes),
        }
    }

    /// Only for the one writer. Relaxed: the values are independent, and whoever needs all of them
    /// synchronises through `Block::records` or the epoch's reference count.
    #[inline]
    fn add_owned(&self, op: Op, ops: u64, bytes: u64) {
        let (count, volume) = self.of(op);
        count.store(count.load(Ordering::Relaxed).wrapping_add(ops), Ordering::Relaxed);
        volume.store(volume.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    fn add_shared(&self, op: Op, ops: u64, bytes: u64) {
        let (count, volume) = self.of(op);
        count.fetch_add(ops, Ordering::Relaxed);
        volume.fetch_add(bytes, Ordering::Relaxed);
    }

    fn load(&self) -> Counts {
        Counts {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Two cells fill a cache line, so that blocks of different shards never share one.
#[repr(align(64))]
struct Line([Cell; 2]);

/// All slots of one epoch in one shard. Blocks lie side by side in their epoch, and each call
/// writes `records`: without an alignment of its own (two lines, since prefetchers take pairs),
/// every recorder would take the line away from its neighbours.
#[repr(align(128))]
pub(crate) struct Block {
    /// Calls that were recorded here. The flusher skips a block whose number did not move.
    records: AtomicU64,
    lines: Box<[Line]>,
}

impl Block {
    fn new(slots: usize) -> Self {
        Block {
            records: AtomicU64::new(0),
            lines: (0..slots.div_ceil(2)).map(|_| Line([Cell::new(), Cell::new()])).collect(),
        }
    }

    #[inline]
    fn cell(&self, slot: u32) -> &Cell {
        &self.lines[slot as usize >> 1].0[slot as usize & 1]
    }

    /// For the shard's lessee. The release pairs with the acquire in `records`: a flusher that
    /// sees this call counted sees its cells too, and so never marks a block as read too early.
    #[inline]
    fn record_owned(&self, slot: u32, op: Op, ops: u64, bytes: u64) {
        self.cell(slot).add_owned(op, ops, bytes);
        let records = self.records.load(Ordering::Relaxed).wrapping_add(1);
        self.records.store(records, Ordering::Release);
    }

    fn record_shared(&self, slot: u32, op: Op, ops: u64, bytes: u64) {
        self.cell(slot).add_shared(op, ops, bytes);
        self.records.fetch_add(1, Ordering::Release);
    }

    fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// Adds all cells to `sums`; how many reads and writes that were.
    fn add_to(&self, sums: &mut [Counts]) -> [u64; 2] {
        let mut all = [0u64; 2];
        for (slot, sum) in sums.iter_mut().enumerate() {
            let cell = self.lines[slot >> 1].0[slot & 1].load();
            all = [all[0].wrapping_add(cell.reads), all[1].wrapping_add(cell.writes)];
            sum.reads = sum.reads.wrapping_add(cell.reads);
            sum.writes = sum.writes.wrapping_add(cell.writes);
            sum.read_bytes = sum.read_bytes.wrapping_add(cell.read_bytes);
            sum.write_bytes = sum.write_bytes.wrapping_add(cell.write_bytes);
        }
        all
    }
}

/// The counters of one epoch: a block for each shard that may write, and the overflow block.
pub(crate) struct Counters {
    slots: usize,
    owned: Box<[OnceLock<Block>]>,
    overflow: Block,
}

impl Counters {
    /// Counters for `slots` slots with blocks for the first `ready` shards, so that their threads
    /// need not allocate on first use.
    pub(crate) fn new(slots: usize, shards: u32, ready: impl Iterator<Item = u32>) -> Self {
        let owned: Box<[_]> = (0..shards).map(|_| OnceLock::new()).collect();
        for shard in ready {
            owned[shard as usize].get_or_init(|| Block::new(slots));
        }
        Counters { slots, owned, overflow: Block::new(slots) }
    }

    /// Makes the lessee's block. The one allocation of a thread in an epoch, and only when the
    /// thread leased its shard after the epoch was made.
    pub(crate) fn prepare(&self, lease: &Lease) {
        if let Some(block) = self.owned.get(lease.shard as usize) {
            block.get_or_init(|| Block::new(self.slots));
        }
    }

    /// Counts one call; whether in a block of the lessee. A lessee without one here (an old epoch
    /// that it never loaded) goes to the overflow block: exact too, and without an allocation.
    #[inline]
    pub(crate) fn record(&self, lease: &Lease, slot: u32, op: Op, ops: u64, bytes: u64) -> bool {
        match self.owned.get(lease.shard as usize).and_then(OnceLock::get) {
            Some(block) => {
                block.record_owned(slot, op, ops, bytes);
                true
            }
            None => {
                self.record_shared(slot, op, ops, bytes);
                false
            }
        }
    }

    /// Counts one call of a thread without a lease.
    #[cold]
    pub(crate) fn record_shared(&self, slot: u32, op: Op, ops: u64, bytes: u64) {
        self.overflow.record_shared(slot, op, ops, bytes);
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.owned.iter().filter_map(OnceLock::get).chain(std::iter::once(&self.overflow))
    }

    /// A number that moves with every recorded call, and with nothing else.
    pub(crate) fn records(&self) -> u64 {
        self.blocks().fold(0, |sum, block| sum.wrapping_add(block.records()))
    }

    /// Calls that went to the overflow block.
    pub(crate) fn overflow_records(&self) -> u64 {
        self.overflow.records()
    }

    /// Adds up all blocks: `sums[slot]`, modulo 2^64. `sums` must be zero and of `slots` length.
    /// Reads and writes of the blocks of lessees, and of the overflow block.
    pub(crate) fn sum_into(&self, sums: &mut [Counts]) -> ([u64; 2], [u64; 2]) {
        let mut named = [0u64; 2];
        let owned = self.owned.iter().filter_map(OnceLock::get);
        for block in owned.filter(|block| block.records() != 0) {
            let [reads, writes] = block.add_to(sums);
            named = [named[0].wrapping_add(reads), named[1].wrapping_add(writes)];
        }
        let shared = self.overflow.records() != 0;
        (named, if shared { self.overflow.add_to(sums) } else { [0; 2] })
    }

    /// Bytes of counters that this epoch holds.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks().map(|block| size_of_val(&*block.lines)).sum()
    }
}

/// What no table could attribute, and the shards of one sampler.
pub(crate) struct Shards {
    count: u32,
    /// The sampler is gone. Only tells threads to forget it: no ordering hangs on it.
    closed: AtomicBool,
    free: Mutex<Vec<u32>>,
    /// Sampled keys, a shard; made when the shard is first leased.
    reservoirs: Box<[OnceLock<Mutex<Reservoir>>]>,
    /// Seed of the summaries of keys; `None`: keys are not looked at.
    hot_keys: Option<u64>,
    /// Summaries of keys, a shard; made when the shard is first leased.
    recorders: Box<[OnceLock<Shared<Recorders>>]>,
    unattributed: Cell,
}

impl Shards {
    pub(crate) fn new(count: u32, hot_keys: Option<u64>) -> Self {
        Shards {
            count,
            closed: AtomicBool::new(false),
            // The last is leased first, so that few threads use the low numbers.
            free: Mutex::new((0..count).rev().collect()),
            reservoirs: (0..count).map(|_| OnceLock::new()).collect(),
            hot_keys,
            recorders: (0..count).map(|_| OnceLock::new()).collect(),
            unattributed: Cell::new(),
        }
    }

    /// Takes all sampled keys. Recorders that come by meanwhile pass.
    pub(crate) fn take_samples(&self) -> Vec<Sample> {
        let reservoirs = self.reservoirs.iter().filter_map(OnceLock::get);
        reservoirs.flat_map(|reservoir| reservoir.lock().take()).collect()
    }

    /// Whether keys are looked at.
    pub(crate) fn has_hot_keys(&self) -> bool {
        self.hot_keys.is_some()
    }

    /// The summaries of keys, by shard.
    pub(crate) fn recorders(&self) -> Vec<Option<Shared<Recorders>>> {
        self.recorders.iter().map(|recorders| recorders.get().cloned()).collect()
    }

    /// Keys that lost their counter to another.
    pub(crate) fn hot_keys_replaced(&self) -> u64 {
        let recorders = self.recorders.iter().filter_map(OnceLock::get);
        recorders.map(|recorders| recorders.replaced()).sum()
    }

    /// Bytes of the summaries of keys.
    pub(crate) fn hot_key_bytes(&self) -> usize {
        self.recorders.iter().filter_map(OnceLock::get).count() * Recorders::bytes()
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Shards that a thread leases now.
    pub(crate) fn leased(&self) -> Vec<u32> {
        let free = self.free.lock();
        let mut leased = vec![true; self.count as usize];
        for &shard in free.iter() {
            leased[shard as usize] = false;
        }
        (0..self.count).filter(|&shard| leased[shard as usize]).collect()
    }

    pub(crate) fn count_unattributed(&self, op: Op, ops: u64, bytes: u64) {
        self.unattributed.add_shared(op, ops, bytes);
    }

    pub(crate) fn unattributed(&self) -> Counts {
        self.unattributed.load()
    }
}

/// The right to write one shard. Returns it when dropped.
pub(crate) struct Lease {
    shards: Arc<Shards>,
    /// `shards.count` stands for the overflow shard.
    shard: u32,
    /// Calls until the next key is sampled.
    until_sample: LocalCell<u32>,
    /// The shard's summaries of keys.
    recorders: Option<Shared<Recorders>>,
}

/// Calls until the next try, when the reservoir is being emptied.
const SAMPLE_RETRY: u32 = 64;

impl Lease {
    /// A free shard, or the overflow shard when there is none.
    pub(crate) fn take(shards: &Arc<Shards>) -> Lease {
        let shard = shards.free.lock().pop().unwrap_or(shards.count);
        if let Some(reservoir) = shards.reservoirs.get(shard as usize) {
            reservoir.get_or_init(|| Mutex::new(Reservoir::new(shard)));
        }
        let recorders = shards.recorders.get(shard as usize).zip(shards.hot_keys);
        let recorders = recorders.map(|(recorders, seed)| {
            Shared::clone(recorders.get_or_init(|| Shared::new(Recorders::new(seed))))
        });
        let (shards, until_sample) = (Arc::clone(shards), LocalCell::new(0));
        Lease { shards, shard, until_sample, recorders }
    }

    /// Counts the key of a call that was recorded in a block of the shard, after that.
    #[inline]
    pub(crate) fn record_key(&self, key: &[u8], op: Op, ops: u64, bytes: u64) {
        if let Some(recorders) = &self.recorders {
            match op {
                Op::Read => recorders.reads.record(key, ops, bytes),
                Op::Write => recorders.writes.record(key, ops, bytes),
            }
        }
    }

    /// Leaves the key as a sample, if it is its turn.
    #[inline]
    pub(crate) fn observe(&self, key: &[u8]) {
        match self.until_sample.get().checked_sub(1) {
            Some(left) => self.until_sample.set(left),
            None => self.sample(key),
        }
    }

    #[cold]
    fn sample(&self, key: &[u8]) {
        let reservoir = self.shards.reservoirs.get(self.shard as usize).and_then(OnceLock::get);
        let wait = match reservoir.map(Mutex::try_lock) {
            Some(Some(mut reservoir)) => reservoir.offer(key),
            Some(None) => SAMPLE_RETRY,
            // The overflow shard takes no samples.
            None => u32::MAX,
        };
        self.until_sample.set(wait - 1);
    }

    /// A second right to a shard, which nothing but a test that must fail may hold.
    #[cfg(all(test, loom))]
    pub(crate) fn forged(shards: &Arc<Shards>, shard: u32) -> Lease {
        let (shards, until_sample) = (Arc::clone(shards), LocalCell::new(u32::MAX));
        Lease { shards, shard, until_sample, recorders: None }
    }

    pub(crate) fn is_overflow(&self) -> bool {
        self.shard == self.shards.count
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_overflow() {
            self.shards.free.lock().push(self.shard);
        }
    }
}
