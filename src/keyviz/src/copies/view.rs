//! Answers in the name of another node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::summary::Summary;
use crate::history::column::{Column, ColumnId};
use crate::history::view::Answering;
use crate::hotkeys::{HotKeysPart, HotKeysQuery, part};
use crate::query::axis::{ColumnPlan, RowAxis};
use crate::query::column_set::ColumnSet;
use crate::query::contribution::NodeColumns;
use crate::query::totals::{NodeTotals, totals};
use crate::query::{Query, summing};
use keyviz_types::NodeId;

/// What a holder had of a node's columns in a window at one moment.
#[derive(Debug)]
pub struct CopyView {
    holder: NodeId,
    answering: Answering,
    summary: Summary,
    lost: BTreeSet<ColumnId>,
    columns: Vec<Arc<Column>>,
}

impl CopyView {
    pub(super) fn new(
        holder: NodeId,
        answering: Answering,
        summary: Summary,
        lost: &BTreeSet<ColumnId>,
        columns: Vec<Arc<Column>>,
    ) -> Self {
        CopyView { holder, answering, summary, lost: lost.clone(), columns }
    }

    /// Whether everything that the node counted in `[start_ms, end_ms)` is here.
    fn has_all_of(&self, start_ms: u64, end_ms: u64) -> bool {
        let told = end_ms <= self.summary.complete_to_ms;
        let gone = self.summary.left_ms.is_some_and(|left_ms| start_ms >= left_ms);
        let overlaps = |id: &ColumnId| id.start_ms < end_ms && id.end_ms > start_ms;
        (told || gone) && !self.lost.iter().any(overlaps)
    }

    /// As [`HistoryView::totals`](crate::history::HistoryView::totals); `None` once it is no longer
    /// `wanted`.
    pub fn totals(&self, query: &Query, wanted: &dyn Fn() -> bool) -> Option<NodeTotals> {
        totals(&self.answering, &self.columns, query, wanted)
    }

    /// As [`HistoryView::columns`](crate::history::HistoryView::columns), with the columns that may
    /// lack counts; `None` once it is no longer `wanted`.
    pub fn columns(
        &self,
        query: &Query,
        rows: &RowAxis,
        plan: &ColumnPlan,
        wanted: &dyn Fn() -> bool,
    ) -> Option<NodeColumns> {
        let counted = summing::columns(&self.answering, &self.columns, query, rows, plan, wanted)?;
        let lacking = (0..).zip(plan.columns());
        let lacking = lacking.filter(|(_, span)| !self.has_all_of(span.start_ms, span.end_ms));
        let incomplete: ColumnSet = lacking.map(|(index, _)| index).collect();
        Some(NodeColumns { held_by: self.holder, incomplete, ..counted })
    }

    /// As [`HistoryView::hot_keys`](crate::history::HistoryView::hot_keys).
    pub fn hot_keys(&self, query: &HotKeysQuery, wanted: &dyn Fn() -> bool) -> Option<HotKeysPart> {
        let counted = part(&self.answering, &self.columns, query, wanted)?;
        let all = self.has_all_of(query.window.from_ms, query.window.to_ms);
        let partial = counted.partial || !all;
        Some(HotKeysPart { held_by: self.holder, partial, ..counted })
    }

    /// The columns, by start.
    pub fn columns_held(&self) -> &[Arc<Column>] {
        &self.columns
    }

    /// Everything that the node counted before is here.
    pub fn complete_to_ms(&self) -> u64 {
        self.summary.complete_to_ms
    }
}

/// Columns that were read from the store, up to a limit. Over it those that were read first go.
pub(super) struct Cache {
    limit: usize,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    columns: HashMap<(NodeId, ColumnId), (Arc<Column>, u64)>,
    order: std::collections::BTreeMap<u64, (NodeId, ColumnId)>,
    next: u64,
    bytes: usize,
}

impl Cache {
    pub fn new(limit: usize) -> Self {
        Cache { limit, cached: Mutex::default() }
    }

    pub fn get(&self, node: NodeId, id: ColumnId) -> Option<Arc<Column>> {
        self.cached.lock().columns.get(&(node, id)).map(|(column, _)| Arc::clone(column))
    }

    pub fn put(&self, node: NodeId, column: &Arc<Column>) {
        let bytes = column.bytes() + column.hot_key_bytes();
        if bytes > self.limit {
            return;
        }
        let mut cached = self.cached.lock();
        cached.remove((node, column.id()));
        let number = cached.next;
        cached.next += 1;
        cached.bytes += bytes;
        cached.order.insert(number, (node, column.id()));
        cached.columns.insert((node, column.id()), (Arc::clone(column), number));
        while cached.bytes > self.limit
            && let Some((_, oldest)) = cached.order.first_key_value()
        {
            let oldest = *oldest;
            cached.remove(oldest);
        }
    }

    pub fn forget<'a>(&self, node: NodeId, ids: impl Iterator<Item = &'a ColumnId>) {
        let mut cached = self.cached.lock();
        ids.for_each(|id| cached.remove((node, *id)));
    }

    pub fn clear(&self) {
        *self.cached.lock() = Cached::default();
    }
}

impl Cached {
    fn remove(&mut self, key: (NodeId, ColumnId)) {
        if let Some((column, number)) = self.columns.remove(&key) {
            self.bytes -= column.bytes() + column.hot_key_bytes();
            self.order.remove(&number);
        }
    }
}
