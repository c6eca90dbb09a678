//! The slots of packed cells, shared by all columns that have the same ones.
//!
//! A layout has tens of thousands of slots, and each split, learned boundary or change of leaders
//! makes a new layout that is nearly the same. A layout is therefore cut into chunks, at slots
//! whose first key hashes to a certain remainder (content-defined chunking, as in Muthitacharoen et
//! al., LBFS, 2001), and equal chunks are stored once: a change costs only the chunks that it
//! affects. Leaders change independently of keys and are stored separately, as [`LeaderTerms`].

use std::collections::HashMap;
use std::hash::Hash;
use std::mem::size_of;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::bitpack::put_varint;
use crate::sampler::layout::{Bucket, Layout, Slot};
use keyviz_types::{GroupId, KeyRange, RouteId, Term};

/// The average number of slots of a chunk.
const CHUNK_SLOTS: u64 = 128;
/// The maximum number of slots of a chunk.
pub(crate) const MAX_CHUNK_SLOTS: usize = 1024;

/// A chunk ends once its keys have this many bytes.
const MAX_CHUNK_KEYS: usize = 1 << 20;

/// Neighbouring slots.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// Digest of the encoded chunk, [`chunk_body`].
    digest: u128,
    /// The concatenated bounds.
    keys: Bytes,
    /// The end of each bound in `keys`. A range lies between two bounds; if `unbounded`, the last
    /// range has no end.
    ends: Box<[u32]>,
    unbounded: bool,
    slots: Box<[ChunkSlot]>,
}

/// One slot without its leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkSlot {
    /// Index of the range in the chunk; slots of several groups may share one.
    pub range: u16,
    /// It counts several routes.
    pub aggregate: bool,
    pub group: GroupId,
    /// The route, or the first of the aggregate.
    pub route: RouteId,
}

/// A sequence of chunks with consecutively numbered slots. The chunks are those of one layout in
/// order, or of several if columns of different layouts were joined; then they may overlap.
#[derive(Debug)]
pub(crate) struct SlotAxis {
    chunks: Vec<Arc<Chunk>>,
    /// Number of the first slot of each chunk.
    firsts: Vec<u32>,
    slots: u32,
}

/// The groups that a node led, and in which term.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(crate) struct LeaderTerms(Vec<(GroupId, Term)>);

/// A layout as axis and leader terms. If a layout has two terms for one group, which no sampler
/// makes, the slots of the second have another set of leader terms.
#[derive(Debug)]
pub(crate) struct LayoutAxis {
    pub axis: Arc<SlotAxis>,
    pub leads: Vec<Arc<LeaderTerms>>,
    /// For each slot an index into `leads`; empty if all are 0.
    pub variants: Vec<u16>,
}

impl Chunk {
    /// A chunk with these bounds of ranges and slots, both in order.
    pub fn new(digest: u128, bounds: &[&[u8]], unbounded: bool, slots: Vec<ChunkSlot>) -> Self {
        let mut keys = Vec::with_capacity(bounds.iter().map(|key| key.len()).sum());
        let mut ends = Vec::with_capacity(bounds.len());
        for key in bounds {
            keys.extend_from_slice(key);
            ends.push(u32::try_from(keys.len()).expect("a chunk ends at MAX_CHUNK_KEYS"));
        }
        let (keys, ends, slots) = (Bytes::from(keys), ends.into_boxed_slice(), slots.into());
        Chunk { digest, keys, ends, unbounded, slots }
    }

    pub fn digest(&self) -> u128 {
        self.digest
    }

    pub fn slots(&self) -> &[ChunkSlot] {
        &self.slots
    }

    pub fn unbounded(&self) -> bool {
        self.unbounded
    }

    pub fn bounds(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| &self.keys[self.span(index)])
    }

    /// The number of distinct ranges.
    pub fn ranges(&self) -> usize {
        if self.unbounded { self.ends.len() } else { self.ends.len() - 1 }
    }

    /// A range by its index.
    pub fn range(&self, index: usize) -> KeyRange {
        let end = (index + 1 < self.ends.len()).then(|| self.keys.slice(self.span(index + 1)));
        KeyRange { start: self.keys.slice(self.span(index)), end }
    }

    fn span(&self, bound: usize) -> std::ops::Range<usize> {
        let from = bound.checked_sub(1).map_or(0, |before| self.ends[before]);
        from as usize..self.ends[bound] as usize
    }

    pub fn bytes(&self) -> usize {
        size_of::<Chunk>()
            + self.keys.len()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.slots[..])
    }
}

impl SlotAxis {
    pub fn new(chunks: Vec<Arc<Chunk>>) -> Self {
        let mut slots = 0u32;
        let mut first = |chunk: &Arc<Chunk>| {
            let first = slots;
            let more = u32::try_from(chunk.slots().len()).expect("a chunk has few slots");
            slots = slots.checked_add(more).expect("an axis has fewer than 2^32 slots");
            first
        };
        let firsts = chunks.iter().map(&mut first).collect();
        SlotAxis { chunks, firsts, slots }
    }

    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Number of the first slot of a chunk.
    pub fn first(&self, chunk: usize) -> u32 {
        self.firsts[chunk]
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.slots as usize
    }

    /// The index of a slot within its chunk.
    pub fn within(&self, slot: u32) -> u32 {
        slot - self.firsts[self.firsts.partition_point(|&first| first <= slot) - 1]
    }

    /// The chunk of a slot, and the slot.
    pub fn slot(&self, slot: u32) -> (&Arc<Chunk>, &ChunkSlot) {
        let chunk = self.firsts.partition_point(|&first| first <= slot) - 1;
        (&self.chunks[chunk], &self.chunks[chunk].slots()[(slot - self.firsts[chunk]) as usize])
    }

    fn digest(chunks: &[Arc<Chunk>]) -> u128 {
        let digests: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.to_le_bytes()).collect();
        xxh3_128(&digests)
    }

    /// Size in bytes without the chunks.
    pub fn bytes(&self) -> usize {
        size_of::<SlotAxis>() + self.chunks.len() * (size_of::<Arc<Chunk>>() + size_of::<u32>())
    }
}

impl LeaderTerms {
    /// Sorts the terms and keeps one per group.
    pub fn new(mut leads: Vec<(GroupId, Term)>) -> Self {
        leads.sort_unstable();
        leads.dedup_by_key(|(group, _)| *group);
        LeaderTerms(leads)
    }

    pub fn get(&self, group: GroupId) -> Option<Term> {
        let at = self.0.binary_search_by_key(&group, |&(group, _)| group).ok()?;
        Some(self.0[at].1)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(GroupId, Term)> {
        self.0.iter()
    }

    pub fn bytes(&self) -> usize {
        size_of::<LeaderTerms>() + self.0.len() * size_of::<(GroupId, Term)>()
    }
}

/// Equal values are stored once, for as long as they are used.
#[derive(Debug)]
struct Pool<K, T> {
    values: HashMap<K, Weak<T>>,
    /// The size at which unused values are removed.
    limit: usize,
}

impl<K: Hash + Eq, T> Pool<K, T> {
    fn new() -> Self {
        Pool { values: HashMap::new(), limit: 64 }
    }

    fn get(&mut self, key: K, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        if let Some(value) = self.values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        if self.values.len() >= self.limit {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.limit = 64 + 2 * self.values.len();
        }
        let value = make();
        self.values.insert(key, Arc::downgrade(&value));
        value
    }
}

/// Stores equal chunks, axes and leader terms once.
#[derive(Debug)]
pub(crate) struct Interner {
    chunks: Pool<u128, Chunk>,
    axes: Pool<u128, SlotAxis>,
    leads: Pool<Vec<(GroupId, Term)>, LeaderTerms>,
    /// The axes of the latest layouts. A weak reference keeps the address of a layout from being
    /// reused.
    layouts: Vec<(Weak<Layout>, Arc<LayoutAxis>)>,
}

impl Interner {
    pub fn new() -> Self {
        Interner { chunks: Pool::new(), axes: Pool::new(), leads: Pool::new(), layouts: Vec::new() }
    }

    /// The shared axis of these chunks.
    pub fn axis(&mut self, chunks: &[Arc<Chunk>]) -> Arc<SlotAxis> {
        let Interner { axes, chunks: pool, .. } = self;
        axes.get(SlotAxis::digest(chunks), || {
            let own = |chunk: &Arc<Chunk>| pool.get(chunk.digest, || Arc::clone(chunk));
            Arc::new(SlotAxis::new(chunks.iter().map(own).collect()))
        })
    }

    /// The shared copy of these leader terms.
    pub fn leads(&mut self, leads: LeaderTerms) -> Arc<LeaderTerms> {
        self.leads.get(leads.0.clone(), || Arc::new(leads))
    }

    /// The axis of a layout.
    pub fn layout(&mut self, layout: &Arc<Layout>) -> Arc<LayoutAxis> {
        self.layouts.retain(|(layout, _)| layout.strong_count() > 0);
        let found = self.layouts.iter().find(|(seen, _)| seen.as_ptr() == Arc::as_ptr(layout));
        if let Some((_, axis)) = found {
            return Arc::clone(axis);
        }
        let chunks: Vec<Arc<Chunk>> =
            pieces(&layout.slots).into_iter().map(|slots| self.chunk(slots)).collect();
        let axis = self.axis(&chunks);
        let (leads, variants) = leads(&layout.slots);
        let leads = leads.into_iter().map(|leads| self.leads(leads)).collect();
        let axis = Arc::new(LayoutAxis { axis, leads, variants });
        self.layouts.push((Arc::downgrade(layout), Arc::clone(&axis)));
        axis
    }

    fn chunk(&mut self, slots: &[Slot]) -> Arc<Chunk> {
        let mut bounds: Vec<&[u8]> = Vec::new();
        let mut own = Vec::with_capacity(slots.len());
        for (index, slot) in slots.iter().enumerate() {
            if index == 0 || slots[index - 1].range != slot.range {
                bounds.push(&slot.range.start);
            }
            let (aggregate, route) = match &slot.bucket {
                Bucket::Route(route) | Bucket::SubRange { route, .. } => (false, *route),
                Bucket::Aggregate(members) => {
                    (true, *members.first.first().expect("an aggregate has a member"))
                }
            };
            let range = u16::try_from(bounds.len() - 1).expect("a chunk has few slots");
            own.push(ChunkSlot { range, aggregate, group: slot.group, route });
        }
        let end = &slots.last().expect("a chunk has a slot").range.end;
        bounds.extend(end.as_deref());
        let digest = xxh3_128(&chunk_body(&bounds, end.is_none(), &own));
        let make = || Arc::new(Chunk::new(digest, &bounds, end.is_none(), own));
        self.chunks.get(digest, make)
    }
}

/// The body of a chunk's record. Its digest identifies the chunk.
pub(crate) fn chunk_body(bounds: &[&[u8]], unbounded: bool, slots: &[ChunkSlot]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bounds.len() * 12 + slots.len() * 4);
    put_varint(bounds.len() as u64, &mut out);
    out.push(u8::from(unbounded));
    let mut before: &[u8] = &[];
    for bound in bounds {
        let shared = before.iter().zip(*bound).take_while(|(a, b)| a == b).count();
        put_varint(shared as u64, &mut out);
        put_varint((bound.len() - shared) as u64, &mut out);
        out.extend_from_slice(&bound[shared..]);
        before = bound;
    }
    put_varint(slots.len() as u64, &mut out);
    let (mut range, mut route) = (0, 0u64);
    for slot in slots {
        let next = u64::from(slot.range - range);
        put_varint(next << 1 | u64::from(slot.aggregate), &mut out);
        put_varint(slot.group.0, &mut out);
        let difference = slot.route.get().wrapping_sub(route);
        put_varint(difference << 1 ^ (difference.cast_signed() >> 63).cast_unsigned(), &mut out);
        (range, route) = (slot.range, slot.route.get());
    }
    out
}

/// Cuts slots into chunks: where the content says so, between ranges that do not adjoin, and at the
/// maximum size.
fn pieces(slots: &[Slot]) -> Vec<&[Slot]> {
    let mut pieces = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for at in 1..slots.len() {
        let (before, slot) = (&slots[at - 1].range, &slots[at].range);
        let opens = before != slot && xxh3_64(&slot.start).is_multiple_of(CHUNK_SLOTS);
        let joins = before == slot || before.end.as_ref() == Some(&slot.start);
        bytes += before.start.len();
        if opens || !joins || at - from == MAX_CHUNK_SLOTS || bytes > MAX_CHUNK_KEYS {
            pieces.push(&slots[from..at]);
            (from, bytes) = (at, 0);
        }
    }
    if from < slots.len() {
        pieces.push(&slots[from..]);
    }
    pieces
}

/// The leader terms of slots, and for each slot which of them: a group with several terms needs
/// several.
fn leads(slots: &[Slot]) -> (Vec<LeaderTerms>, Vec<u16>) {
    let mut seen: HashMap<GroupId, Vec<Option<Term>>> = HashMap::new();
    let mut variants = Vec::with_capacity(slots.len());
    for slot in slots {
        variants.push(variant(&mut seen, slot.group, slot.lead));
    }
    if variants.iter().all(|&variant| variant == 0) {
        variants = Vec::new();
    }
    (leader_terms_of(&seen), variants)
}

/// The index of a group's term among its terms in order of appearance.
pub(crate) fn variant(
    seen: &mut HashMap<GroupId, Vec<Option<Term>>>,
    group: GroupId,
    lead: Option<Term>,
) -> u16 {
    let leads = seen.entry(group).or_default();
    let at = leads.iter().position(|&other| other == lead).unwrap_or_else(|| {
        leads.push(lead);
        leads.len() - 1
    });
    u16::try_from(at).expect("a column has far fewer terms of a group")
}

/// For each variant, the terms of the groups that have it; at least one variant.
pub(crate) fn leader_terms_of(seen: &HashMap<GroupId, Vec<Option<Term>>>) -> Vec<LeaderTerms> {
    let count = seen.values().map(Vec::len).max().unwrap_or(1);
    let of = |variant: usize| {
        let lead = |(&group, leads): (&GroupId, &Vec<Option<Term>>)| {
            leads.get(variant).copied().flatten().map(|term| (group, term))
        };
        LeaderTerms::new(seen.iter().filter_map(lead).collect())
    };
    (0..count).map(of).collect()
}
