//! The key visualizer as a library: exact counts of the traffic on every key range of a store, kept
//! by time, and drawn as a matrix of key ranges by time. Any Rust store can embed it.
//!
//! The crate is pure: it has no Raft, gRPC, storage engine, wall clock or random source of its own.
//! Time and randomness are arguments. `examples/embed.rs` is a complete store that uses all of it
//! (`cargo run --release -p keyviz-core --example embed`); `examples/simulated_day.rs` is the same
//! over 100,000 routes.
//!
//! ```
//! use keyviz_core::{
//!     GroupId, History, HistoryConfig, Incarnation, KeyRange, Matrix, MatrixSize, NodeId, Op,
//!     Query, RouteId, RouteSpec, Sampler, SamplerConfig, Series, Term, Window,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A store without shards has one route over all keys, and leads its only group.
//! let sampler = Sampler::new(SamplerConfig::default())?;
//! let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
//! sampler.publish_routes(1, vec![route])?;
//! sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
//!
//! let start_ms = 1_800_000_000_000;
//! let config = HistoryConfig { step_ms: 1_000, ..HistoryConfig::default() };
//! let history = History::new(config, NodeId(1), Incarnation(start_ms), start_ms)?;
//!
//! // On the path of a request: no lock, no allocation, some nanoseconds.
//! sampler.with_epoch(|epoch| {
//!     let located = epoch.locate(b"user/1").expect("a route is published");
//!     epoch.record(Op::Write, located, b"user/1", 1, 100);
//! });
//!
//! // At every boundary of a step, on one thread.
//! let now_ms = start_ms + 1_000;
//! let flushed = history.add(now_ms, sampler.harvest());
//! if !flushed.closed.is_empty() {
//!     sampler.replan();
//! }
//!
//! // Whenever somebody looks.
//! let query = Query {
//!     window: Window { from_ms: start_ms, to_ms: now_ms },
//!     range: KeyRange::all(),
//!     series: Series::Writes,
//!     role: None,
//! };
//! let matrix = Matrix::local(&sampler, &history, &query, MatrixSize::default(), now_ms)?;
//! assert_eq!(matrix.total, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What to build
//!
//! One [`Sampler`] and one [`History`] a node. The sampler counts; the history keeps the counts by
//! time. They share nothing but the [`Harvest`](sampler::Harvest) that passes from one to the
//! other.
//!
//! ```text
//! request ──> Sampler::epoch ─> locate ─> record          any thread, all the time
//! flusher ──> Sampler::harvest ─> History::add            at least once a step, one thread
//!             Sampler::replan                             when a column has ended
//! catalog ──> Sampler::publish_routes, set_leader_terms          when routes or leaderships change
//! viewer  ──> view ─> totals ─> plan ─> columns ─> merge  on request (Matrix::local: all of it)
//! ```
//!
//! The modules build on each other in this order: [`sampler`], [`history`], [`query`], [`wire`],
//! [`matrix`], [`copies`], [`insight`], [`autopilot`]. This page names what a store in one process
//! needs. A store of several nodes sends [`wire`] types between them, and may keep [`copies`] of
//! columns.
//!
//! # When to call what
//!
//! * [`Sampler::publish_routes`]: once before the first request, then with each version of the
//!   routes. Ids are never used again: a split or a merge retires the old ids and brings new ones.
//! * [`Sampler::set_leader_terms`]: when this node begins or ceases to lead a group. A store
//!   without replicas leads its only group in term 1.
//! * [`Sampler::epoch`]: once a request. Keep it no longer than the request, or take
//!   [`Sampler::epoch_full`] across an await. [`Epoch::locate`](sampler::Epoch::locate) also gives
//!   the route, so a store that routes by it cannot count an operation under another route than the
//!   one that serves it. Record a write where it is proposed and a read where it is served, nowhere
//!   else.
//! * [`History::add`] with a [`Sampler::harvest`]: at every boundary of a step, and as often as you
//!   like in between. The counts go to the column that was open until then. When it returns closed
//!   columns, call [`Sampler::replan`].
//! * [`Archive::batch`]: turns what [`History::add`] returned, and [`History::checkpoint`] once a
//!   second, into records for any ordered store. After a restart [`Archive::open`] and
//!   [`History::restore`] read them back.
//! * [`Matrix::local`]: the matrix of one process. Several nodes: [`History::view`] with a
//!   [`Sampler::peek`] and [`HistoryView::totals`](history::HistoryView::totals) on every node,
//!   [`query::plan`] and [`query::plan_columns`] once,
//!   [`HistoryView::columns`](history::HistoryView::columns) on every node, and
//!   [`matrix::merge`]. A query between a harvest and its `add` would miss the counts in between:
//!   keep both, and views too, under one lock that recorders never take.
//!
//! # What it costs
//!
//! `docs/benchmarks.md` has measurements and bounds. A record takes a few nanoseconds on top of the
//! search for the route, without a lock, an allocation, a system call or a line that another core
//! writes. A harvest of all 16,384 default slots takes a few milliseconds at most. A query over a
//! day of 10,000 routes takes some tens of milliseconds on the calling thread and holds no lock
//! while it computes.
//!
//! Memory: 32 bytes a slot and recording thread ([`SamplerConfig`]), and at most
//! [`HistoryConfig::bytes`] of history. Over that limit the oldest columns become coarser and are
//! forgotten in the end; every answer about such a time says so.

pub mod autopilot;
pub mod copies;
#[cfg(all(not(loom), any(test, feature = "fuzzing")))]
pub mod fuzzing;
pub mod history;
pub mod hotkeys;
pub mod insight;
pub mod matrix;
pub mod query;
#[cfg(test)]
mod random;
pub mod sampler;
pub mod wire;

pub use history::{Archive, Flushed, History, HistoryConfig, Window};
pub use keyviz_types::{
    GroupId, Incarnation, KeyRange, LayoutError, NodeId, RouteId, RouteSpec, Term,
};
pub use matrix::{Matrix, MatrixSize, Row};
pub use query::{Query, Role};
pub use sampler::{Op, Sampler, SamplerConfig, Series};
