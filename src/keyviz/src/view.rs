//! What a history held of a window at one moment, to answer from.

use std::sync::Arc;

use super::axis::{ColumnPlan, RowAxis};
use super::column::Column;
use super::contribution::NodeColumns;
use super::counts::Harvest;
use super::gather;
use super::history::Holdings;
use super::open::{OpenColumn, Shared};
use super::query::Query;
use super::totals::{NodeTotals, totals};
use keyviz_types::{Incarnation, NodeId};

/// Who answers, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answering {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub holdings: Holdings,
}

/// A consistent picture of the columns in a window, taken under the history's lock and read without it.
#[derive(Debug)]
pub struct HistoryView {
    pub(crate) answering: Answering,
    /// By start.
    pub(crate) closed: Vec<Arc<Column>>,
    /// The open column and what was not harvested yet, if it is in the window.
    pub(crate) open: Option<(OpenColumn, Harvest)>,
    /// What is kept of it for nodes that have left.
    pub(crate) inherited: Vec<(Answering, Vec<Arc<Column>>)>,
    pub(crate) shared: Arc<Shared>,
}

impl HistoryView {
    /// What the history held at that moment.
    pub fn holdings(&self) -> Holdings {
        self.answering.holdings
    }

    /// As [`super::History::totals`]; `query` asks for the window of the view.
    pub fn totals(&self, query: &Query) -> NodeTotals {
        self.totals_while(query, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::totals`]; `None` once `wanted`, which is asked between columns, says no.
    pub fn totals_while(&self, query: &Query, wanted: &dyn Fn() -> bool) -> Option<NodeTotals> {
        let mut columns = self.columns_held();
        let others = self.inherited.iter().flat_map(|(_, columns)| columns);
        columns.extend(others.cloned());
        columns.sort_by_key(|column| column.id());
        let mut totals = totals(&self.answering, &columns, query, wanted)?;
        let oldest = self.inherited.iter().map(|(left, _)| left.holdings.oldest_ms);
        totals.oldest_ms = oldest.chain([totals.oldest_ms]).min().unwrap_or(totals.oldest_ms);
        let newest = self.inherited.iter().map(|(left, _)| left.holdings.newest_ms);
        totals.newest_ms = newest.chain([totals.newest_ms]).max().unwrap_or(totals.newest_ms);
        Some(totals)
    }

    /// As [`super::History::columns`]; `columns` lie in the window of the view.
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
        gather::columns(&self.answering, &self.columns_held(), query, rows, columns, wanted)
    }

    /// The contributions of the nodes that have left, whose columns are kept here.
    pub fn inherited(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
    ) -> Vec<NodeColumns> {
        self.inherited_while(query, rows, columns, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::inherited`]; `None` once `wanted`, which is asked between columns, says no.
    pub fn inherited_while(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Vec<NodeColumns>> {
        let held_by = self.answering.node;
        let of = |(left, held): &(Answering, Vec<Arc<Column>>)| {
            let counted = gather::columns(left, held, query, rows, columns, wanted)?;
            Some(NodeColumns { held_by, ..counted })
        };
        self.inherited.iter().map(of).collect()
    }

    /// All columns by start, the open one packed.
    pub(crate) fn columns_held(&self) -> Vec<Arc<Column>> {
        let mut columns = self.closed.clone();
        if let Some((open, peek)) = &self.open {
            let at = columns.partition_point(|column| column.id() < open.id());
            columns.insert(at, Arc::new(open.clone().peek(peek.clone(), &self.shared)));
        }
        columns
    }
}
