//! Sampling, columns, axes and matrices: the part that any Rust store could embed.
//!
//! Pure: no Raft, gRPC, storage engine, wall clock or random source of its own. Time and
//! randomness are arguments. `examples/embed.rs` is a complete store that uses all of it
//! (`cargo run --release --example embed`), `examples/simulated_day.rs` the same over 100,000 routes.
//!
//! # What to build
//!
//! One [`Sampler`] and one [`History`] a node. The sampler counts, the history keeps what was
//! counted by time; nothing else is shared between them than the [`Harvest`] handed over.
//!
//! ```text
//! request ──> Sampler::epoch ─> locate ─> record          any thread, all the time
//! flusher ──> Sampler::harvest ─> History::add            at least once a step, one thread
//!             Sampler::replan                             when a column has ended
//! catalog ──> Sampler::publish_routes, set_leads          when routes or leaderships change
//! viewer  ──> view ─> totals ─> plan ─> columns ─> merge  whenever asked
//! ```
//!
//! # When to call what
//!
//! * [`Sampler::publish_routes`] once before the first request, then with each version of the
//!   routes. A store without shards has one route over [`KeyRange::all`]. Ids are for ever: a
//!   split or a merge retires the old ids and brings new ones.
//! * [`Sampler::set_leads`] when this node begins or ceases to lead a group. A store without
//!   replicas leads its only group in term 1.
//! * [`Sampler::epoch`] once a request; keep it no longer than the request, or take
//!   [`Sampler::epoch_full`] across an await. [`Epoch::locate`] also gives the route, so a store
//!   that routes by it cannot count under another route than it serves. Record a write where it is
//!   proposed and a read where it is served, nowhere else.
//! * [`History::add`] with a [`Sampler::harvest`] at every boundary of a step, and as often as you
//!   like between: what was counted goes to the column that was open until then. When it returns
//!   closed columns, call [`Sampler::replan`].
//! * [`Archive::batch`] turns what [`History::add`] returned, and [`History::checkpoint`] once a
//!   second, into records for any ordered store; after a restart [`Archive::open`] and
//!   [`History::restore`] take them back.
//! * To ask: [`History::view`] with a [`Sampler::peek`], then [`HistoryView::totals`] of every node,
//!   [`plan()`] and [`plan_columns`] once, [`HistoryView::columns`] of every node, and [`merge()`].
//!   With one node all of it is local. A question between a harvest and its `add` would miss the
//!   counts on their way: keep both under one lock that recorders do not know, and views too.
//!
//! # What it costs
//!
//! Measured with bounds in `docs/benchmarks.md`. A record is a few nanoseconds beside the search
//! for the route, without lock, allocation, system call or a line that another core writes. A
//! harvest of all 16,384 default slots takes a few milliseconds at most; a query of a day of 10,000
//! routes some tens of milliseconds on the thread that asks, and holds no lock while it computes.
//!
//! Memory: 32 bytes a slot and recording thread ([`SamplerConfig`]), at most
//! [`HistoryConfig::bytes`] of history, over which the oldest columns become coarser and at last are
//! forgotten, which every answer that asks for them says.

mod archive;
mod axis;
mod binding;
mod budget;
mod cells;
mod codec;
mod column;
mod column_set;
mod contribution;
mod counts;
mod cuts;
mod density;
mod epoch;
#[cfg(all(not(loom), any(test, feature = "fuzzing")))]
pub mod fuzzing;
mod gather;
mod heat;
mod history;
mod inherited;
mod joiner;
mod label;
mod layout;
mod ledger;
mod locate;
mod matrix;
mod merge;
mod open;
mod pack;
mod packed;
mod placing;
mod plan;
mod query;
mod resample;
mod resolution;
mod sampler;
mod sampler_config;
mod samples;
mod shard;
mod slots;
mod spans;
mod sums;
mod sync;
mod table;
mod tiers;
mod totals;
mod view;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod matrix_tests;
#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod model;

pub use archive::{Archive, Batch, Damaged, Opened};
pub use axis::{AxisError, ColumnPlan, ColumnSpan, RowAxis, plan_columns};
pub use binding::EpochGuard;
pub use codec::{RECORD_VERSION, RecordError};
pub use column::{Column, ColumnCell, ColumnId};
pub use column_set::ColumnSet;
pub use contribution::{
    CONTRIBUTION_VERSION, CellKey, ColumnPart, ContributionError, MAX_KEYS, NodeColumns, Source,
};
pub use counts::{Counts, Harvest, Segment, Series};
pub use epoch::{Epoch, Located, Overlap};
pub use history::{
    DEFAULT_HISTORY_BYTES, DEFAULT_HISTORY_COLUMNS, DEFAULT_STEP_MS, Flushed, History,
    HistoryConfig, HistoryConfigError, Holdings, MAX_HISTORY_COLUMNS, MAX_STALL_COLUMNS,
    MAX_STEP_MS, MIN_HISTORY_BYTES, MIN_STEP_MS,
};
pub use inherited::Estate;
pub use keyviz_types::{
    GroupId, Incarnation, KeyRange, LayoutError, NodeId, RouteId, RouteSpec, Term,
};
pub use label::{LABEL_CHARS, label};
pub use layout::{Bucket, Layout, Members, Slot};
pub use matrix::{Conflict, Matrix, NodeShare, NodeStatus, RoleTotals, Row};
pub use merge::{Merge, merge};
pub use packed::{Numbers, PackedCells, PackedColumns, PackedPart, SoundColumns};
pub use plan::{DEFAULT_ROW_ROUTE_IDS, PlanError, PlanRequest, PlannedRow, RowKind, RowPlan, plan};
pub use query::{DEFAULT_COLUMNS, DEFAULT_ROWS, MAX_COLUMNS, MAX_ROWS, Query, Role, Window};
pub use sampler::{Sampler, SamplerStats};
pub use sampler_config::{
    DEFAULT_ENABLED, DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT, DEFAULT_MAX_TRACKED_ROUTES,
    DEFAULT_RESOLUTION_SLOTS, DEFAULT_SHARDS, MAX_MEMBER_ROUTES_BOUNDS, MAX_TRACKED_ROUTES_BOUNDS,
    RESOLUTION_SLOTS_BOUNDS, SHARDS_BOUNDS, SamplerConfig, SamplerConfigError,
};
pub use shard::Op;
pub use tiers::{LAST_TIER_MS, MIDDLE_TIER_MS};
pub use totals::{MAX_TOTALS, NodeTotals, RangeTotal, TotalsError};
pub use view::HistoryView;
