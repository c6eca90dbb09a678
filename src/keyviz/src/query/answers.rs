//! Answers both rounds of a query from a view of the history at one moment.

use std::sync::Arc;

use super::Query;
use super::axis::{ColumnPlan, RowAxis};
use super::contribution::NodeColumns;
use super::summing;
use super::totals::{NodeTotals, totals};
use crate::history::History;
use crate::history::column::Column;
use crate::history::view::{Answering, HistoryView};
use crate::history::window::Window;
use crate::sampler::counts::Harvest;

impl History {
    /// Round one: the load that this node counted in the window, by key range. `peek` has the
    /// counts since the last harvest, which belong to the open column.
    pub fn totals(&self, query: &Query, peek: Harvest) -> NodeTotals {
        self.view(query.window, peek).totals(query)
    }

    /// Round two: this node's counts on the axes of the coordinating node. The window of the
    /// planned columns replaces that of the query. `peek` is as in [`History::totals`].
    pub fn columns(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
        peek: Harvest,
    ) -> NodeColumns {
        let window = columns.window().unwrap_or(Window { from_ms: 0, to_ms: 0 });
        self.view(window, peek).columns(query, rows, columns)
    }
}

impl HistoryView {
    /// As [`crate::history::History::totals`]; the view must be of the window of `query`.
    pub fn totals(&self, query: &Query) -> NodeTotals {
        self.while_wanted(&|| true).totals(query).expect(ALWAYS_WANTED)
    }

    /// As [`crate::history::History::columns`]; `columns` must lie in the window of the view.
    pub fn columns(&self, query: &Query, rows: &RowAxis, columns: &ColumnPlan) -> NodeColumns {
        self.while_wanted(&|| true).columns(query, rows, columns).expect(ALWAYS_WANTED)
    }

    /// The contributions of former members whose columns this node keeps.
    pub fn handed_over(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Vec<NodeColumns> {
        self.while_wanted(&|| true).handed_over(query, rows, columns).expect(ALWAYS_WANTED)
    }

    /// The same answers, abandoned as soon as `wanted` returns false. It is called between columns.
    pub fn while_wanted<'a>(&'a self, wanted: &'a dyn Fn() -> bool) -> WantedView<'a> {
        WantedView { view: self, wanted }
    }
}

const ALWAYS_WANTED: &str = "the answer is always wanted";

/// A view whose answers are `None` once the caller no longer wants them; see
/// [`HistoryView::while_wanted`].
pub struct WantedView<'a> {
    view: &'a HistoryView,
    wanted: &'a dyn Fn() -> bool,
}

impl WantedView<'_> {
    /// As [`HistoryView::totals`].
    pub fn totals(&self, query: &Query) -> Option<NodeTotals> {
        let HistoryView { answering, handed_over, .. } = self.view;
        let mut columns = self.view.columns_held();
        let others = handed_over.iter().flat_map(|(_, columns)| columns);
        columns.extend(others.cloned());
        columns.sort_by_key(|column| column.id());
        let mut totals = totals(answering, &columns, query, self.wanted)?;
        let oldest = handed_over.iter().map(|(left, _)| left.holdings.oldest_ms);
        totals.oldest_ms = oldest.chain([totals.oldest_ms]).min().unwrap_or(totals.oldest_ms);
        let newest = handed_over.iter().map(|(left, _)| left.holdings.newest_ms);
        totals.newest_ms = newest.chain([totals.newest_ms]).max().unwrap_or(totals.newest_ms);
        Some(totals)
    }

    /// As [`HistoryView::columns`].
    pub fn columns(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Option<NodeColumns> {
        let held = self.view.columns_held();
        summing::columns(&self.view.answering, &held, query, rows, columns, self.wanted)
    }

    /// As [`HistoryView::handed_over`].
    pub fn handed_over(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Option<Vec<NodeColumns>> {
        let held_by = self.view.answering.node;
        let of = |(left, held): &(Answering, Vec<Arc<Column>>)| {
            let counted = summing::columns(left, held, query, rows, columns, self.wanted)?;
            Some(NodeColumns { held_by, ..counted })
        };
        self.view.handed_over.iter().map(of).collect()
    }
}
