//! Spots that stand out of their rows' usual load, followed from column to column.
//!
//! A row's usual load is a low quantile over time, so that neither a spot that passes nor one that
//! has come to stay counts as usual. Rows in which a column is far above it and that touch form a
//! spot; spots of consecutive columns that overlap, or lie near each other and have a similar size,
//! form a track.

use std::ops::Range;

use super::frame::{Frame, mean, quantile};

/// Times its usual load from which on a row stands out.
const STANDS_OUT: f64 = 1.9;
/// Share of a column from which on rows that stand out are a spot.
const SPOT_SHARE: f64 = 0.03;
/// What has more than this part of the key space is no spot.
const SPOT_WIDTH: f64 = 0.5;
/// Columns that say where a track is at last.
const LAST: usize = 8;
/// Sizes of two spots that may be the same one.
const SIMILAR: f64 = 3.5;
/// How well a line through a track's places must fit for it to be one movement.
const STRAIGHT: f64 = 0.93;

/// What stands out in one column.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub column: usize,
    pub rows: Range<usize>,
    /// Operations a second above what is usual.
    pub excess: f64,
}

impl Spot {
    fn center(&self) -> f64 {
        (self.rows.start + self.rows.end - 1) as f64 / 2.0
    }
}

/// A spot over time: one entry a column, ascending.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub spots: Vec<Spot>,
}

impl Track {
    pub fn first(&self) -> usize {
        self.spots[0].column
    }

    pub fn last(&self) -> usize {
        self.spots[self.spots.len() - 1].column
    }

    /// All rows that it touched.
    pub fn hull(&self) -> Range<usize> {
        let start = self.spots.iter().map(|spot| spot.rows.start).min().unwrap_or(0);
        let end = self.spots.iter().map(|spot| spot.rows.end).max().unwrap_or(0);
        start..end
    }

    /// Rows that it touched in a half of its columns or more.
    pub fn core(&self) -> Range<usize> {
        middle(&self.spots).unwrap_or_else(|| self.hull())
    }

    /// The same, of its last columns.
    pub fn last_core(&self) -> Range<usize> {
        let last = &self.spots[self.spots.len().saturating_sub(LAST)..];
        middle(last).unwrap_or_else(|| self.core())
    }

    pub fn excess(&self) -> f64 {
        mean(&self.spots.iter().map(|spot| spot.excess).collect::<Vec<f64>>())
    }

    pub fn width(&self) -> f64 {
        mean(&self.spots.iter().map(|spot| spot.rows.len() as f64).collect::<Vec<f64>>())
    }

    /// Rows from the first to the last place.
    pub fn moved(&self) -> f64 {
        self.spots[self.spots.len() - 1].center() - self.spots[0].center()
    }

    /// Rows that it moved in all, back and forth.
    fn travelled(&self) -> f64 {
        self.spots.windows(2).map(|pair| (pair[1].center() - pair[0].center()).abs()).sum()
    }

    /// It is not where it was; what only becomes narrower has not moved.
    pub fn moves(&self) -> bool {
        let starts: Vec<f64> = self.spots.iter().map(|spot| spot.rows.start as f64).collect();
        let ends: Vec<f64> = self.spots.iter().map(|spot| spot.rows.end as f64).collect();
        let apart = quantile(&starts, 0.9) >= quantile(&ends, 0.1);
        let hull = self.hull().len();
        apart && hull as f64 >= self.width() * 2.0 + 1.0 && hull >= 4
    }

    /// It moves in one direction and by and by: a straight line says where it is, and its distance
    /// is most of its way.
    pub fn steady(&self) -> bool {
        self.moves()
            && self.spots.len() >= 4
            && self.moved().abs() >= 0.75 * self.travelled()
            && self.straight() >= STRAIGHT
    }

    /// The square of the correlation of place and time.
    fn straight(&self) -> f64 {
        let at: Vec<f64> = self.spots.iter().map(|spot| spot.column as f64).collect();
        let place: Vec<f64> = self.spots.iter().map(Spot::center).collect();
        let (mean_at, mean_place) = (mean(&at), mean(&place));
        let sum = |a: &[f64], mean_a: f64, b: &[f64], mean_b: f64| -> f64 {
            a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
        };
        let both = sum(&at, mean_at, &place, mean_place);
        let alone = sum(&at, mean_at, &at, mean_at) * sum(&place, mean_place, &place, mean_place);
        if alone > 0.0 { both * both / alone } else { 0.0 }
    }
}

/// The usual load of each row.
pub(super) fn usual(frame: &Frame<'_>) -> Vec<f64> {
    frame.left.iter().map(|row| quantile(row, 0.2)).collect()
}

/// The rows from the middle first to the middle last one.
fn middle(spots: &[Spot]) -> Option<Range<usize>> {
    let starts: Vec<f64> = spots.iter().map(|spot| spot.rows.start as f64).collect();
    let ends: Vec<f64> = spots.iter().map(|spot| spot.rows.end as f64).collect();
    let (start, end) = (quantile(&starts, 0.5) as usize, quantile(&ends, 0.5) as usize);
    (start < end).then_some(start..end)
}

fn spots(frame: &Frame<'_>, usual: &[f64], column: usize) -> Vec<Spot> {
    let rows = frame.rows();
    let total: f64 = frame.left.iter().map(|row| row[column]).sum();
    let floor = 0.2 * total / rows as f64;
    let stands_out = |row: usize| frame.left[row][column] > STANDS_OUT * usual[row] + floor;
    let spot = |rows: Range<usize>| {
        let excess = rows.clone().map(|row| frame.left[row][column] - usual[row]);
        Spot { column, excess: excess.sum(), rows }
    };
    let found = super::frame::runs(rows, stands_out).into_iter().map(spot);
    let certain = |spot: &Spot| {
        let usual: f64 = usual[spot.rows.clone()].iter().sum();
        frame.width(&spot.rows) <= SPOT_WIDTH && frame.certain(column, spot.excess, usual)
    };
    found.filter(|spot| spot.excess >= SPOT_SHARE * total).filter(certain).collect()
}

/// All tracks, the older first.
pub(super) fn tracks(frame: &Frame<'_>, usual: &[f64]) -> Vec<Track> {
    let mut done: Vec<Track> = Vec::new();
    let mut live: Vec<Track> = Vec::new();
    for column in 0..frame.columns.len() {
        let mut rest: Vec<Spot> = Vec::new();
        for spot in spots(frame, usual, column) {
            let overlapping = live.iter_mut().filter(|track| overlaps(track, &spot));
            match overlapping.max_by(|a, b| a.excess().total_cmp(&b.excess())) {
                Some(track) => extend(track, spot),
                None => rest.push(spot),
            }
        }
        rest.sort_by(|a, b| b.excess.total_cmp(&a.excess));
        for spot in rest {
            let near = live
                .iter_mut()
                .filter(|track| track.last() < column && similar(track, &spot))
                .map(|track| (distance(track, &spot), track))
                .filter(|(distance, track)| *distance <= (track.width() + 1.0) / 2.0)
                .min_by(|a, b| a.0.total_cmp(&b.0));
            match near {
                Some((_, track)) => track.spots.push(spot),
                None => live.push(Track { spots: vec![spot] }),
            }
        }
        let (going, ended) = live.into_iter().partition(|track| track.last() + 2 > column);
        live = going;
        done.extend::<Vec<Track>>(ended);
    }
    done.extend(live);
    done.sort_by_key(Track::first);
    done
}

fn overlaps(track: &Track, spot: &Spot) -> bool {
    let last = &track.spots[track.spots.len() - 1];
    last.rows.start < spot.rows.end && spot.rows.start < last.rows.end
}

fn extend(track: &mut Track, spot: Spot) {
    match track.spots.last_mut() {
        // Two parts of one spot.
        Some(last) if last.column == spot.column => {
            last.rows = last.rows.start.min(spot.rows.start)..last.rows.end.max(spot.rows.end);
            last.excess += spot.excess;
        }
        _ => track.spots.push(spot),
    }
}

fn similar(track: &Track, spot: &Spot) -> bool {
    let ratio = spot.excess / track.excess();
    (1.0 / SIMILAR..=SIMILAR).contains(&ratio)
}

/// From the edge of where the track was, or from where it would be if it went on as it did.
fn distance(track: &Track, spot: &Spot) -> f64 {
    let last = &track.spots[track.spots.len() - 1];
    let gap = spot.rows.start.saturating_sub(last.rows.end);
    let gap = gap.max(last.rows.start.saturating_sub(spot.rows.end));
    if gap == 0 {
        return 0.0;
    }
    if !track.steady() {
        return f64::INFINITY;
    }
    let speed = track.moved() / (track.last() - track.first()).max(1) as f64;
    let steps = (spot.column - last.column) as f64;
    (spot.center() - last.center() - speed * steps).abs()
}
