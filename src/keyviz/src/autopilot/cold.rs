//! Routes that have long been without load, and what merges them.

use std::collections::BTreeMap;

use super::cost::Present;
use crate::insight::{Topology, overlap};
use keyviz_types::{KeyRange, RouteId};

/// Of the mean node's load, below which a route is cold.
const COLD: f64 = 0.05;

/// Since when routes have been without load. It starts empty, so that a new leader of the catalog
/// group merges nothing before it has looked for long enough itself.
#[derive(Clone, Default, Debug)]
pub struct Cold {
    /// `None`: it is not.
    routes: BTreeMap<RouteId, (KeyRange, Option<u64>)>,
}

impl Cold {
    /// Takes a look at the present. A route that came from others is as cold as the warmest of
    /// them.
    pub fn observe(&mut self, present: &Present, topology: &Topology, now_ms: u64) {
        let level = COLD * present.cost() / topology.nodes.len().max(1) as f64;
        let known = std::mem::take(&mut self.routes);
        let mut loads = vec![0.0; topology.routes.len()];
        for row in &present.ranges {
            let from = topology.routes.partition_point(|route| {
                route.range.end.as_ref().is_some_and(|end| *end <= row.range.start)
            });
            let rest = &topology.routes[from..];
            let count = rest.iter().take_while(|route| overlap(&route.range, &row.range)).count();
            for load in &mut loads[from..from + count] {
                *load += row.cost() / count as f64;
            }
        }
        for (route, load) in topology.routes.iter().zip(loads) {
            let since = (load <= level).then(|| match known.get(&route.id) {
                Some((_, since)) => since.unwrap_or(now_ms),
                None => {
                    let before = known.values().filter(|(range, _)| overlap(range, &route.range));
                    before.map(|(_, since)| since.unwrap_or(now_ms)).max().unwrap_or(now_ms)
                }
            });
            self.routes.insert(route.id, (route.range.clone(), since));
        }
    }

    pub(super) fn since(&self, route: RouteId) -> Option<u64> {
        self.routes.get(&route)?.1
    }
}
