//! What a history held of a window at one moment, to answer from.

use std::sync::Arc;

use super::axis::{ColumnPlan, RowAxis};
use super::column::Column;
use super::contribution::NodeColumns;
use super::counts::Harvest;
use super::gather;
use super::history::Holdings;
use super::ids::{Incarnation, NodeId};
use super::open::{OpenColumn, Shared};
use super::query::Query;
use super::totals::{NodeTotals, totals};

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
    pub(crate) shared: Arc<Shared>,
}

impl HistoryView {
    /// As [`super::History::totals`]; `query` asks for the window of the view.
    pub fn totals(&self, query: &Query) -> NodeTotals {
        self.totals_while(query, &|| true).expect("it is wanted throughout")
    }

    /// As [`HistoryView::totals`]; `None` once `wanted`, which is asked between columns, says no.
    pub fn totals_while(&self, query: &Query, wanted: &dyn Fn() -> bool) -> Option<NodeTotals> {
        totals(&self.answering, &self.columns_held(), query, wanted)
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

    /// All columns by start, the open one packed.
    fn columns_held(&self) -> Vec<Arc<Column>> {
        let mut columns = self.closed.clone();
        if let Some((open, peek)) = &self.open {
            let at = columns.partition_point(|column| column.id() < open.id());
            columns.insert(at, Arc::new(open.clone().peek(peek.clone(), &self.shared)));
        }
        columns
    }
}
