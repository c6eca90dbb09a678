//! The matrix of a store that runs in one process: both rounds of a query, without a network.

use crate::history::{History, Window};
use crate::query::{
    AxisError, DEFAULT_ROW_ROUTE_IDS, PlanError, PlanRequest, Query, plan, plan_columns,
};
use crate::sampler::Sampler;

use super::merge::merge;
use super::{Matrix, NodeStatus};

/// The row and column budgets of a matrix; 0 stands for the default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MatrixSize {
    /// At most [`MAX_ROWS`](crate::query::MAX_ROWS).
    pub rows: usize,
    /// At most [`MAX_COLUMNS`](crate::query::MAX_COLUMNS).
    pub columns: usize,
}

/// Why there is no matrix.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MatrixError {
    /// The rows cannot be planned.
    #[error(transparent)]
    Rows(#[from] PlanError),
    /// The columns cannot be planned.
    #[error(transparent)]
    Columns(#[from] AxisError),
}

impl Matrix {
    /// The matrix of one process: all counts of `sampler`, including those since its last harvest.
    ///
    /// Hold the lock under which [`Sampler::harvest`] and [`History::add`] are called together;
    /// otherwise counts that are between the two are missing. `now_ms` is the current Unix time.
    ///
    /// # Errors
    /// An empty key range, or a budget above its maximum.
    pub fn local(
        sampler: &Sampler,
        history: &History,
        query: &Query,
        size: MatrixSize,
        now_ms: u64,
    ) -> Result<Matrix, MatrixError> {
        let columns = plan_columns(query.window, history.config().step_ms, size.columns, now_ms)?;
        let window = columns.window().unwrap_or(Window { from_ms: 0, to_ms: 0 });
        let query = Query { window, ..query.clone() };
        let view = history.view(window, sampler.peek());
        let epoch = sampler.epoch();
        let request = PlanRequest {
            routes: epoch.routes(),
            catalog_version: epoch.catalog_version(),
            range: &query.range,
            max_rows: size.rows,
            max_route_ids: DEFAULT_ROW_ROUTE_IDS,
            boundaries: None,
        };
        let rows = plan(&request, &[view.totals(&query)])?;
        let own = view.columns(&query, &rows.axis(), &columns);
        let status = NodeStatus { node: Some(history.node()), ok: true, ..NodeStatus::default() };
        Ok(merge(rows, columns, &query, vec![own], vec![status]))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use keyviz_types::{GroupId, Incarnation, KeyRange, NodeId, RouteId, RouteSpec, Term};

    use super::*;
    use crate::history::HistoryConfig;
    use crate::sampler::{Op, SamplerConfig, Series};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn store() -> (Sampler, History) {
        let sampler = Sampler::new(SamplerConfig::default()).expect("valid");
        let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
        sampler.publish_routes(1, vec![route]).expect("one route covers all keys");
        sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
        let config = HistoryConfig { step_ms: 1_000, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(1), Incarnation(1), NOW_MS).expect("valid");
        (sampler, history)
    }

    fn put(sampler: &Sampler, key: &[u8]) {
        sampler.with_epoch(|epoch| {
            let located = epoch.locate(key).expect("a route is published");
            epoch.record(Op::Write, located, key, 1, 10);
        });
    }

    fn query(range: KeyRange) -> Query {
        let window = Window { from_ms: NOW_MS, to_ms: NOW_MS + 2_000 };
        Query { window, range, series: Series::Writes, role: None }
    }

    #[test]
    fn law_1_conservation_a_local_matrix_has_closed_open_and_unharvested_counts() {
        let (sampler, history) = store();
        put(&sampler, b"a");
        assert_eq!(history.add(NOW_MS + 1_000, sampler.harvest()).closed.len(), 1);
        put(&sampler, b"b");
        assert!(history.add(NOW_MS + 1_500, sampler.harvest()).closed.is_empty());
        put(&sampler, b"c");
        let all = query(KeyRange::all());
        let size = MatrixSize::default();
        let matrix =
            Matrix::local(&sampler, &history, &all, size, NOW_MS + 1_500).expect("planned");
        assert_eq!(matrix.total, 3);
        assert_eq!(matrix.rows[0].values, [1, 2]);
        assert_eq!((matrix.responded, matrix.expected), (1, 1));
    }

    #[test]
    fn bounds_a_local_matrix_that_cannot_be_planned_says_why() {
        let (sampler, history) = store();
        let matrix = |range, size| {
            Matrix::local(&sampler, &history, &query(range), size, NOW_MS)
                .expect_err("it is refused")
        };
        let key = Bytes::from_static(b"m");
        let empty = KeyRange { start: key.clone(), end: Some(key) };
        let error = matrix(empty, MatrixSize::default());
        assert_eq!(error, MatrixError::Rows(PlanError::EmptyRange));
        let error = matrix(KeyRange::all(), MatrixSize { rows: 0, columns: 100_000 });
        assert_eq!(error, MatrixError::Columns(AxisError::TooManyColumns { columns: 100_000 }));
    }
}
