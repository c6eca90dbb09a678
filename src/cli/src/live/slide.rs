//! Streamed columns joined to the matrix that is shown. Pure; it never guesses: what does not fit
//! is `None`, and the whole is asked for.

use bytes::Bytes;

use keyviz_proto as proto;

/// The row of `shown` that holds all of `told`; `None` where it lies in more than one.
fn place(shown: &[proto::Row], told: &proto::Row) -> Option<usize> {
    let at = shown.partition_point(|row| row.start <= told.start).checked_sub(1)?;
    let over = match (&shown[at].end, &told.end) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(end), Some(told)) => told > end,
    };
    (!over).then_some(at)
}

fn marks(row: &mut proto::Row) -> [&mut Vec<u32>; 3] {
    [&mut row.apportioned, &mut row.partial, &mut row.conflict]
}

/// `shown` with the columns of `update`: what is told again is replaced, what is new comes in at
/// the right, what ended at `oldest_ms` or before goes out at the left. `None` where a count lies
/// across rows, a column is of another width, or something between would be missing.
///
/// Roles are of the whole that was asked for; they are left out until the next.
pub(super) fn slide(
    shown: &proto::Matrix,
    update: &proto::Matrix,
    oldest_ms: u64,
) -> Option<proto::Matrix> {
    let width = |column: &proto::Column| column.end_ms.saturating_sub(column.start_ms);
    let (first, last) = (shown.columns.first()?, shown.columns.last()?);
    let told = update.columns.first()?;
    let even = shown.columns.iter().chain(&update.columns).all(|each| width(each) == width(first));
    let behind = shown.columns.iter().any(|each| each.open && each.start_ms < told.start_ms);
    if !even
        || behind
        || told.start_ms > last.end_ms
        || told.start_ms < first.start_ms
        || shown.catalog_version != update.catalog_version
    {
        return None;
    }
    let kept = shown.columns.partition_point(|column| column.start_ms < told.start_ms);
    let all: Vec<_> = shown.columns[..kept].iter().chain(&update.columns).copied().collect();
    let gone = all.partition_point(|column| column.end_ms <= oldest_ms).min(kept);
    let columns = all[gone..].to_vec();

    let mut rows: Vec<proto::Row> = shown.rows.iter().map(|row| cut(row, gone, kept)).collect();
    for row in &mut rows {
        row.values.resize(columns.len(), 0);
    }
    for told in &update.rows {
        let Some(at) = place(&shown.rows, told) else {
            let counted = told.values.iter().any(|value| *value > 0);
            if counted || marks(&mut told.clone()).iter().any(|marks| !marks.is_empty()) {
                return None;
            }
            continue;
        };
        let row = &mut rows[at];
        for (value, more) in row.values[kept - gone..].iter_mut().zip(&told.values) {
            *value = value.saturating_add(*more);
        }
        let mut told = told.clone();
        for (into, from) in marks(row).into_iter().zip(marks(&mut told)) {
            for at in from.iter().map(|at| at + (kept - gone) as u32) {
                if !into.contains(&at) {
                    into.push(at);
                }
            }
        }
    }
    let total = rows.iter().flat_map(|row| &row.values).fold(0u64, |sum, v| sum.saturating_add(*v));
    let older = shown
        .events
        .iter()
        .filter(|event| event.time_ms < told.start_ms && event.time_ms >= columns[0].start_ms);
    Some(proto::Matrix {
        events: older.chain(&update.events).cloned().collect(),
        rows,
        columns,
        total,
        nodes: update.nodes.clone(),
        responded: update.responded,
        expected: update.expected,
        saturated: shown.saturated || update.saturated,
        ..shown.clone()
    })
}

/// A row with its columns from `gone` up to `kept`.
fn cut(row: &proto::Row, gone: usize, kept: usize) -> proto::Row {
    let mut cut = proto::Row {
        values: row.values.get(gone..kept).unwrap_or_default().to_vec(),
        roles: None,
        ..row.clone()
    };
    for marks in marks(&mut cut) {
        marks.retain(|at| (gone..kept).contains(&(*at as usize)));
        marks.iter_mut().for_each(|at| *at -= gone as u32);
    }
    cut
}

/// The start of the `by`th route before `start`, of those that start at `bounds`.
pub(super) fn wider_start(start: &Bytes, by: usize, bounds: &[Bytes]) -> Bytes {
    let before = bounds.partition_point(|bound| bound < start);
    bounds.get(before.saturating_sub(by)).filter(|_| before > 0).cloned().unwrap_or_default()
}

/// The end of the `by`th route after `end`; `None` is the end of the key space.
pub(super) fn wider_end(end: &Option<Bytes>, by: usize, bounds: &[Bytes]) -> Option<Bytes> {
    let after = bounds.partition_point(|bound| end.as_ref().is_some_and(|end| bound <= end));
    end.as_ref()?;
    bounds.get((after + by).checked_sub(1)?).cloned()
}
