//! Load that moves or comes and goes: appends, scans, moving spots, periodic bursts; and hot ranges
//! that began within the window.

use std::ops::Range;

use super::draft::Draft;
use super::finding::Kind;
use super::frame::{Frame, mean, median};
use super::track::{Track, tracks, usual};

/// Share of the operations from which on something hot is told.
pub(super) const HOT_SHARE: f64 = 0.08;
/// Times its usual load from which on a range that became hot is told.
const HOT_RATIO: f64 = 4.0;
/// Times the middle of the other rows of its group from which on a range is hot by itself.
pub(super) const BEYOND_GROUP: f64 = 2.5;
/// A range with more than this part of the key space is not called hot.
pub(super) const NARROW: f64 = 0.2;

/// Finds what moves, and takes it out of what is left to explain.
pub(super) fn find(frame: &mut Frame<'_>) -> Vec<Draft> {
    let usual = usual(frame);
    let mut tracks = tracks(frame, &usual);
    let mut drafts = Vec::new();
    steady(frame, &usual, &mut tracks, &mut drafts);
    jumping(frame, &usual, &mut tracks, &mut drafts);
    periodic(frame, &usual, &mut tracks, &mut drafts);
    became_hot(frame, &usual, &tracks, &mut drafts);
    drafts
}

/// Sets the cells of some tracks to what is usual, and returns what was above it, by column.
fn claim(frame: &mut Frame<'_>, usual: &[f64], tracks: &[&Track]) -> Vec<f64> {
    let mut series = vec![0.0; frame.columns.len()];
    for spot in tracks.iter().flat_map(|track| &track.spots) {
        for row in spot.rows.clone() {
            let cell = &mut frame.left[row][spot.column];
            series[spot.column] += *cell - cell.min(usual[row]);
            *cell = cell.min(usual[row]);
        }
    }
    series
}

fn ongoing(frame: &Frame<'_>, track: &Track) -> bool {
    track.last() + 3 >= frame.columns.len()
}

fn share(frame: &Frame<'_>, track: &Track) -> f64 {
    let spots = &track.spots[track.spots.len().saturating_sub(5)..];
    let share = |spot: &super::track::Spot| spot.excess / frame.totals[spot.column].max(1e-9);
    mean(&spots.iter().map(share).collect::<Vec<f64>>())
}

/// The part of reads in what a track's cells count, in its last columns.
fn read_part(frame: &Frame<'_>, track: &Track) -> f64 {
    let (mut reads, mut all) = (0.0, 0.0);
    for spot in &track.spots {
        for row in spot.rows.clone() {
            reads += frame.reads[row][spot.column];
            all += frame.rates[row][spot.column];
        }
    }
    if all > 0.0 { reads / all } else { 0.0 }
}

/// Appends and scans.
fn steady(frame: &mut Frame<'_>, usual: &[f64], tracks: &mut Vec<Track>, drafts: &mut Vec<Draft>) {
    let (found, rest) = std::mem::take(tracks).into_iter().partition(Track::steady);
    *tracks = rest;
    let found: Vec<Track> = found;
    for track in found {
        let (share, going) = (share(frame, &track), ongoing(frame, &track));
        let reads = read_part(frame, &track);
        let series = claim(frame, usual, &[&track]);
        if !going || share < HOT_SHARE / 2.0 {
            continue;
        }
        let kind = if reads > 0.5 { Kind::Scan } else { Kind::SequentialAppend };
        let columns = (track.last() - track.first()).max(1) as f64;
        let mut draft = Draft::new(kind, track.hull(), series, track.first())
            .fact("share of the operations at the front", share, Some(HOT_SHARE / 2.0))
            .fact("ranges passed a column", track.moved().abs() / columns, None)
            .fact("part of reads", reads, Some(0.5))
            .margin(share, HOT_SHARE / 2.0);
        draft.up = track.moved() > 0.0;
        drafts.push(draft);
    }
}

/// Bursts on the same rows at equal intervals.
fn periodic(
    frame: &mut Frame<'_>,
    usual: &[f64],
    tracks: &mut Vec<Track>,
    drafts: &mut Vec<Draft>,
) {
    let mut at = 0;
    while at < tracks.len() {
        let place = tracks[at].core();
        let same: Vec<usize> = (at..tracks.len())
            .filter(|&other| !tracks[other].moves() && alike(&place, &tracks[other].core()))
            .collect();
        let starts: Vec<usize> = same.iter().map(|&index| tracks[index].first()).collect();
        let Some(period) = period(frame, &starts) else {
            at += 1;
            continue;
        };
        let burst = same.iter().map(|&index| tracks[index].spots.len()).max().unwrap_or(1);
        let last = starts[starts.len() - 1];
        let going = frame.columns.len() as f64 <= last as f64 + period * 1.5 + 1.0;
        let of_bursts: Vec<&Track> = same.iter().map(|&index| &tracks[index]).collect();
        let share = mean(&of_bursts.iter().map(|track| share(frame, track)).collect::<Vec<_>>());
        let series = claim(frame, usual, &of_bursts);
        if burst as f64 <= period * 0.7 {
            if going && share >= HOT_SHARE / 2.0 {
                let between_ms = (frame.span(last).start_ms - frame.span(starts[0]).start_ms)
                    / (starts.len() - 1) as u64;
                drafts.push(
                    Draft::new(Kind::PeriodicBurst, place, series, starts[0])
                        .fact("seconds between bursts", between_ms as f64 / 1e3, None)
                        .fact("bursts seen", starts.len() as f64, Some(3.0))
                        .fact("share in a burst", share, Some(HOT_SHARE / 2.0))
                        .margin(share, HOT_SHARE / 2.0),
                );
            }
            let mut index = 0;
            tracks.retain(|_| {
                index += 1;
                !same.contains(&(index - 1))
            });
        } else {
            at += 1;
        }
    }
}

/// Two thirds of the rows of the smaller lie in the larger, which is not much larger.
fn alike(left: &Range<usize>, right: &Range<usize>) -> bool {
    let shared = left.end.min(right.end).saturating_sub(left.start.max(right.start));
    2 * shared >= left.len().max(right.len())
}

/// The mean interval of starts that are three or more at equal distances.
fn period(frame: &Frame<'_>, starts: &[usize]) -> Option<f64> {
    if starts.len() < 3 {
        return None;
    }
    // By time: columns that do not count lie between.
    let at = |column: usize| frame.span(column).start_ms as f64;
    let lengths: Vec<f64> = starts.windows(2).map(|pair| at(pair[1]) - at(pair[0])).collect();
    let column = (frame.span(0).end_ms - frame.span(0).start_ms) as f64;
    let middle = mean(&lengths);
    let off = lengths.iter().map(|length| (length - middle).abs()).fold(0.0, f64::max);
    (off <= (0.25 * middle).max(column) && middle >= 3.0 * column).then_some(middle / column)
}

/// A spot that leaves one place for another, three times or more.
fn jumping(frame: &mut Frame<'_>, usual: &[f64], tracks: &mut Vec<Track>, drafts: &mut Vec<Draft>) {
    let length = frame.columns.len();
    loop {
        let mut best: Vec<usize> = Vec::new();
        for first in 0..tracks.len() {
            let chain = chain(frame, tracks, first, length);
            if places(tracks, &chain) > places(tracks, &best) {
                best = chain;
            }
        }
        if places(tracks, &best) < 3 {
            return;
        }
        let of_chain: Vec<&Track> = best.iter().map(|&index| &tracks[index]).collect();
        let start = of_chain.iter().map(|track| track.hull().start).min().unwrap_or(0);
        let end = of_chain.iter().map(|track| track.hull().end).max().unwrap_or(1);
        let (first, last) = (of_chain[0], of_chain[of_chain.len() - 1]);
        let (since, going) = (first.first(), ongoing(frame, last));
        let share = mean(&of_chain.iter().map(|track| share(frame, track)).collect::<Vec<_>>());
        let stay = (last.last() + 1 - since) as f64 / places(tracks, &best) as f64;
        let series = claim(frame, usual, &of_chain);
        if going && share >= HOT_SHARE / 2.0 {
            drafts.push(
                Draft::new(Kind::MovingSpot, start..end, series, since)
                    .fact("places seen", places(tracks, &best) as f64, Some(3.0))
                    .fact("columns in one place", stay, None)
                    .fact("share of the operations", share, Some(HOT_SHARE / 2.0))
                    .margin(share, HOT_SHARE / 2.0),
            );
        }
        let mut index = 0;
        tracks.retain(|_| {
            index += 1;
            !best.contains(&(index - 1))
        });
    }
}

/// Tracks that follow each other in time, each at a place of its own and of similar size.
fn chain(frame: &Frame<'_>, tracks: &[Track], first: usize, length: usize) -> Vec<usize> {
    let narrow = |rows: &Range<usize>| rows.len() <= 2 || frame.width(rows) <= NARROW;
    let short = |track: &Track| {
        track.moves() || 5 * track.spots.len() <= 2 * length && narrow(&track.core())
    };
    if !short(&tracks[first]) {
        return Vec::new();
    }
    let mut chain = vec![first];
    loop {
        let last = &tracks[chain[chain.len() - 1]];
        let follows = |&index: &usize| {
            let next = &tracks[index];
            let ratio = next.excess() / last.excess();
            let soon = next.first() >= last.last() && next.first() <= last.last() + 1;
            let later = next.last() > last.last();
            let stays = next.spots.len() as f64 / last.spots.len() as f64;
            let alone = !next.moves() && !last.moves();
            let similar = (0.6..=1.67).contains(&ratio) && (!alone || (0.3..=3.0).contains(&stays));
            soon && later && similar && short(next) && !alike(&next.core(), &last.core())
        };
        let next = (0..tracks.len())
            .filter(|index| !chain.contains(index))
            .filter(follows)
            .min_by_key(|&index| tracks[index].first());
        match next {
            Some(next) => chain.push(next),
            None => return chain,
        }
    }
}

/// Places that the tracks of a chain were at.
fn places(tracks: &[Track], chain: &[usize]) -> usize {
    let of_track = |&index: &usize| {
        let track = &tracks[index];
        if !track.moves() {
            return 1;
        }
        (track.hull().len() as f64 / track.width().max(1.0)).round().max(2.0) as usize
    };
    chain.iter().map(of_track).sum()
}

/// A range that was as others are and became hot.
fn became_hot(frame: &mut Frame<'_>, usual: &[f64], tracks: &[Track], drafts: &mut Vec<Draft>) {
    for track in tracks {
        let rows = track.last_core();
        let now: Vec<f64> = frame.rates.iter().map(|row| frame.now(row)).collect();
        let beyond = frame.beyond_group(&rows, &now, BEYOND_GROUP);
        let narrow = frame.width(&rows) <= NARROW || rows.len() <= 2;
        let recent = &track.spots[track.spots.len().saturating_sub(frame.recent)..];
        let excess = mean(&recent.iter().map(|spot| spot.excess).collect::<Vec<f64>>());
        let was = frame.sum(&frame.left, rows.clone());
        // Before, it may have been a part of something larger, such as the beginning of all load.
        let first = track.spots.iter().find(|spot| alike(&rows, &spot.rows));
        let first = first.map_or(track.first(), |spot| spot.column);
        let before = match first {
            0..3 => usual[rows.clone()].iter().sum(),
            first => median(&was[..first]),
        };
        let ratio = (excess + before) / before.max(1e-9);
        let share = excess / frame.total();
        let lasts = track.spots.len() >= 3 && track.last() + 2 >= frame.columns.len();
        if !narrow || !lasts || !beyond || ratio < HOT_RATIO || share < HOT_SHARE || track.moves() {
            continue;
        }
        let series = frame.sum(&frame.rates, rows.clone());
        // By chance its first spots may have been unlike the later ones.
        let since = first.min(frame.onset(&series));
        claim(frame, usual, &[track]);
        // By chance a column may have had no spot, or a narrower one.
        for row in rows.clone() {
            frame.left[row][first..].iter_mut().for_each(|cell| *cell = cell.min(usual[row]));
        }
        let mut draft = Draft::new(Kind::HotRange, rows.clone(), series, since)
            .fact("share of the operations", share, Some(HOT_SHARE))
            .fact("times its usual load", ratio.min(1e6), Some(HOT_RATIO))
            .margin(share, HOT_SHARE);
        draft.coarse = rows.len() == 1;
        drafts.push(draft);
    }
}
