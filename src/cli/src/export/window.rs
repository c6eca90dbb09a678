//! The window of an export and its pieces.

use super::asking::Questions;
use super::scope::{MAX_COLUMNS, Scope};
use crate::CliError;
use keyviz_proto as proto;

/// Cells of a page, which bounds its memory.
const PAGE_CELLS: u64 = 32_768;
/// Fewest and most routes of a page.
const PAGE_ROUTES: (u64, u64) = (64, crate::heat::MAX_ROWS);
/// Most columns of a piece.
const PIECE_COLUMNS: u64 = 512;
/// The lengths of the tiers of the history, the finest first, where the step divides them.
const TIERS_MS: [u64; 2] = [300_000, 3_600_000];

/// What there is of a window.
pub(super) struct Found {
    /// Whole columns that are closed; empty: there are none.
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    /// A node dropped columns of the window, which may be before the first one here.
    pub(super) dropped: bool,
    pub(super) step_ms: u64,
    /// Length of a piece of time.
    pub(super) piece_ms: u64,
}

impl Found {
    /// Routes of a page.
    pub(super) fn routes(&self) -> u32 {
        let columns = (self.piece_ms / self.step_ms).max(1);
        (PAGE_CELLS / columns).clamp(PAGE_ROUTES.0, PAGE_ROUTES.1) as u32
    }
}

/// Finds what closed columns there are from `scope.from_ms` to `scope.to_ms`.
///
/// # Errors
/// No node answers, or one refuses.
pub(super) async fn find(questions: &mut Questions<'_>, scope: &Scope) -> Result<Found, CliError> {
    let one = |from_ms, to_ms, max_columns| proto::GetMatrixRequest {
        series: proto::Series::Writes.into(),
        from_ms,
        to_ms,
        start: scope.start.clone(),
        end: scope.end.clone(),
        max_rows: 1,
        max_columns,
        ..Default::default()
    };
    let (from_ms, to_ms) = (scope.from_ms, scope.to_ms);
    // Any time has one column of one step.
    let step = questions.columns(&one(Some(0), Some(1), 1)).await?;
    let step_ms = step.first().map_or(1, |column| column.end_ms - column.start_ms).max(1);
    let recent = questions.columns(&one(None, None, MAX_COLUMNS)).await?;
    let closed_ms = recent.last().map_or(0, |last| match last.open {
        true => last.start_ms,
        false => last.end_ms,
    });
    let whole = questions.matrix(&one(Some(from_ms), Some(to_ms), 1)).await?;
    let oldest_ms = whole.columns.first().map_or(u64::MAX, |first| first.start_ms);
    let first_ms = from_ms.max(oldest_ms) / step_ms * step_ms;
    let last_ms = to_ms.div_ceil(step_ms).saturating_mul(step_ms).min(closed_ms);
    let partial = whole.rows.iter().any(|row| !row.partial.is_empty());
    let dropped = partial && whole.nodes.iter().any(|node| node.past_history);
    let piece_ms = piece_ms(step_ms);
    Ok(Found { from_ms: first_ms, to_ms: last_ms, dropped, step_ms, piece_ms })
}

/// The longest tier of which a piece has not too many columns, or one column.
fn piece_ms(step_ms: u64) -> u64 {
    let mut piece_ms = step_ms;
    let mut tier_ms = step_ms;
    for whole_ms in TIERS_MS {
        tier_ms *= u64::div_ceil(whole_ms, tier_ms);
        if tier_ms / step_ms <= PIECE_COLUMNS {
            piece_ms = tier_ms;
        }
    }
    piece_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_a_page_has_few_cells_and_a_piece_is_a_tier_where_it_can() {
        for (step_ms, columns, routes) in
            [(60_000, 60, 546), (1_000, 300, 109), (7_000, 43, 762), (3_600_000, 1, 1_024)]
        {
            let piece_ms = piece_ms(step_ms);
            let found = Found { from_ms: 0, to_ms: 1, dropped: false, step_ms, piece_ms };
            assert_eq!((piece_ms / step_ms, found.routes()), (columns, routes), "{step_ms}");
        }
    }
}
