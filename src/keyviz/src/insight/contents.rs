//! What the operations are like: bytes, conflicts, and how they differ from the same time before.

use super::draft::Draft;
use super::finding::Kind;
use super::frame::{Frame, mean, median, runs};
use super::load::{Load, within};

/// Bytes of an operation from which on values are large.
const LARGE_BYTES: f64 = 4_096.0;
/// Times the middle row's bytes of an operation from which on values are large.
const LARGE_RATIO: f64 = 6.0;
/// Share of the bytes from which on large values are told.
const LARGE_SHARE: f64 = 0.1;
/// Failed compare-and-swaps of the writes.
const CONFLICT_PART: f64 = 0.15;
/// Failed compare-and-swaps a second.
const CONFLICT_RATE: f64 = 0.5;
/// Times more or less than before.
const CHANGE_RATIO: f64 = 2.0;
/// Share of the operations that came or went.
const CHANGE_SHARE: f64 = 0.08;

/// Ranges with few operations of many bytes. What passes over the keys is left out: a scan carries
/// the bytes of many rows in one read.
pub(super) fn large_values(frame: &Frame<'_>, passing: &[std::ops::Range<usize>]) -> Vec<Draft> {
    let rows = frame.rows();
    let bytes = |row: usize| {
        let load = &frame.load.rows[row];
        let writes = frame.count([row], |_| &load.write_bytes);
        let reads = frame.count([row], |_| &load.read_bytes);
        writes.iter().zip(&reads).map(|(a, b)| a + b).collect::<Vec<f64>>()
    };
    let grid: Vec<Vec<f64>> = (0..rows).map(bytes).collect();
    let now: Vec<f64> = grid.iter().map(|row| frame.now(row)).collect();
    let total: f64 = now.iter().sum();
    let size = |row: usize| {
        let rate = frame.now(&frame.rates[row]);
        if rate > 0.0 { now[row] / rate } else { 0.0 }
    };
    let sizes: Vec<f64> = (0..rows).map(size).collect();
    let busy: Vec<f64> = sizes.iter().copied().filter(|&size| size > 0.0).collect();
    let level = (median(&busy) * LARGE_RATIO).max(LARGE_BYTES);
    let alone = busy.len() < 3;
    let passes = |row: usize| passing.iter().any(|range| range.contains(&row));
    let large =
        |row: usize| sizes[row] >= if alone { LARGE_BYTES * 4.0 } else { level } && !passes(row);
    let mut drafts = Vec::new();
    for run in runs(rows, large) {
        let series = frame.sum(&grid, run.clone());
        let share = frame.now(&series) / total.max(1e-9);
        if share < LARGE_SHARE {
            continue;
        }
        let operations = frame.now(&frame.sum(&frame.rates, run.clone()));
        let mut draft = Draft::new(Kind::LargeValues, run, series, 0)
            .fact("share of the bytes", share, Some(LARGE_SHARE))
            .margin(share, LARGE_SHARE);
        let size = frame.now(&draft.series) / operations.max(1e-9);
        draft = draft.fact("bytes an operation", size, Some(level));
        draft.since = frame.onset(&draft.series);
        draft.operations = false;
        drafts.push(draft);
    }
    drafts
}

/// Ranges whose compare-and-swaps fail.
pub(super) fn conflicts(frame: &Frame<'_>) -> Vec<Draft> {
    let conflicts =
        |rows: std::ops::Range<usize>| frame.count(rows, |row| &frame.load.rows[row].conflicts);
    let writes =
        |rows: std::ops::Range<usize>| frame.count(rows, |row| &frame.load.rows[row].writes);
    let part = |rows: std::ops::Range<usize>| {
        let (failed, written) = (frame.now(&conflicts(rows.clone())), frame.now(&writes(rows)));
        failed / written.max(failed).max(1e-9)
    };
    let many = |row: usize| {
        part(row..row + 1) >= CONFLICT_PART && frame.now(&conflicts(row..row + 1)) >= CONFLICT_RATE
    };
    let draft = |run: std::ops::Range<usize>| {
        let (failed, part) = (conflicts(run.clone()), part(run.clone()));
        let since = frame.onset(&failed);
        let series = frame.sum(&frame.rates, run.clone());
        let rate = frame.now(&failed);
        Draft::new(Kind::Conflicts, run, series, since)
            .fact("part of the writes that failed", part, Some(CONFLICT_PART))
            .fact("conflicts a second", rate, Some(CONFLICT_RATE))
            .margin(part, CONFLICT_PART)
    };
    runs(frame.rows(), many).into_iter().map(draft).collect()
}

/// Ranges that have much more or much less than at the same time before, and nothing else says why.
pub(super) fn changes(frame: &mut Frame<'_>, before: Option<&Load>) -> Vec<Draft> {
    let Some(before) = before.filter(|before| before.check().is_ok()) else { return Vec::new() };
    let then: Vec<Option<f64>> = then(frame, before);
    let now: Vec<f64> = frame.left.iter().map(|row| frame.now(row)).collect();
    let total_then: f64 = then.iter().flatten().sum();
    let level = 0.1 * total_then / frame.rows() as f64;
    if total_then <= 0.0 {
        return Vec::new();
    }
    let differs = |row: usize, up: bool| {
        let Some(then) = then[row] else { return false };
        match up {
            true => now[row] >= CHANGE_RATIO * then + level,
            false => then >= CHANGE_RATIO * now[row] + level,
        }
    };
    let mut drafts = Vec::new();
    for up in [true, false] {
        for run in runs(now.len(), |row| differs(row, up)) {
            let was: f64 = then[run.clone()].iter().flatten().sum();
            let is: f64 = now[run.clone()].iter().sum();
            let share = (is - was).abs() / total_then.max(frame.total());
            let ratio = if up { is / was.max(1e-9) } else { was / is.max(1e-9) };
            if share < CHANGE_SHARE || ratio < CHANGE_RATIO {
                continue;
            }
            let series = frame.sum(&frame.left, run.clone());
            let middle = (was + is) / 2.0;
            let on_side = |&at: &usize| (series[at] >= middle) == up;
            let since = since(series.len(), on_side);
            let mut draft = Draft::new(Kind::SuddenChange, run.clone(), series, since)
                .fact("operations a second at that time before", was, None)
                .fact("operations a second now", is, None)
                .fact("share of the operations that came or went", share, Some(CHANGE_SHARE))
                .margin(share, CHANGE_SHARE);
            draft.up = up;
            drafts.push(draft);
            for row in run {
                let usual = then[row].unwrap_or(0.0);
                frame.left[row].iter_mut().for_each(|cell| *cell = usual);
            }
        }
    }
    drafts
}

/// The first column of the last stretch for which something holds, but for single columns.
fn since(columns: usize, holds: impl Fn(&usize) -> bool) -> usize {
    let mut first = columns.saturating_sub(1);
    for at in (0..columns).rev() {
        if holds(&at) {
            first = at;
        } else if first > at + 1 {
            break;
        }
    }
    first
}

/// The rate of each row at the time before, where the rows of that time add up to it.
fn then(frame: &Frame<'_>, before: &Load) -> Vec<Option<f64>> {
    let complete = |at: &usize| !before.partial.contains(*at as u32);
    let columns: Vec<usize> = (0..before.columns.len()).filter(complete).collect();
    if columns.is_empty() {
        return vec![None; frame.rows()];
    }
    let rate = |row: &super::load::LoadRow| {
        let at = |&at: &usize| {
            let span = &before.columns[at];
            let value = |list: &[u64]| list.get(at).copied().unwrap_or(0) as f64;
            (value(&row.reads) + value(&row.writes)) * 1e3 / (span.end_ms - span.start_ms) as f64
        };
        mean(&columns.iter().map(at).collect::<Vec<f64>>())
    };
    let of_row = |row: &super::load::LoadRow| {
        let from = before.rows.partition_point(|then| then.range.start < row.range.start);
        let inside: Vec<_> =
            before.rows[from..].iter().take_while(|then| within(&then.range, &row.range)).collect();
        let first = inside.first()?.range.start == row.range.start;
        let last = inside.last()?.range.end == row.range.end;
        (first && last).then(|| inside.into_iter().map(rate).sum())
    };
    frame.load.rows.iter().map(of_row).collect()
}
