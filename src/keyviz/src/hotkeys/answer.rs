//! Which keys were hot in a window and a key range: from one history, and from several nodes.
//!
//! Columns add, because they count disjoint operations, and so do nodes, because a write is counted
//! by the leader that proposed it and a read by the node that served it. Where a column or a node
//! does not list a key, its threshold is part of the key's upper bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::column::ColumnHotKeys;
use super::summary::{NamedKey, Summary};
use crate::history::column::{CellRun, Column, Part};
use crate::history::view::{Answering, HistoryView};
use crate::history::window::Window;
use crate::sampler::counts::Series;
use keyviz_types::{KeyRange, MAX_KEY_BYTES, NodeId};

/// Keys in an answer when no number is asked for.
pub const DEFAULT_HOT_KEYS: usize = 20;
/// Most keys in an answer.
pub const MAX_HOT_KEYS: usize = 1_000;
/// Most numbers of a key over time.
pub const MAX_POINTS: usize = 240;
/// Most keys that a node contributes to an answer.
pub const PART_KEYS: usize = 4_096;

/// What is asked of the hot keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotKeysQuery {
    /// Columns that share time with it. What a column that reaches beyond it counted may all have
    /// happened outside: it raises upper bounds alone.
    pub window: Window,
    /// Keys.
    pub range: KeyRange,
    /// Reads or writes. Of a series of bytes, the operations.
    pub series: Series,
    /// Pieces of the window; each key is counted by itself for the columns that begin in each. At
    /// most [`MAX_POINTS`].
    pub points: usize,
}

/// A key and what is known of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyBounds {
    /// The key, or the hash of it: see [`hashed_name`].
    pub key: Bytes,
    /// It had at least so many operations.
    pub lower: u64,
    /// And at most so many.
    pub upper: u64,
    /// Bytes of the operations that were counted for certain.
    pub bytes: u64,
    /// Start of the first column that lists it.
    pub first_ms: u64,
    /// End of the last column that lists it.
    pub last_ms: u64,
    /// Operations for certain in the columns that begin in each piece of the window.
    pub points: Vec<u64>,
}

/// What one node counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotKeysPart {
    /// The node that counted.
    pub node: NodeId,
    /// The node that answers for it.
    pub held_by: NodeId,
    /// The hottest keys, by key.
    pub keys: Vec<KeyBounds>,
    /// Every key of the range with more operations is among them.
    pub threshold: u64,
    /// Operations in the range and window, at most: a slot that reaches beyond the range and a
    /// column that reaches beyond the window count whole.
    pub operations: u64,
    /// Counts or keys may be missing.
    pub partial: bool,
    /// Columns that were looked at.
    pub columns: u64,
}

/// A part that no node of this version sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartError {
    /// Too many.
    #[error("{keys} keys, at most {PART_KEYS} are accepted")]
    TooMany {
        /// Keys received.
        keys: usize,
    },
    /// Not ascending, or longer than keys are.
    #[error("key {index} is out of order or too long")]
    OutOfOrder {
        /// Its index.
        index: usize,
    },
    /// Bounds that exclude each other, or are below the threshold, or the wrong number of points.
    #[error("the bounds of key {index} make no sense")]
    Bounds {
        /// Its index.
        index: usize,
    },
}

impl HotKeysPart {
    /// Errors where another node's part is not as agreed.
    pub fn check(&self, points: usize) -> Result<(), PartError> {
        let keys = self.keys.len();
        if keys > PART_KEYS {
            return Err(PartError::TooMany { keys });
        }
        for (index, key) in self.keys.iter().enumerate() {
            let ascends = index == 0 || self.keys[index - 1].key < key.key;
            if !ascends || key.key.len() > MAX_KEY_BYTES {
                return Err(PartError::OutOfOrder { index });
            }
            if key.lower > key.upper || key.points.len() != points {
                return Err(PartError::Bounds { index });
            }
        }
        Ok(())
    }

    /// The same with hashes in the place of keys.
    #[must_use]
    pub fn hashed(mut self, salt: &str) -> Self {
        self.keys.iter_mut().for_each(|key| key.key = hashed_name(salt, &key.key));
        self.keys.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self
    }

    fn prune(&mut self, most: usize) {
        let over = self.keys.len().saturating_sub(most);
        if over == 0 {
            return;
        }
        let mut uppers: Vec<(u64, usize)> =
            self.keys.iter().enumerate().map(|(at, key)| (key.upper, at)).collect();
        let (_, cut, _) = uppers.select_nth_unstable(over - 1);
        let cut = *cut;
        let mut at = 0;
        self.keys.retain(|key| {
            let kept = (key.upper, at) > cut;
            at += 1;
            kept
        });
        self.threshold = self.threshold.max(cut.0);
    }
}

/// The name that stands for a key where keys may not be shown: the same on every node that has the
/// same salt. It keeps keys out of sight; who knows the salt can try out keys that he guesses.
pub fn hashed_name(salt: &str, key: &[u8]) -> Bytes {
    let hash = xxh3_128_with_seed(key, xxh3_64(salt.as_bytes()));
    Bytes::from(format!("#{hash:032x}"))
}

impl HistoryView {
    /// The hot keys of this node, and of each node whose columns are kept here; `None` once
    /// `wanted` says no. The query asks for the window of the view.
    pub fn hot_keys(
        &self,
        query: &HotKeysQuery,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Vec<HotKeysPart>> {
        let mut parts = vec![part(&self.answering, &self.columns_held(), query, wanted)?];
        for (left, columns) in &self.handed_over {
            let counted = part(left, columns, query, wanted)?;
            parts.push(HotKeysPart { held_by: self.answering.node, ..counted });
        }
        Some(parts)
    }
}

/// Of the operations of a series, or of those whose bytes it counts.
fn of(hot_keys: &ColumnHotKeys, series: Series) -> &Summary {
    match series {
        Series::Reads | Series::ReadBytes => &hot_keys.reads,
        Series::Writes | Series::WriteBytes => &hot_keys.writes,
    }
}

/// What the columns of a window say of one key.
struct KeySums {
    lower: u64,
    upper: u64,
    /// Thresholds of the columns that list it.
    thresholds: u64,
    bytes: u64,
    first_ms: u64,
    last_ms: u64,
}

/// What these columns of a node say; `None` once it is no longer `wanted`.
pub(crate) fn part(
    node: &Answering,
    columns: &[Arc<Column>],
    query: &HotKeysQuery,
    wanted: &dyn Fn() -> bool,
) -> Option<HotKeysPart> {
    let mut sums: HashMap<&[u8], KeySums> = HashMap::new();
    let of_column = |column: &Arc<Column>| -> Vec<Option<ColumnHotKeys>> {
        column.parts().iter().map(Part::unknown_hot_keys).collect()
    };
    let unknown: Vec<_> = columns.iter().map(of_column).collect();
    let mut listed = Vec::new();
    let mut threshold = 0u64;
    let mut partial = node.holdings.forgotten_before_ms > query.window.from_ms;
    for (column, unknown) in columns.iter().zip(&unknown) {
        if !wanted() {
            return None;
        }
        let straddles = straddles(column, &query.window);
        for (part, unknown) in column.parts().iter().zip(unknown) {
            partial |= part.partial;
            let Some(hot_keys) = part.hot_keys.as_deref().or(unknown.as_ref()) else { continue };
            partial |= hot_keys.missing;
            let summary = of(hot_keys, query.series);
            let of_part = summary.threshold();
            threshold = threshold.saturating_add(of_part);
            for named in inside(summary.keys(), &query.range) {
                let (lower, upper) = summary.bounds(named);
                // Counted for a longer time: all of it may have happened outside of the window.
                let (lower, bytes) = if straddles { (0, 0) } else { (lower, named.bytes) };
                let sums = sums.entry(&named.key).or_insert(KeySums {
                    lower: 0,
                    upper: 0,
                    thresholds: 0,
                    bytes: 0,
                    first_ms: column.start_ms(),
                    last_ms: column.end_ms(),
                });
                sums.lower = sums.lower.saturating_add(lower);
                sums.upper = sums.upper.saturating_add(upper);
                sums.thresholds = sums.thresholds.saturating_add(of_part);
                sums.bytes = sums.bytes.saturating_add(bytes);
                sums.first_ms = sums.first_ms.min(column.start_ms());
                sums.last_ms = sums.last_ms.max(column.end_ms());
            }
            if !straddles {
                listed.push((column, summary));
            }
        }
    }
    let operations = operations(columns, query, wanted)?;
    let bounds = |(key, sums): (&[u8], KeySums)| {
        let missed = threshold.saturating_sub(sums.thresholds);
        KeyBounds {
            key: Bytes::copy_from_slice(key),
            lower: sums.lower,
            // No key had more than all of them, save for what the edges of the window leave open.
            upper: sums.upper.saturating_add(missed).min(operations).max(sums.lower),
            bytes: sums.bytes,
            first_ms: sums.first_ms,
            last_ms: sums.last_ms,
            points: Vec::new(),
        }
    };
    let mut keys: Vec<KeyBounds> = sums.into_iter().map(bounds).collect();
    keys.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut part = HotKeysPart {
        node: node.node,
        held_by: node.node,
        keys,
        threshold: threshold.min(operations),
        operations,
        partial,
        columns: columns.len() as u64,
    };
    part.prune(PART_KEYS);
    add_points(&mut part.keys, &listed, query);
    Some(part)
}

/// Whether some of a column's time is outside of the window.
fn straddles(column: &Column, window: &Window) -> bool {
    column.start_ms() < window.from_ms || column.end_ms() > window.to_ms
}

/// The keys of a range.
fn inside<'a>(keys: &'a [NamedKey], range: &KeyRange) -> &'a [NamedKey] {
    let from = keys.partition_point(|named| *named.key < *range.start);
    let to = match &range.end {
        Some(end) => keys.partition_point(|named| *named.key < **end),
        None => keys.len(),
    };
    keys.get(from..to).unwrap_or_default()
}

fn add_points(keys: &mut [KeyBounds], listed: &[(&Arc<Column>, &Summary)], query: &HotKeysQuery) {
    if query.points == 0 {
        return;
    }
    keys.iter_mut().for_each(|key| key.points = vec![0; query.points]);
    let Window { from_ms, to_ms } = query.window;
    let length_ms = u128::from(to_ms.saturating_sub(from_ms).max(1));
    let mut points: HashMap<&[u8], &mut Vec<u64>> =
        keys.iter_mut().map(|key| (&*key.key, &mut key.points)).collect();
    for (column, summary) in listed {
        let at_ms = u128::from(column.start_ms().max(from_ms) - from_ms);
        let point = (at_ms * query.points as u128 / length_ms) as usize;
        for named in inside(summary.keys(), &query.range) {
            let points = points.get_mut(&*named.key);
            if let Some(sum) = points.and_then(|points| points.get_mut(point)) {
                *sum = sum.saturating_add(summary.bounds(named).0);
            }
        }
    }
}

/// Operations of the series in the range: those of all slots that share keys with it.
fn operations(
    columns: &[Arc<Column>],
    query: &HotKeysQuery,
    wanted: &dyn Fn() -> bool,
) -> Option<u64> {
    let series = match query.series {
        Series::Reads | Series::ReadBytes => Series::Reads,
        Series::Writes | Series::WriteBytes => Series::Writes,
    };
    // By the address of the axis, which the columns hold.
    let mut by_axis: HashMap<usize, (&CellRun, Vec<u64>)> = HashMap::new();
    for column in columns {
        if !wanted() {
            return None;
        }
        for run in column.parts().iter().flat_map(|part| &part.runs) {
            let address = Arc::as_ptr(&run.axis).addr();
            let (_, sums) =
                by_axis.entry(address).or_insert_with(|| (run, vec![0; run.axis.len()]));
            run.cells.add_to(series, sums);
        }
    }
    let mut operations = 0u64;
    for (run, sums) in by_axis.into_values() {
        let mut rest = &sums[..];
        for chunk in run.axis.chunks() {
            let (own, after) = rest.split_at(chunk.slots().len());
            rest = after;
            for (slot, sum) in chunk.slots().iter().zip(own).filter(|(_, sum)| **sum > 0) {
                if overlap(&chunk.range(usize::from(slot.range)), &query.range) {
                    operations = operations.saturating_add(*sum);
                }
            }
        }
    }
    Some(operations)
}

fn overlap(left: &KeyRange, right: &KeyRange) -> bool {
    let before = |a: &KeyRange, b: &KeyRange| a.end.as_ref().is_some_and(|end| *end <= b.start);
    !before(left, right) && !before(right, left)
}

/// The share of one node in a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeBounds {
    /// The node that counted.
    pub node: NodeId,
    /// At least.
    pub lower: u64,
    /// At most.
    pub upper: u64,
}

/// A hot key of the cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct HotKey {
    /// What is known of it.
    pub bounds: KeyBounds,
    /// `lower` as a share of the operations in the range and window.
    pub share: f64,
    /// By node, those that list it.
    pub by_node: Vec<NodeBounds>,
}

/// The hot keys of a window and a range.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct HotKeys {
    /// The hottest first.
    pub keys: Vec<HotKey>,
    /// Every key of the range with more operations is listed.
    pub threshold: u64,
    /// The largest difference of the bounds of a listed key.
    pub max_error: u64,
    /// Operations in the range and window.
    pub operations: u64,
    /// Counts or keys may be missing: of a time, or of a node.
    pub partial: bool,
}

/// Adds up what nodes counted, and keeps the `limit` hottest keys. A node that several answer for
/// counts once: as the one says that has most of it, and of equal ones as it says itself.
pub fn merge(parts: Vec<HotKeysPart>, limit: usize) -> HotKeys {
    let mut of_node: BTreeMap<NodeId, HotKeysPart> = BTreeMap::new();
    let rank = |part: &HotKeysPart| (part.operations, part.node == part.held_by, part.columns);
    for part in parts {
        match of_node.get(&part.node) {
            Some(known) if rank(known) >= rank(&part) => {}
            _ => drop(of_node.insert(part.node, part)),
        }
    }
    let sum =
        |number: fn(&HotKeysPart) -> u64| of_node.values().map(number).fold(0, u64::saturating_add);
    let (threshold, operations) = (sum(|part| part.threshold), sum(|part| part.operations));
    let partial = of_node.values().any(|part| part.partial);
    let mut keys: HashMap<Bytes, (HotKey, u64)> = HashMap::new();
    for (node, part) in of_node {
        for bounds in part.keys {
            let of_node = NodeBounds { node, lower: bounds.lower, upper: bounds.upper };
            let (known, thresholds) = keys.entry(bounds.key.clone()).or_insert_with(|| {
                let empty = KeyBounds {
                    key: bounds.key.clone(),
                    first_ms: bounds.first_ms,
                    points: vec![0; bounds.points.len()],
                    ..KeyBounds::default()
                };
                (HotKey { bounds: empty, share: 0.0, by_node: Vec::new() }, 0)
            });
            let sum = &mut known.bounds;
            sum.lower = sum.lower.saturating_add(bounds.lower);
            sum.upper = sum.upper.saturating_add(bounds.upper);
            sum.bytes = sum.bytes.saturating_add(bounds.bytes);
            sum.first_ms = sum.first_ms.min(bounds.first_ms);
            sum.last_ms = sum.last_ms.max(bounds.last_ms);
            let points = sum.points.iter_mut().zip(bounds.points);
            points.for_each(|(sum, more)| *sum = sum.saturating_add(more));
            *thresholds = thresholds.saturating_add(part.threshold);
            known.by_node.push(of_node);
        }
    }
    let complete = |(mut key, thresholds): (HotKey, u64)| {
        let missed = threshold.saturating_sub(thresholds);
        key.bounds.upper = key.bounds.upper.saturating_add(missed).min(operations);
        key.bounds.upper = key.bounds.upper.max(key.bounds.lower);
        key.share = key.bounds.lower as f64 / operations.max(key.bounds.lower).max(1) as f64;
        key
    };
    let mut keys: Vec<HotKey> = keys.into_values().map(complete).collect();
    let hottest = |key: &HotKey| std::cmp::Reverse((key.bounds.lower, key.bounds.upper));
    keys.sort_unstable_by(|a, b| {
        hottest(a).cmp(&hottest(b)).then_with(|| a.bounds.key.cmp(&b.bounds.key))
    });
    let cut = keys.iter().skip(limit).map(|key| key.bounds.upper).max().unwrap_or(0);
    keys.truncate(limit);
    let errors = keys.iter().map(|key| key.bounds.upper - key.bounds.lower);
    HotKeys {
        max_error: errors.max().unwrap_or(0),
        threshold: threshold.max(cut),
        keys,
        operations,
        partial,
    }
}
