//! Round one of a cluster query: the load that a node counted in the window, by key range. From the
//! totals of all nodes the coordinating node plans one key axis.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Query;
use super::budget::coarsen;
use super::density::{Density, RangeTotal};
use super::resample::{Share, between, position};
use crate::history::column::{CellRun, Column};
use crate::history::slots::Chunk;
use crate::history::view::Answering;
use keyviz_types::{Incarnation, KeyRange, NodeId};

/// The maximum number of ranges in one node's totals; above it, the coldest neighbours are joined.
/// It has room for 100,000 routes and a full budget of sub-ranges.
pub const MAX_TOTALS: usize = 131_072;

/// The maximum number of sums by run in memory; above it, they are added to the sums by chunk.
const KEPT_SUMS: usize = 1 << 20;

/// One node's answer in round one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeTotals {
    /// The node.
    pub node: NodeId,
    /// Its current incarnation.
    pub incarnation: Incarnation,
    /// The newest catalog version under which it counted in the window; 0: nothing was counted.
    pub catalog_version: u64,
    /// The number of columns that it holds, including the open one.
    pub columns: u64,
    /// Start of the oldest of them.
    pub oldest_ms: u64,
    /// Start of the open column; earlier columns receive no more counts.
    pub open_ms: u64,
    /// End of the newest column; 0: an earlier version, which does not say.
    pub newest_ms: u64,
    /// End of the newest column dropped for space; 0: none.
    pub forgotten_before_ms: u64,
    /// Operations in the window's columns without a route.
    pub unattributed: u64,
    /// Ranges with load, in key order, without overlap, all inside the queried range.
    pub ranges: Vec<RangeTotal>,
}

/// Why totals are invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TotalsError {
    /// More than [`MAX_TOTALS`] ranges.
    #[error("{ranges} ranges, at most {MAX_TOTALS} are accepted")]
    TooMany {
        /// Ranges received.
        ranges: usize,
    },
    /// A range that is empty, or starts before the end of the one before it.
    #[error("range {index} is empty or out of order")]
    OutOfOrder {
        /// Its index.
        index: usize,
    },
    /// A range outside the queried one.
    #[error("range {index} is outside the range asked for")]
    Outside {
        /// Its index.
        index: usize,
    },
}

impl NodeTotals {
    /// Checks another node's answer to a query for `asked`, which must precede planning with it.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, asked: &KeyRange) -> Result<(), TotalsError> {
        if self.ranges.len() > MAX_TOTALS {
            return Err(TotalsError::TooMany { ranges: self.ranges.len() });
        }
        let mut reached = Some(&asked.start);
        for (index, RangeTotal { range, .. }) in self.ranges.iter().enumerate() {
            if range.start < asked.start || !is_end_within(range.end.as_ref(), asked.end.as_ref()) {
                return Err(TotalsError::Outside { index });
            }
            if range.is_empty() || reached.is_none_or(|reached| range.start < *reached) {
                return Err(TotalsError::OutOfOrder { index });
            }
            reached = range.end.as_ref();
        }
        Ok(())
    }
}

fn is_end_within(end: Option<&Bytes>, limit: Option<&Bytes>) -> bool {
    match (end, limit) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(end), Some(limit)) => end <= limit,
    }
}

/// A node's totals from its columns; `None` once they are no longer `wanted`.
pub(crate) fn totals(
    node: &Answering,
    columns: &[Arc<Column>],
    query: &Query,
    wanted: &dyn Fn() -> bool,
) -> Option<NodeTotals> {
    let mut sums = RangeSums { query, runs: HashMap::new(), chunks: HashMap::new() };
    let (mut unattributed, mut catalog_version) = (0u64, 0);
    for part in columns.iter().flat_map(|column| column.parts()) {
        if !wanted() {
            return None;
        }
        unattributed = unattributed.saturating_add(query.unattributed(&part.unattributed));
        catalog_version = catalog_version.max(part.catalog_version);
        part.runs.iter().for_each(|run| sums.run(run));
    }
    sums.settle();
    let lists: Vec<Vec<RangeTotal>> =
        sums.chunks.values().map(|(chunk, sums)| loads(chunk, sums, &query.range)).collect();
    let base = bounds(columns, &query.range);
    let Answering { node, incarnation, holdings } = *node;
    Some(NodeTotals {
        node,
        incarnation,
        catalog_version,
        columns: holdings.columns,
        oldest_ms: holdings.oldest_ms,
        open_ms: holdings.open_ms,
        newest_ms: holdings.newest_ms,
        forgotten_before_ms: holdings.forgotten_before_ms,
        unattributed,
        ranges: ranges(base, lists, &query.range),
    })
}

/// Sums over the window: first by run, then by chunk, which runs share.
struct RangeSums<'a> {
    query: &'a Query,
    /// By the addresses of axis and leader terms, which the columns keep alive.
    runs: HashMap<(usize, usize), (&'a CellRun, Vec<u64>)>,
    chunks: HashMap<u128, (&'a Arc<Chunk>, Vec<u64>)>,
}

impl<'a> RangeSums<'a> {
    fn run(&mut self, run: &'a CellRun) {
        let key = (Arc::as_ptr(&run.axis).addr(), Arc::as_ptr(&run.leads).addr());
        let new = !self.runs.contains_key(&key);
        let kept: usize = self.runs.values().map(|(_, sums)| sums.len()).sum();
        if new && kept + run.axis.len() > KEPT_SUMS {
            self.settle();
        }
        let (_, sums) = self.runs.entry(key).or_insert_with(|| (run, vec![0; run.axis.len()]));
        run.cells.add_to(self.query.series, sums);
    }

    fn settle(&mut self) {
        for (run, sums) in std::mem::take(&mut self.runs).into_values() {
            let mut rest = &sums[..];
            for chunk in run.axis.chunks() {
                let (own, after) = rest.split_at(chunk.slots().len());
                rest = after;
                let (_, totals) = self
                    .chunks
                    .entry(chunk.digest())
                    .or_insert_with(|| (chunk, vec![0; chunk.slots().len()]));
                let cells = totals.iter_mut().zip(own).zip(chunk.slots());
                for ((total, &sum), slot) in cells {
                    if sum > 0 && self.query.wants(run.leads.get(slot.group)) {
                        *total = total.saturating_add(sum);
                    }
                }
            }
        }
    }
}

/// The bounds of the newest axis inside the queried range: most other bounds are among them.
fn bounds(columns: &[Arc<Column>], asked: &KeyRange) -> Vec<Bytes> {
    let mut bounds = vec![asked.start.clone()];
    let newest = columns.iter().rev().find_map(|column| column.axes().next());
    for chunk in newest.into_iter().flat_map(|axis| axis.chunks()) {
        for range in (0..chunk.ranges()).map(|index| chunk.range(index)) {
            let last = bounds.last().expect("the start of the range asked for");
            if range.start > *last && asked.contains(&range.start) {
                bounds.push(range.start);
            }
        }
    }
    bounds
}

/// The loads of a chunk's ranges inside the queried range.
fn loads(chunk: &Chunk, sums: &[u64], asked: &KeyRange) -> Vec<RangeTotal> {
    let mut loads: Vec<RangeTotal> = Vec::new();
    let mut last = None;
    for (slot, &sum) in chunk.slots().iter().zip(sums).filter(|(_, sum)| **sum > 0) {
        let whole = chunk.range(usize::from(slot.range));
        let Some(range) = intersection(&whole, asked) else { continue };
        let end = whole.end.as_deref();
        let from = position(&whole.start, end, &range.start);
        let to = match &range.end {
            None => Share::ONE,
            Some(key) => position(&whole.start, end, key),
        };
        let total = between(sum, from, to);
        match loads.last_mut() {
            // Slots of several groups share an aggregate's range.
            Some(load) if last == Some(slot.range) => load.total = load.total.saturating_add(total),
            _ => loads.push(RangeTotal { range, total, aggregate: slot.aggregate, cut: 0 }),
        }
        last = Some(slot.range);
    }
    loads
}

/// The keys that two ranges share.
pub(crate) fn intersection(left: &KeyRange, right: &KeyRange) -> Option<KeyRange> {
    let start = left.start.clone().max(right.start.clone());
    let end = match (&left.end, &right.end) {
        (Some(left), Some(right)) => Some(left.min(right).clone()),
        (end, None) | (None, end) => end.clone(),
    };
    let range = KeyRange { start, end };
    (!range.is_empty()).then_some(range)
}

/// All lists as one, with at most [`MAX_TOTALS`] ranges.
fn ranges(base: Vec<Bytes>, lists: Vec<Vec<RangeTotal>>, asked: &KeyRange) -> Vec<RangeTotal> {
    let lists: Vec<&[RangeTotal]> = lists.iter().map(Vec::as_slice).collect();
    let density = Density::new(base, asked.end.clone(), &lists);
    let range = |from: usize, to: usize| KeyRange {
        start: density.starts[from].clone(),
        end: density.cell_end(to - 1).cloned(),
    };
    let joined = coarsen(&density.weights, MAX_TOTALS);
    let total = |from: usize, to: usize| RangeTotal {
        range: range(from, to),
        total: density.weights[from..to].iter().fold(0, |sum, w| sum.saturating_add(*w)),
        aggregate: to - from > 1 || density.aggregate[from],
        cut: density.cuts[from],
    };
    joined.into_iter().map(|(from, to)| total(from, to)).filter(|range| range.total > 0).collect()
}
