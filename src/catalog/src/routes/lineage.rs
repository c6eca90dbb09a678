//! The retired routes, within a budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::route::Retired;
use crate::limits::Retention;
use keyviz_types::RouteId;

/// Retired routes, of which the oldest are dropped first.
#[derive(Clone, Default, Debug)]
pub(crate) struct Lineage {
    by_id: BTreeMap<RouteId, Arc<Retired>>,
    /// Ids in order of retirement.
    order: VecDeque<RouteId>,
    /// Bytes of all their ranges.
    bytes: usize,
}

impl Lineage {
    /// Adds a route; returns those that were dropped for it.
    pub(crate) fn push(&mut self, retired: Retired, retention: &Retention) -> Vec<RouteId> {
        self.insert(retired);
        let mut forgotten = Vec::new();
        while self.order.len() > retention.retired || self.bytes > retention.retired_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(retired) = self.by_id.remove(&oldest) {
                self.bytes -= range_bytes(&retired);
            }
            forgotten.push(oldest);
        }
        forgotten
    }

    /// Adds a route that was retired after all others; `false` if the id is present already.
    pub(crate) fn insert(&mut self, retired: Retired) -> bool {
        let id = retired.route.id();
        let bytes = range_bytes(&retired);
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_id.insert(id, Arc::new(retired));
        self.order.push_back(id);
        self.bytes += bytes;
        true
    }

    pub(crate) fn get(&self, id: RouteId) -> Option<&Retired> {
        self.by_id.get(&id).map(Arc::as_ref)
    }

    /// All of them in order of retirement, siblings in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Retired> {
        self.order.iter().filter_map(|id| self.get(*id))
    }

    /// Those that were retired at `time_ms` or later, in order of retirement.
    pub(crate) fn retired_from(&self, time_ms: u64) -> impl Iterator<Item = &Retired> {
        let earlier = |id: &RouteId| self.get(*id).is_some_and(|old| old.retired_ms < time_ms);
        // Times never go back, so neither do those of the order.
        let from = self.order.partition_point(earlier);
        self.order.range(from..).filter_map(|id| self.get(*id))
    }
}

fn range_bytes(retired: &Retired) -> usize {
    let range = retired.route.range();
    range.start.len() + range.end.as_ref().map_or(0, |end| end.len())
}
