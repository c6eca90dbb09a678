//! A node's side of round two: its columns, summed onto the asker's axes.
//!
//! The counts of a slot that lies in one row are just added under its key. Slots that a row
//! boundary or an edge of the range cuts are summed by themselves over all that one axis brings to
//! an output column, then cut once, so that rounding moves as little as can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Query;
use super::axis::{ColumnPlan, RowAxis};
use super::column_set::ColumnSet;
use super::contribution::{CellKey, ColumnPart, NodeColumns, pruned};
use super::placing::{Cut, Placed, Placing};
use super::resample::{Share, apportion, between};
use crate::history::cells::Slots;
use crate::history::column::{CellRun, Column, Part};
use crate::history::view::Answering;
use crate::history::window::Window;
use keyviz_types::Incarnation;

/// A run is dense if it has cells in at least one of so many slots of its axis.
const DENSE: usize = 4;

/// The contribution of `node` from its columns, which are by start, as long as it is `wanted`.
pub(crate) fn columns(
    node: &Answering,
    columns: &[Arc<Column>],
    query: &Query,
    rows: &RowAxis,
    plan: &ColumnPlan,
    wanted: &dyn Fn() -> bool,
) -> Option<NodeColumns> {
    let mut held = ColumnSet::new();
    let mut work: BTreeMap<(u32, Incarnation), Work<'_>> = BTreeMap::new();
    for column in columns {
        let window = Window { from_ms: column.start_ms(), to_ms: column.end_ms() };
        for output in plan.overlapping(window) {
            let span = plan.columns()[output];
            let cut = TimeCut::new(column, span.start_ms, span.end_ms);
            let output = u32::try_from(output).expect("a plan has at most MAX_COLUMNS columns");
            held.insert(output..output + 1);
            for part in column.parts() {
                work.entry((output, part.incarnation)).or_default().push((part, cut));
            }
        }
    }
    let mut sums = ColumnSums::new(Placing::new(query, rows));
    let mut parts: Vec<ColumnPart> = Vec::with_capacity(work.len());
    for ((column, incarnation), work) in work {
        if !wanted() {
            return None;
        }
        parts.push(sums.part(column, incarnation, &work));
    }
    parts.retain(ColumnPart::says_something);
    let covers = 0..u32::try_from(plan.len()).expect("a plan has at most MAX_COLUMNS columns");
    let Answering { node, incarnation, holdings } = *node;
    let forgotten_before_ms = holdings.forgotten_before_ms;
    let (keys, parts) = in_order(sums.placing.keys(), parts);
    let held_by = node;
    Some(NodeColumns { node, held_by, incarnation, covers, held, forgotten_before_ms, keys, parts })
}

/// The keys that are used, in order, and the parts with their cells renumbered and sorted.
fn in_order(keys: &[CellKey], mut parts: Vec<ColumnPart>) -> (Vec<CellKey>, Vec<ColumnPart>) {
    let mut order: Vec<u32> = (0..).take(keys.len()).collect();
    order.sort_unstable_by_key(|&id| keys[id as usize]);
    let mut places = vec![0; order.len()];
    for (place, &id) in (0..).zip(&order) {
        places[id as usize] = place;
    }
    // The columns of a busy node all have the same keys, in the order in which they first came up.
    let mut before: Option<Sorted> = None;
    for part in &mut parts {
        let sorted = match before.take() {
            Some(sorted) if sorted.ids == part.keys => sorted,
            _ => Sorted::new(std::mem::take(&mut part.keys), &places),
        };
        part.keys = sorted.keys.clone();
        part.values = sorted.cells.iter().map(|&cell| part.values[cell as usize]).collect();
        before = Some(sorted);
    }
    let keys: Vec<CellKey> = order.into_iter().map(|id| keys[id as usize]).collect();
    (pruned(&keys, &mut parts), parts)
}

/// Keys in the order of their places.
struct Sorted {
    /// As they came.
    ids: Vec<u32>,
    /// Their places, ascending.
    keys: Vec<u32>,
    /// Which of `ids` each of `keys` is.
    cells: Vec<u32>,
}

impl Sorted {
    fn new(ids: Vec<u32>, places: &[u32]) -> Self {
        let mut cells: Vec<u32> = (0..).take(ids.len()).collect();
        let place = |cell: u32| places[ids[cell as usize] as usize];
        cells.sort_unstable_by_key(|&cell| place(cell));
        let keys = cells.iter().map(|&cell| place(cell)).collect();
        Sorted { ids, keys, cells }
    }
}

/// The part of a column that lies in an output column.
#[derive(Clone, Copy)]
struct TimeCut {
    from: Share,
    to: Share,
}

/// What falls into one output column of one incarnation.
type Work<'a> = Vec<(&'a Part, TimeCut)>;

impl TimeCut {
    fn new(column: &Column, start_ms: u64, end_ms: u64) -> Self {
        let den = column.end_ms() - column.start_ms();
        let share = |at_ms: u64| Share {
            num: at_ms.clamp(column.start_ms(), column.end_ms()) - column.start_ms(),
            den,
        };
        TimeCut { from: share(start_ms), to: share(end_ms) }
    }

    fn is_whole(self) -> bool {
        self.from.num == 0 && self.to.num == self.to.den
    }

    fn of(self, value: u64) -> u64 {
        between(value, self.from, self.to)
    }
}

/// ColumnSums of one output column, reused for the next.
struct ColumnSums<'a> {
    placing: Placing<'a>,
    /// By key.
    values: Vec<u64>,
    /// Keys whose sum is not zero.
    touched: Vec<u32>,
    /// By slot of the axis at hand, where runs are dense; empty while none was.
    slots: Vec<u64>,
    /// By target of the axis at hand.
    targets: Vec<u64>,
    /// The axis at hand.
    placed: Option<Arc<Placed>>,
    apportioned: Vec<u32>,
    parts: Vec<u64>,
}

impl<'a> ColumnSums<'a> {
    fn new(placing: Placing<'a>) -> Self {
        ColumnSums {
            placing,
            values: Vec::new(),
            touched: Vec::new(),
            slots: Vec::new(),
            targets: Vec::new(),
            placed: None,
            apportioned: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn part(&mut self, column: u32, incarnation: Incarnation, work: &Work<'_>) -> ColumnPart {
        let (mut partial, mut unattributed) = (false, 0u64);
        for (part, cut) in work {
            partial |= part.partial;
            let lost = cut.of(self.placing.query().unattributed(&part.unattributed));
            unattributed = unattributed.saturating_add(lost);
            for run in &part.runs {
                self.run(run, *cut);
            }
        }
        self.settle();
        let keys = std::mem::take(&mut self.touched);
        let values =
            keys.iter().map(|&key| std::mem::take(&mut self.values[key as usize])).collect();
        self.apportioned.sort_unstable();
        self.apportioned.dedup();
        // Its capacity serves the next column; the answer gets what it needs.
        let apportioned = self.apportioned.to_vec();
        self.apportioned.clear();
        ColumnPart { column, incarnation, partial, unattributed, keys, values, apportioned }
    }

    fn run(&mut self, run: &CellRun, cut: TimeCut) {
        let placed = self.placing.run(run);
        if self.placed.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &placed)) {
            self.settle();
            self.targets.resize(placed.targets(), 0);
            self.placed = Some(Arc::clone(&placed));
        }
        let series = self.placing.query().series;
        let (targets, sums) = (&placed.targets[..], &mut self.targets[..]);
        if !cut.is_whole() {
            let rows = self.placing.keys();
            run.cells.each(series, |slots, values| {
                for (index, &value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
                    let target = targets[slots.at(index) as usize] as usize;
                    sums[target] = sums[target].saturating_add(cut.of(value));
                    // Also where this part of the time gets nothing: that is an estimate too.
                    let keys = placed.keys_of(target).iter();
                    self.apportioned.extend(keys.map(|&key| rows[key as usize].row));
                }
            });
            return;
        }
        if run.cells.len() >= run.axis.len() / DENSE {
            // Slot by slot several columns cost little more than one; targets come last.
            self.slots.resize(run.axis.len(), 0);
            run.cells.add_to(series, &mut self.slots);
            return;
        }
        run.cells.each(series, |slots, values| match slots {
            Slots::From(first) => {
                for (&value, &target) in values.iter().zip(&targets[first as usize..]) {
                    let sum = &mut sums[target as usize];
                    *sum = sum.saturating_add(value);
                }
            }
            Slots::List(slots) => {
                for (&value, &slot) in values.iter().zip(slots) {
                    let sum = &mut sums[targets[slot as usize] as usize];
                    *sum = sum.saturating_add(value);
                }
            }
        });
    }

    /// Adds what the axis at hand brought to the sums by key.
    fn settle(&mut self) {
        let Some(placed) = self.placed.take() else { return };
        self.values.resize(self.placing.keys().len(), 0);
        let mut sums = std::mem::take(&mut self.targets);
        for (&target, &value) in placed.targets.iter().zip(&self.slots) {
            let sum = &mut sums[target as usize];
            *sum = sum.saturating_add(value);
        }
        self.slots.clear();
        let (whole, rest) = sums.split_at(placed.keys.len());
        for (&key, &value) in placed.keys.iter().zip(whole) {
            self.add(key, value);
        }
        for (cut, &value) in placed.cuts.iter().zip(rest).filter(|(_, value)| **value > 0) {
            self.cut(cut, value);
        }
        self.targets = sums;
        self.targets.clear();
    }

    fn cut(&mut self, cut: &Cut, value: u64) {
        let inside = between(value, cut.from, cut.to);
        let mut parts = std::mem::take(&mut self.parts);
        apportion(inside, &cut.weights, &mut parts);
        for (&key, &part) in cut.keys.iter().zip(&parts) {
            self.apportioned.push(self.placing.keys()[key as usize].row);
            self.add(key, part);
        }
        self.parts = parts;
    }

    fn add(&mut self, key: u32, value: u64) {
        let sum = &mut self.values[key as usize];
        if *sum == 0 && value > 0 {
            self.touched.push(key);
        }
        *sum = sum.saturating_add(value);
    }
}
