//! Keys with bounds: what is known of the hot keys of one stream of operations.
//!
//! `counted` operations of a key are certain. Before it had a counter it may have had up to
//! `missed` more. What is true of the whole stream stands beside the keys: `floor` (no key that is
//! not listed was counted more often), `unnamed` operations of any keys, `late` operations that
//! happened in the stream's time and are in the next summary, and `early` ones that are in this
//! summary and happened before its time. So
//!
//! ```text
//! listed key     counted - early  <=  true  <=  counted + missed + unnamed + late
//! any other key                0  <=  true  <=  floor + unnamed + late  =  threshold
//! ```
//!
//! Summaries of disjoint streams add (Agarwal, Cormode, Huang, Phillips, Wei, Yi: "Mergeable
//! Summaries", 2012): counts add, and where one does not list a key its `floor` is what was missed.

use std::cmp::Ordering;
use std::sync::Arc;

/// A listed key. Bounds of the stream apply on top: see [`Summary::bounds`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedKey {
    /// The key.
    pub key: Arc<[u8]>,
    /// Operations that are certainly its own.
    pub counted: u64,
    /// Most operations that it had without being counted.
    pub missed: u64,
    /// Bytes of the counted operations.
    pub bytes: u64,
}

impl NamedKey {
    fn upper(&self) -> u64 {
        self.counted.saturating_add(self.missed)
    }

    /// Memory of the entry, without the key.
    pub(crate) const fn size() -> usize {
        size_of::<NamedKey>()
    }
}

/// The hot keys of one stream of operations, mergeable.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// By key.
    keys: Vec<NamedKey>,
    pub(super) floor: u64,
    pub(super) unnamed: u64,
    pub(super) early: u64,
    pub(super) late: u64,
    pub(super) operations: u64,
}

impl Summary {
    /// A summary of `operations` operations, of which `unnamed` are of any keys.
    pub(crate) fn new(mut keys: Vec<NamedKey>, floor: u64, unnamed: u64, operations: u64) -> Self {
        keys.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Summary { keys, floor, unnamed, operations, early: 0, late: 0 }
    }

    /// A summary of operations of which no key is known.
    pub(crate) fn of_unnamed(operations: u64) -> Self {
        Summary { unnamed: operations, operations, ..Summary::default() }
    }

    /// The same at its edges: see the module's text.
    pub(crate) fn with_edges(self, early: u64, late: u64) -> Self {
        Summary { early, late, ..self }
    }

    /// The listed keys, in order.
    pub fn keys(&self) -> &[NamedKey] {
        &self.keys
    }

    /// For whoever shares keys between summaries.
    pub(crate) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Arc<[u8]>> {
        self.keys.iter_mut().map(|named| &mut named.key)
    }

    /// Operations of the stream.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether it can be of cells with so many operations: they have the late ones too, and not
    /// the early ones.
    pub(crate) fn fits(&self, cells: u64) -> bool {
        let wide = u128::from;
        wide(self.operations) + wide(self.late) == wide(cells) + wide(self.early)
    }

    /// A key that is not listed had at most so many operations.
    pub fn threshold(&self) -> u64 {
        self.floor.saturating_add(self.unnamed).saturating_add(self.late)
    }

    /// The bounds of a listed key.
    pub fn bounds(&self, named: &NamedKey) -> (u64, u64) {
        let any = self.unnamed.saturating_add(self.late);
        (named.counted.saturating_sub(self.early), named.upper().saturating_add(any))
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Summary::default()
    }

    /// Bytes of memory, without the keys.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() * NamedKey::size()
    }

    /// Adds the summary of other operations. The sum is the same in any order, up to what
    /// [`Summary::prune`] does.
    pub fn add(&mut self, other: &Summary) {
        self.join(other);
        self.early = self.early.saturating_add(other.early);
        self.late = self.late.saturating_add(other.late);
    }

    /// Adds what the same sampler counted next: its early operations are the late ones of before.
    pub(crate) fn append(&mut self, next: &Summary) {
        let first = self.is_empty();
        self.join(next);
        if first {
            self.early = next.early;
        }
        self.late = next.late;
    }

    fn join(&mut self, other: &Summary) {
        let mut joined = Vec::with_capacity(self.keys.len().max(other.keys.len()));
        let without = |named: &NamedKey, floor: u64| {
            let missed = named.missed.saturating_add(floor);
            NamedKey { missed, ..named.clone() }
        };
        let (mut left, mut right) = (self.keys.iter().peekable(), other.keys.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(left), Some(right)) => left.key.cmp(&right.key),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            match order {
                Ordering::Less => {
                    joined.extend(left.next().map(|named| without(named, other.floor)));
                }
                Ordering::Greater => {
                    joined.extend(right.next().map(|named| without(named, self.floor)));
                }
                Ordering::Equal => {
                    joined.extend(left.next().zip(right.next()).map(|(left, right)| NamedKey {
                        key: Arc::clone(&left.key),
                        counted: left.counted.saturating_add(right.counted),
                        missed: left.missed.saturating_add(right.missed),
                        bytes: left.bytes.saturating_add(right.bytes),
                    }));
                }
            }
        }
        self.keys = joined;
        self.floor = self.floor.saturating_add(other.floor);
        self.unnamed = self.unnamed.saturating_add(other.unnamed);
        self.operations = self.operations.saturating_add(other.operations);
    }

    /// Keeps the `most` hottest keys. The rest is under the threshold from now on.
    pub fn prune(&mut self, most: usize) {
        let over = self.keys.len().saturating_sub(most);
        if over == 0 {
            return;
        }
        let mut order: Vec<(u64, usize)> =
            self.keys.iter().enumerate().map(|(at, named)| (named.upper(), at)).collect();
        let (_, cut, _) = order.select_nth_unstable(over - 1);
        let cut = *cut;
        let mut at = 0;
        self.keys.retain(|named| {
            let kept = (named.upper(), at) > cut;
            at += 1;
            kept
        });
        self.floor = self.floor.max(cut.0);
    }

    /// Keeps the hottest keys whose text has at most `most` bytes.
    pub(crate) fn prune_to_bytes(&mut self, most: usize) {
        if self.keys.iter().map(|named| named.key.len()).sum::<usize>() <= most {
            return;
        }
        let mut order: Vec<(u64, usize)> =
            self.keys.iter().enumerate().map(|(at, named)| (named.upper(), at)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        let fits = |(_, at): &&(u64, usize)| {
            bytes += self.keys[*at].key.len();
            bytes <= most
        };
        let kept = order.iter().take_while(fits).count();
        self.prune(kept);
    }

    /// Keeps what a column needs: every key with more than a thousandth of the operations, as far
    /// as there can be, and some more.
    pub(crate) fn prune_to_matter(&mut self) {
        let level = self.operations / 1_000;
        let matter = self.keys.iter().filter(|named| named.upper() > level).count();
        self.prune(matter.min(MATTERING_KEYS) + OTHER_KEYS);
        self.prune_to_bytes(CLOSED_BYTES);
    }

    /// Checks what a record says: keys ascend.
    pub(super) fn from_parts(
        keys: Vec<NamedKey>,
        [floor, unnamed, early, late, operations]: [u64; 5],
    ) -> Option<Self> {
        let ascending = keys.windows(2).all(|pair| pair[0].key < pair[1].key);
        ascending.then_some(Summary { keys, floor, unnamed, early, late, operations })
    }
}

/// Keys with more than a thousandth of a column that are kept: as many as there can be, but for
/// what they may have been given too much.
const MATTERING_KEYS: usize = 1_024;
/// Other keys of a column that are kept.
const OTHER_KEYS: usize = 128;
/// Bytes of the keys of a series that a closed column keeps.
const CLOSED_BYTES: usize = 512 << 10;
/// The same of the column in progress, in memory.
pub(super) const OPEN_BYTES: usize = 1 << 20;
/// The same in its record, which is written again every second.
pub(super) const CHECKPOINT_BYTES: usize = 64 << 10;
/// Keys of a harvest and of the column in progress.
pub(crate) const OPEN_KEYS: usize = super::table::TABLE_KEYS;
