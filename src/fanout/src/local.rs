//! The sampler and the history of this node as one source of counts.
//!
//! A flush moves counts from the sampler into the history. A query that read one before the flush
//! and the other after it would miss counts or see them twice, so both use one gate. The gate is
//! held while unflushed counts are copied, never while an answer is computed, and recorders do not
//! use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use keyviz_core::copies::Copies;
use keyviz_core::history::{HistoryHandoff, HistoryView};
use keyviz_core::query::{ColumnPlan, NodeTotals, RowAxis};
use keyviz_core::sampler::Harvest;
use keyviz_core::wire::NodeColumns;
use keyviz_core::{Archive, Flushed, History, Incarnation, NodeId, Query, Sampler, Window};

use super::copy_stats::CopyStats;
use super::work::{Asker, Work, WorkError};

/// Records of a store, by key.
pub type StoredRecords = BTreeMap<Vec<u8>, Vec<u8>>;

/// The time as nodes see it. Injected, so that tests can set it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock(Arc::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    /// A clock that reads `now_ms`.
    pub fn of(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now_ms))
    }

    /// Unix time in milliseconds; 0 for a clock that is set before 1970.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

/// How hot keys are shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HotKeysMode {
    /// By their names.
    #[default]
    On,
    /// By salted hashes.
    Hashed,
    /// Not at all: nothing is recorded.
    Off,
}

/// The counts of one node: its history and its sampler.
pub struct LocalMatrix {
    sampler: Arc<Sampler>,
    history: Arc<History>,
    clock: Clock,
    enabled: bool,
    hot_keys: HotKeysMode,
    gate: Mutex<()>,
    flushed: Mutex<FlushStats>,
    work: Work,
    damaged_records: AtomicU64,
    /// When counts were last moved into the history: it has everything before.
    flushed_ms: AtomicU64,
    pub(super) copies: Option<Arc<Copies>>,
    pub(super) copy_stats: CopyStats,
}

/// Counters of the flushes so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlushStats {
    /// Moves of counts into the history.
    pub flushes: u64,
    /// Time in them.
    pub time: Duration,
    /// Operations in them without a route.
    pub unattributed: u64,
}

impl LocalMatrix {
    /// A source of these parts; one that is not `enabled` answers nothing.
    pub fn new(sampler: Arc<Sampler>, history: Arc<History>, clock: Clock, enabled: bool) -> Self {
        let (gate, flushed, damaged_records, flushed_ms) = Default::default();
        let work = Work::default();
        // A sampler that is told not to look at keys has none to show.
        let recorded = sampler.config().hot_keys;
        let hot_keys = if recorded { HotKeysMode::On } else { HotKeysMode::Off };
        LocalMatrix {
            sampler,
            history,
            clock,
            enabled,
            hot_keys,
            gate,
            flushed,
            work,
            damaged_records,
            flushed_ms,
            copies: None,
            copy_stats: CopyStats::default(),
        }
    }

    /// The same, keeping copies of others' histories.
    #[must_use]
    pub fn with_copies(self, copies: Arc<Copies>) -> Self {
        LocalMatrix { copies: Some(copies), ..self }
    }

    /// The history has everything that was counted before this time; 0: nothing was flushed yet.
    pub fn flushed_ms(&self) -> u64 {
        // Relaxed: whoever reads it takes the lock of the history next.
        self.flushed_ms.load(Ordering::Relaxed)
    }

    /// The same with other bounds on its matrix work.
    pub fn with_work(self, work: Work) -> Self {
        LocalMatrix { work, ..self }
    }

    /// The same, showing hot keys by salted hashes if they are to be `hashed`.
    #[must_use]
    pub fn with_hashed_keys(mut self, hashed: bool) -> Self {
        if hashed && self.hot_keys == HotKeysMode::On {
            self.hot_keys = HotKeysMode::Hashed;
        }
        self
    }

    /// How hot keys are shown.
    pub fn hot_keys_mode(&self) -> HotKeysMode {
        self.hot_keys
    }

    /// The bounds on the node's matrix work.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Whether this node samples.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The node's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The sampler.
    pub fn sampler(&self) -> &Arc<Sampler> {
        &self.sampler
    }

    /// The history.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Moves counts into the history, and closes the columns that have ended.
    pub fn flush(&self) -> Flushed {
        self.move_into_history(History::add)
    }

    /// Moves counts into the history, and closes the column in progress too.
    pub fn close(&self) -> Flushed {
        self.move_into_history(History::close)
    }

    /// What the flushes so far did.
    pub fn flush_stats(&self) -> FlushStats {
        *self.flushed.lock()
    }

    /// Takes note of stored records of the history that could not be read.
    pub fn count_damaged_records(&self, count: u64) {
        self.damaged_records.fetch_add(count, Ordering::Relaxed);
    }

    /// Stored records of the history that could not be read and were left out.
    pub fn damaged_records(&self) -> u64 {
        self.damaged_records.load(Ordering::Relaxed)
    }

    fn move_into_history(&self, into: fn(&History, u64, Harvest) -> Flushed) -> Flushed {
        let started = Instant::now();
        let (flushed, unattributed) = {
            let _gate = self.gate.lock();
            let from_ms = self.clock.now_ms();
            let harvest = self.sampler.harvest();
            let unattributed = harvest.unattributed.reads + harvest.unattributed.writes;
            let moved = (into(&self.history, self.clock.now_ms(), harvest), unattributed);
            self.flushed_ms.store(from_ms, Ordering::Relaxed);
            moved
        };
        let mut stats = self.flushed.lock();
        stats.flushes += 1;
        stats.time += started.elapsed();
        stats.unattributed += unattributed;
        flushed
    }

    /// All that is held as records for a store, by key; the column in progress as of the last
    /// flush.
    pub fn export(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        // In this order: a column that is closed in between is in both, and then closed it is.
        let open = self.history.checkpoint();
        let closed = self.history.inspect(Window { from_ms: 0, to_ms: u64::MAX });
        let columns = std::iter::once(&open).chain(closed.iter().map(AsRef::as_ref));
        let mut archive = Archive::default();
        let puts = archive.batch(columns, &[]).puts;
        let forgotten = archive.note_forgotten(self.history.holdings().forgotten_before_ms);
        puts.into_iter().chain(forgotten).collect()
    }

    /// What is kept for nodes that have left, as records of a store.
    pub fn export_kept(&self) -> Vec<(NodeId, Incarnation, StoredRecords)> {
        let kept = self.history.kept_estates().into_iter();
        kept.map(|handoff| (handoff.node, handoff.incarnation, handoff.records().collect()))
            .collect()
    }

    /// Round one, within the bounds for `asker`.
    ///
    /// # Errors
    /// Too much matrix work waits, or a fault of this program.
    pub async fn totals(
        self: &Arc<Self>,
        asker: Asker,
        query: Arc<Query>,
    ) -> Result<NodeTotals, WorkError> {
        let local = Arc::clone(self);
        self.work
            .compute(asker, move |wanted| {
                local.view(query.window).while_wanted(wanted).totals(&query)
            })
            .await
    }

    /// Round two, within the bounds for `asker`: the part of this node first, then the columns that
    /// it keeps for nodes that have left.
    ///
    /// # Errors
    /// Too much matrix work waits, or a fault of this program.
    pub async fn columns(
        self: &Arc<Self>,
        asker: Asker,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
        blocks: bool,
    ) -> Result<Vec<NodeColumns>, WorkError> {
        let local = Arc::clone(self);
        self.work
            .compute(asker, move |wanted| {
                let nothing = Window { from_ms: 0, to_ms: 0 };
                let view = local.view(columns.window().unwrap_or(nothing));
                let view = view.while_wanted(wanted);
                let mut parts = vec![view.columns(&query, &rows, &columns)?];
                parts.extend(view.handed_over(&query, &rows, &columns)?);
                if !blocks {
                    parts = parts.into_iter().map(|part| part.spread(&rows, &columns)).collect();
                }
                Some(parts)
            })
            .await
    }

    /// All that this node counted and keeps for others, for one that takes it over.
    pub fn handoffs(&self) -> Vec<HistoryHandoff> {
        let _gate = self.gate.lock();
        self.history.handoffs(self.sampler.peek())
    }

    pub(super) fn view(&self, window: Window) -> HistoryView {
        let _gate = self.gate.lock();
        self.close_overdue();
        self.history.view(window, self.sampler.peek())
    }

    /// Closes the open column where its time has passed and the flush is late, so that nothing more
    /// goes to a column that an answer tells as closed. Called under the gate.
    fn close_overdue(&self) {
        let now_ms = self.clock.now_ms();
        if self.history.is_overdue(now_ms) {
            let harvest = self.sampler.harvest();
            let unattributed = harvest.unattributed.reads + harvest.unattributed.writes;
            self.history.add_early(now_ms, harvest);
            self.flushed.lock().unattributed += unattributed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_core::{GroupId, HistoryConfig, KeyRange, RouteId, RouteSpec, SamplerConfig};

    #[test]
    fn aligned_time_a_question_closes_the_column_whose_flush_is_late() {
        let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
        let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
        sampler.publish_routes(1, [route]).expect("one route is a table");
        let config = HistoryConfig { step_ms: 1_000, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(1), Incarnation(1), 5_900).expect("valid");
        let now_ms = Arc::new(AtomicU64::new(5_900));
        let clock = Clock::of({
            let now_ms = Arc::clone(&now_ms);
            move || now_ms.load(Ordering::Relaxed)
        });
        let local = LocalMatrix::new(Arc::new(sampler), Arc::new(history), clock, true);
        let read = |times: u64| {
            let epoch = local.sampler().epoch();
            let located = epoch.locate(b"k").expect("it is published");
            (0..times).for_each(|_| epoch.record_read(located, b"k", 1, 1));
        };
        let open_ms = || local.view(Window { from_ms: 0, to_ms: 9_000 }).holdings().open_ms;

        read(3);
        assert_eq!(open_ms(), 5_000);
        now_ms.store(6_010, Ordering::Relaxed);
        // Asked before the flush: what is counted from here on is not of the column that is told as
        // closed.
        assert_eq!(open_ms(), 6_000);
        read(2);
        let columns = local.flush().closed;
        let closed: Vec<_> = columns.iter().map(|it| (it.start_ms(), it.total().reads)).collect();
        assert_eq!(closed, [(5_000, 3)], "the next flush stores what the question closed");
        assert_eq!(local.history().checkpoint().total().reads, 2);
        assert!(local.flush().closed.is_empty());
    }
}
