//! Load that is unevenly placed, although no range stands out: by leader, by group; reads that
//! followers could serve; routes that are not needed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::draft::Draft;
use super::finding::Kind;
use super::frame::{Frame, median};
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Hottest node over the mean.
const UNEVEN_NODES: f64 = 1.35;
/// A group over the middle one.
const UNEVEN_GROUPS: f64 = 1.75;
/// Part of reads.
const READ_PART: f64 = 0.9;
/// Part of the reads that leaders serve.
const LED_PART: f64 = 0.8;
/// Share of the operations from which on read-heavy groups are told.
const READ_SHARE: f64 = 0.05;
/// Of the middle route, below which a route is cold.
const COLD: f64 = 0.05;
/// Columns without load before a route is called cold.
const COLD_COLUMNS: usize = 10;

type OfGroups = BTreeMap<GroupId, Vec<f64>>;

fn of_groups(frame: &Frame<'_>, grid: &super::frame::Grid) -> OfGroups {
    let known = |place: &super::load::GroupPlace| (place.group, vec![0.0; frame.columns.len()]);
    let mut sums: OfGroups = frame.topology.groups.iter().map(known).collect();
    for (row, group) in frame.groups.iter().enumerate() {
        let sum = group.as_ref().and_then(|group| sums.get_mut(group));
        sum.into_iter()
            .flat_map(|sum| sum.iter_mut().zip(&grid[row]))
            .for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// The rows from the first to the last of some groups.
fn hull(frame: &Frame<'_>, of: impl Fn(GroupId) -> bool) -> Option<Range<usize>> {
    let inside = |row: &usize| frame.groups[*row].is_some_and(&of);
    let first = (0..frame.rows()).find(inside)?;
    Some(first..(0..frame.rows()).rev().find(inside)? + 1)
}

/// Groups with much more than the middle one; then nodes that lead too many.
pub(super) fn uneven(frame: &Frame<'_>) -> Vec<Draft> {
    let groups = of_groups(frame, &frame.left);
    let now: BTreeMap<GroupId, f64> =
        groups.iter().map(|(&group, series)| (group, frame.now(series))).collect();
    let middle = median(&now.values().copied().collect::<Vec<f64>>());
    let mut drafts = Vec::new();
    if now.len() < 2 || middle <= 0.0 {
        return drafts;
    }
    for (&group, &rate) in &now {
        let share = rate / frame.total();
        let certain = frame.certain_now(rate - middle, middle);
        if now.len() < 3 || rate < UNEVEN_GROUPS * middle || share < 0.08 || !certain {
            continue;
        }
        let Some(rows) = hull(frame, |of| of == group) else { continue };
        let series = groups[&group].clone();
        let since = frame.onset(&series);
        let mut draft = Draft::new(Kind::UnevenGroups, rows, series, since)
            .fact("times the middle group", rate / middle, Some(UNEVEN_GROUPS))
            .margin(rate / middle, UNEVEN_GROUPS);
        draft.group = Some(group);
        drafts.push(draft);
    }
    drafts.extend(leaders(frame, &groups, &now, middle));
    drafts
}

fn leaders(
    frame: &Frame<'_>,
    groups: &OfGroups,
    now: &BTreeMap<GroupId, f64>,
    middle: f64,
) -> Option<Draft> {
    let mut led: BTreeMap<NodeId, Vec<GroupId>> =
        frame.topology.nodes.iter().map(|&node| (node, Vec::new())).collect();
    for place in &frame.topology.groups {
        if let Some(leader) = place.leader {
            led.entry(leader).or_default().push(place.group);
        }
    }
    // A group that is hot by itself is no matter of leaders.
    let load = |groups: &[GroupId]| -> f64 {
        groups.iter().map(|group| now[group].min(UNEVEN_GROUPS * middle)).sum()
    };
    let all: Vec<(NodeId, f64, usize)> =
        led.iter().map(|(&node, groups)| (node, load(groups), groups.len())).collect();
    let (node, most, count) = all.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let mean = all.iter().map(|node| node.1).sum::<f64>() / all.len() as f64;
    let fair = now.len().div_ceil(all.len());
    let ratio = most / mean.max(1e-9);
    if all.len() < 2 || ratio < UNEVEN_NODES || count <= fair {
        return None;
    }
    let rows = hull(frame, |group| led[&node].contains(&group))?;
    let mut series = vec![0.0; frame.columns.len()];
    for group in &led[&node] {
        series.iter_mut().zip(&groups[group]).for_each(|(sum, value)| *sum += value);
    }
    // Where leaders were before is not known.
    let mut draft = Draft::new(Kind::UnevenLeaders, rows, series, 0)
        .fact("node over the mean", ratio, Some(UNEVEN_NODES))
        .fact("groups that it leads", count as f64, Some(fair as f64 + 1.0))
        .margin(ratio, UNEVEN_NODES);
    draft.node = Some(node);
    Some(draft)
}

/// Groups that are almost only read, from their leader.
pub(super) fn read_heavy(frame: &Frame<'_>) -> Vec<Draft> {
    // Reads of what no finding has explained, at the mix of each cell.
    let mut reads = frame.left.clone();
    for (row, cells) in reads.iter_mut().enumerate() {
        for (at, cell) in cells.iter_mut().enumerate() {
            let all = frame.rates[row][at];
            *cell = if all > 0.0 { *cell * frame.reads[row][at] / all } else { 0.0 };
        }
    }
    let (all, reads) = (of_groups(frame, &frame.left), of_groups(frame, &reads));
    let mut drafts = Vec::new();
    for (group, series) in all {
        let (rate, read) = (frame.now(&series), frame.now(&reads[&group]));
        let share = rate / frame.total();
        let part = read / rate.max(1e-9);
        let replicas = frame.topology.place(group).map_or(0, |place| place.replicas.len());
        if share < READ_SHARE || part < READ_PART || replicas < 2 {
            continue;
        }
        let rows: Vec<usize> =
            (0..frame.rows()).filter(|&row| frame.groups[row] == Some(group)).collect();
        let by_followers = frame
            .now(&frame.count(rows.iter().copied(), |row| &frame.load.rows[row].follower_reads));
        let by_all = frame.now(&frame.sum(&frame.reads, rows.iter().copied()));
        let led = 1.0 - by_followers / by_all.max(1e-9);
        let Some(hull) = hull(frame, |of| of == group) else { continue };
        if led < LED_PART {
            continue;
        }
        let parts: Vec<f64> =
            series.iter().zip(&reads[&group]).map(|(all, read)| read / all.max(1e-9)).collect();
        let mut draft = Draft::new(Kind::ReadHeavy, hull, series, frame.onset_of_part(&parts))
            .fact("part of reads", part, Some(READ_PART))
            .fact("part of the reads that the leader serves", led, Some(LED_PART))
            .margin((1.0 - READ_PART) / (1.0 - part).max(0.01), 1.0);
        draft.group = Some(group);
        drafts.push(draft);
    }
    drafts
}

/// Neighbouring routes of one group without load.
pub(super) fn cold_splits(frame: &Frame<'_>) -> Vec<Draft> {
    let routes = &frame.topology.routes;
    if frame.columns.len() < COLD_COLUMNS || routes.len() < 4 {
        return Vec::new();
    }
    // The rows of a route: whole ones, or the one that several routes share.
    let rows = |at: usize| {
        let range = &routes[at].range;
        let overlaps = |row: &usize| super::load::overlap(&frame.load.rows[*row].range, range);
        let from = frame
            .load
            .rows
            .partition_point(|row| row.range.end.as_ref().is_some_and(|end| *end <= range.start));
        from..(from..frame.rows()).take_while(overlaps).last().map_or(from, |last| last + 1)
    };
    let rows: Vec<Range<usize>> = (0..routes.len()).map(rows).collect();
    let rate = |at: &usize| frame.now(&frame.sum(&frame.rates, rows[*at].clone()));
    let rates: Vec<f64> = (0..routes.len()).map(|at| rate(&at)).collect();
    let level = COLD * frame.total() / routes.len() as f64;
    let cold = |at: usize| {
        let series = frame.sum(&frame.rates, rows[at].clone());
        !rows[at].is_empty() && rates[at] <= level && series.iter().all(|&rate| rate <= 4.0 * level)
    };
    let mut drafts = Vec::new();
    let mut from = 0;
    while from < routes.len() {
        let same = |at: &usize| routes[*at].group == routes[from].group && cold(*at);
        let count = (from..routes.len()).take_while(same).count();
        if count >= 2 {
            let hull = rows[from].start..rows[from + count - 1].end;
            let series = frame.sum(&frame.rates, hull.clone());
            let mut draft = Draft::new(Kind::ColdSplits, hull, series, 0)
                .fact("routes without load", count as f64, Some(2.0))
                .fact("operations a second of a cold route at most", level, None)
                .margin(count as f64 + 1.0, 2.0);
            draft.group = Some(routes[from].group);
            draft.range = Some(KeyRange {
                start: routes[from].range.start.clone(),
                end: routes[from + count - 1].range.end.clone(),
            });
            drafts.push(draft);
        }
        from += count.max(1);
    }
    drafts
}
