//! Streamed columns joined to the matrix that is shown. Pure; it never guesses: an update that does
//! not fit is `None`, and the whole matrix is requested.

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

/// `shown` with the columns of `update`: re-sent columns replace the earlier ones, new ones are
/// appended at the right, and those that ended at `oldest_ms` or before are dropped at the left.
/// `None` where a count lies across rows, a column is of another width, or something between would
/// be missing.
///
/// Roles are those of the whole query; an update leaves them out.
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
    if !even || behind || told.start_ms > last.end_ms || told.start_ms < first.start_ms {
        return None;
    }
    let same_rows = shown.rows.len() == update.rows.len() && shown.axis_id == update.axis_id;
    let same_rows = same_rows && !shown.axis_id.is_empty();
    // Without rows of its own an update of other routes, or with blocks, cannot be placed.
    let other = shown.catalog_version != update.catalog_version || !update.blocks.is_empty();
    if !same_rows && other {
        return None;
    }
    let kept = shown.columns.partition_point(|column| column.start_ms < told.start_ms);
    let all: Vec<_> = shown.columns[..kept].iter().chain(&update.columns).copied().collect();
    let gone = all.partition_point(|column| column.end_ms <= oldest_ms).min(kept);
    let columns = all[gone..].to_vec();

    let blocks = blocks(shown, update, gone, kept)?;
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
    if same_rows {
        // Routes may have split or merged: the rows say which ones they have now.
        rows = rows.into_iter().zip(&update.rows).map(|(row, told)| renamed(row, told)).collect();
    }
    let in_blocks = |straddling: bool| {
        let of_kind = blocks.iter().filter(move |block| block.straddling == straddling);
        of_kind.map(|block| block.value).fold(0u64, u64::saturating_add)
    };
    let (inside, straddling_total) = (in_blocks(false), in_blocks(true));
    let total =
        rows.iter().flat_map(|row| &row.values).fold(inside, |sum, v| sum.saturating_add(*v));
    let older = shown
        .events
        .iter()
        .filter(|event| event.time_ms < told.start_ms && event.time_ms >= columns[0].start_ms);
    Some(proto::Matrix {
        events: older.chain(&update.events).cloned().collect(),
        catalog_version: update.catalog_version,
        axis_gain: update.axis_gain,
        rows,
        columns,
        blocks,
        total,
        straddling_total,
        nodes: update.nodes.clone(),
        responded: update.responded,
        expected: update.expected,
        saturated: shown.saturated || update.saturated,
        ..shown.clone()
    })
}

/// The blocks of both; `None` where one lies across the columns that go, stay or come.
fn blocks(
    shown: &proto::Matrix,
    update: &proto::Matrix,
    gone: usize,
    kept: usize,
) -> Option<Vec<proto::Block>> {
    let mut blocks = Vec::new();
    for block in &shown.blocks {
        let columns = block.column as usize..(block.column + block.column_count) as usize;
        if columns.end <= gone || columns.start >= kept {
            continue;
        }
        if columns.start < gone || columns.end > kept {
            return None;
        }
        blocks.push(proto::Block { column: (columns.start - gone) as u32, ..block.clone() });
    }
    let told = update
        .blocks
        .iter()
        .map(|block| proto::Block { column: block.column + (kept - gone) as u32, ..block.clone() });
    blocks.extend(told);
    Some(blocks)
}

/// The counts of a row with what an update says of its routes.
fn renamed(row: proto::Row, told: &proto::Row) -> proto::Row {
    proto::Row {
        values: row.values,
        apportioned: row.apportioned,
        partial: row.partial,
        conflict: row.conflict,
        roles: row.roles,
        ..told.clone()
    }
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
