//! Load that stays where it is: single keys, and ranges that have long been hot.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::draft::Draft;
use super::finding::Kind;
use super::frame::{Frame, median, runs};
use super::load::{MAX_NAMED_KEYS, NamedKey, is_one_key, within};
use super::motion::{BEYOND_GROUP, HOT_SHARE, NARROW};

/// Share of the operations from which on one key is told.
const KEY_SHARE: f64 = 0.05;
/// The fact that all hot ranges have.
const SHARE: &str = "share of the operations";
/// Times the middle row from which on rows are hot.
const DENSE: f64 = 5.0;
/// Times the middle density of the keys from which on narrow rows are hot.
const DENSE_KEYS: f64 = 6.0;
/// Times the middle route from which on a route is hot.
const DENSE_ROUTE: f64 = 6.0;

/// Single keys; their load is taken out of what is left to explain.
pub(super) fn keys(frame: &mut Frame<'_>, named: &[NamedKey]) -> Vec<Draft> {
    let mut hottest: Vec<&NamedKey> = named.iter().collect();
    hottest.sort_by(|a, b| (b.lower, &a.key).cmp(&(a.lower, &b.key)));
    let mut of_key: BTreeMap<&Bytes, (Vec<f64>, f64, f64)> = BTreeMap::new();
    for key in hottest.into_iter().take(MAX_NAMED_KEYS) {
        let entry = of_key.entry(&key.key);
        let (series, lower, upper) =
            entry.or_insert_with(|| (vec![0.0; frame.columns.len()], 0.0, 0.0));
        // By column, or as one sum over the time of the load.
        let all_s: f64 = frame.load.columns.iter().map(seconds).sum();
        for (value, &at) in series.iter_mut().zip(&frame.columns) {
            *value += match key.values.len() == frame.load.columns.len() {
                true => key.values[at] as f64 / seconds(&frame.load.columns[at]),
                false => key.lower as f64 / all_s,
            };
        }
        *lower += key.lower as f64;
        *upper += key.upper as f64;
    }
    let middle = median(&frame.rates.iter().map(|row| frame.now(row)).collect::<Vec<f64>>());
    let mut drafts = Vec::new();
    for (key, (mut series, lower, upper)) in of_key {
        let Some(row) = frame.load.rows.iter().position(|row| row.range.contains(key)) else {
            continue;
        };
        let of_row = &frame.rates[row];
        series.iter_mut().zip(of_row).for_each(|(value, most)| *value = value.min(*most));
        let share = frame.now(&series) / frame.total();
        if share < KEY_SHARE || !frame.certain_now(frame.now(&series), 0.0) {
            continue;
        }
        // What the key may have had at most explains nothing else.
        let alone = is_one_key(&frame.load.rows[row].range);
        let slack = if lower > 0.0 { (upper / lower).max(1.0) } else { 1.0 };
        for (cell, value) in frame.left[row].iter_mut().zip(&series) {
            let rest = (*cell - value * slack).max(0.0);
            // What is small beside the key may be its noise.
            *cell = match () {
                () if alone => 0.0,
                () if rest < value * 0.5 => rest.min(middle),
                () => rest,
            };
        }
        let since = frame.onset(&series);
        let mut draft = Draft::new(Kind::OneKey, row..row + 1, series, since)
            .fact("share of the operations", share, Some(KEY_SHARE))
            .fact("operations at least", lower, None)
            .fact("operations at most", upper, None)
            .margin(share, KEY_SHARE);
        draft.key = Some(key.clone());
        drafts.push(draft);
    }
    drafts.extend(single(frame));
    drafts
}

/// Rows that hold one key, whether it is named or not.
fn single(frame: &mut Frame<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for row in 0..frame.rows() {
        let range = &frame.load.rows[row].range;
        let share = frame.now(&frame.left[row]) / frame.total();
        let certain = frame.certain_now(frame.now(&frame.left[row]), 0.0);
        if !is_one_key(range) || share < KEY_SHARE || !certain {
            continue;
        }
        let key = range.start.clone();
        let series = std::mem::replace(&mut frame.left[row], vec![0.0; frame.columns.len()]);
        let since = frame.onset(&series);
        let mut draft = Draft::new(Kind::OneKey, row..row + 1, series, since)
            .fact("share of the operations", share, Some(KEY_SHARE))
            .margin(share, KEY_SHARE);
        draft.key = Some(key);
        drafts.push(draft);
    }
    drafts
}

fn seconds(column: &crate::query::ColumnSpan) -> f64 {
    (column.end_ms.saturating_sub(column.start_ms) as f64 / 1e3).max(1e-3)
}

/// Ranges that are hot beside the others.
pub(super) fn ranges(frame: &mut Frame<'_>) -> Vec<Draft> {
    let now: Vec<f64> = frame.left.iter().map(|row| frame.now(row)).collect();
    let busy: Vec<f64> = now.iter().copied().filter(|&rate| rate > 0.0).collect();
    let middle = median(&busy);
    let mut drafts = Vec::new();
    if busy.len() >= 5 {
        for run in runs(now.len(), |row| now[row] >= DENSE * middle) {
            dense(frame, &now, run, middle, &mut drafts);
        }
    }
    narrow(frame, &mut drafts);
    routes(frame, &mut drafts);
    drafts
}

/// Ranges that have much load for their keys. Rows follow the load, so that those of a hot range
/// may be as hot as the others, and many.
fn narrow(frame: &mut Frame<'_>, drafts: &mut Vec<Draft>) {
    let now: Vec<f64> = frame.left.iter().map(|row| frame.now(row)).collect();
    let mut known: Vec<(f64, f64)> = (0..now.len())
        .filter(|&row| frame.widths[row] > 0.0 && now[row] > 0.0)
        .map(|row| (now[row] / frame.widths[row], frame.widths[row]))
        .collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half: f64 = known.iter().map(|(_, width)| width).sum::<f64>() / 2.0;
    let mut below = 0.0;
    let middle = known.iter().find(|(_, width)| {
        below += width;
        below >= half
    });
    let Some(&(middle, _)) = middle.filter(|_| known.len() >= 5) else { return };
    let hot =
        |row: usize| frame.widths[row] > 0.0 && now[row] >= DENSE_KEYS * middle * frame.widths[row];
    for run in runs(now.len(), hot) {
        let (rate, width): (f64, f64) = (now[run.clone()].iter().sum(), frame.width(&run));
        let share = rate / frame.total();
        let beyond = frame.beyond_group(&run, &now, BEYOND_GROUP)
            && frame.certain_now(rate - middle * width, middle * width);
        if share < HOT_SHARE || width > NARROW || !beyond {
            continue;
        }
        let series = frame.sum(&frame.left, run.clone());
        let since = frame.onset(&series);
        let mut draft = Draft::new(Kind::HotRange, run.clone(), series, since)
            .fact("share of the operations", share, Some(HOT_SHARE))
            .fact("part of the keys, as their names suggest", width, Some(NARROW))
            .margin(share, HOT_SHARE);
        draft.coarse = run.len() == 1;
        let usual = middle * width / run.len() as f64;
        settle(frame, run, usual);
        drafts.push(draft);
    }
}

fn dense(
    frame: &mut Frame<'_>,
    now: &[f64],
    run: Range<usize>,
    middle: f64,
    drafts: &mut Vec<Draft>,
) {
    let rate: f64 = now[run.clone()].iter().sum();
    let share = rate / frame.total();
    let usual = middle * run.len() as f64;
    let certain = frame.certain_now(rate - usual, usual);
    if share < HOT_SHARE || !certain || !frame.beyond_group(&run, now, BEYOND_GROUP) {
        return;
    }
    let series = frame.sum(&frame.left, run.clone());
    let times = rate / run.len() as f64 / middle;
    let since = frame.onset(&series);
    let mut draft = Draft::new(Kind::HotRange, run.clone(), series, since)
        .fact("share of the operations", share, Some(HOT_SHARE))
        .fact("times the middle range", times, Some(DENSE))
        .margin(share, HOT_SHARE);
    draft.coarse = run.len() == 1;
    settle(frame, run, middle);
    drafts.push(draft);
}

/// Routes that are hot beside the others, where the rows of a hot one are narrower.
fn routes(frame: &mut Frame<'_>, drafts: &mut Vec<Draft>) {
    let of_routes: Vec<(Range<usize>, f64)> = frame
        .topology
        .routes
        .iter()
        .filter_map(|route| {
            let inside = |row: &usize| within(&frame.load.rows[*row].range, &route.range);
            let start = (0..frame.rows()).find(inside)?;
            let end = (start..frame.rows()).take_while(inside).last()? + 1;
            let series = frame.sum(&frame.left, start..end);
            Some((start..end, frame.now(&series)))
        })
        .collect();
    let middle = median(&of_routes.iter().map(|(_, rate)| *rate).collect::<Vec<f64>>());
    if of_routes.len() < 5 || middle <= 0.0 {
        return;
    }
    let now: Vec<f64> = frame.left.iter().map(|row| frame.now(row)).collect();
    for (rows, rate) in of_routes {
        let share = rate / frame.total();
        let beyond = frame.beyond_group(&rows, &now, BEYOND_GROUP)
            && frame.certain_now(rate - middle, middle);
        if share < HOT_SHARE || rate < DENSE_ROUTE * middle || rows.len() < 2 || !beyond {
            continue;
        }
        let series = frame.sum(&frame.left, rows.clone());
        let since = frame.onset(&series);
        let draft = Draft::new(Kind::HotRange, rows.clone(), series, since)
            .fact("share of the operations", share, Some(HOT_SHARE))
            .fact("times the middle route", rate / middle, Some(DENSE_ROUTE))
            .margin(share, HOT_SHARE);
        let length = rows.len() as f64;
        settle(frame, rows, middle / length);
        drafts.push(draft);
    }
}

/// Parts of one hot range that were found by themselves, by chance, are one.
pub(super) fn unite(frame: &Frame<'_>, drafts: Vec<Draft>) -> Vec<Draft> {
    let (mut hot, mut united): (Vec<Draft>, Vec<Draft>) =
        drafts.into_iter().partition(|draft| draft.kind == Kind::HotRange);
    hot.sort_by_key(|draft| draft.rows.start);
    let mut last: Option<Draft> = None;
    for draft in hot {
        last = match last.take() {
            Some(before) if near(frame, &before.rows, &draft.rows) => {
                let rows = before.rows.start..draft.rows.end.max(before.rows.end);
                let more = frame.now(&draft.series) > frame.now(&before.series);
                let mut whole = if more { draft } else { before };
                let series = frame.sum(&frame.rates, rows.clone());
                let share = frame.now(&series) / frame.total();
                for fact in whole.facts.iter_mut().filter(|fact| fact.name == SHARE) {
                    fact.value = share;
                }
                whole.since = frame.onset(&series);
                (whole.coarse, whole.rows, whole.series) = (rows.len() == 1, rows, series);
                Some(whole.margin(share, HOT_SHARE))
            }
            before => {
                united.extend(before);
                Some(draft)
            }
        };
    }
    united.extend(last);
    united
}

/// Whether little lies between two ranges: a row at most, or half as many keys as the smaller has.
fn near(frame: &Frame<'_>, before: &Range<usize>, after: &Range<usize>) -> bool {
    let smaller = frame.width(before).min(frame.width(after));
    let apart = after.start > before.end + 1;
    !apart || frame.width(&(before.end..after.start)) <= smaller / 2.0
}

/// Leaves at most a usual load of some rows to explain.
fn settle(frame: &mut Frame<'_>, rows: Range<usize>, usual: f64) {
    for cell in frame.left[rows].iter_mut().flatten() {
        *cell = cell.min(usual);
    }
}
