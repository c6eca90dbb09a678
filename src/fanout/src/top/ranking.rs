//! From matrices to a ranking. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::request::{DEFAULT_TOP, Measured, Rank, Rates, TopAnswer, TopRange, TopRequest, cost};
use crate::loads::SERIES;
use crate::request::MatrixAnswer;
use keyviz_core::matrix::{Block, Row, label};
use keyviz_core::query::ColumnSpan;
use keyviz_core::{KeyRange, Matrix, RouteId};

/// What is ranked: a route, or keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Route(RouteId),
    Keys(Bytes, Option<Bytes>),
}

/// One that may be listed.
struct Candidate {
    range: KeyRange,
    rows: Range<usize>,
    together: bool,
    now: [u64; 4],
    before: [u64; 4],
    /// By column of the window, of what is ranked by.
    columns: Vec<f64>,
}

pub(super) fn ranked(request: &TopRequest, measured: &Measured) -> TopAnswer {
    let mut candidates: BTreeMap<Name, Candidate> = BTreeMap::new();
    for (series, answer) in measured.now.iter().enumerate() {
        gather(&mut candidates, request, series, &answer.matrix, true);
    }
    for (series, answer) in measured.before.iter().enumerate() {
        gather(&mut candidates, request, series, &answer.matrix, false);
    }
    let now_seconds = seconds(&measured.now, measured.now_ms);
    let before_seconds = seconds(&measured.before, measured.now_ms);
    let total = totals(&measured.now);
    let all = of_rank(request.rank, total.map(|count| count as f64));
    let value = |of: &Candidate| of_rank(request.rank, of.now.map(|count| count as f64));
    let mut with_load: Vec<Candidate> =
        candidates.into_values().filter(|of| value(of) > 0.0).collect();
    with_load.sort_by(|left, right| {
        let by_value = value(right).total_cmp(&value(left));
        by_value.then_with(|| left.range.start.cmp(&right.range.start))
    });
    let limit = if request.limit == 0 { DEFAULT_TOP } else { request.limit as usize };
    let omitted = with_load.len().saturating_sub(limit) as u64;
    with_load.truncate(limit);
    let first = measured.now.first().map(|answer| &answer.matrix);
    let columns = first.map(|matrix| matrix.columns.clone()).unwrap_or_default();
    let rows = first.map(|matrix| &matrix.rows[..]).unwrap_or_default();
    let listed = |of: Candidate| {
        let share = if all > 0.0 { value(&of) / all } else { 0.0 };
        let (rates, before) = (rates(of.now, now_seconds), rates(of.before, before_seconds));
        let earlier = of_rank(request.rank, before.0);
        let trend = (earlier > 0.0).then(|| of_rank(request.rank, rates.0) / earlier);
        let (since_ms, since_earlier) = since(&columns, &of.columns, measured.now_ms);
        let (together, own) = (of.together, &rows[of.rows.clone()]);
        let (route_ids, route_count) = routes(own);
        let group = own.first().and_then(|row| row.group);
        let group = group.filter(|group| own.iter().all(|row| row.group == Some(*group)));
        TopRange {
            label: label(&of.range.start),
            range: of.range,
            route_ids,
            route_count,
            group,
            rates,
            before,
            share,
            trend,
            since_ms,
            since_earlier,
            together,
        }
    };
    let ranges = with_load.into_iter().map(listed).collect();
    let matrices = || measured.now.iter().chain(&measured.before).map(|answer| &answer.matrix);
    let whole = matrices().min_by_key(|matrix| matrix.responded);
    TopAnswer {
        window: measured.window,
        before_from_ms: measured.before_from_ms,
        ranges,
        total: rates(total, now_seconds),
        before: rates(totals(&measured.before), before_seconds),
        omitted,
        catalog_version: matrices().map(|matrix| matrix.catalog_version).max().unwrap_or(0),
        partial: matrices().any(is_partial),
        nodes: whole.map(|matrix| matrix.nodes.clone()).unwrap_or_default(),
        responded: whole.map_or(0, |matrix| matrix.responded),
        expected: whole.map_or(0, |matrix| matrix.expected),
    }
}

fn is_partial(matrix: &Matrix) -> bool {
    matrix.responded < matrix.expected || matrix.rows.iter().any(|row| !row.partial.is_empty())
}

fn of_rank(rank: Rank, counts: [f64; 4]) -> f64 {
    match rank {
        Rank::Cost => cost(counts),
        Rank::Of(series) => {
            let at = SERIES.iter().position(|other| *other == series);
            at.map_or(0.0, |at| counts[at])
        }
    }
}

/// Adds one series of one window to the candidates.
fn gather(
    candidates: &mut BTreeMap<Name, Candidate>,
    request: &TopRequest,
    series: usize,
    matrix: &Matrix,
    now: bool,
) {
    let width = matrix.columns.len();
    let mut weight = [0.0; 4];
    weight[series] = 1.0;
    let weight = of_rank(request.rank, weight);
    let mut add = |rows: Range<usize>, keys: KeyRange, together, columns: Range<usize>, count| {
        if count == 0 {
            return;
        }
        let name = name(request, &matrix.rows[rows.clone()], &keys);
        let of_route = matches!(name, Name::Route(_));
        let candidate = candidates.entry(name).or_insert_with(|| Candidate {
            range: keys.clone(),
            rows: rows.clone(),
            together: together && !of_route,
            now: [0; 4],
            before: [0; 4],
            columns: Vec::new(),
        });
        // The parts of a route, in any order.
        candidate.rows = candidate.rows.start.min(rows.start)..candidate.rows.end.max(rows.end);
        if of_route {
            candidate.range = hull(&candidate.range, &keys);
        }
        let sums = if now { &mut candidate.now } else { &mut candidate.before };
        sums[series] = sums[series].saturating_add(count);
        if now {
            candidate.columns.resize(width.max(candidate.columns.len()), 0.0);
            let share = count as f64 * weight / columns.len().max(1) as f64;
            candidate.columns[columns].iter_mut().for_each(|sum| *sum += share);
        }
    };
    for (at, row) in matrix.rows.iter().enumerate() {
        for (column, value) in row.values.iter().enumerate() {
            add(at..at + 1, row.range.clone(), false, column..column + 1, *value);
        }
    }
    for block in matrix.blocks.iter().filter(|block| !block.straddling) {
        let Block { first_row, row_count, column, column_count, .. } = *block;
        let rows = first_row as usize..(first_row + row_count) as usize;
        let columns = column as usize..(column + column_count) as usize;
        // Of one row, it is the row's; only its columns are not told apart.
        let (keys, together) = match row_count {
            1 => (matrix.rows[rows.start].range.clone(), false),
            _ => (block.range.clone(), true),
        };
        add(rows, keys, together, columns, block.value);
    }
}

fn name(request: &TopRequest, rows: &[Row], keys: &KeyRange) -> Name {
    let one = |row: &Row| (row.route_count == 1).then(|| row.route_ids.first().copied()).flatten();
    let route = rows.first().and_then(one);
    match route.filter(|id| rows.iter().all(|row| one(row) == Some(*id))) {
        Some(route) if request.routes => Name::Route(route),
        _ => Name::Keys(keys.start.clone(), keys.end.clone()),
    }
}

fn hull(left: &KeyRange, right: &KeyRange) -> KeyRange {
    let end = match (&left.end, &right.end) {
        (Some(left), Some(right)) => Some(left.max(right).clone()),
        _ => None,
    };
    KeyRange { start: left.start.clone().min(right.start.clone()), end }
}

/// The first routes of rows, and how many they have; those at both sides of a bound count once.
fn routes(rows: &[Row]) -> (Vec<RouteId>, u64) {
    let (mut ids, mut count) = (Vec::<RouteId>::new(), 0);
    let mut last = None;
    for row in rows {
        let again = last.is_some() && row.route_ids.first().copied() == last;
        count += row.route_count - u64::from(again);
        ids.extend(row.route_ids.iter().skip(usize::from(again)));
        last = if row.route_ids_truncated { None } else { row.route_ids.last().copied() };
    }
    ids.truncate(16);
    (ids, count)
}

fn totals(answers: &[Arc<MatrixAnswer>]) -> [u64; 4] {
    let mut totals = [0; 4];
    for (total, answer) in totals.iter_mut().zip(answers) {
        *total = answer.matrix.total;
    }
    totals
}

/// How long the columns lasted, up to now.
fn seconds(answers: &[Arc<MatrixAnswer>], now_ms: u64) -> f64 {
    let columns = answers.first().map(|answer| &answer.matrix.columns[..]).unwrap_or_default();
    let (Some(first), Some(last)) = (columns.first(), columns.last()) else { return 1.0 };
    let end_ms = if last.open { last.end_ms.min(now_ms) } else { last.end_ms };
    (end_ms.saturating_sub(first.start_ms).max(1)) as f64 / 1_000.0
}

fn rates(counts: [u64; 4], seconds: f64) -> Rates {
    Rates(counts.map(|count| count as f64 / seconds))
}

/// Start of the first column from which on each column has at least half of the present rate, and
/// whether it is the first of all.
fn since(columns: &[ColumnSpan], values: &[f64], now_ms: u64) -> (u64, bool) {
    let rate = |at: usize| {
        let ColumnSpan { start_ms, end_ms, open } = columns[at];
        let end_ms = if open { end_ms.min(now_ms) } else { end_ms };
        values.get(at).copied().unwrap_or(0.0) / end_ms.saturating_sub(start_ms).max(1) as f64
    };
    // The column in progress has hardly begun, perhaps.
    let closed = columns.iter().rposition(|column| !column.open);
    let Some(last) = closed.or(columns.len().checked_sub(1)) else { return (now_ms, false) };
    let open = columns.len() - 1;
    let present = rate(last);
    if present == 0.0 {
        return (columns[open].start_ms, false);
    }
    let mut first = last;
    while first > 0 && rate(first - 1) >= present / 2.0 {
        first -= 1;
    }
    (columns[first].start_ms, first == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(count: u64) -> Vec<ColumnSpan> {
        (0..count)
            .map(|at| ColumnSpan {
                start_ms: at * 1_000,
                end_ms: (at + 1) * 1_000,
                open: at + 1 == count,
            })
            .collect()
    }

    #[test]
    fn a_load_begins_with_the_first_column_that_has_half_of_the_present_rate() {
        let since = |values: &[f64]| super::since(&spans(values.len() as u64), values, 100_000);
        assert_eq!(since(&[0.0, 1.0, 9.0, 10.0, 2.0]), (2_000, false));
        assert_eq!(since(&[9.0, 10.0, 9.0, 0.0]), (0, true));
        assert_eq!(since(&[0.0, 0.0, 7.0]), (2_000, false), "it has just begun");
        assert_eq!(since(&[]), (100_000, false));
    }

    #[test]
    fn the_cost_is_in_request_units() {
        assert_eq!(cost([8.0, 0.0, 65_536.0, 0.0]), 2.0);
        assert_eq!(cost([0.0, 3.0, 0.0, 2_048.0]), 5.0);
        assert_eq!(of_rank(Rank::Of(keyviz_core::Series::Writes), [1.0, 2.0, 3.0, 4.0]), 2.0);
    }
}
