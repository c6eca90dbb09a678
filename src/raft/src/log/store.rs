//! One group's log as openraft uses it.
//!
//! The newest entries are kept in memory, so that replication and apply do not read the disk; an
//! entry is evicted only when it is on disk and the budget is exhausted. All writes go through the
//! node's [`Writer`], in the order in which openraft issues them.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::blocks;
use super::record;
use super::shared::{Appended, CacheBudget, FAILED, LogShared, Released, State};
use super::writer::{Op, Writer, stopped};
use crate::storage::{FaultLatch, Tree};
use crate::types::{Entry, IoFlushed, LogId, Types, Vote};
use keyviz_types::GroupId;

/// Maximum bytes of entries in one append request, small enough that a lagging follower of one
/// group does not delay the heartbeats of the others for long.
const READ_BYTES: usize = 256 * 1024;

/// One group's log. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct GroupLog {
    shared: Arc<LogShared>,
    tree: Tree,
    writer: Writer,
    faults: FaultLatch,
    /// See [`GroupOptions::overwrites_committed`](crate::GroupOptions::overwrites_committed).
    overwrites_committed: bool,
}

impl GroupLog {
    /// Opens the log of `group`, checking every record of it.
    pub(crate) fn open(
        group: GroupId,
        tree: Tree,
        writer: Writer,
        faults: FaultLatch,
        budget: Arc<CacheBudget>,
    ) -> io::Result<Self> {
        budget.groups.fetch_add(1, Ordering::Relaxed);
        let recovered = blocks::recover(&tree, group, budget.share());
        let recovered = recovered.inspect_err(|_| {
            budget.groups.fetch_sub(1, Ordering::Relaxed);
        })?;
        let durable_end = recovered.last.map_or(0, |last| last.index + 1);
        let mut state = State {
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            last: recovered.purged,
            first: recovered.purged.map_or(0, |purged| purged.index + 1),
            stored_end: durable_end,
            appended_bytes: recovered.bytes,
            ..State::default()
        };
        recovered.tail.into_iter().for_each(|entry| state.push(entry));
        state.last = recovered.last;
        let shared = LogShared {
            group,
            state: Mutex::new(state),
            blocks: Mutex::new(recovered.index),
            budget,
            durable_end: watch::Sender::new(durable_end),
        };
        let overwrites_committed = false;
        Ok(Self { shared: Arc::new(shared), tree, writer, faults, overwrites_committed })
    }

    /// Whether a leader may have it remove entries that are committed.
    pub(crate) fn overwriting_committed(mut self, overwrites: bool) -> Self {
        self.overwrites_committed = overwrites;
        self
    }

    /// The last entry, purged ones included.
    pub(crate) fn last(&self) -> Option<LogId> {
        let state = self.shared.state();
        state.last.or(state.purged)
    }

    /// The vote that is stored.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.state().vote
    }

    /// Index of the last entry that was purged.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.shared.state().purged.map(|at| at.index)
    }

    /// Returns when the entries up to `index` are durable in this node's log. They may be durable
    /// at other nodes and committed before.
    pub(crate) async fn durable(&self, index: u64) -> io::Result<()> {
        if index < *self.shared.durable_end.borrow() {
            return self.faults.check().map_err(Into::into);
        }
        let mut end = self.shared.durable_end.subscribe();
        match end.wait_for(|end| index < *end).await.map(|end| *end) {
            Ok(FAILED) | Err(_) => self.faults.check().map_err(Into::into).and(Err(stopped())),
            Ok(_) => Ok(()),
        }
    }

    /// The id of the entry at `index`, if it is in memory.
    pub(crate) fn log_id_at(&self, index: u64) -> Option<LogId> {
        let state = self.shared.state();
        if let Some(last) = state.last.filter(|last| last.index == index) {
            return Some(last);
        }
        if let Some(purged) = state.purged.filter(|purged| purged.index == index) {
            return Some(purged);
        }
        let at = index.checked_sub(state.cache_first())?;
        state.cache.get(usize::try_from(at).ok()?).map(|entry| entry.log_id)
    }

    /// Signals when the log is no longer used.
    pub(crate) fn released(&self) -> Released {
        Released(Arc::downgrade(&self.shared))
    }

    /// Bytes of entries that were ever appended, counting those found when it was opened.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.shared.state().appended_bytes
    }

    fn read(&self, start: u64, end: u64, most_bytes: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (cold, warm, seen) = {
                let state = self.shared.state();
                let (start, end) = (start.max(state.first), end.min(state.end()));
                if start >= end {
                    return Ok(Vec::new());
                }
                let warm_from = state.cache_first().max(start);
                let skip = (warm_from - state.cache_first()) as usize;
                let take = end.saturating_sub(warm_from) as usize;
                let warm: Vec<Entry> = if warm_from > start && most_bytes < usize::MAX {
                    // A bounded read that starts on disk ends there.
                    Vec::new()
                } else {
                    limited(state.cache.iter().skip(skip).take(take), most_bytes)
                };
                let seen = (state.purged, state.truncations);
                (start..warm_from.min(end), warm, seen)
            };
            if cold.is_empty() {
                return Ok(warm);
            }
            let read = blocks::read_range(&self.tree, self.shared.group, cold.start, cold.end);
            let unchanged = {
                let state = self.shared.state();
                (state.purged, state.truncations) == seen
            };
            match read {
                Ok(entries) if entries.len() as u64 == cold.end - cold.start => {
                    let mut entries = limited(entries.iter(), most_bytes);
                    entries.extend(warm);
                    return Ok(entries);
                }
                // A purge or a truncation took entries away while they were read.
                _ if !unchanged => continue,
                Err(error) => return Err(error),
                Ok(_) => {
                    return Err(record::CorruptLog {
                        group: self.shared.group,
                        index: cold.start,
                        what: "entries that must be there are missing",
                    }
                    .into());
                }
            }
        }
    }
}

fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, most_bytes: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for entry in entries {
        bytes += record::entry_bytes(entry);
        if bytes > most_bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

impl RaftLogReader<Types> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        // A cold read is cut by count first: it reads whole blocks before it cuts by bytes.
        self.read(start, end.min(start.saturating_add(1024)), READ_BYTES)
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.shared.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.faults.check()?;
        let (done, waiter) = oneshot::channel();
        self.writer.submit(Op::Vote { log: self.shared.clone(), vote: *vote, done });
        waiter.await.unwrap_or_else(|_| Err(stopped()))?;
        self.shared.state().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with the next block: it saves work after a restart, but nothing depends on it.
        self.shared.state().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.state().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.faults.check()?;
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (committed, appended) = {
            let mut state = self.shared.state();
            if let (None, Some(first)) = (state.last, entries.first()) {
                // Always 0, except in openraft's storage suite.
                state.first = first.log_id.index;
            }
            for entry in &entries {
                if entry.log_id.index != state.end() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("appending {} after {:?} leaves a hole", entry.log_id, state.last),
                    ));
                }
                state.appended_bytes += record::entry_bytes(entry) as u64;
                state.push(entry.clone());
            }
            let (log, end, truncations) = (self.shared.clone(), state.end(), state.truncations);
            (state.committed, Appended { log, end, truncations })
        };
        let log = self.shared.clone();
        self.writer.submit(Op::Append { log, entries, committed, appended, flushed });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.faults.check()?;
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut state = self.shared.state();
            if from >= state.end() {
                return Ok(());
            }
            if let Some(committed) = state.committed.filter(|committed| from <= committed.index)
                && !self.overwrites_committed
            {
                // `Service` sees it before, and closes the group; no way around it may lose them.
                let what =
                    format!("asked to remove entries from {from} on, and {committed} is committed");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            while state.cache.back().is_some_and(|entry| entry.log_id.index >= from) {
                let entry = state.cache.pop_back().expect("it has a back");
                state.cache_bytes -= record::entry_bytes(&entry);
            }
            state.last = last.max(state.purged);
            state.stored_end = state.stored_end.min(from);
            state.truncations += 1;
            self.shared.durable_end.send_if_modified(|end| {
                let cut = *end != FAILED && from < *end;
                *end = if cut { from } else { *end };
                cut
            });
        }
        self.writer.submit(Op::Truncate { log: self.shared.clone(), from });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.faults.check()?;
        {
            let mut state = self.shared.state();
            if state.purged >= Some(upto) {
                return Ok(());
            }
            while state.cache.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
                state.drop_front();
            }
            state.purged = Some(upto);
            state.first = upto.index + 1;
            if state.last.is_none_or(|last| last.index < upto.index) {
                // A snapshot reached beyond the log: what comes next follows the snapshot.
                state.last = Some(upto);
                state.stored_end = upto.index + 1;
                // The rows have them, and are durable.
                self.shared.durable_end.send_modify(|end| *end = (*end).max(upto.index + 1));
            }
        }
        self.writer.submit(Op::Purge { log: self.shared.clone(), upto });
        Ok(())
    }
}
