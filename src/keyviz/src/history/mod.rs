//! A node's columns: the one in progress and those kept, under one byte budget.
//!
//! # Aligned time
//!
//! Columns are the intervals `[n*step, (n+1)*step)` of Unix time. The caller harvests its sampler
//! as often as it likes and hands each harvest to [`History::add`] with the time. What was
//! harvested counts for the column that was open until then, so a harvest at a boundary still
//! belongs to the column that ends there. If that time lies in another column, the open one is
//! closed and the other is opened.
//!
//! A clock that jumps loses nothing: a column is found by its time, and counts of a time that
//! already has a column are added to it (a column that was closed is reopened, and returned as
//! closed again with more in it). A clock that runs ahead and is set back leaves a column in the
//! future, which queries of the present do not touch. Up to [`MAX_STALL_COLUMNS`] columns that pass
//! without a call are known to be empty; a longer gap is taken for a jump, which leaves no columns
//! behind.
//!
//! # Locking
//!
//! | lock | guards | held by |
//! |---|---|---|
//! | `state` | the open column, the closed ones | `add`, `restore`; a query, to clone pointers |
//! | `inherited` | columns of nodes that have left | `inherit`; a query, to clone pointers |
//! | `interner` | axes that columns have in common | whoever packs, to look an axis up |
//!
//! `state` is taken before `interner`. Closed columns are immutable behind an `Arc`, the open one
//! is cheap to clone, and queries compute and pack without a lock, so none delays `add` by more
//! than that.

pub(crate) mod archive;
pub(crate) mod bitpack;
pub(crate) mod cells;
pub(crate) mod codec;
pub(crate) mod column;
pub(crate) mod config;
mod handoff;
pub(crate) mod hot_keys;
pub(crate) mod open;
pub(crate) mod slots;
pub(crate) mod tiers;
pub(crate) mod view;
pub(crate) mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hotkeys::column::ColumnHotKeys;
use crate::sampler::counts::Harvest;
use handoff::HandedOver;
use hot_keys::SHARE_OF_HISTORY;
use keyviz_types::{Incarnation, NodeId};
use open::{AxisInterner, OpenColumn};
use tiers::Tiers;
use view::Answering;

pub use archive::{Archive, Batch, Damaged, Opened};
pub use codec::{RECORD_VERSION, RecordError};
pub use column::{Column, ColumnCell, ColumnId};
pub use config::{
    DEFAULT_HISTORY_BYTES, DEFAULT_HISTORY_COLUMNS, DEFAULT_STEP_MS, HistoryConfig,
    HistoryConfigError, MAX_HISTORY_COLUMNS, MAX_STALL_COLUMNS, MAX_STEP_MS, MIN_HISTORY_BYTES,
    MIN_STEP_MS,
};
pub use handoff::HistoryHandoff;
pub use tiers::{LAST_TIER_MS, MIDDLE_TIER_MS};
pub use view::{HistoryView, Holdings};
pub use window::Window;

/// A node's columns. Shared by the flusher, which adds, and queries, which do not delay it.
#[derive(Debug)]
pub struct History {
    config: HistoryConfig,
    node: NodeId,
    incarnation: Incarnation,
    /// The sampler counts; else all columns of this incarnation are partial.
    counts: bool,
    state: Mutex<State>,
    interner: Arc<AxisInterner>,
    handed_over: HandedOver,
}

/// What a call changed, to be stored as one: see [`Archive::batch`].
#[derive(Clone, Default, Debug)]
#[must_use = "what changed is to be stored: see Archive::batch"]
pub struct Flushed {
    /// Columns that were closed, or changed since, in the place of those with the same id.
    pub closed: Vec<Arc<Column>>,
    /// Columns that are no longer kept by themselves.
    pub removed: Vec<ColumnId>,
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
        let open = OpenColumn::new(ColumnId::at(now_ms, config.step_ms), incarnation);
        let state = Mutex::new(State { closed: Tiers::new(config.step_ms), open });
        let (interner, handed_over) = (Arc::new(AxisInterner::new()), HandedOver::default());
        Ok(History { config, node, incarnation, counts: true, state, interner, handed_over })
    }

    /// The same, of a sampler that `counts` or does not. The columns of one that does not are
    /// partial: what happened in them nobody knows.
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
        state.open.add(harvest, &self.interner);
        let next = ColumnId::at(now_ms, self.config.step_ms);
        if next != state.open.id() {
            self.turn(state, next);
            self.shrink(state);
        }
    }

    /// As [`History::add`], and ends the open column, for a stop in good order: what is stored of
    /// it is complete for this incarnation.
    pub fn close(&self, now_ms: u64, harvest: Harvest) -> Flushed {
        let mut flushed = self.add(now_ms, harvest);
        let open = {
            let mut state = self.lock();
            state.open.close();
            state.open.clone()
        };
        let mut column = open.pack(&self.interner);
        column.hot_keys_mut().for_each(ColumnHotKeys::prune_to_matter);
        flushed.closed.push(Arc::new(column));
        flushed
    }

    /// The open column as it stands, to be stored in the place of the one before. Also while
    /// nothing is counted in it and at once after it was opened, so that an end without notice is
    /// known to have happened in it.
    pub fn checkpoint(&self) -> Column {
        let open = self.lock().open.clone();
        let mut column = open.pack(&self.interner);
        column.hot_keys_mut().for_each(ColumnHotKeys::prune_to_checkpoint);
        column
    }

    /// Takes in columns that earlier incarnations stored. A column that was not closed is marked
    /// partial. What this incarnation has in the same intervals is added to, not replaced. Returns
    /// what it changed in turn: marks, and what went over a budget that is smaller now.
    pub fn restore(&self, columns: impl IntoIterator<Item = Column>) -> Flushed {
        let mut state = self.lock();
        for mut column in columns {
            let (id, closed) = (column.id(), column.closed());
            column.mark_unclosed();
            let interner = &mut self.interner.lock();
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
                state.closed.add(column, &mut self.interner.lock());
            }
        }
        self.shrink(&mut state);
        state.changes()
    }

    /// What is held.
    pub fn holdings(&self) -> Holdings {
        self.lock().holdings()
    }

    /// What is held of `window` now, to answer from later. Clones pointers only, so that whoever
    /// keeps harvests and questions apart need not do so for as long as an answer takes. `peek` as
    /// in [`History::totals`].
    pub fn view(&self, window: Window, peek: Harvest) -> HistoryView {
        let state = self.lock();
        let id = state.open.id();
        let open = id.start_ms < window.to_ms && id.end_ms > window.from_ms;
        let (node, incarnation) = (self.node, self.incarnation);
        HistoryView {
            answering: Answering { node, incarnation, holdings: state.holdings() },
            closed: state.closed.overlapping(window),
            open: open.then(|| (state.open.clone(), peek)),
            handed_over: self.handed_over.view(window),
            interner: Arc::clone(&self.interner),
        }
    }

    /// The closed columns that share time with `window`, by start: for inspection beyond what a
    /// matrix shows.
    pub fn inspect(&self, window: Window) -> Vec<Arc<Column>> {
        self.lock().closed.overlapping(window)
    }

    pub(crate) fn handed_over(&self) -> &HandedOver {
        &self.handed_over
    }

    pub(crate) fn interner(&self) -> &AxisInterner {
        &self.interner
    }

    /// Keeps what a node that leaves has counted, in the place of what was kept of it before.
    pub fn take_handoff(&self, handoff: HistoryHandoff) {
        // What this node counted itself it has.
        if handoff.node != self.node() {
            self.handed_over().keep(handoff, self.config(), self.interner());
        }
    }

    /// What is kept for nodes that have left.
    pub fn kept_estates(&self) -> Vec<HistoryHandoff> {
        self.handed_over().handoffs()
    }

    /// All that this node counted, with the column in progress, and all that it keeps for others.
    /// `peek` as in [`History::totals`].
    pub fn handoffs(&self, peek: Harvest) -> Vec<HistoryHandoff> {
        let all = Window { from_ms: 0, to_ms: u64::MAX };
        let columns = self.view(all, peek).columns_held();
        let own = HistoryHandoff {
            node: self.node(),
            incarnation: self.incarnation(),
            forgotten_before_ms: self.holdings().forgotten_before_ms,
            columns,
        };
        std::iter::once(own).chain(self.handed_over().handoffs()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the columns whole: each change below is a map operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the open column and opens that of `next`.
    fn turn(&self, state: &mut State, next: ColumnId) {
        let interner = &mut self.interner.lock();
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
        state.closed.shrink(self.config.columns, bytes, now_ms, &mut self.interner.lock());
        state.closed.shrink_hot_keys(self.config.bytes / SHARE_OF_HISTORY);
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
            hot_key_bytes: self.closed.hot_key_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
