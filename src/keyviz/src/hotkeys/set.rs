//! A set of a table: the ways of the keys whose hash leads to it. See [`super::table`].

use keyviz_types::MAX_KEY_BYTES;
use xxhash_rust::xxh3::xxh3_128;

use super::key_words::{store_words, words};
use crate::sampler::sync::{AtomicU64, Ordering};

#[cfg(not(loom))]
pub(super) mod size {
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
pub(super) mod size {
    pub const SETS: usize = 1;
    pub const WAYS: usize = 2;
    pub const KEY_WORDS: usize = 4;
    pub const ARENA_WORDS: usize = 1;
}

use size::{KEY_WORDS, SETS, WAYS};

pub(super) const INLINE_BYTES: usize = KEY_WORDS * 8;
const TAG_WORDS: usize = WAYS.div_ceil(8);
/// Where in a long key's way its place in the arena is; before it is the digest.
pub(super) const PLACE: usize = 2;

/// In a name: the way has nothing else of its key. Lengths are smaller.
pub(super) const BRIEF: u64 = 1 << 15;
const _: () = assert!((MAX_KEY_BYTES as u64) < BRIEF);

/// A set's first cache line says where to look, two hold every `upper`, two every name. What a key
/// needs only once it is seen again lies apart.
#[repr(align(64))]
pub(super) struct Set {
    pub version: AtomicU64,
    pub generation: AtomicU64,
    pub floor: AtomicU64,
    /// A bit for each way whose `upper` was `floor` at the last search for the least, and has not
    /// changed since. Only the writer uses it.
    pub lowest: AtomicU64,
    /// A byte a way; 0: free.
    pub tags: [AtomicU64; TAG_WORDS],
    upper: Lines,
    /// 48 bits of the hash, [`BRIEF`], and the length.
    names: Lines,
    pub ways: [Way; WAYS],
}

/// A word a way.
#[repr(align(64))]
struct Lines([AtomicU64; WAYS]);

/// Of one key, beside its `upper` and its name.
pub(super) struct Way {
    pub missed: AtomicU64,
    pub bytes: AtomicU64,
    pub key: [AtomicU64; KEY_WORDS],
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Set {
    pub fn new() -> Self {
        Set {
            version: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            lowest: AtomicU64::new(0),
            tags: zeros(),
            upper: Lines(zeros()),
            names: Lines(zeros()),
            ways: std::array::from_fn(|_| Way {
                missed: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                key: zeros(),
            }),
        }
    }

    /// The ways whose tag may be `tag`, each with its whole word of tags.
    #[inline]
    pub fn find(&self, key: &HashedKey<'_>) -> Option<usize> {
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
        let name = self.name(way).load(Ordering::Relaxed);
        if name != key.name {
            return name == key.name | BRIEF;
        }
        let way = &self.ways[way];
        let is_same = |n: usize, word| {
            way.key.get(n).is_some_and(|mine| mine.load(Ordering::Relaxed) == word)
        };
        match &key.digest {
            None => words(key.key, is_same),
            Some(digest) => digest.iter().enumerate().all(|(n, word)| is_same(n, *word)),
        }
    }

    pub fn tag(&self, way: usize) -> u8 {
        (self.tags[way / 8].load(Ordering::Relaxed) >> (way % 8 * 8)) as u8
    }

    pub fn set_tag(&self, way: usize, tag: u8) {
        let shift = way % 8 * 8;
        let word = &self.tags[way / 8];
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Relaxed);
    }

    pub fn free_way(&self) -> Option<usize> {
        // Ways are taken in order and never given back within a generation.
        if self.tag(WAYS - 1) != 0 {
            return None;
        }
        (0..WAYS).find(|&way| self.tag(way) == 0)
    }

    pub fn upper(&self, way: usize) -> &AtomicU64 {
        &self.upper.0[way]
    }

    pub fn name(&self, way: usize) -> &AtomicU64 {
        &self.names.0[way]
    }

    pub fn is_brief(&self, way: usize) -> bool {
        self.name(way).load(Ordering::Relaxed) & BRIEF != 0
    }

    /// A way of the least `upper`. For the writer, in a full set; it is no more the lowest then, and
    /// what it had is the floor.
    ///
    /// No `upper` is below the floor, so any that equals it will do. A set whose keys come once
    /// each is searched once for all of its ways.
    #[inline]
    pub fn take_lowest(&self) -> usize {
        let mut lowest = self.lowest.load(Ordering::Relaxed);
        if lowest == 0 {
            lowest = self.search();
        }
        self.lowest.store(lowest & (lowest - 1), Ordering::Relaxed);
        lowest.trailing_zeros() as usize
    }

    /// The ways of the least `upper`, which becomes the floor.
    fn search(&self) -> u64 {
        let uppers = || self.upper.0.iter().map(|upper| upper.load(Ordering::Relaxed));
        let least = uppers().min().unwrap_or(0);
        self.floor.store(least, Ordering::Relaxed);
        uppers().enumerate().fold(0, |ways, (way, upper)| ways | u64::from(upper == least) << way)
    }

    /// Gives a way all that it has of a key. For the writer, in a set that it has marked.
    pub fn fill(&self, at: usize, key: &HashedKey<'_>, missed: u64, bytes: u64) {
        let way = &self.ways[at];
        self.name(at).store(key.name, Ordering::Relaxed);
        way.missed.store(missed, Ordering::Relaxed);
        way.bytes.store(bytes, Ordering::Relaxed);
        match &key.digest {
            None => store_words(key.key, &way.key),
            Some(digest) => {
                let stored = digest.iter().chain(&[0]).zip(&way.key);
                stored.for_each(|(word, mine)| mine.store(*word, Ordering::Relaxed));
            }
        }
    }

    /// Where the `upper` of a way grows. For the writer.
    #[inline]
    pub fn raised(&self, way: usize) {
        let lowest = self.lowest.load(Ordering::Relaxed);
        if lowest >> way & 1 != 0 {
            self.lowest.store(lowest & !(1 << way), Ordering::Relaxed);
        }
    }
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// A key and what tells it apart.
pub(super) struct HashedKey<'a> {
    pub key: &'a [u8],
    pub set: usize,
    pub tag: u8,
    pub name: u64,
    /// Of a key that does not fit into a way.
    pub digest: Option<[u64; 2]>,
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
