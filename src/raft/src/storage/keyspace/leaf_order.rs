//! The order in which ascending rows are put, so that the database's leaves end up full.
//!
//! sled splits a leaf of 17 rows into 9 and 8. Rows that arrive in order never come back to the
//! left half, so each leaf stays at 9, and the database keeps some 300 bytes of memory for each of
//! them. Here nine of sixteen rows, evenly spread, go first, which makes leaves of nine; the seven
//! between them go second and fill those to sixteen, which is not yet too many.

/// Rows of a leaf that is not split yet.
const LEAF_ROWS: usize = 16;

/// Rows that a leaf keeps when it is split.
const LEFT_ROWS: usize = 9;

/// The same rows in the order in which they are best put. `rows` ascend.
pub(in crate::storage) fn leaf_order<I: Iterator + Clone>(
    rows: I,
) -> impl Iterator<Item = I::Item> {
    let is_early = |index: usize| index * LEFT_ROWS % LEAF_ROWS < LEFT_ROWS;
    let early = rows.clone().enumerate().filter(move |(index, _)| is_early(*index));
    let late = rows.enumerate().filter(move |(index, _)| !is_early(*index));
    early.chain(late).map(|(_, row)| row)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What sled 0.34 does to leaves, without the rows.
    fn leaves_of(batches: usize, rows: usize, order: impl Fn(Vec<usize>) -> Vec<usize>) -> usize {
        let mut leaves: Vec<Vec<usize>> = vec![Vec::new()];
        for batch in 0..batches {
            for row in order((batch * rows..(batch + 1) * rows).collect()) {
                let at = leaves.partition_point(|leaf| leaf.first().is_some_and(|low| *low <= row));
                let at = at.saturating_sub(1);
                let place = leaves[at].partition_point(|other| *other < row);
                leaves[at].insert(place, row);
                if leaves[at].len() > LEAF_ROWS {
                    let right = leaves[at].split_off(LEFT_ROWS);
                    leaves.insert(at + 1, right);
                }
            }
        }
        leaves.len()
    }

    #[test]
    fn every_row_goes_once_and_nine_of_any_sixteen_go_first() {
        for count in 0..100 {
            let order: Vec<usize> = leaf_order(0..count).collect();
            let late = order.iter().zip(order.iter().skip(1)).position(|(a, b)| b < a);
            let early = &order[..late.map_or(count, |last| last + 1)];
            for from in 0..count.saturating_sub(LEAF_ROWS - 1) {
                let some = from..from + LEAF_ROWS;
                assert_eq!(early.iter().filter(|row| some.contains(row)).count(), LEFT_ROWS);
            }
            let mut all = order;
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count), "{count} rows");
        }
    }

    #[test]
    fn leaves_of_rows_in_order_are_filled() {
        let in_order = |rows| rows;
        let filling = |rows: Vec<usize>| leaf_order(rows.into_iter()).collect();
        let rows_a_leaf = |rows, leaves| rows as f64 / leaves as f64;
        let before = rows_a_leaf(12_800, leaves_of(100, 128, in_order));
        let (small, large) = (leaves_of(200, 64, filling), leaves_of(100, 128, filling));
        assert!((8.9..9.1).contains(&before), "{before}");
        assert!(rows_a_leaf(12_800, large) > 14.0, "{large} leaves");
        assert!(rows_a_leaf(12_800, small) > 12.5, "{small} leaves");
        assert!(leaves_of(12_800, 1, filling) <= leaves_of(12_800, 1, in_order));
    }
}
