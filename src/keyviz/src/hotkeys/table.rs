//! One generation of counted keys, in a fixed piece of memory.
//!
//! ```text
//!   hash ─> set: version, generation, floor, a tag for each of its ways
//!           way: upper   no more operations of its key than that
//!                name    48 bits of the hash, the length, and whether the rest is there
//!                missed  that many of the operations may have been of other keys
//!                bytes   of the operations that are certain
//!                key     or its digest and where it lies in the arena
//! ```
//!
//! A key that has no way in its full set takes that of the least `upper`, which becomes the set's
//! `floor`: no key without a way was counted more often (Space-Saving, in each set). So
//! `upper - missed` operations are certain, and at most `missed` more can have come before.
//!
//! Most keys that take the way of another are never seen again, and writing all of a way would push
//! the memory of the store out of the cache. So such a key leaves only `upper` and `name` there;
//! the rest follows with its second operation, and the first is not among the certain ones. Two
//! keys of one `name`, of which the second finds the way of the first, do not harm that either.
//!
//! Keys up to 64 bytes lie in their way. A longer key is told apart by a digest of 128 bits, and
//! its text goes to the arena once it has proved to be hot: the arena only grows within a
//! generation, so a stream of long keys must not fill it with names that nobody will ask for.
//!
//! Who touches what: the one writer writes everything. Readers read everything at any time. Its
//! additions to a way are single stores. Where it gives a way to another key, the set's `version`
//! is odd, and a reader that saw it odd or changed reads that set again. All of it is atomics, so a
//! race gives an old value at worst; the fences below make a mixed set impossible to accept.

use std::sync::Arc;

use keyviz_types::MAX_KEY_BYTES;

use super::key_words::{from_words, store_words};
use super::set::size::{ARENA_WORDS, SETS, WAYS};
use super::set::{BRIEF, HashedKey, INLINE_BYTES, PLACE, Set};
use crate::sampler::sync::{AtomicU64, Ordering, fence, yield_now};

/// Keys that a table has at most.
pub(super) const TABLE_KEYS: usize = SETS * WAYS;

/// A reader looks at a set that is being written this often before it lets other threads run.
const SPINS: u32 = 64;
/// And this often in all. A writer is at work for some nanoseconds, or not running at all.
const MAX_TRIES: u32 = 20_000;

/// Keys of at most `operations / SLACK` operations are not worth a name in a readout.
const SLACK: u64 = 8_192;

/// A key that was counted.
pub(super) struct CountedKey {
    pub key: Arc<[u8]>,
    pub upper: u64,
    pub missed: u64,
    pub bytes: u64,
}

/// What a table had.
#[derive(Default)]
pub(super) struct Readout {
    pub keys: Vec<CountedKey>,
    /// No key that is not among them had more operations.
    pub floor: u64,
}

/// Aligned, so that the tables of two writers share no cache line (nor a pair of them, which
/// prefetchers take).
#[repr(align(128))]
pub(super) struct Table {
    sets: Box<[Set]>,
    arena: Box<[AtomicU64]>,
    /// Words of the arena in use.
    used: AtomicU64,
    generation: AtomicU64,
    /// Operations in this generation; stored after what they changed.
    operations: AtomicU64,
    /// Those of them whose key is in no set.
    unnamed: AtomicU64,
    /// Keys that lost their way to another, in all generations.
    replaced: AtomicU64,
}

impl Table {
    pub fn new() -> Self {
        Table {
            sets: (0..SETS).map(|_| Set::new()).collect(),
            arena: (0..ARENA_WORDS).map(|_| AtomicU64::new(0)).collect(),
            used: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
        }
    }

    /// Bytes of memory.
    pub fn bytes() -> usize {
        SETS * size_of::<Set>() + ARENA_WORDS * size_of::<u64>()
    }

    /// Operations in this generation. What they changed is visible to whoever sees the number.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Acquire)
    }

    /// Those of them whose key is in no set.
    pub fn unnamed(&self) -> u64 {
        self.unnamed.load(Ordering::Relaxed)
    }

    /// Keys that lost their way to another since the start.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Forgets everything, for a new generation. Sets follow when they are used. For the writer.
    pub fn start(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
        self.unnamed.store(0, Ordering::Relaxed);
        self.operations.store(0, Ordering::Relaxed);
    }

    /// Counts `ops` operations of a key. For the writer.
    #[inline]
    pub fn count(&self, key: &HashedKey<'_>, ops: u64, bytes: u64) {
        let set = &self.sets[key.set];
        let generation = self.generation.load(Ordering::Relaxed);
        let current = set.generation.load(Ordering::Relaxed) == generation;
        let operations = self.operations.load(Ordering::Relaxed).saturating_add(ops);
        let way = match current.then(|| set.find(key)).flatten() {
            Some(way) => {
                if set.is_brief(way) {
                    Self::complete(set, way, key);
                }
                add(&set.ways[way].bytes, bytes);
                let upper = set.upper(way).load(Ordering::Relaxed).saturating_add(ops);
                // Release, pairs with the fence in `read_set`: a reader that counts the operation
                // sees it in its cell too, where it was before.
                set.upper(way).store(upper, Ordering::Release);
                set.raised(way);
                way
            }
            None => {
                if key.key.len() > MAX_KEY_BYTES {
                    add(&self.unnamed, ops);
                    return self.operations.store(operations, Ordering::Release);
                }
                self.replace(set, key, (!current).then_some(generation), (ops, bytes))
            }
        };
        if key.digest.is_some() && !set.is_brief(way) {
            self.store_text(set, way, key, operations);
        }
        // Release: whoever sees the number sees what it counts.
        self.operations.store(operations, Ordering::Release);
    }

    /// Gives the key a way.
    #[inline(never)]
    fn replace(
        &self,
        set: &Set,
        key: &HashedKey<'_>,
        new_generation: Option<u64>,
        (ops, bytes): (u64, u64),
    ) -> usize {
        let version = set.version.load(Ordering::Relaxed);
        set.version.store(version + 1, Ordering::Relaxed);
        // Pairs with the fence in `read_set`: a reader that sees any store below sees the version
        // above too when it compares.
        fence(Ordering::Release);
        if let Some(generation) = new_generation {
            set.generation.store(generation, Ordering::Relaxed);
            set.floor.store(0, Ordering::Relaxed);
            set.lowest.store(0, Ordering::Relaxed);
            set.tags.iter().for_each(|tags| tags.store(0, Ordering::Relaxed));
        }
        let free = set.free_way();
        let way = free.unwrap_or_else(|| {
            add(&self.replaced, 1);
            set.take_lowest()
        });
        let floor = set.floor.load(Ordering::Relaxed);
        set.set_tag(way, key.tag);
        set.upper(way).store(floor.saturating_add(ops), Ordering::Relaxed);
        if free.is_none() && ops == 1 {
            set.name(way).store(key.name | BRIEF, Ordering::Relaxed);
        } else {
            set.fill(way, key, floor, bytes);
        }
        // Release: a reader that sees this version sees what was stored before it.
        set.version.store(version + 2, Ordering::Release);
        way
    }

    /// Stores the rest of a key that is seen for the second time. No operation is certain yet.
    #[inline(never)]
    fn complete(set: &Set, way: usize, key: &HashedKey<'_>) {
        let version = set.version.load(Ordering::Relaxed);
        set.version.store(version + 1, Ordering::Relaxed);
        // As in `replace`.
        fence(Ordering::Release);
        set.fill(way, key, set.upper(way).load(Ordering::Relaxed), 0);
        set.version.store(version + 2, Ordering::Release);
    }

    /// Stores the text of a long key, if it is hot enough for the room that is left.
    #[cold]
    fn store_text(&self, set: &Set, way: usize, key: &HashedKey<'_>, operations: u64) {
        let place = &set.ways[way].key[PLACE];
        if place.load(Ordering::Relaxed) != 0 {
            return;
        }
        let used = self.used.load(Ordering::Relaxed) as usize;
        let upper = set.upper(way).load(Ordering::Relaxed);
        let counted = upper.saturating_sub(set.ways[way].missed.load(Ordering::Relaxed));
        let needed = if used < ARENA_WORDS / 2 { 1 } else { 2 + operations / 1_024 };
        let length = key.key.len().div_ceil(8);
        if counted < needed || used + length > ARENA_WORDS {
            return;
        }
        let room = &self.arena[used..used + length];
        store_words(key.key, room);
        self.used.store((used + length) as u64, Ordering::Relaxed);
        // Release: whoever sees the place sees the text.
        place.store(used as u64 + 1, Ordering::Release);
    }

    /// The counted keys, without those that are too rare to matter. For a reader.
    pub fn read(&self) -> Readout {
        let mut floor = 0;
        for set in &self.sets {
            self.read_set(set, |set| floor = floor.max(set.floor.load(Ordering::Relaxed)));
        }
        let level = floor.saturating_add(self.operations() / SLACK);
        let mut readout = Readout::default();
        for set in &self.sets {
            let mut ways = Vec::new();
            let mut floor = 0;
            let whole = self.read_set(set, |set| {
                ways.clear();
                floor = set.floor.load(Ordering::Relaxed);
                for way in (0..WAYS).filter(|&way| set.tag(way) != 0) {
                    let upper = set.upper(way).load(Ordering::Relaxed);
                    match (upper > level).then(|| self.key(set, way)).flatten() {
                        Some(key) => ways.push(CountedKey {
                            key,
                            upper,
                            missed: set.ways[way].missed.load(Ordering::Relaxed),
                            bytes: set.ways[way].bytes.load(Ordering::Relaxed),
                        }),
                        None => floor = floor.max(upper),
                    }
                }
            });
            if !whole {
                // Whatever is in it, it is not more than all.
                floor = self.operations();
                ways.clear();
            }
            readout.floor = readout.floor.max(floor);
            readout.keys.append(&mut ways);
        }
        readout
    }

    /// Lets `look` at a set at rest, as often as it takes; what it saw last counts. A set of an
    /// earlier generation is empty. Whether there was such a moment.
    fn read_set(&self, set: &Set, mut look: impl FnMut(&Set)) -> bool {
        let generation = self.generation.load(Ordering::Relaxed);
        for tries in 0..MAX_TRIES {
            let version = set.version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                if set.generation.load(Ordering::Relaxed) == generation {
                    look(set);
                }
                // Pairs with the fence in `replace`, and with the stores in `count`.
                fence(Ordering::Acquire);
                if set.version.load(Ordering::Relaxed) == version {
                    return true;
                }
            }
            if tries >= SPINS {
                yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        false
    }

    /// The key of a way; `None` where it has none yet.
    fn key(&self, set: &Set, way: usize) -> Option<Arc<[u8]>> {
        if set.is_brief(way) {
            return None;
        }
        let length = (set.name(way).load(Ordering::Relaxed) & 0xffff) as usize;
        if length <= INLINE_BYTES {
            return Some(from_words(length, |n| {
                // A set that changes meanwhile is read again; until then any word will do.
                set.ways[way].key.get(n).map_or(0, |word| word.load(Ordering::Relaxed))
            }));
        }
        let at = set.ways[way].key[PLACE].load(Ordering::Acquire).checked_sub(1)? as usize;
        let word = |n: usize| self.arena.get(at + n).map_or(0, |w| w.load(Ordering::Relaxed));
        (length <= MAX_KEY_BYTES).then(|| from_words(length, word))
    }
}

/// Only for the one writer.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    let sum = counter.load(Ordering::Relaxed).saturating_add(more);
    counter.store(sum, Ordering::Relaxed);
}
