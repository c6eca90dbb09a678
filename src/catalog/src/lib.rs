//! The route catalog: key ranges, their ids, their Raft groups, and changes of these.
//!
//! A pure state machine ([`Catalog`]) with the snapshot of live routes that it publishes
//! ([`RouteTable`]) and the fan-out of its changes to subscribers ([`WatchHub`]). It has no Raft,
//! gRPC, storage engine, clock or random source: commands arrive in order with their time, and
//! records are bytes.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod journal;
mod limits;
mod machine;
mod members;
mod moves;
mod routes;
mod watch;

pub use journal::apply::JournalApplied;
pub use journal::command::{Begun, JournalCommand};
pub use journal::entry::{
    ActForecast, ActOutcome, ActState, AutopilotMode, EntryId, Journal, JournalEntry, LayoutAct,
    LoadChange, MAX_CHANGES, MAX_JOURNAL, MAX_TEXT_BYTES,
};
pub use journal::error::JournalError;
pub use limits::{
    MAX_BOUNDARY_BYTES, MAX_COMMAND_BYTES, MAX_GROUPS, MAX_KEY_BYTES, MAX_RECORD_BYTES,
    MAX_REPLICAS, MAX_REQUEST_ID_BYTES, MAX_ROUTES, MAX_SNAPSHOT_BYTES, MAX_TIME_MS,
    RESERVED_PREFIX, Retention,
};
pub use machine::codec::CodecError;
pub use machine::command::CatalogCommand;
pub use machine::error::{CatalogError, KeyError, check_boundary};
pub use machine::load::LoadError;
pub use machine::records::RecordChange;
pub use machine::split::{SplitChoice, SplitChoiceError, split_key_that_halves};
pub use machine::state::{Applied, Catalog, MAX_SUCCESSORS};
pub use members::balance::{
    BalanceView, GroupView, LeaderMove, NodeView, ReplicaMove, catalog_voters,
};
pub use members::cluster::{
    BadClusterId, ClusterId, ClusterRecord, GroupPlacement, PlacementError,
};
pub use members::disks::{DiskCommand, DiskError, Disks};
pub use members::leaving::LeaveError;
pub use members::placement::{
    Departure, MAX_GONE, Moving, PlaceChange, PlaceCommand, PlaceError, Placement,
};
pub use members::plan::{BootstrapPlan, PlanError, plan_bootstrap};
pub use members::relocate::{RelocateError, Relocated};
pub use moves::apply::MoveApplied;
pub use moves::command::MoveCommand;
pub use moves::error::MoveError;
pub use moves::record::{
    EndedMove, MAX_ENDED_MOVES, MAX_MOVES, MoveId, MovePhase, RouteMove, RouteMoves,
};
pub use routes::log::{Changes, ChangesError};
pub use routes::past::{PastRoutes, RouteEvent, RouteEvents};
pub use routes::route::{Delta, DeltaKind, Kin, Origin, Retired, Route};
pub use routes::table::{RouteTable, TableError};
pub use watch::applied::AppliedCatalog;
pub use watch::hub::{HubError, MAX_EVENT_DELTAS, Subscription, WatchDeltas, WatchEvent, WatchHub};
pub use watch::replica::{FollowError, RouteTableReplica};
