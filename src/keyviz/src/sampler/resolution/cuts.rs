//! Chooses where a hot route is cut into sub-ranges.
//!
//! Exact counts decide which piece is too hot; sampled keys decide where it is cut: at the
//! quantiles of its samples, by the shortest byte string that separates two neighbours. Keys with a
//! long common prefix are therefore separated like any others. A single hot key gets a piece that
//! holds nothing else, so that its row is one key.
//!
//! The *quantum* is the load that a piece should have. A piece is cut when it has more than twice
//! that, and pieces are joined only when the slots run out, the coldest neighbours first. Under a
//! constant load, cutting therefore ends soon, and the pieces stay.

use bytes::Bytes;

use super::samples::Sample;
use super::spans::SIGNIFICANT_OPS;
use crate::sampler::joiner::Joiner;
use keyviz_types::MAX_KEY_BYTES;

/// The number of samples that a piece needs before it is cut, and that each part should have.
const SAMPLES_TO_CUT: usize = 8;
const SAMPLES_A_PART: usize = 4;
/// A piece is cut when its load exceeds this many quanta.
const TOO_HOT: u64 = 2;

/// A part, possibly all, of a route that has a row of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Position of the route in the table.
    pub(crate) route: usize,
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
    /// Its decayed load, in operations.
    pub(crate) load: u64,
}

/// Even under a light load, free slots are used for this many pieces: cuts stay, so an unnecessary
/// one costs a slot and nothing else.
const LIGHT_PIECES: u64 = 512;

/// The load that a piece should have: an even share of the free slots, but not so little that the
/// counts or the samples are noise.
pub(crate) fn quantum(total_heat: u64, room: usize, samples: usize) -> u64 {
    let even = total_heat / (room as u64).max(1);
    let seen = total_heat / (samples as u64 / SAMPLES_TO_CUT as u64).max(1);
    let noise = SIGNIFICANT_OPS.min(total_heat / LIGHT_PIECES);
    even.max(seen).max(noise).max(1)
}

/// Cuts every piece that is too hot. `samples` are sorted.
pub(crate) fn refine(pieces: Vec<Piece>, samples: &[Sample], quantum: u64) -> Vec<Piece> {
    let mut refined = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if piece.load <= quantum.saturating_mul(TOO_HOT) {
            refined.push(piece);
            continue;
        }
        let from = samples.partition_point(|sample| sample.key < piece.start);
        let to = match &piece.end {
            Some(end) => samples.partition_point(|sample| sample.key < end),
            None => samples.len(),
        };
        let inside = &samples[from..to];
        let parts = (piece.load / quantum).min((inside.len() / SAMPLES_A_PART) as u64);
        let cuts = match inside.len() {
            SAMPLES_TO_CUT.. => cuts(inside, parts, &piece.start, piece.end.as_ref()),
            _ => Vec::new(),
        };
        let load = piece.load / (cuts.len() as u64 + 1);
        let ends = cuts.iter().cloned().map(Some).chain([piece.end]);
        let starts = [piece.start].into_iter().chain(cuts.iter().cloned());
        let route = piece.route;
        refined.extend(starts.zip(ends).map(|(start, end)| Piece { route, start, end, load }));
    }
    refined
}

/// Joins the coldest neighbours within routes until there are at most `limit` pieces, or one per
/// route.
pub(crate) fn fit(pieces: Vec<Piece>, limit: usize) -> Vec<Piece> {
    if pieces.len() <= limit {
        return pieces;
    }
    let load = pieces.iter().map(|piece| piece.load).collect();
    let mut joiner = Joiner::new(load, |piece| pieces[piece].route == pieces[piece - 1].route);
    for _ in limit..pieces.len() {
        let Some((left, right)) = joiner.coldest() else { break };
        joiner.join(left, right);
    }
    let heads: Vec<_> = joiner.heads().collect();
    super::spans::ranges(&heads, pieces.len())
        .into_iter()
        .map(|joined| Piece {
            end: pieces[joined.end - 1].end.clone(),
            load: pieces[joined.clone()].iter().map(|piece| piece.load).sum(),
            ..pieces[joined.start].clone()
        })
        .collect()
}

/// The samples of one key.
struct Stretch<'a> {
    key: &'a Bytes,
    /// The weight of the samples before this key, and up to its last one.
    before: u64,
    after: u64,
}

/// Cuts a range into about `parts` parts of equal weight. The cuts ascend and lie inside the range.
fn cuts(samples: &[Sample], parts: u64, start: &Bytes, end: Option<&Bytes>) -> Vec<Bytes> {
    let mut runs: Vec<Stretch> = Vec::new();
    let mut total = 0u64;
    for sample in samples {
        let before = total;
        total = total.saturating_add(sample.weight);
        match runs.last_mut() {
            Some(run) if run.key == &sample.key => run.after = total,
            _ => runs.push(Stretch { key: &sample.key, before, after: total }),
        }
    }
    // `borders[n]` is before run n, and the last one after all runs. `alone[n]`: run n has both.
    let (mut borders, mut alone) = (vec![false; runs.len() + 1], vec![false; runs.len()]);
    for part in 1..parts {
        let target = (u128::from(part) * u128::from(total) / u128::from(parts)) as u64;
        let hit = runs.partition_point(|run| run.after <= target).min(runs.len() - 1);
        let run = &runs[hit];
        if run.after - run.before >= total / parts {
            borders[hit] = true;
            borders[hit + 1] = true;
            alone[hit] = true;
        } else {
            // The outermost borders would only separate ranges without samples.
            let nearer = hit + usize::from(target - run.before > run.after - target);
            // There is more than one run, because a single run would have all the weight.
            borders[nearer.clamp(1, runs.len() - 1)] = true;
        }
    }
    let inside = |key: &Bytes| key > start && end.is_none_or(|end| key < end);
    // The end of the run before, and the beginning of the run after.
    let cuts = (0..borders.len()).filter(|&border| borders[border]).flat_map(|border| {
        // After the longest of keys there is none that a boundary can be.
        let ends = |run: &usize| alone[*run] && runs[*run].key.len() < MAX_KEY_BYTES;
        let before = border.checked_sub(1).filter(ends);
        let last = before.map(|run| successor(runs[run].key));
        let first = match runs.get(border) {
            Some(run) if alone[border] => Some(run.key.clone()),
            // A run that is alone ends here by itself.
            Some(_) if before.is_some() => None,
            Some(run) => {
                let low = border.checked_sub(1).map_or(start, |before| runs[before].key);
                (run.key > low).then(|| separator(low, run.key))
            }
            None => None,
        };
        [last, first].into_iter().flatten()
    });
    let mut cuts: Vec<Bytes> = cuts.filter(inside).collect();
    // The least key after one can be the next.
    cuts.dedup();
    cuts
}

/// The shortest key above `low` that is at most `high`. `high` must be above `low`.
fn separator(low: &[u8], high: &Bytes) -> Bytes {
    let shared = low.iter().zip(high.iter()).take_while(|(low, high)| low == high).count();
    high.slice(..shared + 1)
}

/// The least key above `key`.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
#[path = "cuts_tests.rs"]
mod tests;
