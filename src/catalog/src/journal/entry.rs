//! What is recorded.

use std::collections::VecDeque;
use std::sync::Arc;

use bincode::{Decode, Encode};

use keyviz_types::{GroupId, KeyRange, NodeId};

/// Entries that are kept.
pub const MAX_JOURNAL: usize = 1_024;

/// Longest text of an entry, in bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// Most nodes, and most groups, of a recorded forecast or measurement: those of the largest load.
pub const MAX_CHANGES: usize = 64;

/// Number of an entry; the first is 1, and none is used twice.
pub type EntryId = u64;

/// What begins the request id of a change that an entry was made for, before the entry's number.
pub(crate) const REQUEST_PREFIX: &str = "keyviz-act-";

/// What the autopilot does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum AutopilotMode {
    /// Nothing.
    Off,
    /// It says what it would do.
    Advise,
    /// It acts.
    Act,
}

/// A change of the layout.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum LayoutAct {
    /// A split.
    Split {
        /// First key of the right side.
        at: Vec<u8>,
    },
    /// A split, and a move of one side.
    SplitAndMove {
        /// First key of the right side.
        at: Vec<u8>,
        /// The side that moves.
        range: KeyRange,
        /// Where to.
        to: GroupId,
    },
    /// A move of routes.
    Move {
        /// Their keys.
        range: KeyRange,
        /// Where to.
        to: GroupId,
    },
    /// Another leader.
    TransferLeader {
        /// The group.
        group: GroupId,
        /// The new leader.
        to: NodeId,
    },
    /// A merge.
    Merge {
        /// The keys of the routes.
        range: KeyRange,
    },
}

/// Load before and after, in thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct LoadChange {
    /// The node or the group.
    pub id: u64,
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

/// A forecast.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct ActForecast {
    /// By node, ascending.
    pub nodes: Vec<LoadChange>,
    /// By group, ascending.
    pub groups: Vec<LoadChange>,
    /// The hottest node over the mean; its id is 0.
    pub imbalance: LoadChange,
    /// Routes fewer than before.
    pub routes_saved: u64,
}

/// A measurement.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct ActOutcome {
    /// Unix milliseconds.
    pub from_ms: u64,
    /// The same.
    pub to_ms: u64,
    /// By node, ascending.
    pub nodes: Vec<LoadChange>,
    /// The hottest node over the mean; its id is 0.
    pub imbalance: LoadChange,
    /// What it would be without the act, in thousandths.
    pub without: u64,
    /// Operations a second; its id is 0.
    pub operations: LoadChange,
    /// It is worse than nothing.
    pub worse: bool,
    /// Why there is no measurement; empty: there is one.
    pub missing: String,
}

/// Where an act stands.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ActState {
    /// It has begun.
    UnderWay,
    /// It was done.
    Done,
    /// It was not done.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One act.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct JournalEntry {
    /// Its number.
    pub id: EntryId,
    /// The autopilot acted; otherwise somebody who asked for it.
    pub autopilot: bool,
    /// It was begun by a command of the journal, so its steps are made by the leader of the catalog
    /// group; otherwise it was entered as it was made.
    pub begun: bool,
    /// What was done.
    pub act: LayoutAct,
    /// Why; empty: it was not said.
    pub why: String,
    /// The finding that it is a remedy of; empty: none.
    pub finding: String,
    /// Id of the request for it; empty: it had none.
    pub request_id: String,
    /// The group that had the keys.
    pub from_group: Option<GroupId>,
    /// The node that led.
    pub from_node: Option<NodeId>,
    /// Where it stands.
    pub state: ActState,
    /// Unix milliseconds.
    pub started_ms: u64,
    /// The same; 0: it has not ended.
    pub ended_ms: u64,
    /// Cost a second.
    pub forecast: Option<ActForecast>,
    /// What came of it.
    pub outcome: Option<ActOutcome>,
    /// The entry that this one takes back; 0: none.
    pub undoes: EntryId,
    /// The entry that took this one back; 0: none.
    pub undone_by: EntryId,
    /// Catalog version that it made last; 0: none.
    pub version: u64,
}

impl JournalEntry {
    /// The id of the request for one step of an act, so that the step is made once.
    pub fn step_request_id(id: EntryId, step: &str) -> String {
        format!("{REQUEST_PREFIX}{id}-{step}")
    }
}

/// What is recorded beside the entries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct JournalHead {
    /// Entries that were ever made.
    pub last_id: EntryId,
    /// Grows with every command.
    pub revision: u64,
    /// The mode that was set at run time.
    pub mode: Option<AutopilotMode>,
}

/// The whole of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Journal {
    pub(crate) head: JournalHead,
    /// Oldest first.
    pub(crate) entries: VecDeque<Arc<JournalEntry>>,
}

impl Journal {
    /// Whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.head.revision == 0
    }

    /// Grows with every command; 0: there was none.
    pub fn revision(&self) -> u64 {
        self.head.revision
    }

    /// The mode that was set at run time.
    pub fn mode(&self) -> Option<AutopilotMode> {
        self.head.mode
    }

    /// The newest entries, oldest first.
    pub fn entries(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<JournalEntry>> + ExactSizeIterator {
        self.entries.iter()
    }

    /// An entry.
    pub fn get(&self, id: EntryId) -> Option<&Arc<JournalEntry>> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(at)
    }

    /// The entry of a request.
    pub fn of_request(&self, request_id: &str) -> Option<&Arc<JournalEntry>> {
        let found = |entry: &&Arc<JournalEntry>| entry.request_id == request_id;
        self.entries.iter().find(|entry| !request_id.is_empty() && found(entry))
    }
}
