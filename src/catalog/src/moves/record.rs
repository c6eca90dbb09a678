//! The moves under way and the newest that ended, as the cluster has agreed.
//!
//! A move is a procedure whose phase is recorded here before its steps are made, so whoever makes
//! them can die at any moment, and the next leader of the catalog group goes on from the phase.
//!
//! ```text
//!             Seal             Commit               Finish
//!  copying ---------> sealing ---------> cleaning ---------> ended: moved
//!     |
//!     | Abandon              Finish
//!     +-------> abandoning ---------> ended: abandoned
//! ```
//!
//! A move can be abandoned until it is sealing, and only completed from then on: the groups may
//! seal and adopt the range at any moment after. (The exception is one whose source has said that
//! it will never seal, because more keys changed than it notes.)
//!
//! Which group owns a range is decided by the entries of the two groups; what is recorded here
//! follows them.
//!
//! The whole is one record. It stays for ever once a route has moved, so that a version that knows
//! no moves, and therefore would not refuse what a group no longer owns, cannot open the catalog.

use std::collections::{BTreeMap, VecDeque};

use bincode::{Decode, Encode};

use keyviz_types::{GroupId, KeyRange, RouteId};

/// Most moves under way at a time.
pub const MAX_MOVES: usize = 8;

/// Ended moves that are remembered.
pub const MAX_ENDED_MOVES: usize = 128;

/// Longest reason that is recorded for an abandoned move, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// Number of a move; the first is 1, and none is used twice.
pub type MoveId = u64;

/// Where a move stands.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MovePhase {
    /// Rows are copied, and what changes meanwhile is copied after them.
    Copying,
    /// The range goes from one group to the other.
    Sealing,
    /// The route has moved; its rows in the group that it left are deleted.
    Cleaning,
    /// It is taken back, and what was copied is deleted.
    Abandoning {
        /// Why.
        reason: String,
    },
}

impl MovePhase {
    /// The name in every output.
    pub const fn name(&self) -> &'static str {
        match self {
            MovePhase::Copying => "copying",
            MovePhase::Sealing => "sealing",
            MovePhase::Cleaning => "cleaning",
            MovePhase::Abandoning { .. } => "abandoning",
        }
    }

    /// Whether the route cannot change now: it is not clear yet which group will have it.
    pub const fn holds_route(&self) -> bool {
        matches!(self, MovePhase::Copying | MovePhase::Sealing)
    }
}

/// A move under way.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RouteMove {
    /// Its number.
    pub id: MoveId,
    /// The route.
    pub route_id: RouteId,
    /// Its keys.
    pub range: KeyRange,
    /// The group that has it, or had it.
    pub from: GroupId,
    /// The group that gets it.
    pub to: GroupId,
    /// Where it stands.
    pub phase: MovePhase,
    /// Unix time in milliseconds at which it was recorded.
    pub started_ms: u64,
    /// Id of the request for it; empty: it had none.
    pub request_id: String,
    /// Catalog version that the move made; 0: none yet.
    pub version: u64,
    /// Unix time in milliseconds that this change bears.
    pub moved_ms: u64,
}

/// A move that ended.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct EndedMove {
    /// Its number.
    pub id: MoveId,
    /// The route.
    pub route_id: RouteId,
    /// The group that had it.
    pub from: GroupId,
    /// The group that it went to, or should have gone to.
    pub to: GroupId,
    /// Unix time in milliseconds at which it was recorded.
    pub started_ms: u64,
    /// Unix time in milliseconds at which it ended.
    pub ended_ms: u64,
    /// Id of the request for it; empty: it had none.
    pub request_id: String,
    /// Catalog version that the move made; 0: it was abandoned.
    pub version: u64,
    /// Unix time in milliseconds that this change bears.
    pub moved_ms: u64,
    /// Why it was abandoned; empty: it was not.
    pub reason: String,
}

/// All that is recorded of moves.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
pub struct RouteMoves {
    /// Moves that were ever recorded.
    pub(crate) last_id: MoveId,
    /// By number.
    pub(crate) under_way: Vec<RouteMove>,
    /// Oldest first.
    pub(crate) ended: VecDeque<EndedMove>,
    /// For each group that a route moved to, the entry of its log by which it took the last one.
    pub(crate) adopted: BTreeMap<GroupId, u64>,
    /// Catalog version that the newest move made, and the time that this change bears.
    pub(crate) last_change: (u64, u64),
}

impl RouteMoves {
    /// The moves under way, by number.
    pub fn under_way(&self) -> &[RouteMove] {
        &self.under_way
    }

    /// The newest moves that ended, oldest first.
    pub fn ended(&self) -> impl ExactSizeIterator<Item = &EndedMove> {
        self.ended.iter()
    }

    /// For each group that a route moved to, the entry of its log by which it took the last one: a
    /// replica that has not applied that entry does not have the rows of all its routes.
    pub fn adopted(&self) -> &BTreeMap<GroupId, u64> {
        &self.adopted
    }

    /// A move under way.
    pub fn get(&self, id: MoveId) -> Option<&RouteMove> {
        self.under_way.iter().find(|moving| moving.id == id)
    }

    /// The move under way of a route.
    pub fn of_route(&self, route_id: RouteId) -> Option<&RouteMove> {
        self.under_way.iter().find(|moving| moving.route_id == route_id)
    }

    /// The move that keeps the routes of a range as they are.
    pub(crate) fn holding(&self, range: &KeyRange) -> Option<&RouteMove> {
        self.under_way.iter().find(|held| held.phase.holds_route() && touch(&held.range, range))
    }

    /// A move, whatever its phase, that has keys of a range.
    pub(crate) fn touching(&self, range: &KeyRange) -> Option<&RouteMove> {
        self.under_way.iter().find(|moving| touch(&moving.range, range))
    }

    /// Whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.last_id == 0
    }
}

fn touch(a: &KeyRange, b: &KeyRange) -> bool {
    let before = |end: &Option<bytes::Bytes>, start| end.as_ref().is_some_and(|end| end <= start);
    !before(&a.end, &b.start) && !before(&b.end, &a.start)
}
