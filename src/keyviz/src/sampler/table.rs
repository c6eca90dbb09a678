//! A route table and its slots, without leaders: what the epochs of one catalog version and one
//! resolution plan share.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::layout::{Bucket, Members, Slot};
use super::locate::Locator;
use super::resolution::Plan;
use keyviz_types::{KeyRange, LayoutError, RouteId, RouteSpec};

/// Where a key is counted: the position of its route in the table, and its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RouteSlot {
    pub(crate) route: u32,
    pub(crate) slot: u32,
}

pub(crate) struct Table {
    pub(crate) catalog_version: u64,
    pub(crate) routes: Arc<[RouteSpec]>,
    /// Slots in order; every `lead` is `None`.
    pub(crate) slots: Vec<Slot>,
    /// One place per start key of `locator`, which has the starts of all routes and sub-ranges.
    places: Box<[RouteSlot]>,
    locator: Locator,
}

impl Table {
    /// The table before any catalog version was applied.
    pub(crate) fn empty() -> Self {
        Table::new(0, &Plan::empty(), 1)
    }

    /// The table of a plan, whose routes must be valid (see [`validate`]).
    pub(crate) fn new(catalog_version: u64, plan: &Plan, member_cap: usize) -> Self {
        let Plan { routes, spans } = plan;
        let routes = Arc::clone(routes);
        let mut slots = Vec::with_capacity(spans.len());
        let mut places = Vec::with_capacity(routes.len());
        let mut starts = Vec::with_capacity(routes.len());
        for span in spans {
            let members = &routes[span.routes.clone()];
            let first_slot = slots.len();
            match members {
                [] => unreachable!("a span has at least one route"),
                [route] => route_slots(route, &span.cuts, &mut slots),
                _ => aggregate_slots(members, member_cap, &mut slots),
            }
            if let [_] = members {
                let route = span.routes.start as u32;
                for (slot, sub_range) in slots.iter().enumerate().skip(first_slot) {
                    starts.push(sub_range.range.start.clone());
                    places.push(RouteSlot { route, slot: slot as u32 });
                }
                continue;
            }
            for (route, member) in span.routes.clone().zip(members) {
                let in_span = slots[first_slot..]
                    .binary_search_by_key(&member.group, |slot| slot.group)
                    .expect("an aggregate has a slot for each group of its members");
                starts.push(member.range.start.clone());
                places.push(RouteSlot { route: route as u32, slot: (first_slot + in_span) as u32 });
            }
        }
        let locator = Locator::new(&starts);
        Table { catalog_version, routes, slots, places: places.into(), locator }
    }

    #[inline]
    pub(crate) fn place(&self, key: &[u8]) -> Option<RouteSlot> {
        self.locator.find(key).map(|index| self.places[index])
    }
}

/// One slot for the route, or one for each of its sub-ranges.
fn route_slots(route: &RouteSpec, cuts: &[Bytes], slots: &mut Vec<Slot>) {
    let slot = |range, bucket| Slot { range, bucket, group: route.group, lead: None };
    if cuts.is_empty() {
        slots.push(slot(route.range.clone(), Bucket::Route(route.id)));
        return;
    }
    let starts = std::iter::once(&route.range.start).chain(cuts);
    let ends = cuts.iter().map(Some).chain(std::iter::once(route.range.end.as_ref()));
    for (index, (start, end)) in starts.zip(ends).enumerate() {
        let range = KeyRange { start: start.clone(), end: end.cloned() };
        slots.push(slot(range, Bucket::SubRange { route: route.id, index: index as u32 }));
    }
}

/// One slot per group, by ascending group, all with the same range and members.
fn aggregate_slots(members: &[RouteSpec], member_cap: usize, slots: &mut Vec<Slot>) {
    let (Some(first), Some(last)) = (members.first(), members.last()) else {
        unreachable!("an aggregate has members")
    };
    let range = KeyRange { start: first.range.start.clone(), end: last.range.end.clone() };
    let named = Arc::new(Members {
        count: members.len() as u64,
        first: members.iter().take(member_cap).map(|route| route.id).collect(),
        digest: digest(members.iter().map(|route| route.id)),
    });
    let groups: BTreeSet<_> = members.iter().map(|route| route.group).collect();
    slots.extend(groups.into_iter().map(|group| Slot {
        range: range.clone(),
        bucket: Bucket::Aggregate(Arc::clone(&named)),
        group,
        lead: None,
    }));
}

/// XXH3 of the ids as little-endian numbers, in key order.
fn digest(ids: impl Iterator<Item = RouteId>) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    for id in ids {
        hasher.update(&id.get().to_le_bytes());
    }
    hasher.digest()
}

/// Checks that the routes are sorted, cover the key space without gap or overlap, and have
/// distinct ids.
///
/// # Errors
/// The first fault in key order. Repeated ids are reported only if the ranges are right.
pub(crate) fn validate(routes: &[RouteSpec]) -> Result<(), LayoutError> {
    let (Some(first), Some(last)) = (routes.first(), routes.last()) else {
        return Err(LayoutError::Empty);
    };
    if !first.range.start.is_empty() {
        return Err(LayoutError::NoStart { first: first.id });
    }
    for pair in routes.windows(2) {
        let (left, right) = (&pair[0], &pair[1]);
        if left.range.is_empty() || left.range.end.as_ref() != Some(&right.range.start) {
            return Err(LayoutError::NotContiguous { left: left.id, right: right.id });
        }
    }
    if last.range.end.is_some() {
        return Err(LayoutError::NoEnd { last: last.id });
    }
    let mut ids: Vec<_> = routes.iter().map(|route| route.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(LayoutError::Duplicate { id: pair[0] }),
        None => Ok(()),
    }
}
