//! Which requests made which changes, so that a retry happens once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bincode::{Decode, Encode};

use super::route::Delta;

/// A request id with the change that it made. The change is kept whole, because a retry must get
/// the same answer even where the change log has moved on.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) struct Served {
    pub(crate) request_id: String,
    pub(crate) delta: Arc<Delta>,
}

/// The newest requests that bore an id, in order of the versions that they made.
#[derive(Clone, Default, Debug)]
pub(crate) struct Requests {
    by_id: HashMap<String, Arc<Delta>>,
    order: VecDeque<Served>,
}

impl Requests {
    pub(crate) fn find(&self, request_id: &str) -> Option<&Arc<Delta>> {
        self.by_id.get(request_id)
    }

    /// Remembers a request; gives back the versions of those that are no longer remembered.
    pub(crate) fn push(&mut self, served: Served, limit: usize) -> Vec<u64> {
        self.insert(served);
        let excess = self.order.len().saturating_sub(limit);
        let forgotten: Vec<Served> = self.order.drain(..excess).collect();
        forgotten
            .into_iter()
            .map(|served| {
                self.by_id.remove(&served.request_id);
                served.delta.version
            })
            .collect()
    }

    /// Adds a request newer than all others; `false` where the id is there already.
    pub(crate) fn insert(&mut self, served: Served) -> bool {
        let known = self.by_id.insert(served.request_id.clone(), served.delta.clone());
        self.order.push_back(served);
        known.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.order.iter()
    }
}
