//! A node's columns: the one in progress and those kept, under one byte budget.
//!
//! # Aligned time
//!
//! Columns are the intervals `[n*step, (n+1)*step)` of Unix time. The caller harvests its sampler
//! as often as it likes and hands each harvest to [`History::add`] with the time. What was harvested
//! counts for the column that was open until then, so a harvest at a boundary still belongs to the
//! column that ends there. If that time lies in another column, the open one is closed and the
//! other is opened.
//!
//! A clock that jumps loses nothing: a column is found by its time, and counts of a time that already
//! has a column are added to it (a column that was closed is reopened, and returned as closed
//! again with more in it). A clock that runs ahead and is set back leaves a column in the future, which
//! queries of the present do not touch. Up to [`MAX_STALL_COLUMNS`] columns that pass without a call are
//! known to be empty; a longer gap is taken for a jump, which leaves no columns behind.
//!
//! # Locking
//!
//! | lock | guards | held by |
//! |---|---|---|
//! | `state` | the open column and the map of closed ones | `add` and `restore`; a query only to clone pointers |
//! | `inherited` | what is kept for nodes that have left | `inherit`; a query only to clone pointers |
//! | `shared` | axes that columns have in common | whoever packs, to look an axis up |
//!
//! `state` is taken before `shared`. Closed columns are immutable behind an `Arc`, the open one is cheap to
//! clone, and queries compute and pack without a lock, so none delays `add` by more than that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::axis::{ColumnPlan, RowAxis};
use super::column::{Column, ColumnId};
use super::contribution::NodeColumns;
use super::counts::Harvest;
use super::inherited::Inherited;
use super::open::{OpenColumn, Shared};
use super::query::{Query, Window};
use super::tiers::Tiers;
use super::totals::NodeTotals;
use super::view::{Answering, HistoryView};
use keyviz_types::{Incarnation, NodeId};

/// Shortest step.
pub const MIN_STEP_MS: u64 = 1_000;
/// Longest step.
pub const MAX_STEP_MS: u64 = 3_600_000;
/// Step when none is configured.
pub const DEFAULT_STEP_MS: u64 = 60_000;
/// Columns kept when no number is configured: a day of minutes.
pub const DEFAULT_HISTORY_COLUMNS: usize = 1440;
/// Most columns that can be configured.
pub const MAX_HISTORY_COLUMNS: usize = 1 << 20;
/// Bytes kept when no number is configured.
pub const DEFAULT_HISTORY_BYTES: usize = 256 << 20;
/// Fewest bytes that can be configured: room for the open column of a full sampler.
pub const MIN_HISTORY_BYTES: usize = 4 << 20;
/// A gap of more columns than this between two calls is a clock that jumped, not a slow process.
pub const MAX_STALL_COLUMNS: u64 = 60;

/// Times from here on are taken for this one: some 280,000 years from now.
pub(crate) const MAX_TIME_MS: u64 = 1 << 53;

/// How much history a node keeps, and how fine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryConfig {
    /// Milliseconds of a column, [`MIN_STEP_MS`] to [`MAX_STEP_MS`].
    pub step_ms: u64,
    /// Closed columns kept as they are, 1 to [`MAX_HISTORY_COLUMNS`]; older ones are folded into
    /// coarser tiers.
    pub columns: usize,
    /// Bytes of all tiers, at least [`MIN_HISTORY_BYTES`]; over it the oldest are folded, and at last forgotten. The
    /// open column may take half of them before it does so on top.
    pub bytes: usize,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            step_ms: DEFAULT_STEP_MS,
            columns: DEFAULT_HISTORY_COLUMNS,
            bytes: DEFAULT_HISTORY_BYTES,
        }
    }
}

/// A configuration outside its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryConfigError {
    /// The step.
    #[error("a step of {step_ms} ms is outside {MIN_STEP_MS} to {MAX_STEP_MS} ms")]
    Step {
        /// As configured.
        step_ms: u64,
    },
    /// The number of columns.
    #[error("{columns} columns of history are outside 1 to {MAX_HISTORY_COLUMNS}")]
    Columns {
        /// As configured.
        columns: usize,
    },
    /// The number of bytes.
    #[error("{bytes} bytes of history are fewer than {MIN_HISTORY_BYTES}")]
    Bytes {
        /// As configured.
        bytes: usize,
    },
}

impl HistoryConfig {
    /// Errors on the first value outside its bounds.
    pub fn validate(&self) -> Result<(), HistoryConfigError> {
        if !(MIN_STEP_MS..=MAX_STEP_MS).contains(&self.step_ms) {
            return Err(HistoryConfigError::Step { step_ms: self.step_ms });
        }
        if !(1..=MAX_HISTORY_COLUMNS).contains(&self.columns) {
            return Err(HistoryConfigError::Columns { columns: self.columns });
        }
        if self.bytes < MIN_HISTORY_BYTES {
            return Err(HistoryConfigError::Bytes { bytes: self.bytes });
        }
        Ok(())
    }
}

/// A node's columns. Shared by the flusher, which adds, and queries, which do not delay it.
#[derive(Debug)]
pub struct History {
    config: HistoryConfig,
    node: NodeId,
    incarnation: Incarnation,
    /// The sampler counts; else all columns of this incarnation are partial.
    counts: bool,
    state: Mutex<State>,
    shared: Arc<Shared>,
    inherited: Inherited,
}

/// What a call changed, to be stored as one: see [`super::Archive::batch`].
#[derive(Clone, Default, Debug)]
pub struct Flushed {
    /// Columns that were closed, or changed since, in the place of those with the same id.
    pub closed: Vec<Arc<Column>>,
    /// Columns that are no longer kept by themselves.
    pub removed: Vec<ColumnId>,
}

/// What a node holds, for its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Columns, the open one included.
    pub columns: u64,
    /// Start of the oldest column.
    pub oldest_ms: u64,
    /// Start of the open column.
    pub open_ms: u64,
    /// End of the newest column. A clock that was set back leaves columns after the open one.
    pub newest_ms: u64,
    /// End of the newest column that was dropped for space; 0: none was.
    pub forgotten_before_ms: u64,
    /// Bytes of all columns and what they share.
    pub bytes: usize,
}

#[derive(Debug)]
struct State {
    closed: Tiers,
    open: OpenColumn,
}

impl History {
    /// An empty history whose open column is that of `now_ms`.
    pub fn new(
        config: HistoryConfig,
        node: NodeId,
        incarnation: Incarnation,
        now_ms: u64,
    ) -> Result<Self, HistoryConfigError> {
        config.validate()?;
        let open = OpenColumn::new(interval(now_ms, config.step_ms), incarnation);
        let state = Mutex::new(State { closed: Tiers::new(config.step_ms), open });
        let (shared, inherited) = (Arc::new(Shared::new()), Inherited::default());
        Ok(History { config, node, incarnation, counts: true, state, shared, inherited })
    }

    /// The same, of a sampler that `counts` or does not. The columns of one that does not are partial:
    /// what happened in them nobody knows.
    #[must_use]
    pub fn counting(mut self, counts: bool) -> Self {
        self.counts = counts;
        if !counts {
            self.lock().open.miss();
        }
        self
    }

    /// Takes note that everything before `at_ms` is gone, whatever it was.
    pub fn forget_before(&self, at_ms: u64) {
        self.lock().closed.forget_before(at_ms);
    }

    /// How much is kept.
    pub fn config(&self) -> &HistoryConfig {
        &self.config
    }

    /// The node that counts.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// This life of the node's sampler.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Adds what was counted since the last call to the open column, then opens the column of
    /// `now_ms` if that is another one.
    pub fn add(&self, now_ms: u64, harvest: Harvest) -> Flushed {
        let mut state = self.lock();
        self.advance(&mut state, now_ms, harvest);
        state.changes()
    }

    /// Whether the time of the open column has passed.
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        self.lock().open.id().end_ms <= now_ms
    }

    /// As [`History::add`]; the next call of that tells what this one changed too.
    pub fn add_early(&self, now_ms: u64, harvest: Harvest) {
        self.advance(&mut self.lock(), now_ms, harvest);
    }

    fn advance(&self, state: &mut State, now_ms: u64, harvest: Harvest) {
        state.open.add(harvest, &self.shared);
        let next = interval(now_ms, self.config.step_ms);
        if next != state.open.id() {
            self.turn(state, next);
            self.shrink(state);
        }
    }

    /// As [`History::add`], and ends the open column, for a stop in good order: what is stored of it
    /// is complete for this incarnation.
    pub fn close(&self, now_ms: u64, harvest: Harvest) -> Flushed {
        let mut flushed = self.add(now_ms, harvest);
        let open = {
            let mut state = self.lock();
            state.open.close();
            state.open.clone()
        };
        flushed.closed.push(Arc::new(open.pack(&self.shared)));
        flushed
    }

    /// The open column as it stands, to be stored in the place of the one before. Also while nothing is
    /// counted in it and at once after it was opened, so that an end without notice is known to have
    /// happened in it.
    pub fn checkpoint(&self) -> Column {
        let open = self.lock().open.clone();
        open.pack(&self.shared)
    }

    /// Takes in columns that earlier incarnations stored. A column that was not closed is marked
    /// partial. What this incarnation has in the same intervals is added to, not replaced. Returns what it
    /// changed in turn: marks, and what went over a budget that is smaller now.
    pub fn restore(&self, columns: impl IntoIterator<Item = Column>) -> Flushed {
        let mut state = self.lock();
        for mut column in columns {
            let (id, closed) = (column.id(), column.closed());
            column.mark_unclosed();
            let interner = &mut self.shared.lock();
            column.intern(interner);
            if id == state.open.id() {
                state.open.absorb(&column);
                continue;
            }
            let as_stored = closed && !state.closed.contains(id);
            state.closed.add(column, interner);
            if as_stored {
                state.closed.is_stored(id);
            }
        }
        self.shrink(&mut state);
        state.changes()
    }

    /// Takes note of columns whose stored counts cannot be read: where they were, the picture is
    /// partial, not quiet. Returns the marks, to be stored.
    pub fn lose(&self, columns: impl IntoIterator<Item = ColumnId>) -> Flushed {
        let mut state = self.lock();
        for id in columns {
            let mut column = Column::new(id.start_ms, id.end_ms);
            column.part(self.incarnation);
            column.mark_unclosed();
            if id == state.open.id() {
                state.open.absorb(&column);
            } else {
                state.closed.add(column, &mut self.shared.lock());
            }
        }
        self.shrink(&mut state);
        state.changes()
    }

    /// What is held.
    pub fn holdings(&self) -> Holdings {
        self.lock().holdings()
    }

    /// Round one: what this node carried in the window, by key range. `peek` is what was counted since
    /// the last harvest; it belongs to the open column.
    pub fn totals(&self, query: &Query, peek: Harvest) -> NodeTotals {
        self.view(query.window, peek).totals(query)
    }

    /// Round two: this node's contribution on the asker's axes. The window of the query is that of
    /// the columns planned. `peek` as in [`History::totals`].
    pub fn columns(
        &self,
        query: &Query,
        rows: &RowAxis,
        columns: &ColumnPlan,
        peek: Harvest,
    ) -> NodeColumns {
        let window = columns.window().unwrap_or(Window { from_ms: 0, to_ms: 0 });
        self.view(window, peek).columns(query, rows, columns)
    }

    /// What is held of `window` now, to answer from later. Clones pointers only, so that whoever keeps
    /// harvests and questions apart need not do so for as long as an answer takes. `peek` as in
    /// [`History::totals`].
    pub fn view(&self, window: Window, peek: Harvest) -> HistoryView {
        let state = self.lock();
        let id = state.open.id();
        let open = id.start_ms < window.to_ms && id.end_ms > window.from_ms;
        let (node, incarnation) = (self.node, self.incarnation);
        HistoryView {
            answering: Answering { node, incarnation, holdings: state.holdings() },
            closed: state.closed.overlapping(window),
            open: open.then(|| (state.open.clone(), peek)),
            inherited: self.inherited.view(window),
            shared: Arc::clone(&self.shared),
        }
    }

    /// The closed columns that share time with `window`, by start: for inspection beyond what a
    /// matrix shows.
    pub fn inspect(&self, window: Window) -> Vec<Arc<Column>> {
        self.lock().closed.overlapping(window)
    }

    pub(crate) fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the columns whole: each change below is a map operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the open column and opens that of `next`.
    fn turn(&self, state: &mut State, next: ColumnId) {
        let interner = &mut self.shared.lock();
        let passed_ms = state.open.id().end_ms;
        let reopened = match state.closed.remove(next) {
            Some(column) => OpenColumn::reopen(Arc::unwrap_or_clone(column), self.incarnation),
            None => OpenColumn::new(next, self.incarnation),
        };
        let reopened = self.marked(reopened);
        let ended = std::mem::replace(&mut state.open, reopened);
        state.closed.add(ended.end(interner), interner);
        let gap = next.start_ms.saturating_sub(passed_ms) / self.config.step_ms;
        let missed = if gap <= MAX_STALL_COLUMNS { gap } else { 0 };
        for start_ms in (0..missed).map(|i| passed_ms + i * self.config.step_ms) {
            let id = ColumnId { start_ms, end_ms: start_ms + self.config.step_ms };
            if !state.closed.contains(id) {
                let empty = self.marked(OpenColumn::new(id, self.incarnation)).end(interner);
                state.closed.add(empty, interner);
            }
        }
    }

    fn marked(&self, mut column: OpenColumn) -> OpenColumn {
        if !self.counts {
            column.miss();
        }
        column
    }

    fn shrink(&self, state: &mut State) {
        let open = state.open.bytes().min(self.config.bytes / 2);
        let bytes = self.config.bytes - open;
        let now_ms = state.open.id().start_ms;
        state.closed.shrink(self.config.columns, bytes, now_ms, &mut self.shared.lock());
    }
}

impl State {
    fn changes(&mut self) -> Flushed {
        let (closed, mut removed) = self.closed.take_changes();
        // A column that was reopened is still kept: its checkpoint takes its place.
        removed.retain(|id| *id != self.open.id());
        Flushed { closed, removed }
    }

    fn holdings(&self) -> Holdings {
        let ColumnId { start_ms: open_ms, end_ms } = self.open.id();
        Holdings {
            newest_ms: self.closed.newest_ms().unwrap_or(0).max(end_ms),
            columns: self.closed.len() as u64 + 1,
            oldest_ms: self.closed.oldest_ms().unwrap_or(open_ms).min(open_ms),
            open_ms,
            forgotten_before_ms: self.closed.forgotten_before_ms(),
            bytes: self.closed.bytes() + self.open.bytes(),
        }
    }
}

/// The column of a time.
fn interval(now_ms: u64, step_ms: u64) -> ColumnId {
    let now_ms = now_ms.min(MAX_TIME_MS);
    let start_ms = now_ms - now_ms % step_ms;
    ColumnId { start_ms, end_ms: start_ms + step_ms }
}
