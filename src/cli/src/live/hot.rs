//! The hot keys of the cell under the cursor.

use super::view::View;
use crate::heat::hot::{bounds, shown};
use crate::heatmap::grid::Grid;
use crate::terminal::text;
use keyviz_json::series_name;
use keyviz_proto as proto;

/// Keys that are named.
const KEYS: u32 = 3;
/// Longest name.
const KEY_CELLS: usize = 32;

/// The question for the cell under the cursor. Keys are ranked by operations, so a series of bytes
/// asks for those of its operations.
pub(super) fn question(
    matrix: &proto::Matrix,
    view: &View,
    grid: &Grid,
) -> Option<proto::GetHotKeysRequest> {
    let (row, column) = view.cell(grid)?;
    let members = matrix.rows.chunks(grid.rows_joined).nth(row)?;
    let time = grid.columns.get(column)?;
    let series = match matrix.series() {
        proto::Series::Reads | proto::Series::ReadBytes => proto::Series::Reads,
        _ => proto::Series::Writes,
    };
    Some(proto::GetHotKeysRequest {
        series: series.into(),
        from_ms: Some(time.start_ms),
        to_ms: Some(time.end_ms),
        start: members.first()?.start.clone(),
        end: members.last()?.end.clone(),
        limit: KEYS,
        ..Default::default()
    })
}

/// The answer in words, for the line of the cell.
pub(super) fn words(hot_keys: &proto::HotKeys) -> String {
    let what = series_name(hot_keys.series());
    if hot_keys.keys.is_empty() {
        return format!("no key above {} {what}", text::thousands(hot_keys.threshold));
    }
    let name = |key: &proto::HotKey| {
        let shown = shown(&key.key);
        let name = text::shorten(&shown, KEY_CELLS);
        format!("{name} {} ({:.0}%)", bounds(key.lower, key.upper), key.share * 100.0)
    };
    let names: Vec<_> = hot_keys.keys.iter().map(name).collect();
    let partial = if hot_keys.partial { ", partial" } else { "" };
    format!("hot by {what}: {}{partial}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_keys_with_bounds_or_says_that_none_is_hot() {
        let key = |key: &'static [u8], lower, upper| proto::HotKey {
            key: key.into(),
            lower,
            upper,
            share: 0.5,
            ..Default::default()
        };
        let mut hot_keys = proto::HotKeys {
            keys: vec![key(b"user/1", 9, 9), key(b"\x1b", 3, 4)],
            threshold: 2,
            partial: true,
            ..Default::default()
        };
        let line = words(&hot_keys);
        assert_eq!(line, r"hot by writes: user/1 9 (50%), \x1b 3..4 (50%), partial");
        hot_keys.keys.clear();
        assert_eq!(words(&hot_keys), "no key above 2 writes");
    }
}
