//! Distributes the catalog's changes to all subscribers of a node.
//!
//! There is no queue per subscriber. The hub holds one shared state, the newest table with the
//! retained changes, and a subscriber holds a cursor into it: when woken, it takes everything after
//! its cursor. A subscriber that sleeps for a minute costs nothing and gets many changes at once
//! when it wakes, or a new table if they are no longer retained. Publishing replaces the state and
//! wakes all subscribers; a change is stored once for all of them.
//!
//! ```text
//!   catalog --publish--> [ table v9 | changes 6 7 8 9 ] --wake--> cursor 8: change 9
//!                                                                 cursor 6: changes 7 8 9
//!                                                                 cursor 3: table v9, reset
//! ```
//!
//! The hub has no clock. A subscriber that wants progress marks while nothing changes puts a time
//! limit around [`Subscription::next`] (which is cancel safe), and then calls
//! [`Subscription::progress`].

use std::ops::{Deref, Range};
use std::sync::Arc;

use tokio::sync::watch;

use crate::limits::Retention;
use crate::routes::log::ChangesError;
use crate::routes::route::Delta;
use crate::routes::table::RouteTable;

/// Maximum number of changes in one event; the rest comes in the next.
pub const MAX_EVENT_DELTAS: usize = 1_024;

/// An event for a subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// The whole table; replaces whatever the subscriber had.
    Snapshot {
        /// The table.
        table: RouteTable,
        /// Whether the subscriber had a version whose successors are no longer retained.
        reset: bool,
    },
    /// The next changes, oldest first, without a hole; 1 to 1,024.
    Deltas(WatchDeltas),
    /// The subscriber is current up to this version, the newest of this node.
    Progress(u64),
}

/// Some of the hub's retained changes, shared by all subscribers.
#[derive(Clone)]
pub struct WatchDeltas {
    log: Arc<[Arc<Delta>]>,
    range: Range<usize>,
}

impl WatchDeltas {
    /// All of `deltas`.
    pub fn new(deltas: impl Into<Arc<[Arc<Delta>]>>) -> Self {
        let log = deltas.into();
        let range = 0..log.len();
        WatchDeltas { log, range }
    }
}

impl Deref for WatchDeltas {
    type Target = [Arc<Delta>];

    fn deref(&self) -> &[Arc<Delta>] {
        &self.log[self.range.clone()]
    }
}

impl PartialEq for WatchDeltas {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for WatchDeltas {}

impl std::fmt::Debug for WatchDeltas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Why something cannot be published. The hub is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HubError {
    /// The changes do not lead from the published version to that of the table.
    #[error("the hub is at version {have}; the changes given do not lead from there to {table}")]
    Hole {
        /// Version published last.
        have: u64,
        /// Version of the table given.
        table: u64,
    },
    /// The table is older than the published one.
    #[error("the hub is at version {have}; version {table} is older")]
    Backwards {
        /// Version published last.
        have: u64,
        /// Version of the table given.
        table: u64,
    },
}

struct Published {
    table: RouteTable,
    /// The newest changes without a hole; the last one made `table`.
    log: Arc<[Arc<Delta>]>,
}

/// Distributes the catalog's changes to any number of subscribers. Cheap to clone; clones share the
/// hub.
#[derive(Clone)]
pub struct WatchHub {
    published: Arc<watch::Sender<Published>>,
    retained: usize,
}

impl Default for WatchHub {
    fn default() -> Self {
        WatchHub::new(Retention::DEFAULT.deltas)
    }
}

impl WatchHub {
    /// An empty hub that retains at most `retained` changes.
    pub fn new(retained: usize) -> Self {
        let nothing = Published { table: RouteTable::empty(), log: Arc::from([]) };
        WatchHub { published: Arc::new(watch::Sender::new(nothing)), retained }
    }

    /// The table published last.
    pub fn table(&self) -> RouteTable {
        self.published.borrow().table.clone()
    }

    /// The current number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.published.receiver_count()
    }

    /// Publishes the table that follows the previous one by `deltas`.
    ///
    /// # Errors
    /// If the changes have a gap or do not lead to the table; nothing is published then.
    pub fn publish(&self, table: RouteTable, deltas: &[Arc<Delta>]) -> Result<(), HubError> {
        self.swap(table, |before, table| {
            let have = before.table.version();
            let hole = HubError::Hole { have, table: table.version() };
            let made = deltas.iter().map(|delta| delta.version);
            if have + deltas.len() as u64 != table.version() || !made.eq(have + 1..=table.version())
            {
                return Err(hole);
            }
            let log: Vec<_> = before.log.iter().chain(deltas).cloned().collect();
            let excess = log.len().saturating_sub(self.retained);
            Ok(log[excess..].into())
        })
    }

    /// Publishes a table with the changes that the catalog retains, as after a start or an
    /// installed snapshot. Subscribers with older cursors get the whole table.
    ///
    /// # Errors
    /// If the table is older than the published one, or the changes do not end with it.
    pub fn replace(&self, table: RouteTable, retained: &[Arc<Delta>]) -> Result<(), HubError> {
        self.swap(table, |before, table| {
            let (have, version) = (before.table.version(), table.version());
            if version < have {
                return Err(HubError::Backwards { have, table: version });
            }
            let first = version.checked_sub(retained.len() as u64);
            let made = retained.iter().map(|delta| delta.version);
            if !first.is_some_and(|first| made.eq(first + 1..=version)) {
                return Err(HubError::Hole { have, table: version });
            }
            Ok(retained[retained.len().saturating_sub(self.retained)..].into())
        })
    }

    fn swap(
        &self,
        table: RouteTable,
        log: impl FnOnce(&Published, &RouteTable) -> Result<Arc<[Arc<Delta>]>, HubError>,
    ) -> Result<(), HubError> {
        let mut outcome = Ok(());
        // Dropped outside of the closure, so that no reader waits for it.
        let mut before = None;
        self.published.send_if_modified(|published| match log(published, &table) {
            Ok(log) => {
                before = Some(std::mem::replace(published, Published { table, log }));
                true
            }
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome
    }

    /// Subscribes to everything after version `after`; 0: starting with the whole table.
    ///
    /// # Errors
    /// [`ChangesError::CursorAhead`] if this node has not applied `after` yet.
    pub fn subscribe(&self, after: u64) -> Result<Subscription, ChangesError> {
        let receiver = self.published.subscribe();
        let version = receiver.borrow().table.version();
        if after > version {
            return Err(ChangesError::CursorAhead { cursor: after, version });
        }
        Ok(Subscription { receiver, cursor: after, told_current: false })
    }
}

/// The position of one subscriber in the stream of changes.
pub struct Subscription {
    receiver: watch::Receiver<Published>,
    /// Version up to which everything was delivered.
    cursor: u64,
    /// Whether the subscriber has received a progress mark.
    told_current: bool,
}

impl Subscription {
    /// Version up to which everything was delivered.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next event: available changes, a progress mark when the subscriber is current for the
    /// first time, then changes as they are published. `None` when the hub is dropped.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            self.receiver.changed().await.ok()?;
        }
    }

    /// The next event, if it is available.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        let published = self.receiver.borrow_and_update();
        let version = published.table.version();
        if self.cursor == version {
            let first = !self.told_current;
            self.told_current = true;
            return first.then_some(WatchEvent::Progress(version));
        }
        let oldest = published.log.first().map(|delta| delta.version);
        let event = match oldest {
            Some(oldest) if self.cursor > 0 && oldest <= self.cursor + 1 => {
                let start = (self.cursor + 1 - oldest) as usize;
                let end = published.log.len().min(start + MAX_EVENT_DELTAS);
                let log = published.log.clone();
                self.cursor += (end - start) as u64;
                WatchEvent::Deltas(WatchDeltas { log, range: start..end })
            }
            _ => {
                let reset = self.cursor > 0;
                self.cursor = version;
                self.told_current = false;
                WatchEvent::Snapshot { table: published.table.clone(), reset }
            }
        };
        Some(event)
    }

    /// A progress mark if the subscriber is current; `None` where [`Subscription::next`] has
    /// something first.
    pub fn progress(&self) -> Option<WatchEvent> {
        let version = self.receiver.borrow().table.version();
        (self.cursor == version).then_some(WatchEvent::Progress(version))
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}
