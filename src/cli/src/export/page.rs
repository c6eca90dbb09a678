//! A page: the rows of up to a thousand routes in one piece of time, from one matrix for each
//! series.
//!
//! What was counted together may reach over the edges of a page. It is then in several of them,
//! with the same value, and is taken in the first: that in which it begins. Pieces of time end with
//! the hour where they can, as the columns of the coarsest tier do, so that folding a column in the
//! middle of an export moves nothing over such an edge.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::asking::Questions;
use super::error::ExportError;
use super::record::{Counter, Kind, Record, SERIES};
use super::scope::{MAX_COLUMNS, Place, Scope};
use crate::CliError;
use keyviz_json::role_name;
use keyviz_proto as proto;

/// The series in the order of [`Record::counts`].
pub(super) const ORDER: [proto::Series; SERIES] = [
    proto::Series::Reads,
    proto::Series::Writes,
    proto::Series::ReadBytes,
    proto::Series::WriteBytes,
];

/// Attempts of a page while the routes change.
const ATTEMPTS: u32 = 5;

/// The rows of a page.
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    /// The first key of the next page.
    pub(super) next: Option<Bytes>,
    /// Operations without a route in the piece of time, whatever the page.
    pub(super) unattributed: [u64; SERIES],
}

/// Keys and time of a row; ascending by time.
type Spot = (u64, u64, Bytes, Option<Bytes>);

/// A row that is being added up.
struct Entry {
    kind: Kind,
    route: Option<u64>,
    counts: [u64; SERIES],
    partial: bool,
    conflict: bool,
}

/// Asks for a page.
///
/// # Errors
/// No node answers, one refuses, or the routes do not come to rest.
pub(super) async fn page(
    questions: &mut Questions<'_>,
    scope: &Scope,
    place: &Place,
) -> Result<Page, CliError> {
    for _ in 0..ATTEMPTS {
        let mut matrices = Vec::with_capacity(SERIES);
        for series in ORDER {
            matrices.push(questions.matrix(&request(scope, place, series)).await?);
        }
        if !matrices.iter().all(|matrix| matrix.by_route) {
            return Err(ExportError::OlderNode.into());
        }
        let axis = |matrix: &proto::Matrix| {
            let next = more(matrix).map(|row| row.start.clone());
            (matrix.axis_id.clone(), matrix.columns.clone(), next)
        };
        if matrices.iter().all(|matrix| axis(matrix) == axis(&matrices[0])) {
            return Ok(Rows::new(scope, place, &matrices).page()?);
        }
    }
    Err(ExportError::RoutesChange(ATTEMPTS).into())
}

fn request(scope: &Scope, place: &Place, series: proto::Series) -> proto::GetMatrixRequest {
    proto::GetMatrixRequest {
        series: series.into(),
        from_ms: Some(place.from_ms),
        to_ms: Some(place.to_ms),
        start: place.start.clone(),
        end: scope.end.clone(),
        max_rows: scope.routes,
        max_columns: MAX_COLUMNS,
        axis: scope.axis.into(),
        by_route: true,
        sources: !scope.dedup,
        ..Default::default()
    }
}

/// The last row, if it is all the routes after the page.
fn more(matrix: &proto::Matrix) -> Option<&proto::Row> {
    matrix.rows.last().filter(|row| row.route_count > 1 && matrix.rows.len() > 1)
}

/// The rows of a page as they are added up.
struct Rows<'a> {
    scope: &'a Scope,
    place: &'a Place,
    matrices: &'a [proto::Matrix],
    /// First key of the next page.
    next: Option<Bytes>,
    entries: BTreeMap<(Spot, Counter), Entry>,
}

impl<'a> Rows<'a> {
    fn new(scope: &'a Scope, place: &'a Place, matrices: &'a [proto::Matrix]) -> Self {
        let next = matrices.first().and_then(more).map(|row| row.start.clone());
        Rows { scope, place, matrices, next, entries: BTreeMap::new() }
    }

    fn page(mut self) -> Result<Page, ExportError> {
        let mut unattributed = [0; SERIES];
        for (series, matrix) in self.matrices.iter().enumerate() {
            unattributed[series] = matrix.unattributed;
            match self.scope.dedup {
                true => self.merged(series, matrix)?,
                false => self.by_source(series, matrix)?,
            }
        }
        let gaps = self.gaps();
        let record = |(((from_ms, to_ms, start, end), by), entry): ((Spot, Counter), Entry)| {
            let keys = Some((start, end));
            let Entry { kind, route, counts, partial, conflict } = entry;
            let counts = Some(counts);
            Record { kind, by, route, keys, from_ms, to_ms, counts, partial, conflict, hot: None }
        };
        let records = self.entries.into_iter().map(record).chain(gaps).collect();
        Ok(Page { records, next: self.next, unattributed })
    }

    /// The cells and blocks of the merged matrix.
    fn merged(&mut self, series: usize, matrix: &proto::Matrix) -> Result<(), ExportError> {
        for (at, row) in matrix.rows.iter().enumerate() {
            let by = Counter { group: row.group_id, ..Counter::default() };
            for (column, &value) in row.values.iter().enumerate().filter(|(_, value)| **value > 0) {
                let conflict = row.conflict.contains(&(column as u32));
                self.cell(matrix, series, (at, column), by, value, conflict)?;
            }
        }
        for block in &matrix.blocks {
            let span = proto::SourceSpan {
                first_row: block.first_row,
                row_count: block.row_count,
                column_count: block.column_count,
                start: block.start.clone(),
                end: block.end.clone(),
                straddling: block.straddling,
                start_ms: block.start_ms,
                end_ms: block.end_ms,
            };
            let by = Counter { group: group_of(matrix, &span), ..Counter::default() };
            self.block(matrix, series, (block.column, &span), by, block.value, block.conflict)?;
        }
        Ok(())
    }

    /// What each node counted, by group and term.
    fn by_source(&mut self, series: usize, matrix: &proto::Matrix) -> Result<(), ExportError> {
        for source in &matrix.sources {
            let by = Counter {
                node: Some(source.node_id),
                group: source.group_id,
                term: source.term,
                role: Some(role_name(source.role())),
            };
            let conflict = matrix.conflicts.iter().any(|conflict| {
                Some(conflict.group_id) == source.group_id && Some(conflict.term) == source.term
            });
            match (source.row, source.span) {
                (Some(row), _) => {
                    let at = (row as usize, source.column as usize);
                    let row = matrix.rows.get(at.0).ok_or(ROW)?;
                    let by = Counter { group: by.group.or(row.group_id), ..by };
                    self.cell(matrix, series, at, by, source.value, conflict)?;
                }
                (None, Some(span)) => {
                    let span = matrix.source_spans.get(span as usize).ok_or(SPAN)?;
                    let group = by.group.or_else(|| group_of(matrix, span));
                    let by = Counter { group, ..by };
                    self.block(matrix, series, (source.column, span), by, source.value, conflict)?;
                }
                (None, None) => return Err(SPAN),
            }
        }
        Ok(())
    }

    fn cell(
        &mut self,
        matrix: &proto::Matrix,
        series: usize,
        (row, column): (usize, usize),
        by: Counter,
        value: u64,
        conflict: bool,
    ) -> Result<(), ExportError> {
        if self.next.is_some() && row + 1 == matrix.rows.len() {
            return Ok(());
        }
        let row = matrix.rows.get(row).ok_or(ROW)?;
        let time = matrix.columns.get(column).ok_or(COLUMN)?;
        let spot = (time.start_ms, time.end_ms, row.start.clone(), row.end.clone());
        let partial = row.partial.contains(&(column as u32));
        let route = row.route_ids.first().copied();
        self.add((spot, by), Kind::Cell, route, (series, value), partial, conflict);
        Ok(())
    }

    fn block(
        &mut self,
        matrix: &proto::Matrix,
        series: usize,
        (column, span): (u32, &proto::SourceSpan),
        by: Counter,
        value: u64,
        conflict: bool,
    ) -> Result<(), ExportError> {
        let last = (column + span.column_count.max(1) - 1) as usize;
        let columns = matrix.columns.get(column as usize).zip(matrix.columns.get(last));
        let (first, last) = columns.ok_or(COLUMN)?;
        let from_ms = span.start_ms.unwrap_or(first.start_ms);
        let to_ms = span.end_ms.unwrap_or(last.end_ms);
        let (scope, place) = (self.scope, self.place);
        let earlier_time = from_ms < place.from_ms && place.from_ms > scope.from_ms;
        let earlier_keys = span.start < place.start && place.start > scope.start;
        let later = self.next.as_ref().is_some_and(|next| span.start >= *next);
        if earlier_time || earlier_keys || later {
            return Ok(());
        }
        let keys_outside = span.start < scope.start
            || scope.end.as_ref().is_some_and(|end| span.end.as_ref().is_none_or(|at| at > end));
        let straddling = keys_outside || from_ms < scope.from_ms || to_ms > scope.to_ms;
        let kind = if straddling { Kind::Straddling } else { Kind::Block };
        let times = column..column + span.column_count.max(1);
        let row = matrix.rows.get(span.first_row as usize).ok_or(ROW)?;
        let partial = row.partial.iter().any(|column| times.contains(column));
        let route = Some(row).filter(|row| span.row_count == 1 && row.route_count == 1);
        let route = route.filter(|_| !keys_outside).and_then(|row| row.route_ids.first().copied());
        let spot = (from_ms, to_ms, span.start.clone(), span.end.clone());
        self.add((spot, by), kind, route, (series, value), partial, conflict);
        Ok(())
    }

    fn add(
        &mut self,
        at: (Spot, Counter),
        kind: Kind,
        route: Option<u64>,
        (series, value): (usize, u64),
        partial: bool,
        conflict: bool,
    ) {
        let first = Entry { kind, route, counts: [0; SERIES], partial: false, conflict: false };
        let entry = self.entries.entry(at).or_insert(first);
        entry.counts[series] = entry.counts[series].saturating_add(value);
        entry.partial |= partial;
        entry.conflict |= conflict;
    }

    /// The times of the page in which a series may lack counts.
    fn gaps(&self) -> Vec<Record> {
        let mut gaps: Vec<Record> = Vec::new();
        let Some(columns) = self.matrices.first().map(|matrix| &matrix.columns) else {
            return gaps;
        };
        let partial = |column: usize| {
            let rows = self.matrices.iter().filter_map(|matrix| matrix.rows.first());
            rows.into_iter().any(|row: &proto::Row| row.partial.contains(&(column as u32)))
        };
        let keys = (self.place.start.clone(), self.next.clone().or(self.scope.end.clone()));
        for (_, time) in columns.iter().enumerate().filter(|(at, _)| partial(*at)) {
            match gaps.last_mut() {
                Some(last) if last.to_ms == time.start_ms => last.to_ms = time.end_ms,
                _ => {
                    let gap = Record::of_time(Kind::Gap, time.start_ms, time.end_ms);
                    gaps.push(Record { keys: Some(keys.clone()), partial: true, ..gap });
                }
            }
        }
        gaps
    }
}

const ROW: ExportError = ExportError::Damaged("a row that it does not have");
const COLUMN: ExportError = ExportError::Damaged("a column that it does not have");
const SPAN: ExportError = ExportError::Damaged("a block that it does not have");

/// The group of all rows of a block.
fn group_of(matrix: &proto::Matrix, span: &proto::SourceSpan) -> Option<u64> {
    let first = span.first_row as usize;
    let rows = matrix.rows.get(first..first + span.row_count as usize)?;
    let group = rows.first()?.group_id?;
    rows.iter().all(|row| row.group_id == Some(group)).then_some(group)
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
