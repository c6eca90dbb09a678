//! The sampler: exact counts of the traffic on every route, without a lock on the way.
//!
//! ```text
//!   recorders            publisher (catalog, leads, replan)    flusher
//!   epoch() -> locate    builds an epoch, opens its account,   harvest(): differences of all
//!   -> record            swaps it in                           open accounts; closes drained ones
//! ```
//!
//! Recorders take none of the locks below. Publishers serialise on `publisher`; publishers (for
//! the moment of the swap), harvests and peeks serialise on `ledger`, always in this order.

mod binding;
mod config;
pub(crate) mod counts;
mod epoch;
pub(crate) mod joiner;
pub(crate) mod layout;
mod ledger;
mod locate;
mod resolution;
mod shard;
pub(crate) mod sync;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc as Shared;
use std::time::Duration;

use keyviz_types::{GroupId, LayoutError, RouteSpec, Term};
use ledger::Ledger;
use resolution::Plan;
use resolution::samples::Memory;
use shard::Shards;
use sync::{Arc, AtomicU64, Mutex, Ordering, Published};
use table::Table;

pub use binding::EpochGuard;
pub use config::{
    DEFAULT_ENABLED, DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT, DEFAULT_MAX_TRACKED_ROUTES,
    DEFAULT_RESOLUTION_SLOTS, DEFAULT_SHARDS, MAX_MEMBER_ROUTES_BOUNDS, MAX_TRACKED_ROUTES_BOUNDS,
    RESOLUTION_SLOTS_BOUNDS, SHARDS_BOUNDS, SamplerConfig, SamplerConfigError,
};
pub use counts::{Counts, Harvest, Segment, Series};
pub use epoch::{Epoch, Located, Overlap};
pub use layout::{Bucket, Layout, Members, Slot};
pub use shard::Op;

/// How often [`Sampler::refine`] is called at most: a plan takes some milliseconds of a core.
pub const REFINE_EVERY: Duration = Duration::from_secs(2);

/// Records operations under the published route table and hands the counts over.
pub struct Sampler {
    config: SamplerConfig,
    shards: Arc<Shards>,
    current: Published<Epoch>,
    /// Number of the epoch in `current`, stored after it: whoever sees the number (acquire) finds
    /// that epoch or a later one.
    current_number: AtomicU64,
    publisher: Mutex<Publisher>,
    ledger: Mutex<Ledger>,
}

struct Publisher {
    plan: Plan,
    table: Shared<Table>,
    memory: Memory,
    leads: BTreeMap<GroupId, Option<Term>>,
    published: u64,
}

/// Figures about the sampler itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SamplerStats {
    /// Epochs published since the start.
    pub epochs_published: u64,
    /// Replaced epochs that somebody may still record under.
    pub draining: usize,
    /// Slots of the live epoch.
    pub slots: usize,
    /// Shards leased by threads.
    pub shards_in_use: usize,
    /// Calls that shared a counter, because there was no shard left or the epoch was older than
    /// what the thread had loaded; since the start.
    pub overflow_records: u64,
    /// Bytes of the counters of all epochs still open.
    pub counter_bytes: usize,
    /// Operations whose keys were looked at, as of the last harvest.
    pub hot_key_operations: u64,
    /// Keys that lost their counter to another.
    pub hot_keys_replaced: u64,
    /// A key that the last harvest did not list had at most so many operations in it.
    pub hot_key_error: u64,
    /// Bytes of the counters of keys.
    pub hot_key_bytes: usize,
}

impl Sampler {
    /// A sampler without any routes: until [`Sampler::publish_routes`] nothing can be located.
    ///
    /// # Errors
    /// A setting outside its bounds.
    pub fn new(config: SamplerConfig) -> Result<Sampler, SamplerConfigError> {
        config.validate()?;
        let hot_keys = (config.enabled && config.hot_keys).then_some(config.hot_keys_seed);
        let shards = Arc::new(Shards::new(config.shards as u32, hot_keys));
        let table = Shared::new(Table::empty());
        let epoch = Epoch::new(Shared::clone(&table), Box::new([]), Arc::clone(&shards), false);
        let epoch = Arc::new(epoch);
        let mut ledger = Ledger::new(Arc::clone(&shards));
        ledger.open(Arc::clone(&epoch));
        Ok(Sampler {
            config,
            shards,
            current_number: AtomicU64::new(epoch.number()),
            current: Published::new(epoch),
            publisher: Mutex::new(Publisher {
                plan: Plan::empty(),
                table,
                memory: Memory::default(),
                leads: BTreeMap::new(),
                published: 0,
            }),
            ledger: Mutex::new(ledger),
        })
    }

    /// The settings.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Publishes the routes of an applied catalog version, sorted by key. The same routes and
    /// version again, or a version older than the published one, change nothing.
    ///
    /// # Errors
    /// The routes do not form a table; the published one stays.
    pub fn publish_routes(
        &self,
        catalog_version: u64,
        routes: impl Into<Shared<[RouteSpec]>>,
    ) -> Result<(), LayoutError> {
        let routes = routes.into();
        table::validate(&routes)?;
        let mut publisher = self.publisher.lock();
        let published = &publisher.table;
        let same = published.catalog_version == catalog_version && published.routes == routes;
        if same || catalog_version < published.catalog_version {
            return Ok(());
        }
        let load = self.ledger.lock().load().clone();
        publisher.plan = resolution::carried(&publisher.plan, routes, &load, &self.config);
        self.publish_plan(&mut publisher, catalog_version);
        Ok(())
    }

    /// States which groups this node leads, and in which term (`None`: it does not). Groups that
    /// are not named keep what was last said of them. Publishes only when something changed.
    pub fn set_leader_terms(&self, leads: &[(GroupId, Option<Term>)]) {
        let mut publisher = self.publisher.lock();
        let before = publisher.leads.clone();
        publisher.leads.extend(leads.iter().copied());
        publisher.leads.retain(|_, lead| lead.is_some());
        if publisher.leads != before {
            self.publish(&mut publisher);
        }
    }

    /// Resolves the key space anew, from the counts that were harvested and the keys that were
    /// sampled since the last time, and says whether that made a new epoch. To be called at a
    /// column boundary, after the harvest. A load that stays the same soon changes nothing.
    pub fn replan(&self) -> bool {
        let mut publisher = self.publisher.lock();
        publisher.memory.add(self.shards.take_samples());
        let load = {
            let mut ledger = self.ledger.lock();
            let load = ledger.load().clone();
            ledger.load().halve();
            load
        };
        let samples = publisher.memory.sorted();
        let plan = resolution::relearned(&publisher.plan, &load, &samples, &self.config);
        if plan.spans == publisher.plan.spans {
            return false;
        }
        publisher.plan = plan;
        let catalog_version = publisher.table.catalog_version;
        self.publish_plan(&mut publisher, catalog_version);
        true
    }

    /// As [`Sampler::replan`], within a column: where a range has become hot since the last plan,
    /// it is resolved finer now. Forgets nothing, and publishes only where a fair part of the load
    /// (`resolution::pays`) gets more slots, so that a column has few layouts. To be called after
    /// a harvest, at most every few seconds: see [`REFINE_EVERY`].
    pub fn refine(&self) -> bool {
        let mut publisher = self.publisher.lock();
        let samples = self.shards.take_samples();
        if samples.is_empty() {
            return false;
        }
        publisher.memory.add(samples);
        let load = self.ledger.lock().load().clone();
        let samples = publisher.memory.sorted();
        let plan = resolution::relearned(&publisher.plan, &load, &samples, &self.config);
        if !resolution::pays(&publisher.plan, &plan, &load) {
            return false;
        }
        publisher.plan = plan;
        let catalog_version = publisher.table.catalog_version;
        self.publish_plan(&mut publisher, catalog_version);
        true
    }

    fn publish_plan(&self, publisher: &mut Publisher, catalog_version: u64) {
        let member_cap = self.config.max_member_routes_per_slot;
        publisher.table = Shared::new(Table::new(catalog_version, &publisher.plan, member_cap));
        self.publish(publisher);
    }

    fn publish(&self, publisher: &mut Publisher) {
        let epoch = Arc::new(Epoch::new(
            Shared::clone(&publisher.table),
            publisher.leads.iter().map(|(&group, &lead)| (group, lead)).collect(),
            Arc::clone(&self.shards),
            self.config.enabled,
        ));
        publisher.published += 1;
        let number = epoch.number();
        let mut ledger = self.ledger.lock();
        ledger.open(Arc::clone(&epoch));
        self.current.store(epoch);
        self.current_number.store(number, Ordering::Release);
    }

    /// The current epoch, for this thread and a moment.
    #[inline]
    pub fn epoch(&self) -> EpochGuard {
        self.with_epoch(EpochGuard::clone)
    }

    /// Works under the current epoch: the cheapest way to locate and record. Work that itself asks
    /// this thread for an epoch gets one, and is counted exactly, but slower.
    #[inline]
    pub fn with_epoch<R>(&self, work: impl FnOnce(&EpochGuard) -> R) -> R {
        let number = self.current_number.load(Ordering::Acquire);
        binding::with(&self.shards, number, || self.current.load_full(), work)
    }

    /// The current epoch, to keep across an await. While it is kept, what is recorded under it
    /// is harvested, however many epochs were published since.
    pub fn epoch_full(&self) -> Arc<Epoch> {
        self.epoch().full()
    }

    /// Lets this thread's last epoch go. For threads that may be idle for long: see
    /// [`EpochGuard`]; a runtime calls it when a worker thread parks.
    pub fn rest(&self) {
        binding::rest(&self.shards);
    }

    /// Counts one call that read `ops` times and returned `bytes` bytes.
    #[inline]
    pub fn record_read(&self, epoch: &Epoch, located: Located, key: &[u8], ops: u64, bytes: u64) {
        self.record(Op::Read, epoch, located, key, ops, bytes);
    }

    /// Counts one call that wrote `ops` times and `bytes` bytes of keys and values.
    #[inline]
    pub fn record_write(&self, epoch: &Epoch, located: Located, key: &[u8], ops: u64, bytes: u64) {
        self.record(Op::Write, epoch, located, key, ops, bytes);
    }

    /// Counts one call under an epoch of this sampler, from any thread. Slightly slower than
    /// [`EpochGuard::record`], which already knows the thread's shard.
    #[inline]
    pub fn record(
        &self,
        op: Op,
        epoch: &Epoch,
        located: Located,
        key: &[u8],
        ops: u64,
        bytes: u64,
    ) {
        if self.config.enabled {
            binding::record(epoch, op, located, key, ops, bytes);
        }
    }

    /// Counts a call in a term that `epoch` does not have for the key's group, such as a write
    /// that was proposed in a term that ended before it was published. Takes a lock.
    // One call's worth of facts; no two of one type adjoin but ops and bytes.
    #[allow(clippy::too_many_arguments)]
    pub fn record_late(
        &self,
        op: Op,
        epoch: &Epoch,
        located: Located,
        key: &[u8],
        lead: Option<Term>,
        ops: u64,
        bytes: u64,
    ) {
        if !self.config.enabled {
            return;
        }
        let Some(slot) = epoch.slot_of(located, key) else {
            return self.shards.count_unattributed(op, ops, bytes);
        };
        let layout = epoch.layout();
        if layout.slots[slot as usize].lead == lead {
            return self.record(op, epoch, located, key, ops, bytes);
        }
        let counts = Counts::of(op, ops, bytes);
        self.ledger.lock().add_late(layout, slot, lead, key, &counts);
    }

    /// Counts one operation that had no table to be attributed by.
    pub fn count_unattributed(&self, op: Op, bytes: u64) {
        if self.config.enabled {
            self.shards.count_unattributed(op, 1, bytes);
        }
    }

    /// Hands over what was counted since the last harvest, under all epochs, each count exactly
    /// once. Any thread may call it; calls wait for each other, recorders for none.
    pub fn harvest(&self) -> Harvest {
        self.ledger.lock().harvest()
    }

    /// What [`Sampler::harvest`] would hand over, without taking it. A peek that runs beside a
    /// harvest sees the time before or after it, never a part.
    pub fn peek(&self) -> Harvest {
        self.ledger.lock().peek()
    }

    /// Figures about the sampler itself.
    pub fn stats(&self) -> SamplerStats {
        let (epochs_published, slots) = {
            let publisher = self.publisher.lock();
            (publisher.published, publisher.table.slots.len())
        };
        let ledger = self.ledger.lock();
        SamplerStats {
            epochs_published,
            draining: ledger.draining(),
            slots,
            shards_in_use: self.shards.leased().len(),
            overflow_records: ledger.overflow_records(),
            counter_bytes: ledger.counter_bytes(),
            hot_key_operations: ledger.hot_keys().operations(),
            hot_keys_replaced: self.shards.hot_keys_replaced(),
            hot_key_error: ledger.hot_keys().error(),
            hot_key_bytes: self.shards.hot_key_bytes(),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shards.close();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, not(loom)))]
mod learning_tests;

#[cfg(all(test, loom))]
mod loom_tests;
