//! Maps the slots of packed cells to the rows of a query.
//!
//! Rows are looked up once per chunk of slots, which does not depend on leaders; sources once per
//! axis and set of leader terms. Both caches have a budget of bytes, so a history in which the
//! layout keeps changing costs time, not memory. A query goes through the columns in order of time,
//! and neighbours mostly share their layout.

use std::collections::HashMap;
use std::sync::Arc;

use super::axis::RowAxis;
use super::block::{BlockSpan, SpanTable};
use super::contribution::{CellKey, Place, Source};
use super::{Query, Role};
use crate::history::column::CellRun;
use crate::history::slots::{Chunk, LeaderTerms, SlotAxis};
use crate::history::window::Window;
use keyviz_types::{GroupId, KeyRange, Term};

/// The budget in bytes of each of the two caches.
const KEPT_BYTES: usize = 4 << 20;

/// The targets of the slots of a run.
#[derive(Debug)]
pub(crate) struct Placed {
    /// For each slot an index into `keys`; `keys.len()` stands for no target.
    pub targets: Vec<u32>,
    /// The numbers of the keys.
    pub keys: Vec<u32>,
}

impl Placed {
    /// Number of targets, including the one for none.
    pub fn targets(&self) -> usize {
        self.keys.len() + 1
    }
}

/// The position of a column of the history on the output columns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TimeFit {
    /// The number of output columns that it shares time with. If this is 1 and there is no `reach`,
    /// it lies inside that column.
    pub columns: u32,
    /// Its time, if it reaches beyond the queried columns.
    pub reach: Option<Window>,
}

impl TimeFit {
    /// It lies inside one output column.
    pub const INSIDE: TimeFit = TimeFit { columns: 1, reach: None };
}

/// Maps runs to rows, and numbers the keys in the order of their first use.
pub(crate) struct Placing<'a> {
    query: &'a Query,
    rows: &'a RowAxis,
    keys: Vec<CellKey>,
    index: HashMap<CellKey, u32>,
    spans: SpanTable,
    chunks: HashMap<u128, Arc<[Fit]>>,
    chunk_bytes: usize,
    placed: HashMap<(usize, usize, TimeFit), Arc<Placed>>,
    placed_bytes: usize,
}

/// The rows that a slot shares keys with.
#[derive(Clone, Debug)]
enum Fit {
    Outside,
    Row(u32),
    /// First row, number of rows, and the slot's keys.
    Rows(u32, u32, Arc<KeyRange>),
}

impl<'a> Placing<'a> {
    pub fn new(query: &'a Query, rows: &'a RowAxis) -> Self {
        Placing {
            query,
            rows,
            keys: Vec::new(),
            index: HashMap::new(),
            spans: SpanTable::default(),
            chunks: HashMap::new(),
            chunk_bytes: 0,
            placed: HashMap::new(),
            placed_bytes: 0,
        }
    }

    /// The query.
    pub fn query(&self) -> &'a Query {
        self.query
    }

    /// The keys by their number.
    pub fn keys(&self) -> &[CellKey] {
        &self.keys
    }

    /// The keys and the spans of the blocks among them.
    pub fn into_parts(self) -> (Vec<CellKey>, Vec<BlockSpan>) {
        (self.keys, self.spans.into_spans())
    }

    /// The targets of the slots of a run, whose column of the history lies at `time`.
    pub fn run(&mut self, run: &CellRun, time: TimeFit) -> Arc<Placed> {
        // The columns keep axis and leader terms alive during the query, so addresses identify
        // them.
        let key = (Arc::as_ptr(&run.axis).addr(), Arc::as_ptr(&run.leads).addr(), time);
        if let Some(placed) = self.placed.get(&key) {
            return Arc::clone(placed);
        }
        let placed = Arc::new(self.place(&run.axis, &run.leads, time));
        let bytes = size_of_val(&placed.targets[..]);
        if self.placed_bytes + bytes > KEPT_BYTES {
            self.placed.clear();
            self.placed_bytes = 0;
        }
        self.placed_bytes += bytes;
        self.placed.insert(key, Arc::clone(&placed));
        placed
    }

    fn place(&mut self, axis: &SlotAxis, leads: &LeaderTerms, time: TimeFit) -> Placed {
        const NOWHERE: u32 = u32::MAX;
        let mut targets = Vec::with_capacity(axis.len());
        let mut local: HashMap<(Place, GroupId), u32> = HashMap::new();
        let mut keys = Vec::new();
        for chunk in axis.chunks() {
            let places = self.chunk(chunk);
            for (slot, fit) in chunk.slots().iter().zip(&*places) {
                let lead = leads.get(slot.group);
                let place = match fit {
                    _ if !self.query.wants(lead) => None,
                    Fit::Outside => None,
                    Fit::Row(row) if time == TimeFit::INSIDE => Some(Place::Row(*row)),
                    Fit::Row(row) => Some(self.block(*row, 1, self.row_keys(*row), time)),
                    Fit::Rows(first, rows, keys) => {
                        Some(self.block(*first, *rows, KeyRange::clone(keys), time))
                    }
                };
                targets.push(place.map_or(NOWHERE, |place| {
                    *local.entry((place, slot.group)).or_insert_with(|| {
                        keys.push(self.key(place, slot.group, lead));
                        keys.len() as u32 - 1
                    })
                }));
            }
        }
        let nowhere = keys.len() as u32;
        targets.iter_mut().for_each(|target| *target = (*target).min(nowhere));
        Placed { targets, keys }
    }

    fn row_keys(&self, row: u32) -> KeyRange {
        self.rows.keys_of(row as usize..row as usize + 1)
    }

    fn block(&mut self, first_row: u32, rows: u32, range: KeyRange, time: TimeFit) -> Place {
        let TimeFit { columns, reach } = time;
        let span = BlockSpan { first_row, rows, columns, range, reach };
        Place::Block(self.spans.number(span, self.rows))
    }

    fn key(&mut self, place: Place, group: GroupId, lead: Option<Term>) -> u32 {
        let source = match Role::of(self.query.series, lead) {
            Role::LeaderWrite => Source::LeaderWrite { group, term: lead },
            Role::LeaderRead => Source::LeaderRead,
            Role::FollowerRead => Source::FollowerRead,
        };
        let key = CellKey { place, source };
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
        let rows = u32::try_from(overlap.len()).expect("an axis has at most MAX_ROWS rows");
        Fit::Rows(first, rows, Arc::new(range.clone()))
    }
}
