//! Where the slots of packed cells go on the rows of a question.
//!
//! Rows are looked up once for a chunk, whoever leads; the sources once for an axis and a set of
//! leaderships. Both are kept within a budget of bytes while a query goes through the columns in
//! order of time, so that a history of ever changing layouts costs time, not memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::axis::RowAxis;
use super::contribution::{CellKey, Source};
use super::resample::{Share, between, position};
use super::{Query, Role};
use crate::history::column::CellRun;
use crate::history::slots::{Chunk, LeaderTerms, SlotAxis};
use keyviz_types::{GroupId, KeyRange, Term};

/// Bytes of placed chunks, and of placed axes, that are kept.
const KEPT_BYTES: usize = 4 << 20;

/// Where the slots of a run go: to one of `targets`, which are numbered by themselves.
#[derive(Debug)]
pub(crate) struct Placed {
    /// For each slot: an index below `keys`, then below `cuts`, then the one that means nowhere.
    pub targets: Vec<u32>,
    /// Keys of slots that lie in one row.
    pub keys: Vec<u32>,
    /// Slots that lie in several rows, or partly outside them.
    pub cuts: Vec<Cut>,
}

impl Placed {
    /// The keys behind a target: one, those of a cut, or none.
    pub fn keys_of(&self, target: usize) -> &[u32] {
        match self.keys.get(target) {
            Some(key) => std::slice::from_ref(key),
            None => self.cuts.get(target - self.keys.len()).map_or(&[], |cut| &cut.keys),
        }
    }

    /// Number of targets, that for nowhere included.
    pub fn targets(&self) -> usize {
        self.keys.len() + self.cuts.len() + 1
    }
}

/// A slot that rows cut.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The rows' part of the slot.
    pub from: Share,
    pub to: Share,
    /// The keys of the rows that it shares keys with.
    pub keys: Vec<u32>,
    pub weights: Arc<[u64]>,
}

/// Places runs on rows, and numbers the keys that come up.
pub(crate) struct Placing<'a> {
    query: &'a Query,
    rows: &'a RowAxis,
    keys: Vec<CellKey>,
    index: HashMap<CellKey, u32>,
    chunks: HashMap<u128, Arc<[Fit]>>,
    chunk_bytes: usize,
    placed: HashMap<(usize, usize), Arc<Placed>>,
    placed_bytes: usize,
}

/// Where a slot lies.
#[derive(Clone, Debug)]
enum Fit {
    Outside,
    Row(u32),
    /// First row, and how the rows cut the range.
    Rows(u32, Arc<Edges>),
}

#[derive(Debug)]
struct Edges {
    from: Share,
    to: Share,
    weights: Arc<[u64]>,
}

impl<'a> Placing<'a> {
    pub fn new(query: &'a Query, rows: &'a RowAxis) -> Self {
        Placing {
            query,
            rows,
            keys: Vec::new(),
            index: HashMap::new(),
            chunks: HashMap::new(),
            chunk_bytes: 0,
            placed: HashMap::new(),
            placed_bytes: 0,
        }
    }

    /// The question.
    pub fn query(&self) -> &'a Query {
        self.query
    }

    /// The keys by their number.
    pub fn keys(&self) -> &[CellKey] {
        &self.keys
    }

    /// Where the slots of a run go.
    pub fn run(&mut self, run: &CellRun) -> Arc<Placed> {
        // The columns hold axis and leads as long as the query runs.
        let key = (Arc::as_ptr(&run.axis).addr(), Arc::as_ptr(&run.leads).addr());
        if let Some(placed) = self.placed.get(&key) {
            return Arc::clone(placed);
        }
        let placed = Arc::new(self.place(&run.axis, &run.leads));
        let bytes = size_of_val(&placed.targets[..]);
        if self.placed_bytes + bytes > KEPT_BYTES {
            self.placed.clear();
            self.placed_bytes = 0;
        }
        self.placed_bytes += bytes;
        self.placed.insert(key, Arc::clone(&placed));
        placed
    }

    fn place(&mut self, axis: &SlotAxis, leads: &LeaderTerms) -> Placed {
        let mut targets = Vec::with_capacity(axis.len());
        let mut local: HashMap<(u32, GroupId), u32> = HashMap::new();
        let (mut keys, mut cuts) = (Vec::new(), Vec::new());
        // Until all keys are known, cuts are numbered from the top, and nowhere is above them.
        const NOWHERE: u32 = u32::MAX;
        for chunk in axis.chunks() {
            let places = self.chunk(chunk);
            for (slot, place) in chunk.slots().iter().zip(&*places) {
                let lead = leads.get(slot.group);
                let target = match place {
                    _ if !self.query.wants(lead) => NOWHERE,
                    Fit::Outside => NOWHERE,
                    Fit::Row(row) => *local.entry((*row, slot.group)).or_insert_with(|| {
                        keys.push(self.key(*row, slot.group, lead));
                        keys.len() as u32 - 1
                    }),
                    Fit::Rows(first, edges) => {
                        let count = edges.weights.len() as u32;
                        let rows = *first..first + count;
                        cuts.push(Cut {
                            from: edges.from,
                            to: edges.to,
                            keys: rows.map(|row| self.key(row, slot.group, lead)).collect(),
                            weights: Arc::clone(&edges.weights),
                        });
                        NOWHERE - cuts.len() as u32
                    }
                };
                targets.push(target);
            }
        }
        let nowhere = (keys.len() + cuts.len()) as u32;
        let lowest = NOWHERE - cuts.len() as u32;
        for target in &mut targets {
            *target = match *target {
                NOWHERE => nowhere,
                cut if cut >= lowest => keys.len() as u32 + (NOWHERE - 1 - cut),
                key => key,
            };
        }
        Placed { targets, keys, cuts }
    }

    fn key(&mut self, row: u32, group: GroupId, lead: Option<Term>) -> u32 {
        let source = match Role::of(self.query.series, lead) {
            Role::LeaderWrite => Source::LeaderWrite { group, term: lead },
            Role::LeaderRead => Source::LeaderRead,
            Role::FollowerRead => Source::FollowerRead,
        };
        let key = CellKey { row, source };
        let next = u32::try_from(self.keys.len()).expect("rows times sources fit 32 bits");
        *self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            next
        })
    }

    fn chunk(&mut self, chunk: &Chunk) -> Arc<[Fit]> {
        if let Some(places) = self.chunks.get(&chunk.digest()) {
            return Arc::clone(places);
        }
        let ranges: Vec<Fit> =
            (0..chunk.ranges()).map(|index| self.range(&chunk.range(index))).collect();
        let of = |slot: &crate::history::slots::ChunkSlot| ranges[usize::from(slot.range)].clone();
        let places: Arc<[Fit]> = chunk.slots().iter().map(of).collect();
        let bytes = size_of_val(&places[..]);
        if self.chunk_bytes + bytes > KEPT_BYTES {
            self.chunks.clear();
            self.chunk_bytes = 0;
        }
        self.chunk_bytes += bytes;
        self.chunks.insert(chunk.digest(), Arc::clone(&places));
        places
    }

    fn range(&self, range: &KeyRange) -> Fit {
        let overlap = self.rows.overlapping(range);
        if overlap.is_empty() {
            return Fit::Outside;
        }
        let first = u32::try_from(overlap.start).expect("an axis has at most MAX_ROWS rows");
        let starts_inside = self.rows.starts()[overlap.start] <= range.start;
        let ends_inside = match (&range.end, self.rows.row_end(overlap.end - 1)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(end), Some(row)) => end <= row,
        };
        if overlap.len() == 1 && starts_inside && ends_inside {
            return Fit::Row(first);
        }
        Fit::Rows(first, Arc::new(Edges::new(self.rows, range, overlap)))
    }
}

impl Edges {
    fn new(rows: &RowAxis, slot: &KeyRange, overlap: std::ops::Range<usize>) -> Self {
        let end = slot.end.as_deref();
        let at = |key: &[u8]| position(&slot.start, end, key);
        let from = at(&rows.starts()[overlap.start]);
        let to = rows.row_end(overlap.end - 1).map_or(Share::ONE, |key| at(key));
        // What the rows are known to carry; without that, how much of the slot's keys they have.
        let mut weights: Vec<u64> = overlap.clone().map(|row| known(rows, row, slot)).collect();
        if weights.iter().all(|&weight| weight == 0) {
            let reach =
                |row: usize| rows.row_end(row).map_or(Share::ONE, |key| at(key)).of(u64::MAX);
            let mut before = from.of(u64::MAX);
            for (weight, row) in weights.iter_mut().zip(overlap) {
                let reached = reach(row).max(before);
                *weight = reached - before;
                before = reached;
            }
        }
        Edges { from, to, weights: weights.into() }
    }
}

/// What a row is known to carry, or the share of it that lies in the slot.
fn known(rows: &RowAxis, row: usize, slot: &KeyRange) -> u64 {
    let (start, end) = (&rows.starts()[row], rows.row_end(row));
    let at = |key: &[u8]| position(start, end.map(|end| end.as_ref()), key);
    let to = slot.end.as_ref().map_or(Share::ONE, |key| at(key));
    between(rows.weights()[row], at(&slot.start), to)
}
