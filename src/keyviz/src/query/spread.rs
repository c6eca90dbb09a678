//! Divides blocks into estimated cells, for coordinating nodes of versions that know no blocks.
//!
//! The count of a block is divided evenly among its columns and then its rows, in whole numbers,
//! and each of these cells is marked as apportioned. Of a block that reaches beyond the axes, the
//! part inside is a difference of cumulative shares, so adjacent ranges and windows add up. The
//! load at another time is not used, because it says nothing of this one.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::{ColumnPlan, RowAxis};
use super::block::BlockSpan;
use super::contribution::{CellKey, ColumnPart, NodeColumns, Place};
use super::resample::{Share, apportion, between, position};
use keyviz_types::Incarnation;

/// A part under construction.
#[derive(Default)]
struct Spread {
    partial: bool,
    unattributed: u64,
    cells: BTreeMap<CellKey, u64>,
    apportioned: BTreeSet<u32>,
}

impl NodeColumns {
    /// The contribution with its blocks divided into cells. `rows` and `plan` are its axes.
    #[must_use]
    pub fn spread(self, rows: &RowAxis, plan: &ColumnPlan) -> NodeColumns {
        if self.spans.is_empty() {
            return self;
        }
        let mut parts: BTreeMap<(u32, Incarnation), Spread> = BTreeMap::new();
        for part in &self.parts {
            let own = parts.entry((part.column, part.incarnation)).or_default();
            own.partial |= part.partial;
            own.unattributed = own.unattributed.saturating_add(part.unattributed);
            for (&key, &value) in part.keys.iter().zip(&part.values) {
                let key = self.keys[key as usize];
                let Place::Block(span) = key.place else {
                    let own = parts.entry((part.column, part.incarnation)).or_default();
                    own.add(key, value);
                    continue;
                };
                let span = &self.spans[span as usize];
                let inside = inside(span, value, rows, plan);
                let columns = part.column..part.column + span.columns;
                for (column, value) in columns.zip(evenly(inside, span.columns)) {
                    let spread = parts.entry((column, part.incarnation)).or_default();
                    let run = span.first_row..span.first_row + span.rows;
                    for (row, value) in run.zip(evenly(value, span.rows)) {
                        spread.add(CellKey { place: Place::Row(row), ..key }, value);
                        spread.apportioned.insert(row);
                    }
                }
            }
        }
        let all: BTreeSet<CellKey> =
            parts.values().flat_map(|part| part.cells.keys().copied()).collect();
        let keys: Vec<CellKey> = all.into_iter().collect();
        let number = |key: &CellKey| {
            let place = keys.binary_search(key).expect("the key of a part");
            u32::try_from(place).expect("rows times sources fit 32 bits")
        };
        let part = |((column, incarnation), part): ((u32, Incarnation), Spread)| ColumnPart {
            column,
            incarnation,
            partial: part.partial,
            unattributed: part.unattributed,
            keys: part.cells.keys().map(number).collect(),
            values: part.cells.into_values().collect(),
            apportioned: part.apportioned.into_iter().collect(),
        };
        let parts = parts.into_iter().map(part).collect();
        NodeColumns { spans: Vec::new(), keys, parts, ..self }
    }
}

impl Spread {
    fn add(&mut self, key: CellKey, value: u64) {
        if value > 0 {
            let sum = self.cells.entry(key).or_default();
            *sum = sum.saturating_add(value);
        }
    }
}

/// The part of a block's value that lies on the axes, if it is distributed evenly.
fn inside(span: &BlockSpan, value: u64, rows: &RowAxis, plan: &ColumnPlan) -> u64 {
    let in_time = match (span.reach, plan.window()) {
        (Some(reach), Some(asked)) => {
            let share = |at_ms: u64| Share {
                num: at_ms.clamp(reach.from_ms, reach.to_ms) - reach.from_ms,
                den: reach.to_ms - reach.from_ms,
            };
            between(value, share(asked.from_ms), share(asked.to_ms))
        }
        _ => value,
    };
    let at = |key: &[u8]| position(&span.range.start, span.range.end.as_deref(), key);
    let from = rows.starts().first().map_or(Share::ZERO, |key| at(key));
    between(in_time, from, rows.end().map_or(Share::ONE, |key| at(key)))
}

/// A value in `count` parts, as equal as whole numbers can be.
pub(crate) fn evenly(value: u64, count: u32) -> Vec<u64> {
    let mut parts = Vec::with_capacity(count as usize);
    apportion(value, &vec![1; count as usize], &mut parts);
    parts
}
