//! Many changes to one table in a single pass: the retired and created routes are collected first,
//! checked change by change, and then merged with the routes that stay.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::route::{Delta, Route};
use super::table::{Head, RouteTable, TableError};
use crate::limits::MAX_ROUTES;
use keyviz_types::{RouteId, RouteSpec};

struct Patch<'a> {
    base: &'a RouteTable,
    head: Head,
    /// Positions in `base` that are retired.
    gone: HashSet<usize>,
    /// Created and still live, by start key.
    fresh: BTreeMap<Bytes, Route>,
    /// Start keys of `fresh`.
    fresh_starts: HashMap<RouteId, Bytes>,
}

impl<'a> Patch<'a> {
    fn new(base: &'a RouteTable) -> Self {
        Patch {
            base,
            head: Head::of(base),
            gone: HashSet::new(),
            fresh: BTreeMap::new(),
            fresh_starts: HashMap::new(),
        }
    }

    fn find(&self, id: RouteId) -> Option<&RouteSpec> {
        if let Some(start) = self.fresh_starts.get(&id) {
            return self.fresh.get(start).map(|route| &route.spec);
        }
        let position = self.base.position(id)?;
        (!self.gone.contains(&position)).then(|| &self.base.specs()[position])
    }

    fn push(&mut self, delta: &Delta) -> Result<(), TableError> {
        self.head.check_next(delta)?;
        let version = delta.version;
        let retired = delta
            .retired
            .iter()
            .map(|&id| self.find(id).ok_or(TableError::NotLive { version, id }))
            .collect::<Result<Vec<_>, _>>()?;
        self.head = self.head.check(delta, &retired)?;
        for &id in &delta.retired {
            match self.fresh_starts.remove(&id) {
                Some(start) => drop(self.fresh.remove(&start)),
                None => self.gone.extend(self.base.position(id)),
            }
        }
        for route in &delta.created {
            let start = route.range().start.clone();
            self.fresh_starts.insert(route.id(), start.clone());
            self.fresh.insert(start, route.clone());
        }
        Ok(())
    }

    fn build(self) -> Result<RouteTable, TableError> {
        let count = self.base.len() - self.gone.len() + self.fresh.len();
        if count > MAX_ROUTES {
            return Err(TableError::TooMany { count });
        }
        let mut specs = Vec::with_capacity(count);
        let mut origins = Vec::with_capacity(count);
        let mut fresh = self.fresh.into_values().peekable();
        let kept = self.base.specs().iter().zip(self.base.origins()).enumerate();
        for (_, (spec, origin)) in kept.filter(|(at, _)| !self.gone.contains(at)) {
            while let Some(route) = fresh.next_if(|route| route.range().start < spec.range.start) {
                specs.push(route.spec);
                origins.push(route.origin);
            }
            specs.push(spec.clone());
            origins.push(*origin);
        }
        for route in fresh {
            specs.push(route.spec);
            origins.push(route.origin);
        }
        RouteTable::from_checked(self.head.version, self.head.changed_ms, specs, origins)
    }
}

impl RouteTable {
    /// The table after `deltas`, the oldest of which makes the next version. All or nothing.
    ///
    /// One change costs one copy of the route array; many cost one more move of it.
    ///
    /// # Errors
    /// A change is missing, or would leave a gap, an overlap or an id used twice.
    pub fn advance<'a>(
        &self,
        deltas: impl IntoIterator<Item = &'a Delta>,
    ) -> Result<RouteTable, TableError> {
        let mut deltas = deltas.into_iter();
        let Some(first) = deltas.next() else { return Ok(self.clone()) };
        let Some(second) = deltas.next() else { return self.splice(first) };
        let mut patch = Patch::new(self);
        for delta in [first, second].into_iter().chain(deltas) {
            patch.push(delta)?;
        }
        patch.build()
    }
}
