//! One generation of counted keys, in a fixed piece of memory.
//!
//! ```text
//!   hash ─> set: version, generation, floor, a tag for each of its ways
//!           way: upper   no more operations of its key than that
//!                missed  that many of them may have been of other keys
//!                bytes   of the operations since the key has the way
//!                name    digest and length, then the key, or where it lies in the arena
//! ```
//!
//! A key that has no way in its full set takes that of the least `upper`, which becomes the set's
//! `floor`: no key without a way was counted more often (Space-Saving, in each set). So
//! `upper - missed` operations are certain, and at most `missed` more can have come before.
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
use xxhash_rust::xxh3::xxh3_128;

use crate::sampler::sync::{AtomicU64, Ordering, fence, yield_now};

#[cfg(not(loom))]
mod size {
    /// Sets of a table.
    pub const SETS: usize = 256;
    /// Keys of a set.
    pub const WAYS: usize = 16;
    /// Words of a key that lies in its way.
    pub const KEY_WORDS: usize = 8;
    /// Words of longer keys.
    pub const ARENA_WORDS: usize = 128 * 1024 / 8;
}

/// Loom follows every atomic.
#[cfg(loom)]
mod size {
    pub const SETS: usize = 1;
    pub const WAYS: usize = 2;
    pub const KEY_WORDS: usize = 4;
    pub const ARENA_WORDS: usize = 1;
}

use size::{ARENA_WORDS, KEY_WORDS, SETS, WAYS};

/// Keys that a table has at most.
pub(super) const TABLE_KEYS: usize = SETS * WAYS;

const INLINE_BYTES: usize = KEY_WORDS * 8;
const TAG_WORDS: usize = WAYS.div_ceil(8);
/// Where in a long key's way its place in the arena is; before it is the digest.
const PLACE: usize = 2;

/// A reader looks at a set that is being written this often before it lets other threads run.
const SPINS: u32 = 64;
/// And this often in all. A writer is at work for some nanoseconds, or not running at all.
const MAX_TRIES: u32 = 20_000;

/// Keys of at most `operations / SLACK` operations are not worth a name in a readout.
const SLACK: u64 = 8_192;

#[repr(align(64))]
struct Set {
    version: AtomicU64,
    generation: AtomicU64,
    floor: AtomicU64,
    /// A byte a way; 0: free.
    tags: [AtomicU64; TAG_WORDS],
    upper: [AtomicU64; WAYS],
    missed: [AtomicU64; WAYS],
    bytes: [AtomicU64; WAYS],
    /// 48 bits of the hash, and the length.
    names: [AtomicU64; WAYS],
    keys: [[AtomicU64; KEY_WORDS]; WAYS],
}

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

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Set {
    fn new() -> Self {
        Set {
            version: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            tags: zeros(),
            upper: zeros(),
            missed: zeros(),
            bytes: zeros(),
            names: zeros(),
            keys: std::array::from_fn(|_| zeros()),
        }
    }

    /// The ways whose tag may be `tag`, each with its whole word of tags.
    #[inline]
    fn find(&self, key: &HashedKey<'_>) -> Option<usize> {
        for (word, tags) in self.tags.iter().enumerate() {
            // A byte that is 0 after the xor, and perhaps one above it (Hacker's Delight, 6-1).
            let same = tags.load(Ordering::Relaxed) ^ (u64::from(key.tag) * LOW_BITS);
            let mut candidates = same.wrapping_sub(LOW_BITS) & !same & HIGH_BITS;
            while candidates != 0 {
                let way = word * 8 + candidates.trailing_zeros() as usize / 8;
                if way < WAYS && self.has(way, key) {
                    return Some(way);
                }
                candidates &= candidates - 1;
            }
        }
        None
    }

    #[inline]
    fn has(&self, way: usize, key: &HashedKey<'_>) -> bool {
        if self.names[way].load(Ordering::Relaxed) != key.name {
            return false;
        }
        let same = |(mine, word): (&AtomicU64, u64)| mine.load(Ordering::Relaxed) == word;
        match &key.digest {
            None => self.keys[way].iter().zip(words(key.key)).all(same),
            Some(digest) => self.keys[way].iter().zip(*digest).all(same),
        }
    }

    fn tag(&self, way: usize) -> u8 {
        (self.tags[way / 8].load(Ordering::Relaxed) >> (way % 8 * 8)) as u8
    }

    fn set_tag(&self, way: usize, tag: u8) {
        let shift = way % 8 * 8;
        let word = &self.tags[way / 8];
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Relaxed);
    }

    fn free_way(&self) -> Option<usize> {
        // Ways are taken in order and never given back within a generation.
        if self.tag(WAYS - 1) != 0 {
            return None;
        }
        (0..WAYS).find(|&way| self.tag(way) == 0)
    }

    /// The way of the least `upper`, and that.
    #[inline]
    fn least(&self) -> (usize, u64) {
        let mut least = (0, self.upper[0].load(Ordering::Relaxed));
        for (way, upper) in self.upper.iter().enumerate().skip(1) {
            let upper = upper.load(Ordering::Relaxed);
            if upper < least.1 {
                least = (way, upper);
            }
        }
        least
    }
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// A key and what tells it apart.
pub(super) struct HashedKey<'a> {
    key: &'a [u8],
    set: usize,
    tag: u8,
    name: u64,
    /// Of a key that does not fit into a way.
    digest: Option<[u64; 2]>,
}

impl<'a> HashedKey<'a> {
    #[inline]
    pub fn new(key: &'a [u8], hash: u64) -> Self {
        let digest = (key.len() > INLINE_BYTES).then(|| {
            let digest = xxh3_128(key);
            [digest as u64, (digest >> 64) as u64]
        });
        HashedKey {
            key,
            set: hash as usize % SETS,
            tag: ((hash >> 56) as u8).max(1),
            name: (hash & !0xffff) | key.len() as u64,
            digest,
        }
    }
}

/// The words of a key: whole ones, then its last eight bytes where they do not end with those. A
/// key that is shorter is one word.
#[inline]
fn words(key: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = key.as_chunks::<8>();
    let last = (!rest.is_empty()).then(|| match key.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().rfold(0, |word, byte| word << 8 | u64::from(*byte)),
    });
    whole.iter().map(|word| u64::from_le_bytes(*word)).chain(last)
}

/// The key of `length` bytes from its words.
fn from_words(length: usize, word: impl Fn(usize) -> u64) -> Arc<[u8]> {
    let mut key = vec![0; length];
    let (whole, rest) = key.as_chunks_mut::<8>();
    whole.iter_mut().enumerate().for_each(|(n, bytes)| *bytes = word(n).to_le_bytes());
    if !rest.is_empty() {
        let last = word(whole.len()).to_le_bytes();
        match key.last_chunk_mut::<8>() {
            Some(bytes) => *bytes = last,
            None => key.copy_from_slice(&last[..length]),
        }
    }
    key.into()
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
                add(&set.bytes[way], bytes);
                let upper = set.upper[way].load(Ordering::Relaxed).saturating_add(ops);
                // Release, pairs with the fence in `read_set`: a reader that counts the operation
                // sees it in its cell too, where it was before.
                set.upper[way].store(upper, Ordering::Release);
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
        if key.digest.is_some() {
            self.name(set, way, key, operations);
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
            set.tags.iter().for_each(|tags| tags.store(0, Ordering::Relaxed));
        }
        let way = match set.free_way() {
            Some(way) => way,
            None => {
                let (way, least) = set.least();
                set.floor.store(least, Ordering::Relaxed);
                add(&self.replaced, 1);
                way
            }
        };
        let floor = set.floor.load(Ordering::Relaxed);
        set.set_tag(way, key.tag);
        set.names[way].store(key.name, Ordering::Relaxed);
        set.upper[way].store(floor.saturating_add(ops), Ordering::Relaxed);
        set.missed[way].store(floor, Ordering::Relaxed);
        set.bytes[way].store(bytes, Ordering::Relaxed);
        match &key.digest {
            None => {
                let store = |(mine, word): (&AtomicU64, u64)| mine.store(word, Ordering::Relaxed);
                set.keys[way].iter().zip(words(key.key)).for_each(store);
            }
            Some(digest) => {
                let stored = digest.iter().chain(&[0]).zip(&set.keys[way]);
                stored.for_each(|(word, mine)| mine.store(*word, Ordering::Relaxed));
            }
        }
        // Release: a reader that sees this version sees what was stored before it.
        set.version.store(version + 2, Ordering::Release);
        way
    }

    /// Stores the text of a long key, if it is hot enough for the room that is left.
    #[cold]
    fn name(&self, set: &Set, way: usize, key: &HashedKey<'_>, operations: u64) {
        let place = &set.keys[way][PLACE];
        if place.load(Ordering::Relaxed) != 0 {
            return;
        }
        let used = self.used.load(Ordering::Relaxed) as usize;
        let upper = set.upper[way].load(Ordering::Relaxed);
        let counted = upper.saturating_sub(set.missed[way].load(Ordering::Relaxed));
        let needed = if used < ARENA_WORDS / 2 { 1 } else { 2 + operations / 1_024 };
        let length = key.key.len().div_ceil(8);
        if counted < needed || used + length > ARENA_WORDS {
            return;
        }
        let room = &self.arena[used..used + length];
        room.iter().zip(words(key.key)).for_each(|(mine, w)| mine.store(w, Ordering::Relaxed));
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
                    let upper = set.upper[way].load(Ordering::Relaxed);
                    match (upper > level).then(|| self.key(set, way)).flatten() {
                        Some(key) => ways.push(CountedKey {
                            key,
                            upper,
                            missed: set.missed[way].load(Ordering::Relaxed),
                            bytes: set.bytes[way].load(Ordering::Relaxed),
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

    /// The key of a way; `None` where a long one has no text yet.
    fn key(&self, set: &Set, way: usize) -> Option<Arc<[u8]>> {
        let length = (set.names[way].load(Ordering::Relaxed) & 0xffff) as usize;
        if length <= INLINE_BYTES {
            return Some(from_words(length, |n| {
                // A set that changes meanwhile is read again; until then any word will do.
                set.keys[way].get(n).map_or(0, |word| word.load(Ordering::Relaxed))
            }));
        }
        let at = set.keys[way][PLACE].load(Ordering::Acquire).checked_sub(1)? as usize;
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
