//! The columns of a rule, from matrices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use keyviz_core::{KeyRange, Matrix, RouteId, Series};
use keyviz_fanout::{Axis, Fanout, MatrixError, MatrixRequest};

use super::rules::Rule;
use super::state::{AlertKey, Judged};

/// Routes of a rule that are judged: the hottest, and those that fire.
const MAX_ROUTES: usize = 16;
/// Rows in which they are sought.
const ROWS: u32 = 256;

/// The columns that are judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) after_ms: u64,
    pub(super) closed_ms: u64,
    pub(super) step_ms: u64,
}

/// What is judged, with its columns: those of the window, and `for_columns` before them.
pub(super) async fn rule_columns(
    fanout: &Arc<Fanout>,
    rule: &Rule,
    window: Window,
    firing: &BTreeSet<AlertKey>,
) -> Result<Vec<(AlertKey, Vec<Judged>)>, MatrixError> {
    let back_ms = u64::from(rule.for_columns) * window.step_ms;
    let from_ms = window.after_ms.saturating_sub(back_ms);
    let rows = if rule.each_route { ROWS } else { 0 };
    let counted = fanout.cluster(&request(rule.series, &rule.range, from_ms, window, rows)).await?;
    let all = match rule.above_share {
        Some(_) if rule.range == KeyRange::all() => Some(Arc::clone(&counted)),
        Some(_) => {
            let all = request(rule.series, &KeyRange::all(), from_ms, window, 0);
            Some(fanout.cluster(&all).await?)
        }
        None => None,
    };
    let totals: Option<Vec<u64>> = all.map(|answer| {
        (0..answer.matrix.columns.len()).map(|at| answer.matrix.column_total(at)).collect()
    });
    let matrix = &counted.matrix;
    let judged = |values: &[u64]| judged(rule, matrix, values, totals.as_deref());
    if !rule.each_route {
        let values: Vec<u64> =
            (0..matrix.columns.len()).map(|at| matrix.column_total(at)).collect();
        return Ok(vec![(AlertKey { rule: rule.name.clone(), route: None }, judged(&values))]);
    }
    let routes = by_route(matrix);
    let mut order: Vec<(&RouteId, &Vec<u64>)> = routes.iter().collect();
    order.sort_by_key(|(_, values)| std::cmp::Reverse(values.last().copied()));
    let key = |route: RouteId| AlertKey { rule: rule.name.clone(), route: Some(route) };
    let mut chosen: BTreeSet<RouteId> =
        order.iter().take(MAX_ROUTES).map(|(route, _)| **route).collect();
    let fires = firing.iter().filter(|key| key.rule == rule.name).filter_map(|key| key.route);
    chosen.extend(fires);
    let cold = vec![0; matrix.columns.len()];
    let columns = |route: RouteId| judged(routes.get(&route).unwrap_or(&cold));
    Ok(chosen.into_iter().map(|route| (key(route), columns(route))).collect())
}

/// A matrix of whole columns; one row without `rows`.
fn request(
    series: Series,
    range: &KeyRange,
    from_ms: u64,
    window: Window,
    rows: u32,
) -> MatrixRequest {
    let columns = (window.closed_ms - from_ms) / window.step_ms;
    let boundaries: Vec<Bytes> = if rows == 0 { vec![range.start.clone()] } else { Vec::new() };
    MatrixRequest {
        series,
        role: None,
        from_ms: Some(from_ms),
        to_ms: Some(window.closed_ms),
        start: range.start.clone(),
        end: range.end.clone(),
        max_rows: rows,
        max_columns: columns as u32,
        axis: Axis::Now,
        spread: false,
        boundaries: boundaries.into(),
        by_route: false,
        sources: false,
    }
}

/// What each route that has rows of its own counted, by column. Counts that several routes share
/// are those of none.
fn by_route(matrix: &Matrix) -> BTreeMap<RouteId, Vec<u64>> {
    let route = |row: &keyviz_core::Row| {
        (row.route_count == 1).then(|| row.route_ids.first().copied()).flatten()
    };
    let mut routes: BTreeMap<RouteId, Vec<u64>> = BTreeMap::new();
    let mut add = |route: RouteId, column: usize, value: u64| {
        let values = routes.entry(route).or_insert_with(|| vec![0; matrix.columns.len()]);
        values[column] = values[column].saturating_add(value);
    };
    for row in &matrix.rows {
        let Some(route) = route(row) else { continue };
        row.values.iter().enumerate().for_each(|(column, value)| add(route, column, *value));
    }
    let inside = |block: &&keyviz_core::matrix::Block| !block.straddling && block.column_count == 1;
    for block in matrix.blocks.iter().filter(inside) {
        let rows = block.first_row as usize..(block.first_row + block.row_count) as usize;
        let rows = &matrix.rows[rows];
        let one = rows.first().and_then(route);
        if let Some(one) = one.filter(|one| rows.iter().all(|row| route(row) == Some(*one))) {
            add(one, block.column as usize, block.value);
        }
    }
    routes
}

fn judged(rule: &Rule, matrix: &Matrix, values: &[u64], totals: Option<&[u64]>) -> Vec<Judged> {
    let missing = matrix.responded < matrix.expected;
    let column = |(at, column): (usize, &keyviz_core::query::ColumnSpan)| {
        let seconds = (column.end_ms - column.start_ms).max(1) as f64 / 1_000.0;
        let value = values.get(at).copied().unwrap_or(0);
        let rate = value as f64 / seconds;
        let partial = missing || matrix.rows.iter().any(|row| row.partial.contains(at as u32));
        let all = totals.and_then(|totals| totals.get(at)).copied().unwrap_or(0);
        let share = if all == 0 { 0.0 } else { value as f64 / all as f64 };
        let above_rate = rule.above_rate.is_none_or(|level| rate > level);
        // A share of what is not all is no share.
        let above_share = rule.above_share.is_none_or(|level| share > level && !partial);
        Judged {
            start_ms: column.start_ms,
            end_ms: column.end_ms,
            rate,
            holds: above_rate && above_share,
            partial,
        }
    };
    matrix.columns.iter().enumerate().map(column).collect()
}
