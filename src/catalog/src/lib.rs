//! The route catalog: which key range is which route, in which Raft group, and how that changes.
//!
//! A pure state machine ([`Catalog`]) with the snapshot of live routes that it publishes
//! ([`RouteTable`]) and the fan-out of its changes to subscribers ([`WatchHub`]). It has no Raft,
//! gRPC, storage engine, clock or random source of its own: commands come ordered and bear their
//! time, and records go out as bytes.

mod applied;
mod balance;
mod cluster;
mod codec;
mod command;
mod disks;
mod error;
mod follower;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod halve;
mod hub;
mod leaving;
mod limits;
mod lineage;
mod load;
mod log;
mod past;
mod patch;
mod placement;
mod plan;
mod records;
mod relocate;
mod requests;
mod route;
mod state;
mod table;

#[cfg(test)]
mod hub_tests;
#[cfg(test)]
mod integrity_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod state_tests;

pub use applied::AppliedCatalog;
pub use balance::{BalanceView, GroupView, LeaderMove, NodeView, ReplicaMove, catalog_voters};
pub use cluster::{BadClusterId, ClusterId, ClusterRecord, GroupPlacement, PlacementError};
pub use codec::CodecError;
pub use command::CatalogCommand;
pub use disks::{DiskCommand, DiskError, Disks};
pub use error::{CatalogError, KeyError, check_boundary};
pub use follower::{FollowError, Follower};
pub use halve::{SplitChoice, SplitChoiceError, split_key_that_halves};
pub use hub::{HubError, MAX_EVENT_DELTAS, Subscription, WatchDeltas, WatchEvent, WatchHub};
pub use leaving::LeaveError;
pub use limits::{
    MAX_BOUNDARY_BYTES, MAX_COMMAND_BYTES, MAX_GROUPS, MAX_KEY_BYTES, MAX_RECORD_BYTES,
    MAX_REPLICAS, MAX_REQUEST_ID_BYTES, MAX_ROUTES, MAX_SNAPSHOT_BYTES, MAX_TIME_MS,
    RESERVED_PREFIX, Retention,
};
pub use load::LoadError;
pub use log::{Changes, ChangesError};
pub use past::{PastRoutes, RouteEvent, RouteEvents};
pub use placement::{
    Departure, MAX_GONE, Moving, PlaceChange, PlaceCommand, PlaceError, Placement,
};
pub use plan::{BootstrapPlan, PlanError, plan_bootstrap};
pub use records::RecordChange;
pub use relocate::{RelocateError, Relocated};
pub use route::{Delta, DeltaKind, Kin, Origin, Retired, Route};
pub use state::{Applied, Catalog, MAX_SUCCESSORS};
pub use table::{RouteTable, TableError};
