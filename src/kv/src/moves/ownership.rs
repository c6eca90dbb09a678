//! Which keys a replica refuses, for those who read its rows.
//!
//! A read looks before and after it reads: what is refused is refused from the moment on at which
//! the entry that says so is being applied, and what is taken is served once its rows are written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use keyviz_types::{GroupId, KeyRange};

use super::ranges::RangeSet;

#[derive(Default, Debug)]
struct View {
    refused: RangeSet,
    /// The rows are being replaced, and what is refused of the new ones is not known yet.
    unknown: bool,
}

/// What the replica of a group refuses.
#[derive(Default, Debug)]
pub struct Ownership {
    view: RwLock<View>,
    /// Grows with each change.
    changes: AtomicU64,
}

impl Ownership {
    /// Whether a key of `start..end` is refused; otherwise what [`Ownership::unchanged`] takes.
    pub(crate) fn look(&self, start: &[u8], end: Option<&[u8]>) -> Option<u64> {
        let changes = self.changes.load(Ordering::Acquire);
        let view = self.view.read();
        let refused = view.unknown || !view.refused.is_empty() && view.refused.touches(start, end);
        (!refused).then_some(changes)
    }

    /// As [`Ownership::look`], for one key.
    pub(crate) fn look_at_key(&self, key: &[u8]) -> Option<u64> {
        let changes = self.changes.load(Ordering::Acquire);
        (!self.refuses(key)).then_some(changes)
    }

    /// Whether one key is refused.
    pub(crate) fn refuses(&self, key: &[u8]) -> bool {
        let view = self.view.read();
        view.unknown || !view.refused.is_empty() && view.refused.contains(key)
    }

    /// Whether nothing changed since a look.
    pub(crate) fn unchanged(&self, looked: u64) -> bool {
        // What was read comes before this load.
        std::sync::atomic::fence(Ordering::Acquire);
        self.changes.load(Ordering::Acquire) == looked
    }

    /// Refuses the range too.
    pub(super) fn refuse(&self, range: &KeyRange) {
        self.change(|view| view.refused.add(range));
    }

    pub(super) fn publish(&self, refused: RangeSet) {
        self.change(|view| *view = View { refused, unknown: false });
    }

    pub(super) fn forget(&self) {
        self.change(|view| view.unknown = true);
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write();
        change(&mut view);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// What the replicas of a node refuse, and what they must have applied.
#[derive(Default, Debug)]
pub struct Ownerships {
    groups: RwLock<HashMap<GroupId, Arc<Ownership>>>,
    adopted: RwLock<BTreeMap<GroupId, u64>>,
}

impl Ownerships {
    /// What the replica of a group refuses.
    pub(crate) fn of(&self, group: GroupId) -> Arc<Ownership> {
        if let Some(known) = self.groups.read().get(&group) {
            return Arc::clone(known);
        }
        Arc::clone(self.groups.write().entry(group).or_default())
    }

    /// For a replica of the group that is about to be opened. All is refused until its rows say
    /// more.
    pub(crate) fn renew(&self, group: GroupId) -> Arc<Ownership> {
        let ownership = Arc::new(Ownership::default());
        ownership.forget();
        self.groups.write().insert(group, Arc::clone(&ownership));
        ownership
    }

    /// Says for each group by which entry it took the last route that moved to it. To be said
    /// before the routes are published that lead there.
    pub fn set_adopted(&self, adopted: &BTreeMap<GroupId, u64>) {
        if *self.adopted.read() != *adopted {
            self.adopted.write().clone_from(adopted);
        }
    }

    /// The entry that a replica of the group must have applied to have the rows of all routes that
    /// are published here.
    pub(crate) fn adopted(&self, group: GroupId) -> u64 {
        self.adopted.read().get(&group).copied().unwrap_or(0)
    }
}
