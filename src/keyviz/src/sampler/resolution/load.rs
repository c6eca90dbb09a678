//! The decayed load: the recent operations of each row. It decides the resolution and is never
//! shown.
//!
//! A row is a distinct key range of a layout; the slots of an aggregate for several groups are one
//! row. The load halves at every re-plan, so it covers about two columns. When the rows change,
//! load stays with its keys: all of a row's load goes to the new row that contains it; otherwise,
//! equal parts go to the new rows that overlap it.

use bytes::Bytes;
use std::sync::Arc;

use crate::sampler::counts::{Counts, Segment};
use crate::sampler::layout::Layout;
use keyviz_types::KeyRange;

#[derive(Clone, Default)]
pub(crate) struct DecayedLoad {
    layout: Option<Arc<Layout>>,
    row_of_slot: Vec<u32>,
    /// First key of each row, ascending from the empty key.
    starts: Vec<Bytes>,
    ops: Vec<u64>,
}

impl DecayedLoad {
    /// The decayed operations of each row, in key order.
    pub(crate) fn rows(&self) -> &[u64] {
        &self.ops
    }

    /// The same load over ranges that begin at `starts`, which ascend from the empty key.
    ///
    /// One pass over both: with a search for each row this was a quarter of what a split costs at
    /// 16,000 routes.
    pub(crate) fn onto(&self, starts: &[&Bytes]) -> Vec<u64> {
        let mut rows = vec![0; starts.len()];
        let mut first = 0;
        for (row, start) in self.starts.iter().enumerate().filter(|(row, _)| self.ops[*row] > 0) {
            while starts.get(first + 1).is_some_and(|next| *next <= start) {
                first += 1;
            }
            let last = match self.starts.get(row + 1) {
                Some(end) => {
                    let within = starts[first..].iter().take_while(|start| **start < end);
                    first + within.count()
                }
                None => starts.len(),
            };
            divide(rows.get_mut(first..last).unwrap_or_default(), self.ops[row]);
        }
        rows
    }

    /// Moves the load to the rows of another layout.
    pub(crate) fn align(&mut self, layout: &Arc<Layout>) {
        let mut rows = DecayedLoad { layout: Some(Arc::clone(layout)), ..DecayedLoad::default() };
        for slot in &layout.slots {
            if rows.starts.last() != Some(&slot.range.start) {
                rows.starts.push(slot.range.start.clone());
            }
            rows.row_of_slot.push(rows.starts.len() as u32 - 1);
        }
        rows.ops = self.onto(&rows.starts.iter().collect::<Vec<_>>());
        *self = rows;
    }

    /// Adds the counts of a segment, whichever layout it has.
    pub(crate) fn add(&mut self, segment: &Segment) {
        let ops = |counts: &Counts| counts.reads.saturating_add(counts.writes);
        if self.layout.as_ref().is_some_and(|layout| Arc::ptr_eq(layout, &segment.layout)) {
            for (slot, counts) in &segment.cells {
                let row = &mut self.ops[self.row_of_slot[*slot as usize] as usize];
                *row = row.saturating_add(ops(counts));
            }
            return;
        }
        for (slot, counts) in &segment.cells {
            let KeyRange { start, end } = &segment.layout.slots[*slot as usize].range;
            spread(&self.starts, &mut self.ops, start, end.as_ref(), ops(counts));
        }
    }

    /// Halves the load.
    pub(crate) fn halve(&mut self) {
        self.ops.iter_mut().for_each(|ops| *ops /= 2);
    }
}

/// Divides `ops` among the rows that overlap a range.
fn spread(starts: &[Bytes], rows: &mut [u64], start: &Bytes, end: Option<&Bytes>, ops: u64) {
    let first = starts.partition_point(|row| row <= start).saturating_sub(1);
    let end = match end {
        Some(end) => starts.partition_point(|row| row < end),
        None => starts.len(),
    };
    divide(rows.get_mut(first..end).unwrap_or_default(), ops);
}

fn divide(rows: &mut [u64], ops: u64) {
    let count = (rows.len() as u64).max(1);
    for (nth, row) in (0..).zip(rows) {
        *row = row.saturating_add(ops / count + u64::from(nth < ops % count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::layout::{Bucket, Slot};
    use keyviz_types::{GroupId, RouteId};

    fn layout(starts: &[&'static str]) -> Arc<Layout> {
        let slots = (0..starts.len())
            .map(|n| Slot {
                range: KeyRange {
                    start: Bytes::from(starts[n]),
                    end: starts[n + 1..].iter().find(|s| **s != starts[n]).map(|s| (*s).into()),
                },
                bucket: Bucket::Route(RouteId::FIRST),
                group: GroupId(n as u64),
                lead: None,
            })
            .collect();
        Arc::new(Layout { catalog_version: 1, slots })
    }

    fn segment(layout: &Arc<Layout>, writes: &[u64]) -> Segment {
        let cells = (0..).zip(writes.iter().map(|&writes| Counts { writes, ..Counts::ZERO }));
        Segment { layout: Arc::clone(layout), cells: cells.collect() }
    }

    #[test]
    fn heat_goes_with_the_keys_when_the_rows_change() {
        let mut load = DecayedLoad::default();
        let wide = layout(&["", "m", "m"]);
        load.align(&wide);
        load.add(&segment(&wide, &[10, 5, 6]));
        assert_eq!(load.rows(), [10, 11]);
        load.align(&layout(&["", "f", "k", "m"]));
        assert_eq!(load.rows(), [4, 3, 3, 11]);
        load.add(&segment(&wide, &[3, 0, 1]));
        assert_eq!(load.rows(), [5, 4, 4, 12]);
        load.align(&layout(&["", "p"]));
        assert_eq!(load.rows(), [19, 6]);
        load.halve();
        assert_eq!(load.rows(), [9, 3]);
    }

    #[test]
    fn heat_without_rows_takes_nothing() {
        let mut load = DecayedLoad::default();
        load.add(&segment(&layout(&[""]), &[7]));
        assert!(load.rows().is_empty());
    }
}
