//! Columns of nodes that have left, kept by one that stays.
//!
//! They stay those of the node that counted them: contributions are keyed by (node, incarnation,
//! column), so it changes nothing if the node that leaves still answers too, or if two nodes were
//! given the same columns. All histories that are kept for others have a quarter of the node's own
//! byte budget on top of it, in equal parts, and over it become coarser and at last are forgotten
//! as the own ones do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::archive::{self, Archive, Damaged};
use super::column::Column;
use super::config::HistoryConfig;
use super::hot_keys::SHARE_OF_HISTORY;
use super::open::AxisInterner;
use super::tiers::Tiers;
use super::view::{Answering, Holdings};
use super::window::Window;
use keyviz_types::{Incarnation, NodeId};

/// All that one node counted, on its way to another node or to the disk.
#[derive(Clone, Debug)]
pub struct HistoryHandoff {
    /// Who counted.
    pub node: NodeId,
    /// Its last life.
    pub incarnation: Incarnation,
    /// End of the newest column that was dropped for space before; 0: none was.
    pub forgotten_before_ms: u64,
    /// Its columns, by start.
    pub columns: Vec<Arc<Column>>,
}

/// Key of the record that says what a handoff is. It is written last, and what lacks it is none.
const SUMMARY: &[u8] = b"e";
const SUMMARY_VERSION: u8 = 1;

impl HistoryHandoff {
    /// The handoff as records for an ordered key-value store, newest column first, what a column
    /// refers to before it, and the summary last. Packs one column at a time.
    pub fn records(self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let summary = HistoryHandoff::summary(self.incarnation, self.forgotten_before_ms);
        let mut archive = Archive::default();
        let columns = self.columns.into_iter().rev();
        let of = move |column: Arc<Column>| {
            let mut column = Arc::unwrap_or_clone(column);
            // What was open when the node left is as complete as it will be.
            column.set_closed(true);
            archive.batch([&column], &[]).puts
        };
        columns.flat_map(of).chain([summary])
    }

    /// The record that makes a handoff of the records of a node's own history.
    pub fn summary(incarnation: Incarnation, forgotten_before_ms: u64) -> (Vec<u8>, Vec<u8>) {
        let mut summary = vec![SUMMARY_VERSION];
        summary.extend(incarnation.0.to_be_bytes());
        summary.extend(forgotten_before_ms.to_be_bytes());
        (SUMMARY.to_vec(), summary)
    }

    /// Whether the record of this key is the one that [`HistoryHandoff::summary`] makes.
    pub fn is_summary(key: &[u8]) -> bool {
        key == SUMMARY
    }

    /// Whether the record of this key has hot keys, which earlier versions do not read.
    pub fn is_hot_keys(key: &[u8]) -> bool {
        archive::is_hot_keys(key)
    }

    /// The handoff of `node` in these records, and how many of them are damaged; `None` without a
    /// summary.
    pub fn of_records<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        node: NodeId,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Option<(Self, Vec<Damaged>)> {
        let mut summary = None;
        let rest = records.into_iter().filter(|(key, value)| {
            let is_summary = key.as_ref() == SUMMARY;
            if is_summary {
                summary = Some(value.as_ref().to_vec());
            }
            !is_summary
        });
        let opened = Archive::open(rest.collect::<Vec<_>>());
        let summary = summary?;
        let (version, numbers) = summary.split_first()?;
        let (incarnation, forgotten) = numbers.split_at_checked(8)?;
        if *version != SUMMARY_VERSION {
            return None;
        }
        let mut columns: Vec<Arc<Column>> = opened.columns.into_iter().map(Arc::new).collect();
        columns.sort_by_key(|column| column.id());
        let handoff = HistoryHandoff {
            node,
            incarnation: Incarnation(u64::from_be_bytes(incarnation.try_into().ok()?)),
            forgotten_before_ms: u64::from_be_bytes(forgotten.try_into().ok()?)
                .max(opened.forgotten_before_ms),
            columns,
        };
        Some((handoff, opened.damaged))
    }
}

/// The histories of others.
#[derive(Default, Debug)]
pub(crate) struct HandedOver(Mutex<BTreeMap<NodeId, Kept>>);

#[derive(Debug)]
struct Kept {
    incarnation: Incarnation,
    forgotten_before_ms: u64,
    columns: Tiers,
}

impl Kept {
    fn forgotten_before_ms(&self) -> u64 {
        self.forgotten_before_ms.max(self.columns.forgotten_before_ms())
    }

    fn answering(&self, node: NodeId) -> Answering {
        let holdings = Holdings {
            columns: self.columns.len() as u64,
            oldest_ms: self.columns.oldest_ms().unwrap_or(u64::MAX),
            // Nothing is counted any more.
            open_ms: u64::MAX,
            newest_ms: self.columns.newest_ms().unwrap_or(0),
            forgotten_before_ms: self.forgotten_before_ms(),
            bytes: self.columns.bytes(),
            hot_key_bytes: self.columns.hot_key_bytes(),
        };
        Answering { node, incarnation: self.incarnation, holdings }
    }
}

impl HandedOver {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Kept>> {
        // A panic elsewhere leaves the map whole: each change is one insertion.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keep(&self, handoff: HistoryHandoff, config: &HistoryConfig, interner: &AxisInterner) {
        let mut columns = Tiers::new(config.step_ms);
        let now_ms = handoff.columns.last().map_or(0, |column| column.end_ms());
        let interner = &mut interner.lock();
        for column in handoff.columns {
            let mut column = Arc::unwrap_or_clone(column);
            // What was open when the node left is as complete as it will be.
            column.set_closed(true);
            column.intern(interner);
            columns.add(column, interner);
        }
        let HistoryHandoff { node, incarnation, forgotten_before_ms, .. } = handoff;
        let mut kept = self.lock();
        kept.insert(node, Kept { incarnation, forgotten_before_ms, columns });
        let each = config.bytes / 4 / kept.len();
        for kept in kept.values_mut() {
            kept.columns.shrink(config.columns, each, now_ms, interner);
            kept.columns.shrink_hot_keys(each / SHARE_OF_HISTORY);
        }
    }

    /// What is kept of `window`, by node.
    pub fn view(&self, window: Window) -> Vec<(Answering, Vec<Arc<Column>>)> {
        let kept = self.lock();
        let of = |(node, kept): (&NodeId, &Kept)| {
            (kept.answering(*node), kept.columns.overlapping(window))
        };
        kept.iter().map(of).collect()
    }

    pub fn handoffs(&self) -> Vec<HistoryHandoff> {
        let all = Window { from_ms: 0, to_ms: u64::MAX };
        let kept = self.lock();
        let of = |(node, kept): (&NodeId, &Kept)| HistoryHandoff {
            node: *node,
            incarnation: kept.incarnation,
            forgotten_before_ms: kept.forgotten_before_ms(),
            columns: kept.columns.overlapping(all),
        };
        kept.iter().map(of).collect()
    }
}

#[cfg(test)]
#[path = "handoff_tests.rs"]
mod tests;
