//! One column: what one node counted in one interval of Unix time.
//!
//! A column is made of parts, one for each incarnation of the node that recorded in the interval,
//! so that (node, incarnation, column) names each count for ever, whichever incarnation serves it.
//! A part is made of runs, one for each axis and set of leaderships under which it counted.

use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;
use std::sync::Arc;

use super::cells::Cells;
use super::config::MAX_TIME_MS;
use super::slots::{Chunk, Interner, LayoutAxis, LeaderTerms, SlotAxis, leader_terms_of, variant};
use crate::hotkeys::column::ColumnHotKeys;
use crate::sampler::counts::{Counts, Segment, Series};
use keyviz_types::{GroupId, Incarnation, KeyRange, RouteId, Term};

/// The interval of a column, under which it is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ColumnId {
    /// First millisecond.
    pub start_ms: u64,
    /// First millisecond after it.
    pub end_ms: u64,
}

impl ColumnId {
    /// The column of a time.
    pub(crate) fn at(now_ms: u64, step_ms: u64) -> Self {
        let now_ms = now_ms.min(MAX_TIME_MS);
        let start_ms = now_ms - now_ms % step_ms;
        ColumnId { start_ms, end_ms: start_ms + step_ms }
    }
}

/// The counts of one interval.
#[derive(Clone, Debug)]
pub struct Column {
    id: ColumnId,
    closed: bool,
    /// By ascending incarnation.
    parts: Vec<Part>,
}

/// What one incarnation counted in the interval.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub incarnation: Incarnation,
    /// Counts of this incarnation may be missing: it died without closing the column.
    pub partial: bool,
    /// The newest catalog version under which it counted; 0: it counted nothing.
    pub catalog_version: u64,
    pub unattributed: Counts,
    pub runs: Vec<CellRun>,
    /// Its hot keys; `None`: they were not looked at.
    pub hot_keys: Option<Arc<ColumnHotKeys>>,
}

/// Cells under one axis and one set of leaderships.
#[derive(Clone, Debug)]
pub(crate) struct CellRun {
    pub axis: Arc<SlotAxis>,
    pub leads: Arc<LeaderTerms>,
    pub cells: Cells,
}

/// One cell of a column, unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnCell {
    /// Keys.
    pub range: KeyRange,
    /// The route, or the first route of an aggregate.
    pub route: RouteId,
    /// Several routes are counted together.
    pub aggregate: bool,
    /// The Raft group.
    pub group: GroupId,
    /// The term in which the node led the group, if it did.
    pub lead: Option<Term>,
    /// The incarnation that counted.
    pub incarnation: Incarnation,
    /// What it counted.
    pub counts: Counts,
}

impl Column {
    /// A column in which nothing has been counted yet.
    pub(crate) fn new(start_ms: u64, end_ms: u64) -> Self {
        Column { id: ColumnId { start_ms, end_ms }, closed: false, parts: Vec::new() }
    }

    /// The interval.
    pub fn id(&self) -> ColumnId {
        self.id
    }

    /// First millisecond.
    pub fn start_ms(&self) -> u64 {
        self.id.start_ms
    }

    /// First millisecond after the column.
    pub fn end_ms(&self) -> u64 {
        self.id.end_ms
    }

    /// Whether the column was ended in good order; a restored one that was not is partial.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Whether counts of the column may be missing.
    pub fn partial(&self) -> bool {
        self.parts.iter().any(|part| part.partial)
    }

    /// Everything counted in the column, attributed or not.
    pub fn total(&self) -> Counts {
        let mut total = Counts::ZERO;
        for part in &self.parts {
            total.add(&part.unattributed);
            let cells = part.runs.iter().flat_map(|run| run.cells.to_vec());
            cells.for_each(|(_, counts)| total.add(&counts));
        }
        total
    }

    /// Operations without a route.
    pub fn unattributed(&self) -> Counts {
        let mut total = Counts::ZERO;
        self.parts.iter().for_each(|part| total.add(&part.unattributed));
        total
    }

    /// All cells, in no particular order. Unpacks them: for inspection, not for queries.
    pub fn cells(&self) -> impl Iterator<Item = ColumnCell> {
        let of_run = |incarnation, run: &CellRun| {
            let cell = |(slot, counts)| {
                let (chunk, slot) = run.axis.slot(slot);
                ColumnCell {
                    range: chunk.range(usize::from(slot.range)),
                    route: slot.route,
                    aggregate: slot.aggregate,
                    group: slot.group,
                    lead: run.leads.get(slot.group),
                    incarnation,
                    counts,
                }
            };
            run.cells.to_vec().into_iter().map(cell).collect::<Vec<_>>()
        };
        let of_part = move |part: &Part| {
            part.runs.iter().map(|run| of_run(part.incarnation, run)).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of_part).flatten()
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(crate) fn set_closed(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// Marks what was counted as partial, unless the column was closed.
    pub(crate) fn mark_unclosed(&mut self) {
        if !self.closed {
            self.parts.iter_mut().for_each(|part| part.partial = true);
            self.closed = true;
        }
    }

    /// Adds the parts of another column.
    pub(crate) fn absorb(&mut self, other: &Column) {
        for theirs in &other.parts {
            let part = self.part(theirs.incarnation);
            part.partial |= theirs.partial;
            part.catalog_version = part.catalog_version.max(theirs.catalog_version);
            part.unattributed.add(&theirs.unattributed);
            part.absorb_hot_keys(theirs);
            part.runs.extend_from_slice(&theirs.runs);
        }
    }

    /// Keeps the parts of an earlier form of the same column that this one lacks, or of which it
    /// has less: counts only grow.
    pub(crate) fn keep_more_of(&mut self, earlier: &Column) {
        let operations = |part: &Part| {
            let (cells, lost) = (part.total(), part.unattributed);
            let all = [cells.reads, cells.writes, lost.reads, lost.writes];
            all.into_iter().fold(0, u64::saturating_add)
        };
        for theirs in &earlier.parts {
            match self.parts.iter_mut().find(|part| part.incarnation == theirs.incarnation) {
                Some(part) if operations(theirs) > operations(part) => {
                    *part = Part { partial: part.partial || theirs.partial, ..theirs.clone() };
                }
                Some(_) => {}
                None => *self.part(theirs.incarnation) = theirs.clone(),
            }
        }
    }

    /// The latest incarnation that has a part.
    pub(crate) fn newest_incarnation(&self) -> Option<Incarnation> {
        self.parts.last().map(|part| part.incarnation)
    }

    /// The part of an incarnation, made if it is not there.
    pub(crate) fn part(&mut self, incarnation: Incarnation) -> &mut Part {
        let at = self.parts.partition_point(|part| part.incarnation < incarnation);
        if self.parts.get(at).is_none_or(|part| part.incarnation != incarnation) {
            self.parts.insert(at, Part::new(incarnation));
        }
        &mut self.parts[at]
    }

    /// Appends a part of a later incarnation than all others; `None` if it is not.
    pub(crate) fn push_part(&mut self, part: Part) -> Option<()> {
        if self.parts.last().is_some_and(|last| last.incarnation >= part.incarnation) {
            return None;
        }
        self.parts.push(part);
        Some(())
    }

    /// Joins the runs of each part into as few as there can be.
    pub(crate) fn join(&mut self, interner: &mut Interner) {
        for part in &mut self.parts {
            if part.runs.len() > 1 {
                part.runs = join(&part.runs, interner);
            }
        }
    }

    /// Bytes of the column, without the axes, which are shared.
    pub(crate) fn bytes(&self) -> usize {
        let run_bytes =
            |run: &CellRun| size_of::<CellRun>() + run.cells.bytes() + run.leads.bytes();
        let part_bytes =
            |part: &Part| size_of::<Part>() + part.runs.iter().map(run_bytes).sum::<usize>();
        size_of::<Column>() + self.parts.iter().map(part_bytes).sum::<usize>()
    }

    /// Bytes of its hot keys, without the keys, which are shared.
    pub(crate) fn hot_key_bytes(&self) -> usize {
        self.hot_keys().map(ColumnHotKeys::bytes).sum()
    }

    /// The hot keys of its parts.
    pub(crate) fn hot_keys(&self) -> impl Iterator<Item = &ColumnHotKeys> {
        self.parts.iter().filter_map(|part| part.hot_keys.as_deref())
    }

    /// The same, to be changed.
    pub(crate) fn hot_keys_mut(&mut self) -> impl Iterator<Item = &mut ColumnHotKeys> {
        self.parts.iter_mut().filter_map(|part| part.hot_keys.as_mut()).map(Arc::make_mut)
    }

    /// Takes the hot keys of one of its parts, as they were stored. Those of other operations than
    /// its cells have would give wrong bounds, and are left.
    pub(crate) fn set_hot_keys(&mut self, incarnation: Incarnation, hot_keys: ColumnHotKeys) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.incarnation == incarnation)
            && let Counts { reads, writes, .. } = part.total()
            && hot_keys.fits(reads, writes)
        {
            part.hot_keys = Some(Arc::new(hot_keys));
        }
    }

    /// The axis of each run.
    pub(crate) fn axes(&self) -> impl Iterator<Item = &Arc<SlotAxis>> {
        self.parts.iter().flat_map(|part| part.runs.iter().map(|run| &run.axis))
    }

    /// The chunks that the column refers to.
    pub(crate) fn chunks(&self) -> BTreeMap<u128, &Arc<Chunk>> {
        self.axes().flat_map(|axis| axis.chunks()).map(|chunk| (chunk.digest(), chunk)).collect()
    }

    /// Takes the one copy of everything that `interner` has.
    pub(crate) fn intern(&mut self, interner: &mut Interner) {
        for run in self.parts.iter_mut().flat_map(|part| &mut part.runs) {
            run.axis = interner.axis(run.axis.chunks());
        }
    }
}

impl Part {
    pub fn new(incarnation: Incarnation) -> Self {
        Part {
            incarnation,
            partial: false,
            catalog_version: 0,
            unattributed: Counts::ZERO,
            runs: Vec::new(),
            hot_keys: None,
        }
    }

    /// What stands for its hot keys where nobody looked at them: all of its operations, unnamed.
    pub fn unknown_hot_keys(&self) -> Option<ColumnHotKeys> {
        if self.hot_keys.is_some() || self.runs.is_empty() {
            return None;
        }
        let Counts { reads, writes, .. } = self.total();
        Some(ColumnHotKeys::unknown(reads, writes))
    }

    /// The sum of its cells.
    fn total(&self) -> Counts {
        let mut total = Counts::ZERO;
        let cells = self.runs.iter().flat_map(|run| run.cells.to_vec());
        cells.for_each(|(_, counts)| total.add(&counts));
        total
    }

    /// Adds the hot keys of a part whose runs were not added yet.
    pub fn absorb_hot_keys(&mut self, theirs: &Part) {
        let unknown = theirs.unknown_hot_keys();
        let Some(added) = theirs.hot_keys.as_deref().or(unknown.as_ref()) else { return };
        if theirs.hot_keys.is_none() && self.hot_keys.is_none() {
            // Neither was looked at.
            return;
        }
        let mut sum = match (&self.hot_keys, self.unknown_hot_keys()) {
            (Some(mine), _) => ColumnHotKeys::clone(mine),
            (None, mine) => mine.unwrap_or_default(),
        };
        sum.add(added);
        self.hot_keys = Some(Arc::new(sum));
    }
}

/// Packs a segment: one run, unless its layout has several terms of a group.
pub(crate) fn pack(segment: &Segment, layout: &LayoutAxis) -> Vec<CellRun> {
    let run = |leads: &Arc<LeaderTerms>, cells: &[(u32, Counts)]| CellRun {
        axis: Arc::clone(&layout.axis),
        leads: Arc::clone(leads),
        cells: Cells::new(cells),
    };
    if layout.variants.is_empty() {
        return vec![run(&layout.leads[0], &segment.cells)];
    }
    let of = |variant: usize| {
        let own =
            |(slot, _): &&(u32, Counts)| usize::from(layout.variants[*slot as usize]) == variant;
        let cells: Vec<_> = segment.cells.iter().filter(own).copied().collect();
        run(&layout.leads[variant], &cells)
    };
    (0..layout.leads.len()).map(of).collect()
}

/// The sum of runs. Chunks that several have are added up slot by slot; where a group had several
/// terms, the counts of the second are in a second run.
fn join(runs: &[CellRun], interner: &mut Interner) -> Vec<CellRun> {
    let axis = join_axes(runs, interner);
    let first = &runs[0];
    if runs.iter().all(|run| Arc::ptr_eq(&run.axis, &axis) && run.leads == first.leads) {
        let cells = sum_slots(runs, axis.len());
        return vec![CellRun { axis, leads: Arc::clone(&first.leads), cells: Cells::new(&cells) }];
    }
    let places: HashMap<u128, u32> = axis
        .chunks()
        .iter()
        .enumerate()
        .map(|(index, chunk)| (chunk.digest(), axis.first(index)))
        .collect();
    let mut seen: HashMap<GroupId, Vec<Option<Term>>> = HashMap::new();
    let mut sums: Vec<BTreeMap<u32, Counts>> = vec![BTreeMap::new()];
    for run in runs {
        for (slot, counts) in run.cells.to_vec() {
            let (chunk, own) = run.axis.slot(slot);
            let variant = usize::from(variant(&mut seen, own.group, run.leads.get(own.group)));
            let place = places[&chunk.digest()] + run.axis.within(slot);
            if sums.len() <= variant {
                sums.resize(variant + 1, BTreeMap::new());
            }
            sums[variant].entry(place).or_default().add(&counts);
        }
    }
    let run = |(sums, leads): (BTreeMap<u32, Counts>, LeaderTerms)| CellRun {
        axis: Arc::clone(&axis),
        leads: interner.leads(leads),
        cells: Cells::new(&sums.into_iter().collect::<Vec<_>>()),
    };
    sums.into_iter().zip(leader_terms_of(&seen)).map(run).collect()
}

/// The sums of runs of one axis, which has `slots` slots.
fn sum_slots(runs: &[CellRun], slots: usize) -> Vec<(u32, Counts)> {
    let mut sums = Series::ALL.map(|series| {
        let mut sums = vec![0; slots];
        runs.iter().for_each(|run| run.cells.add_to(series, &mut sums));
        sums.into_iter()
    });
    let mut next = || sums.each_mut().map(|sums| sums.next().expect("one sum a slot"));
    let cells = (0..).take(slots).map(|slot| {
        let [reads, writes, read_bytes, write_bytes] = next();
        (slot, Counts { reads, writes, read_bytes, write_bytes })
    });
    cells.filter(|(_, counts)| !counts.is_zero()).collect()
}

/// The axis that has the chunks of all runs, each once, by their first keys.
fn join_axes(runs: &[CellRun], interner: &mut Interner) -> Arc<SlotAxis> {
    let first = &runs[0].axis;
    if runs.iter().all(|run| Arc::ptr_eq(&run.axis, first)) {
        return Arc::clone(first);
    }
    let mut chunks: Vec<&Arc<Chunk>> = runs.iter().flat_map(|run| run.axis.chunks()).collect();
    let key = |chunk: &&Arc<Chunk>| (chunk.bounds().next().map(<[u8]>::to_vec), chunk.digest());
    chunks.sort_by_cached_key(key);
    chunks.dedup_by_key(|chunk| chunk.digest());
    let chunks: Vec<Arc<Chunk>> = chunks.into_iter().map(Arc::clone).collect();
    interner.axis(&chunks)
}
