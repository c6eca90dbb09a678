//! Why the load is as it is, since when, and what would help.
//!
//! [`analyze`] is a pure function from counts by range and time ([`Load`]), named keys
//! ([`NamedKey`]) and the places of groups ([`Topology`]) to [`Finding`]s. A [`Tracker`] keeps them
//! over time: a finding that goes on keeps its id, and one that has ended says when.
//!
//! ```text
//! Load ──> Frame: rates of the columns that count
//!            │  named keys ─> motion ─> long hot ─> changes ─> placement
//!            │  each takes out of the rest what it explains, so that nothing is told twice
//!          Draft: kind, rows, first column
//!            │  remedy: each act is replayed on the last columns; kept if it changes something
//!          Finding: words, numbers, remedies ──> Tracker: id, resolved
//! ```
//!
//! The present is the mean of the last columns (a twelfth of them, 3 to 5). Columns that may miss
//! counts are left out, unless most are such; then findings are less sure of themselves. All levels
//! are constants beside their detectors; `docs/insight.md` lists them and says how often they are
//! right.

mod contents;
mod draft;
mod finding;
mod forecast;
mod frame;
mod hot;
mod keyspace;
mod load;
mod motion;
mod placement;
mod remedy;
mod replay;
#[cfg(test)]
mod tests;
mod track;
mod tracker;
mod words;

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

pub use finding::{Fact, Finding, FindingId, Kind, MAX_FINDINGS, MAX_POINTS, Remedy, Since};
pub use forecast::{Able, Act, Change, Forecast};
pub use load::{
    GroupPlace, Load, LoadError, LoadRow, MAX_LOAD_COLUMNS, MAX_LOAD_ROWS, MAX_NAMED_KEYS,
    NamedKey, Topology,
};
pub use replay::{LOOKS, follow};
pub use tracker::{MAX_RESOLVED, Tracker};

pub(crate) use load::{is_one_key, overlap, within};
pub(crate) use words::keys as label_of;

use draft::Draft;
use finding::rank;
use frame::Frame;
use keyviz_types::{GroupId, NodeId};

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Counts, of an hour for instance.
    pub load: &'a Load,
    /// Counts of the same time before, of the day before for instance. A row is compared where the
    /// rows of that time add up to it.
    pub before: Option<&'a Load>,
    /// Keys with names of their own.
    pub hot_keys: &'a [NamedKey],
    /// Where ranges are served.
    pub topology: &'a Topology,
    /// What the cluster can do.
    pub able: Able,
    /// The present as Unix time, for the open column.
    pub now_ms: u64,
}

/// Operations a second at present.
pub fn rate(input: &Input<'_>) -> f64 {
    let frame = Frame::new(input.load, Vec::new(), input.topology, input.now_ms);
    frame.map_or(0.0, |frame| frame.total())
}

/// Findings of the present, the largest first; none where nothing was counted.
pub fn analyze(input: &Input<'_>) -> Result<Vec<Finding>, LoadError> {
    input.load.check()?;
    let (load, widths) = input.load.coarse(input.topology);
    let Some(mut frame) = Frame::new(&load, widths, input.topology, input.now_ms) else {
        return Ok(Vec::new());
    };
    let frame = &mut frame;
    let mut drafts = hot::keys(frame, input.hot_keys);
    drafts.extend(motion::find(frame));
    drafts.extend(hot::ranges(frame));
    let mut drafts = hot::unite(frame, drafts);
    let scans = drafts.iter().filter(|draft| draft.kind == Kind::Scan);
    let passing: Vec<_> = scans.map(|draft| draft.rows.clone()).collect();
    drafts.extend(contents::changes(frame, input.before));
    drafts.extend(placement::uneven(frame));
    drafts.extend(placement::read_heavy(frame));
    drafts.extend(contents::large_values(frame, &passing));
    drafts.extend(contents::conflicts(frame));
    drafts.extend(placement::cold_splits(frame));
    let mut findings: Vec<Finding> =
        drafts.iter().map(|draft| finding(frame, draft, input.able)).collect();
    rank(&mut findings, MAX_FINDINGS);
    Ok(findings)
}

fn finding(frame: &Frame<'_>, draft: &Draft, able: Able) -> Finding {
    let range = draft.range.clone().unwrap_or_else(|| frame.keys(&draft.rows));
    let operations = match draft.operations {
        true => draft.series.clone(),
        false => frame.sum(&frame.rates, draft.rows.clone()),
    };
    let rate = frame.now(&operations);
    let share = (rate / frame.total()).clamp(0.0, 1.0);
    let groups: BTreeSet<GroupId> = match (draft.group, draft.node) {
        (Some(group), _) => [group].into(),
        (None, Some(node)) => led_by(frame, node),
        (None, None) => draft.rows.clone().filter_map(|row| frame.groups[row]).collect(),
    };
    let leader = |group: &GroupId| frame.topology.place(*group).and_then(|place| place.leader);
    let nodes: BTreeSet<NodeId> = groups.iter().filter_map(leader).collect();
    let remedies = remedy::remedies(frame, draft, &range, able);
    let since = frame.span(draft.since);
    let earliest_ms = draft.since.checked_sub(1).map(|before| frame.span(before).start_ms);
    Finding {
        id: id(draft, &range),
        kind: draft.kind,
        key: draft.key.clone(),
        groups: groups.into_iter().collect(),
        nodes: nodes.into_iter().collect(),
        share,
        rate,
        since: Since { at_ms: since.start_ms, earliest_ms, latest_ms: since.end_ms },
        summary: words::summary(draft, &range, share, rate),
        advice: words::advice(draft, &remedies, able),
        facts: draft.facts.clone(),
        sparkline: sparkline(&draft.series),
        confidence: draft.confidence(frame),
        remedies,
        resolved_ms: None,
        range,
    }
}

fn led_by(frame: &Frame<'_>, node: NodeId) -> BTreeSet<GroupId> {
    let led = frame.topology.groups.iter().filter(|place| place.leader == Some(node));
    led.map(|place| place.group).collect()
}

fn id(draft: &Draft, range: &keyviz_types::KeyRange) -> FindingId {
    let mut name = draft.kind.name().as_bytes().to_vec();
    let mut add = |part: &[u8]| {
        name.extend((part.len() as u64).to_be_bytes());
        name.extend(part);
    };
    match (&draft.key, draft.node, draft.group) {
        (Some(key), ..) => add(key),
        (None, Some(node), _) => add(&node.0.to_be_bytes()),
        (None, None, Some(group)) => {
            add(&group.0.to_be_bytes());
            add(&range.start);
        }
        (None, None, None) => add(&range.start),
    }
    FindingId(xxh3_64(&name))
}

/// A series in whole numbers, at most [`MAX_POINTS`]: neighbours share a point by their mean.
fn sparkline(series: &[f64]) -> Vec<u64> {
    let width = series.len().div_ceil(MAX_POINTS).max(1);
    series.chunks(width).map(|chunk| frame::mean(chunk).round() as u64).collect()
}
