//! The closed columns, in tiers: as they were flushed, then by five minutes, then by the hour.
//!
//! Over a budget the oldest columns of a tier are folded into one of the next, exactly; what is
//! folded out of the last tier is forgotten, and that it is gone is remembered. Raw columns have a
//! budget of columns and half of the bytes, each coarser tier a quarter, and what one tier does not
//! use the others may.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::column::{Column, ColumnId};
use super::hot_keys::{SharedKeys, list_fewer};
use super::slots::{Interner, SlotAxis};
use super::window::Window;
use crate::hotkeys::column::ColumnHotKeys;

/// Length of a column of the second tier, about: a whole number of steps. The newest column of a
/// tier may be shorter, as it ends where the last column folded into it did.
pub const MIDDLE_TIER_MS: u64 = 300_000;
/// Length of a column of the third tier, about: a whole number of columns of the second.
pub const LAST_TIER_MS: u64 = 3_600_000;

const TIERS: usize = 3;
/// Quarters of the byte budget that each tier may fill before it is the one that gives way.
const QUARTERS: [usize; TIERS] = [2, 1, 1];

#[derive(Debug)]
pub(crate) struct Tiers {
    /// Column length of each tier, ascending; a step as long as a tier leaves that tier out.
    lengths_ms: Vec<u64>,
    columns: BTreeMap<ColumnId, Arc<Column>>,
    /// The ids of each tier.
    ids: [BTreeSet<ColumnId>; TIERS],
    /// Bytes of each tier's columns, without axes.
    bytes: [usize; TIERS],
    axes: Axes,
    hot_keys: SharedKeys,
    longest_ms: u64,
    forgotten_before_ms: u64,
    /// What was inserted or removed since it was asked.
    changed: BTreeSet<ColumnId>,
}

/// How often axes and chunks are referred to, and their bytes.
#[derive(Default, Debug)]
struct Axes {
    axes: HashMap<usize, usize>,
    chunks: HashMap<u128, usize>,
    bytes: usize,
}

impl Tiers {
    pub fn new(step_ms: u64) -> Self {
        let middle_ms = step_ms * MIDDLE_TIER_MS.div_ceil(step_ms);
        let last_ms = middle_ms * LAST_TIER_MS.div_ceil(middle_ms);
        let mut lengths_ms = vec![step_ms, middle_ms, last_ms];
        lengths_ms.dedup();
        Tiers {
            lengths_ms,
            columns: BTreeMap::new(),
            ids: Default::default(),
            bytes: [0; TIERS],
            axes: Axes::default(),
            hot_keys: SharedKeys::default(),
            longest_ms: step_ms,
            forgotten_before_ms: 0,
            changed: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn oldest_ms(&self) -> Option<u64> {
        self.columns.first_key_value().map(|(id, _)| id.start_ms)
    }

    /// End of the newest column.
    pub fn newest_ms(&self) -> Option<u64> {
        // The last of a tier ends last in it.
        self.ids.iter().filter_map(|ids| ids.last()).map(|id| id.end_ms).max()
    }

    /// Everything before `at_ms` is gone.
    pub fn forget_before(&mut self, at_ms: u64) {
        self.forgotten_before_ms = self.forgotten_before_ms.max(at_ms);
    }

    /// End of the newest column that was forgotten.
    pub fn forgotten_before_ms(&self) -> u64 {
        self.forgotten_before_ms
    }

    /// Bytes of columns, axes and chunks.
    pub fn bytes(&self) -> usize {
        self.bytes.iter().sum::<usize>() + self.axes.bytes
    }

    /// Bytes of the hot keys of all columns.
    pub fn hot_key_bytes(&self) -> usize {
        self.hot_keys.bytes()
    }

    /// A column is stored as it is here: that it was inserted is no change.
    pub fn is_stored(&mut self, id: ColumnId) {
        self.changed.remove(&id);
    }

    pub fn contains(&self, id: ColumnId) -> bool {
        self.columns.contains_key(&id)
    }

    /// The columns that share time with `window`, by start.
    pub fn overlapping(&self, window: Window) -> Vec<Arc<Column>> {
        let id = |start_ms| ColumnId { start_ms, end_ms: 0 };
        // No column starts further before the window than the longest is long.
        let from = window.from_ms.saturating_sub(self.longest_ms);
        self.columns
            .range(id(from)..id(window.to_ms.max(from)))
            .filter(|(id, _)| id.end_ms > window.from_ms)
            .map(|(_, column)| Arc::clone(column))
            .collect()
    }

    /// What was inserted, and the ids of what was removed, since the last call.
    pub fn take_changes(&mut self) -> (Vec<Arc<Column>>, Vec<ColumnId>) {
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.changed) {
            match self.columns.get(&id) {
                Some(column) => there.push(Arc::clone(column)),
                None => gone.push(id),
            }
        }
        (there, gone)
    }

    /// Adds a column to that of the same interval, if there is one.
    pub fn add(&mut self, mut column: Column, interner: &mut Interner) {
        if let Some(mine) = self.remove(column.id()) {
            column.absorb(&mine);
            column.join(interner);
        }
        self.hot_keys.share(&mut column);
        self.insert(Arc::new(column));
    }

    fn insert(&mut self, column: Arc<Column>) {
        let id = column.id();
        let tier = self.tier(id);
        self.longest_ms = self.longest_ms.max(id.end_ms - id.start_ms);
        self.bytes[tier] += column.bytes();
        column.axes().for_each(|axis| self.axes.hold(axis));
        self.hot_keys.hold(&column);
        self.ids[tier].insert(id);
        self.changed.insert(id);
        let replaced = self.columns.insert(id, column);
        assert!(replaced.is_none(), "a column of the same interval is added to");
    }

    pub fn remove(&mut self, id: ColumnId) -> Option<Arc<Column>> {
        let column = self.columns.remove(&id)?;
        let tier = self.tier(id);
        self.bytes[tier] -= column.bytes();
        column.axes().for_each(|axis| self.axes.release(axis));
        self.hot_keys.release(&column);
        self.ids[tier].remove(&id);
        self.changed.insert(id);
        Some(column)
    }

    fn tier(&self, id: ColumnId) -> usize {
        let length_ms = id.end_ms - id.start_ms;
        let last = self.lengths_ms.len() - 1;
        self.lengths_ms[..last].iter().filter(|&&tier_ms| length_ms > tier_ms).count()
    }

    /// Folds and forgets the oldest until there are at most `columns` raw ones, and at most
    /// `bytes`. What cannot be folded, as the only column of an interval that has not passed at
    /// `now_ms`, stays.
    pub fn shrink(&mut self, columns: usize, bytes: usize, now_ms: u64, interner: &mut Interner) {
        while self.ids[0].len() > columns && self.give_way(0, now_ms, interner) {}
        while self.bytes() > bytes {
            let over = |tier: &usize| self.bytes[*tier] > bytes / 4 * QUARTERS[*tier];
            // With no tier over its own budget axes fill the bytes, and the oldest columns the
            // oldest.
            let (full, rest): (Vec<_>, Vec<_>) = (0..TIERS).partition(over);
            let mut tiers = full.into_iter().chain(rest);
            if !tiers.any(|tier| self.give_way(tier, now_ms, interner)) {
                return;
            }
        }
    }

    /// Lets the oldest columns list fewer hot keys until all together have at most `bytes`.
    pub fn shrink_hot_keys(&mut self, bytes: usize) {
        while self.hot_keys.bytes() > bytes {
            let lists = |column: &Arc<Column>| column.hot_keys().any(|keys| keys.len() > 0);
            let listing = self.columns.iter().filter(|(_, column)| lists(column));
            let ids: Vec<ColumnId> = listing.map(|(id, _)| *id).collect();
            if ids.is_empty() {
                return;
            }
            for id in ids {
                if self.hot_keys.bytes() <= bytes {
                    return;
                }
                let column = self.remove(id).expect("its id was just found");
                let mut column = Arc::unwrap_or_clone(column);
                list_fewer(&mut column);
                self.insert(Arc::new(column));
            }
        }
    }

    /// Folds the oldest columns of a tier into one of the next, or forgets the oldest; whether that
    /// was possible.
    fn give_way(&mut self, tier: usize, now_ms: u64, interner: &mut Interner) -> bool {
        let Some(&oldest) = self.ids[tier].first() else { return false };
        let Some(&length_ms) = self.lengths_ms.get(tier + 1) else {
            self.remove(oldest);
            self.forgotten_before_ms = self.forgotten_before_ms.max(oldest.end_ms);
            return true;
        };
        let start_ms = oldest.start_ms - oldest.start_ms % length_ms;
        let end_ms = oldest.end_ms.div_ceil(length_ms) * length_ms;
        let inside = |ids: &BTreeSet<ColumnId>| {
            let from = ColumnId { start_ms, end_ms: 0 };
            let of = ids.range(from..).take_while(|id| id.start_ms < end_ms);
            of.filter(|id| id.end_ms <= end_ms).copied().collect::<Vec<_>>()
        };
        let mut members = inside(&self.ids[tier]);
        members.extend(inside(&self.ids[tier + 1]));
        // Counts of an interval that has not passed must not reach into the future.
        let id = if end_ms <= now_ms {
            ColumnId { start_ms, end_ms }
        } else if members.len() > 1 {
            let (starts, ends) =
                (members.iter().map(|id| id.start_ms), members.iter().map(|id| id.end_ms));
            let start_ms = starts.min().expect("there are members");
            ColumnId { start_ms, end_ms: ends.max().expect("there are members") }
        } else {
            return false;
        };
        let mut folded = Column::new(id.start_ms, id.end_ms);
        folded.set_closed(true);
        for id in members {
            let column = self.remove(id).expect("the ids of a tier are those of its columns");
            folded.absorb(&column);
        }
        folded.join(interner);
        folded.hot_keys_mut().for_each(ColumnHotKeys::prune_to_matter);
        self.add(folded, interner);
        true
    }
}

impl Axes {
    fn hold(&mut self, axis: &Arc<SlotAxis>) {
        let uses = self.axes.entry(Arc::as_ptr(axis).addr()).or_default();
        *uses += 1;
        if *uses > 1 {
            return;
        }
        self.bytes += axis.bytes();
        for chunk in axis.chunks() {
            let uses = self.chunks.entry(chunk.digest()).or_default();
            *uses += 1;
            if *uses == 1 {
                self.bytes += chunk.bytes();
            }
        }
    }

    fn release(&mut self, axis: &Arc<SlotAxis>) {
        let address = Arc::as_ptr(axis).addr();
        let uses = self.axes.get_mut(&address).expect("held when its column was inserted");
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        self.axes.remove(&address);
        self.bytes -= axis.bytes();
        for chunk in axis.chunks() {
            let uses = self.chunks.get_mut(&chunk.digest()).expect("held with its axis");
            *uses -= 1;
            if *uses == 0 {
                self.chunks.remove(&chunk.digest());
                self.bytes -= chunk.bytes();
            }
        }
    }
}
