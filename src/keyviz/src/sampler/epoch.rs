//! An epoch: one immutable route table with the leaderships of this node, and the counters that
//! belong to exactly that.
//!
//! Finding a key's route and finding its slot are the same search in the same table, so routing
//! and sampling cannot disagree. Every count belongs to one (route, group, term) because a change
//! of any of them makes a new epoch.

use std::sync::Arc as Shared;
use std::sync::atomic::{AtomicU64 as Number, Ordering as NumberOrdering};

use super::layout::Layout;
use super::shard::{Counters, Lease, Op, Shards};
use super::sync::Arc;
use super::table::{RouteSlot, Table};
use keyviz_types::{GroupId, KeyRange, RouteSpec, Term};

/// Numbers all epochs of the process, so that a [`Located`] of another epoch, or of another
/// sampler, is told apart. Not part of any ordering argument, hence not one of `sync`'s.
static NEXT_EPOCH: Number = Number::new(1);

/// Where an epoch counts a key. Only of use with the epoch that it came from; another epoch
/// notices and searches again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    epoch: u64,
    place: RouteSlot,
}

impl Located {
    /// Index into [`Layout::slots`] of the epoch's layout.
    pub fn slot(&self) -> u32 {
        self.place.slot
    }

    /// Index into [`Epoch::routes`].
    pub fn route(&self) -> u32 {
        self.place.route
    }
}

/// One published state of the sampler.
pub struct Epoch {
    number: u64,
    table: Shared<Table>,
    layout: Shared<Layout>,
    /// By ascending group.
    leads: Box<[(GroupId, Option<Term>)]>,
    /// `None` while the sampler is off.
    counters: Option<Counters>,
    shards: Arc<Shards>,
}

impl Epoch {
    /// `leads` are sorted by group; a group that is not there is led by nobody here.
    pub(crate) fn new(
        table: Shared<Table>,
        leads: Box<[(GroupId, Option<Term>)]>,
        shards: Arc<Shards>,
        enabled: bool,
    ) -> Self {
        let mut slots = table.slots.clone();
        for slot in &mut slots {
            slot.lead = lead_in(&leads, slot.group);
        }
        let counters = (enabled && !slots.is_empty())
            .then(|| Counters::new(slots.len(), shards.count(), shards.leased().into_iter()));
        let layout = Shared::new(Layout { catalog_version: table.catalog_version, slots });
        let number = NEXT_EPOCH.fetch_add(1, NumberOrdering::Relaxed);
        Epoch { number, table, layout, leads, counters, shards }
    }

    /// Grows from epoch to epoch of a sampler; not dense.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The version of the published routes; 0 before any.
    pub fn catalog_version(&self) -> u64 {
        self.table.catalog_version
    }

    /// All routes in key order; empty before any were published.
    pub fn routes(&self) -> &Shared<[RouteSpec]> {
        &self.table.routes
    }

    /// The slots that this epoch counts in.
    pub fn layout(&self) -> &Shared<Layout> {
        &self.layout
    }

    /// Finds the route and the slot of a key. `None` only before any routes were published.
    #[inline]
    pub fn locate(&self, key: &[u8]) -> Option<Located> {
        self.table.place(key).map(|place| Located { epoch: self.number, place })
    }

    /// The route of a place that this epoch located.
    ///
    /// # Panics
    /// May panic when `located` comes from another epoch.
    pub fn route(&self, located: Located) -> &RouteSpec {
        &self.table.routes[located.place.route as usize]
    }

    /// The term in which this node leads the group, if it does.
    pub fn lead(&self, group: GroupId) -> Option<Term> {
        lead_in(&self.leads, group)
    }

    /// The routes that `range` touches, in key order, each with the part of `range` in it. The
    /// place is that of the part's first key, so that a scan counts once a route.
    pub fn routes_overlapping(&self, range: &KeyRange) -> impl Iterator<Item = Overlap> {
        let first = match self.table.place(&range.start) {
            Some(place) if !range.is_empty() => place.route as usize,
            _ => self.table.routes.len(),
        };
        let range = range.clone();
        self.table.routes[first..].iter().map_while(move |route| {
            let start = range.start.clone().max(route.range.start.clone());
            let end = match (&range.end, &route.range.end) {
                (Some(asked), Some(end)) => Some(asked.min(end).clone()),
                (asked, end) => asked.clone().or_else(|| end.clone()),
            };
            let range = KeyRange { start, end };
            let located = self.locate(&range.start)?;
            (!range.is_empty()).then_some(Overlap { located, range })
        })
    }

    pub(crate) fn counters(&self) -> Option<&Counters> {
        self.counters.as_ref()
    }

    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    pub(crate) fn prepare(&self, lease: &Lease) {
        if let Some(counters) = &self.counters {
            counters.prepare(lease);
        }
    }

    /// Counts one call at `located`; without a lease in the overflow shard.
    ///
    /// Always inlined: a call makes a record a third dearer, and the compiler decides for one or
    /// the other by what else has changed.
    #[inline(always)]
    pub(crate) fn record(
        &self,
        lease: Option<&Lease>,
        located: Located,
        key: &[u8],
        op: Op,
        ops: u64,
        bytes: u64,
    ) {
        let Some(slot) = self.slot_of(located, key) else {
            return self.shards.count_unattributed(op, ops, bytes);
        };
        match (&self.counters, lease) {
            (Some(counters), Some(lease)) => {
                let own = counters.record(lease, slot, op, ops, bytes);
                lease.observe(key);
                if own {
                    lease.record_key(key, op, ops, bytes);
                }
            }
            (Some(counters), None) => counters.record_shared(slot, op, ops, bytes),
            // The table is not empty, so only a sampler that is off has no counters.
            (None, _) => (),
        }
    }

    #[inline]
    pub(crate) fn slot_of(&self, located: Located, key: &[u8]) -> Option<u32> {
        if located.epoch == self.number {
            return Some(located.place.slot);
        }
        self.slot_of_key(key)
    }

    /// Not inlined: a whole search in the middle of a record makes every record slower.
    #[cold]
    #[inline(never)]
    fn slot_of_key(&self, key: &[u8]) -> Option<u32> {
        self.table.place(key).map(|place| place.slot)
    }
}

/// A route that a key range touches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlap {
    /// The route, and the slot of the first key of `range`.
    pub located: Located,
    /// The part of the asked range that lies in the route; never empty.
    pub range: KeyRange,
}

fn lead_in(leads: &[(GroupId, Option<Term>)], group: GroupId) -> Option<Term> {
    let index = leads.binary_search_by_key(&group, |&(group, _)| group).ok()?;
    leads[index].1
}
