//! Law 11: what any view of a history says, beside the list of what happened.

use std::collections::BTreeSet;

use bytes::Bytes;
use keyviz_core::matrix::Block;
use keyviz_core::{query::*, *};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::actions::{NODES, key};
use super::world::{Event, World, within};

/// A range, a window, budgets, and boundaries of the asker's own or none.
#[derive(Clone, Debug)]
pub(crate) struct View {
    keys: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// Steps from the latest column back, and their number.
    window: Option<(u64, u64)>,
    rows: usize,
    columns: usize,
    boundaries: Vec<Vec<u8>>,
}

pub(crate) fn view() -> impl Strategy<Value = View> {
    let keys = prop::option::of((key(), prop::option::of(key())));
    let window = prop::option::of((0u64..40, 1u64..40));
    let boundaries = prop_oneof![Just(vec![]), prop::collection::vec(key(), 1..12)];
    (keys, window, 1usize..12, 1usize..20, boundaries).prop_map(
        |(keys, window, rows, columns, boundaries)| View {
            keys,
            window,
            rows,
            columns,
            boundaries,
        },
    )
}

impl View {
    pub(crate) fn query(&self, world: &World, series: Series, role: Option<Role>) -> Query {
        let mut query = Query { role, ..world.everything(series) };
        if let Some((start, end)) = &self.keys {
            let end = end.clone().map(Bytes::from).filter(|end| end[..] > start[..]);
            query.range = KeyRange { start: start.clone().into(), end };
        }
        if let Some((back, steps)) = self.window {
            let step_ms = world.step_ms();
            let to_ms = query.window.to_ms.saturating_sub(back * step_ms).max(step_ms);
            query.window = Window { from_ms: to_ms.saturating_sub(steps * step_ms), to_ms };
        }
        query
    }

    pub(crate) fn matrix(&self, world: &World, query: &Query) -> Matrix {
        let all: BTreeSet<Bytes> = self.boundaries.iter().cloned().map(Bytes::from).collect();
        let inside = |key: &Bytes| query.range.contains(key);
        let boundaries: Vec<Bytes> = all.into_iter().filter(inside).collect();
        let asked: Vec<usize> = (0..NODES).collect();
        world.on_axis(query, self.rows, self.columns, &asked, &boundaries)
    }
}

/// Checks a matrix of all nodes: each cell has what was counted for exactly its keys and its time,
/// or a block says so; and nothing is lost.
pub(crate) fn check(world: &World, query: &Query, matrix: &Matrix) -> Result<(), TestCaseError> {
    let happened = |wanted: &dyn Fn(&Event) -> bool| {
        world.sum(query.series, |event| {
            query.role.is_none_or(|role| role == event.role) && wanted(event)
        })
    };
    for (number, row) in (0u32..).zip(&matrix.rows) {
        for (index, span) in (0u32..).zip(&matrix.columns) {
            let exact = happened(&|event| within(event, span) && row.range.contains(&event.key));
            let value = row.values[index as usize];
            prop_assert!(value <= exact, "{value} of {exact} in {:?} {:?}", row.range, span);
            if !super::covered(matrix, number, index) {
                prop_assert_eq!(value, exact, "{:?} {:?}", row.range, span);
            }
        }
    }
    for block in &matrix.blocks {
        let (rows, columns) = extent(matrix, block);
        let in_time = |event: &Event| match block.reach {
            Some(reach) => (reach.from_ms..reach.to_ms).contains(&event.column_ms),
            None => columns.contains(&event.column_ms),
        };
        let most = happened(&|event| in_time(event) && block.range.contains(&event.key));
        prop_assert!(block.value <= most, "{block:?} has more than the {most} of its keys");
        prop_assert!(block.value > 0 && block.row_count > 0 && block.column_count > 0);
        // The smallest run of rows that covers its keys.
        let shares = |row: &Row| {
            row.range.end.as_ref().is_none_or(|end| *end > block.range.start)
                && block.range.end.as_ref().is_none_or(|end| *end > row.range.start)
        };
        let run: Vec<usize> =
            (0..matrix.rows.len()).filter(|row| shares(&matrix.rows[*row])).collect();
        prop_assert_eq!(run, rows.collect::<Vec<_>>(), "{:?}", block);
    }
    let (inside, straddling) = matrix.in_blocks();
    let cells: u64 = matrix.rows.iter().flat_map(|row| &row.values).sum();
    prop_assert_eq!(matrix.total, cells + inside);
    prop_assert_eq!(matrix.straddling_total, straddling);
    let all = matrix
        .columns
        .iter()
        .map(|span| happened(&|event| within(event, span) && query.range.contains(&event.key)));
    let all: u64 = all.sum();
    let most = matrix.total + straddling;
    prop_assert!((matrix.total..=most).contains(&all), "{all} is not in {}..={most}", matrix.total);
    Ok(())
}

/// The rows and the time that a block covers.
fn extent(matrix: &Matrix, block: &Block) -> (std::ops::Range<usize>, std::ops::Range<u64>) {
    let rows = block.first_row as usize..(block.first_row + block.row_count) as usize;
    let columns = block.column as usize..(block.column + block.column_count) as usize;
    let spans = &matrix.columns[columns];
    (rows, spans[0].start_ms..spans[spans.len() - 1].end_ms)
}
