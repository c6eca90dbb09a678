//! A node's side of round two: sums its columns on the axes of the coordinating node.
//!
//! The count of a slot is added under the key of the row that the slot lies in, or of its block
//! (see [`super::block`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Query;
use super::axis::{ColumnPlan, RowAxis};
use super::block::BlockSpan;
use super::column_set::ColumnSet;
use super::contribution::{CellKey, ColumnPart, NodeColumns, Place, pruned};
use super::placing::{Placed, Placing, TimeFit};
use super::resample::{Share, between};
use crate::history::cells::Slots;
use crate::history::column::{CellRun, Column, Part};
use crate::history::view::Answering;
use crate::history::window::Window;
use keyviz_types::Incarnation;

/// A run is dense if at least one in this many slots of its axis has a cell.
const DENSE: usize = 4;

/// The contribution of `node` from its columns, which are sorted by start; `None` once it is no
/// longer `wanted`.
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
        let outputs = plan.overlapping(window);
        let outputs = index(outputs.start)..index(outputs.end);
        if outputs.is_empty() {
            continue;
        }
        held.insert(outputs.clone());
        let first = Overlap::new(window, outputs.len(), plan);
        for part in column.parts() {
            for output in outputs.clone() {
                let overlap = if output == outputs.start { first } else { Overlap::Later };
                work.entry((output, part.incarnation)).or_default().push((part, overlap));
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
    parts.retain(ColumnPart::is_significant);
    let covers = 0..index(plan.len());
    let Answering { node, incarnation, holdings } = *node;
    let (keys, spans) = sums.placing.into_parts();
    let (spans, keys, parts) = in_order(spans, keys, parts);
    Some(NodeColumns {
        node,
        held_by: node,
        incarnation,
        covers,
        held,
        incomplete: ColumnSet::new(),
        forgotten_before_ms: holdings.forgotten_before_ms,
        spans,
        keys,
        parts,
    })
}

fn index(column: usize) -> u32 {
    u32::try_from(column).expect("a plan has at most MAX_COLUMNS columns")
}

/// The spans and keys that are used, in order, and the parts with their cells renumbered and
/// sorted.
fn in_order(
    spans: Vec<BlockSpan>,
    mut keys: Vec<CellKey>,
    mut parts: Vec<ColumnPart>,
) -> (Vec<BlockSpan>, Vec<CellKey>, Vec<ColumnPart>) {
    let mut order: Vec<u32> = (0..).take(spans.len()).collect();
    order.sort_unstable_by(|&left, &right| spans[left as usize].cmp(&spans[right as usize]));
    let mut places = vec![0; order.len()];
    for (place, &number) in (0..).zip(&order) {
        places[number as usize] = place;
    }
    for key in &mut keys {
        if let Place::Block(span) = &mut key.place {
            *span = places[*span as usize];
        }
    }
    let spans: Vec<BlockSpan> =
        order.iter().map(|&number| spans[number as usize].clone()).collect();
    let mut order: Vec<u32> = (0..).take(keys.len()).collect();
    order.sort_unstable_by_key(|&id| keys[id as usize]);
    let mut places = vec![0; order.len()];
    for (place, &id) in (0..).zip(&order) {
        places[id as usize] = place;
    }
    // The columns of a busy node all have the same keys in the same order, which is sorted once.
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
    let (spans, keys) = pruned(&spans, &keys, &mut parts);
    (spans, keys, parts)
}

/// The keys of a part, sorted.
struct Sorted {
    /// As the part had them.
    ids: Vec<u32>,
    /// Their new indices, ascending.
    keys: Vec<u32>,
    /// For each of `keys`, its index in `ids`.
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

/// The overlap of a column of the history with an output column.
#[derive(Clone, Copy)]
enum Overlap {
    /// The first output column that it shares time with: its counts are put here.
    First { fit: TimeFit, from: Share, to: Share },
    /// A later one.
    Later,
}

/// The parts of one incarnation that share time with one output column.
type Work<'a> = Vec<(&'a Part, Overlap)>;

impl Overlap {
    /// The overlap of a column of this `time` with the first of the `outputs` that share time with
    /// it.
    fn new(time: Window, outputs: usize, plan: &ColumnPlan) -> Self {
        let den = time.to_ms - time.from_ms;
        let asked = plan.window().unwrap_or(time);
        let share =
            |at_ms: u64| Share { num: at_ms.clamp(time.from_ms, time.to_ms) - time.from_ms, den };
        let reaches = time.from_ms < asked.from_ms || time.to_ms > asked.to_ms;
        let fit = TimeFit { columns: index(outputs), reach: reaches.then_some(time) };
        Overlap::First { fit, from: share(asked.from_ms), to: share(asked.to_ms) }
    }
}

/// The sums of one output column; reused for the next.
struct ColumnSums<'a> {
    placing: Placing<'a>,
    /// By key.
    values: Vec<u64>,
    /// Keys whose sum is not zero.
    touched: Vec<u32>,
    /// By slot of the current axis, for dense runs; empty before the first of them.
    slots: Vec<u64>,
    /// By target of the current axis.
    targets: Vec<u64>,
    /// The current axis.
    placed: Option<Arc<Placed>>,
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
        }
    }

    fn part(&mut self, column: u32, incarnation: Incarnation, work: &Work<'_>) -> ColumnPart {
        let (mut partial, mut unattributed) = (false, 0u64);
        for (part, overlap) in work {
            partial |= part.partial;
            let Overlap::First { fit, from, to } = *overlap else { continue };
            // Unattributed counts are in no cell and no block; the part inside the window is
            // estimated.
            let lost = self.placing.query().unattributed(&part.unattributed);
            unattributed = unattributed.saturating_add(between(lost, from, to));
            for run in &part.runs {
                self.run(run, fit);
            }
        }
        self.settle();
        let keys = std::mem::take(&mut self.touched);
        let values =
            keys.iter().map(|&key| std::mem::take(&mut self.values[key as usize])).collect();
        let apportioned = Vec::new();
        ColumnPart { column, incarnation, partial, unattributed, keys, values, apportioned }
    }

    fn run(&mut self, run: &CellRun, fit: TimeFit) {
        let placed = self.placing.run(run, fit);
        if self.placed.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &placed)) {
            self.settle();
            self.targets.resize(placed.targets(), 0);
            self.placed = Some(Arc::clone(&placed));
        }
        let series = self.placing.query().series;
        let (targets, sums) = (&placed.targets[..], &mut self.targets[..]);
        if run.cells.len() >= run.axis.len() / DENSE {
            // Summing several columns by slot costs little more than one; targets are applied in
            // the end.
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

    /// Adds the sums of the current axis to the sums by key.
    fn settle(&mut self) {
        let Some(placed) = self.placed.take() else { return };
        self.values.resize(self.placing.keys().len(), 0);
        let mut sums = std::mem::take(&mut self.targets);
        for (&target, &value) in placed.targets.iter().zip(&self.slots) {
            let sum = &mut sums[target as usize];
            *sum = sum.saturating_add(value);
        }
        self.slots.clear();
        for (&key, &value) in placed.keys.iter().zip(&sums) {
            self.add(key, value);
        }
        self.targets = sums;
        self.targets.clear();
    }

    fn add(&mut self, key: u32, value: u64) {
        let sum = &mut self.values[key as usize];
        if *sum == 0 && value > 0 {
            self.touched.push(key);
        }
        *sum = sum.saturating_add(value);
    }
}
