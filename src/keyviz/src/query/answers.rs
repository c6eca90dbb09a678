//! The two rounds of a query, answered from what a history held at one moment.

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
    /// Round one: what this node carried in the window, by key range. `peek` is what was counted
    /// since the last harvest; it belongs to the open column.
    pub fn totals(&self, query: &Query, peek: Harvest) -> NodeTotals {
        self.view(query.window, peek).totals(query)
    }

    /// Round two: this node's contribution on the asker's axes. The window of the query is that of
    /// the columns planned. `peek` as in [`History::totals`].
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
    /// As [`crate::history::History::totals`]; `query` asks for the window of the view.
    pub fn totals(&self, query: &Query) -> NodeTotals {
        self.totals_while(query, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::totals`]; `None` once `wanted`, which is asked between columns, says no.
    pub fn totals_while(&self, query: &Query, wanted: &dyn Fn() -> bool) -> Option<NodeTotals> {
        let mut columns = self.columns_held();
        let others = self.handed_over.iter().flat_map(|(_, columns)| columns);
        columns.extend(others.cloned());
        columns.sort_by_key(|column| column.id());
        let mut totals = totals(&self.answering, &columns, query, wanted)?;
        let oldest = self.handed_over.iter().map(|(left, _)| left.holdings.oldest_ms);
        totals.oldest_ms = oldest.chain([totals.oldest_ms]).min().unwrap_or(totals.oldest_ms);
        let newest = self.handed_over.iter().map(|(left, _)| left.holdings.newest_ms);
        totals.newest_ms = newest.chain([totals.newest_ms]).max().unwrap_or(totals.newest_ms);
        Some(totals)
    }

    /// As [`crate::history::History::columns`]; `columns` lie in the window of the view.
    pub fn columns(&self, query: &Query, rows: &RowAxis, columns: &ColumnPlan) -> NodeColumns {
        self.columns_while(query, rows, columns, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::columns`]; `None` once `wanted`, which is asked between columns, says no.
    pub fn columns_while(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
        wanted: &dyn Fn() -> bool,
    ) -> Option<NodeColumns> {
        summing::columns(&self.answering, &self.columns_held(), query, rows, columns, wanted)
    }

    /// The contributions of the nodes that have left, whose columns are kept here.
    pub fn handed_over(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Vec<NodeColumns> {
        self.handed_over_while(query, rows, columns, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::handed_over`]; `None` once `wanted`, which is asked between columns, says
    /// no.
    pub fn handed_over_while(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Vec<NodeColumns>> {
        let held_by = self.answering.node;
        let of = |(left, held): &(Answering, Vec<Arc<Column>>)| {
            let counted = summing::columns(left, held, query, rows, columns, wanted)?;
            Some(NodeColumns { held_by, ..counted })
        };
        self.handed_over.iter().map(of).collect()
    }
}
