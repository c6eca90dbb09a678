//! What was counted and what was handed over: the flusher's side of the sampler.
//!
//! Each epoch, live or replaced, has an account: the sums that were already handed over. Counters
//! only grow (modulo 2^64), so a harvest is a difference, nothing is swapped or zeroed, and a
//! recorder that is in the middle of a call is simply found in the next harvest.
//!
//! When may an account be closed? When nobody can record under its epoch any more: the ledger's
//! reference is the only one. `Arc::get_mut` proves that. The publisher's swap has turned all
//! borrows into counted references before it gave up its own (see [`super::sync`]), a reference is
//! only ever cloned from a reference, and there are no weak ones. `get_mut`'s acquire pairs with
//! the release of each dropped reference, so the read that follows sees every count of everybody
//! who held one. No grace period: an idle holder delays the end of an account, for ever if need be.
//!
//! Accounts are closed at a harvest, and at each publication too: a storm of elections between two
//! harvests costs the cells that were counted, not a set of counters an epoch. So there are never
//! more open accounts than holders of old epochs, and the live one.

use std::collections::BTreeMap;
use std::sync::Arc as Shared;

use super::counts::{Counts, Harvest, Segment};
use super::epoch::Epoch;
use super::layout::Layout;
use super::resolution::load::DecayedLoad;
use super::shard::{Op, Shards};
use super::sync::Arc;
use crate::hotkeys::harvest::{CellTotals, KeyHarvester};
use keyviz_types::{GroupId, Term};

struct Account {
    epoch: Arc<Epoch>,
    /// Sums handed over so far, a slot; empty until the first.
    taken: Vec<Counts>,
    /// `Counters::records` before those sums were read.
    taken_records: u64,
    /// The same by whether the thread had a shard.
    taken_totals: CellTotals,
}

impl Account {
    /// Whether nobody else can reach the epoch. Once true it stays true, and all that was counted
    /// is visible.
    fn is_sole(&mut self) -> bool {
        Arc::get_mut(&mut self.epoch).is_some()
    }

    fn overflow_records(&self) -> u64 {
        self.epoch.counters().map_or(0, |counters| counters.overflow_records())
    }

    /// What was counted and not handed over, which is added to `totals` too. `sums` is working
    /// space.
    fn delta(
        &mut self,
        consume: bool,
        sums: &mut Vec<Counts>,
        totals: &mut CellTotals,
    ) -> Option<Segment> {
        let counters = self.epoch.counters()?;
        // Before the sums: what is recorded in between may be in these sums, and moves the number
        // for the next harvest in any case.
        let records = counters.records();
        if records == self.taken_records {
            return None;
        }
        sums.clear();
        sums.resize(self.epoch.layout().slots.len(), Counts::ZERO);
        let (named, unnamed) = counters.sum_into(sums);
        let now = CellTotals { named, unnamed };
        totals.add(&now.since(&self.taken_totals));
        self.taken.resize(sums.len(), Counts::ZERO);
        let cells: Vec<_> = (0..)
            .zip(sums.iter().zip(&self.taken))
            .filter(|(_, (sum, taken))| sum != taken)
            .map(|(slot, (sum, taken))| (slot, difference(sum, taken)))
            .collect();
        if consume {
            self.taken_records = records;
            self.taken_totals = now;
            std::mem::swap(&mut self.taken, sums);
        }
        let layout = Shared::clone(self.epoch.layout());
        (!cells.is_empty()).then_some(Segment { layout, cells })
    }
}

fn difference(now: &Counts, then: &Counts) -> Counts {
    Counts {
        reads: now.reads.wrapping_sub(then.reads),
        writes: now.writes.wrapping_sub(then.writes),
        read_bytes: now.read_bytes.wrapping_sub(then.read_bytes),
        write_bytes: now.write_bytes.wrapping_sub(then.write_bytes),
    }
}

/// Counts for terms that no epoch had, under a copy of an epoch's layout with those terms.
struct Late {
    base: Shared<Layout>,
    layout: Shared<Layout>,
    leads: BTreeMap<GroupId, Option<Term>>,
    cells: BTreeMap<u32, Counts>,
}

impl Late {
    fn takes(&self, base: &Shared<Layout>, group: GroupId, lead: Option<Term>) -> bool {
        Shared::ptr_eq(&self.base, base)
            && self.leads.get(&group).is_none_or(|&known| known == lead)
    }

    fn add(&mut self, slot: u32, lead: Option<Term>, counts: &Counts) {
        let group = self.base.slots[slot as usize].group;
        if self.leads.insert(group, lead).is_none() {
            let mut slots = self.layout.slots.clone();
            for slot in slots.iter_mut().filter(|slot| slot.group == group) {
                slot.lead = lead;
            }
            let catalog_version = self.base.catalog_version;
            self.layout = Shared::new(Layout { catalog_version, slots });
        }
        self.cells.entry(slot).or_default().add(counts);
    }

    fn segment(&self) -> Segment {
        let cells = self.cells.iter().map(|(&slot, &counts)| (slot, counts)).collect();
        Segment { layout: Shared::clone(&self.layout), cells }
    }
}

pub(crate) struct Ledger {
    shards: Arc<Shards>,
    /// By ascending epoch number; the last is the live one.
    accounts: Vec<Account>,
    /// What accounts had when they were closed between harvests.
    closed: Vec<Segment>,
    /// Calls that went to the overflow blocks of closed accounts.
    closed_overflow: u64,
    late: Vec<Late>,
    taken_unattributed: Counts,
    /// What the harvests of the last columns say, by the rows of the live epoch.
    load: DecayedLoad,
    sums: Vec<Counts>,
    hot_keys: KeyHarvester,
    /// Operations of `closed`.
    closed_totals: CellTotals,
}

impl Ledger {
    pub(crate) fn new(shards: Arc<Shards>) -> Self {
        Ledger {
            shards,
            accounts: Vec::new(),
            closed: Vec::new(),
            closed_overflow: 0,
            late: Vec::new(),
            taken_unattributed: Counts::ZERO,
            load: DecayedLoad::default(),
            sums: Vec::new(),
            hot_keys: KeyHarvester::default(),
            closed_totals: CellTotals::default(),
        }
    }

    /// Opens the account of the epoch that is about to be the live one.
    pub(crate) fn open(&mut self, epoch: Arc<Epoch>) {
        self.close_drained();
        self.load.align(epoch.layout());
        let taken_totals = CellTotals::default();
        self.accounts.push(Account { epoch, taken: Vec::new(), taken_records: 0, taken_totals });
    }

    /// Adds counts of a slot of `base` under another lead than the layout has.
    pub(crate) fn add_late(
        &mut self,
        base: &Shared<Layout>,
        slot: u32,
        lead: Option<Term>,
        key: &[u8],
        counts: &Counts,
    ) {
        if self.shards.has_hot_keys() {
            self.hot_keys.add_late(key, counts);
        }
        // A cell without any count would be a zero cell in a segment.
        if counts.is_zero() {
            return;
        }
        let group = base.slots[slot as usize].group;
        if let Some(late) = self.late.iter_mut().find(|late| late.takes(base, group, lead)) {
            return late.add(slot, lead, counts);
        }
        let mut late = Late {
            base: Shared::clone(base),
            layout: Shared::clone(base),
            leads: BTreeMap::new(),
            cells: BTreeMap::new(),
        };
        late.add(slot, lead, counts);
        self.late.push(late);
    }

    /// Everything since the last harvest, and closes the accounts that can get nothing more.
    pub(crate) fn harvest(&mut self) -> Harvest {
        let unattributed = self.shards.unattributed();
        // Before the cells: see `hotkeys::harvest`.
        let recorders = self.shards.has_hot_keys().then(|| self.shards.recorders());
        let keys = recorders.map(|recorders| self.hot_keys.take(&recorders));
        self.close_drained();
        let mut segments = std::mem::take(&mut self.closed);
        let mut totals = std::mem::take(&mut self.closed_totals);
        for account in &mut self.accounts {
            segments.extend(account.delta(true, &mut self.sums, &mut totals));
        }
        let hot_keys = keys.map(|keys| Shared::new(self.hot_keys.finish(keys, &totals)));
        segments.extend(self.late.drain(..).map(|late| late.segment()));
        segments.iter().for_each(|segment| self.load.add(segment));
        let taken = std::mem::replace(&mut self.taken_unattributed, unattributed);
        Harvest { segments, unattributed: difference(&unattributed, &taken), hot_keys }
    }

    /// Takes the last counts of every account that can get no more, and lets its epoch go.
    fn close_drained(&mut self) {
        self.accounts.retain_mut(|account| {
            // First, so that the sums are read after the proof.
            let sole = account.is_sole();
            if sole {
                let totals = &mut self.closed_totals;
                self.closed.extend(account.delta(true, &mut self.sums, totals));
                self.closed_overflow += account.overflow_records();
            }
            !sole
        });
    }

    /// What [`Ledger::harvest`] would give, without taking it.
    pub(crate) fn peek(&mut self) -> Harvest {
        let unattributed = self.shards.unattributed();
        let recorders = self.shards.has_hot_keys().then(|| self.shards.recorders());
        let keys = recorders.map(|recorders| {
            let mut harvester = self.hot_keys.clone();
            (harvester.peek(&recorders), harvester)
        });
        let mut segments = self.closed.clone();
        let mut totals = self.closed_totals;
        for account in &mut self.accounts {
            segments.extend(account.delta(false, &mut self.sums, &mut totals));
        }
        segments.extend(self.late.iter().map(Late::segment));
        let finish = |(keys, mut harvester): (_, KeyHarvester)| harvester.finish(keys, &totals);
        let hot_keys = keys.map(finish).map(Shared::new);
        let unattributed = difference(&unattributed, &self.taken_unattributed);
        Harvest { segments, unattributed, hot_keys }
    }

    /// The decayed load of the live epoch's rows.
    pub(crate) fn load(&mut self) -> &mut DecayedLoad {
        &mut self.load
    }

    /// What is known of the summaries of keys.
    pub(crate) fn hot_keys(&self) -> &KeyHarvester {
        &self.hot_keys
    }

    /// Epochs that were replaced and may still be recorded under.
    pub(crate) fn draining(&self) -> usize {
        self.accounts.len().saturating_sub(1)
    }

    /// Calls that went to an overflow block so far.
    pub(crate) fn overflow_records(&self) -> u64 {
        self.accounts.iter().map(Account::overflow_records).sum::<u64>() + self.closed_overflow
    }

    /// Bytes of counters in all open epochs.
    pub(crate) fn counter_bytes(&self) -> usize {
        self.accounts
            .iter()
            .filter_map(|account| account.epoch.counters())
            .map(|counters| counters.bytes())
            .sum()
    }
}

impl Counts {
    /// One call's worth.
    pub fn of(op: Op, ops: u64, bytes: u64) -> Counts {
        match op {
            Op::Read => Counts { reads: ops, read_bytes: bytes, ..Counts::ZERO },
            Op::Write => Counts { writes: ops, write_bytes: bytes, ..Counts::ZERO },
        }
    }
}
