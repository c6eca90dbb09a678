//! Past routes and changes, derived from the lineage.

use std::sync::Arc;

use bytes::Bytes;

use super::route::{DeltaKind, Kin, Retired};
use crate::machine::state::Catalog;
use keyviz_types::{GroupId, KeyRange, RouteId, RouteSpec};

/// The live routes of a catalog version, in key order and without a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastRoutes {
    /// The version.
    pub version: u64,
    /// Its routes.
    pub routes: Arc<[RouteSpec]>,
}

/// A split, a merge or a move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteEvent {
    /// Unix time in milliseconds that the change bears.
    pub time_ms: u64,
    /// Split, merge or move.
    pub kind: DeltaKind,
    /// Catalog version that it made.
    pub version: u64,
    /// Routes that ended, in key order.
    pub retired: Kin,
    /// Routes that began, in key order. A route that moved is in both.
    pub created: Kin,
    /// The boundary that a split drew or a merge took away, or the first key of a route that moved.
    pub key: Bytes,
    /// The group that a route moved from, and the one that it moved to.
    pub groups: Option<(GroupId, GroupId)>,
}

/// The changes of a stretch of time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RouteEvents {
    /// Oldest first.
    pub events: Vec<RouteEvent>,
    /// There were more, older ones.
    pub truncated: bool,
}

impl Catalog {
    /// The routes as they were once all changes up to `time_ms` were made. If the ancestry does not
    /// reach back that far, the oldest routes that it still has; before bootstrap, the first.
    pub fn routes_at(&self, time_ms: u64) -> PastRoutes {
        let live =
            || PastRoutes { version: self.version(), routes: Arc::clone(self.table().specs()) };
        let Some(next) = self.retired_from(time_ms.saturating_add(1)).next() else {
            return live();
        };
        // The second of two merged routes may be remembered without the first.
        let versions = [next.retired_version.saturating_sub(1), next.retired_version];
        let known = versions.into_iter().find_map(|version| {
            let routes = self.routes_of(version, next.retired_ms);
            covers_all(&routes).then(|| PastRoutes { version, routes: routes.into() })
        });
        known.unwrap_or_else(live)
    }

    /// The routes of `version`, all of whose later changes were made at `from_ms` or after.
    fn routes_of(&self, version: u64, from_ms: u64) -> Vec<RouteSpec> {
        let live = self.table().iter().map(|route| (route.spec, route.origin));
        let retired = self
            .retired_from(from_ms)
            .filter(|old| old.retired_version > version)
            .map(|old| (old.route.spec.clone(), old.route.origin));
        let mut routes: Vec<RouteSpec> = live
            .chain(retired)
            .filter(|(_, origin)| origin.created_version <= version)
            .map(|(spec, _)| spec)
            .collect();
        routes.sort_unstable_by(|a, b| a.range.start.cmp(&b.range.start));
        routes
    }

    /// The newest `limit` splits, merges and moves from `from_ms` (inclusive) to `to_ms`
    /// (exclusive) that touch `range`.
    pub fn events(&self, from_ms: u64, to_ms: u64, range: &KeyRange, limit: usize) -> RouteEvents {
        let mut events: Vec<RouteEvent> = Vec::new();
        let changes = self.retired_from(from_ms).take_while(|old| old.retired_ms < to_ms);
        for old in changes {
            match events.last_mut() {
                Some(event) if event.version == old.retired_version => {
                    let ids = event.retired.iter().chain([old.route.id()]);
                    event.retired = Kin::first_of(ids);
                    event.key = old.route.range().start.clone();
                }
                _ => events.push(self.event(old)),
            }
        }
        events
            .extend(self.moved().filter(|event| from_ms <= event.time_ms && event.time_ms < to_ms));
        events.sort_by_key(|event| event.version);
        events.retain(|event| event_touches(self, event, range));
        let excess = events.len().saturating_sub(limit);
        events.drain(..excess);
        RouteEvents { events, truncated: excess > 0 }
    }

    fn event(&self, old: &Retired) -> RouteEvent {
        let mut children = old.children.iter();
        let (_, right) = (children.next(), children.next());
        let kind = if right.is_some() { DeltaKind::Split } else { DeltaKind::Merge };
        let range = right.and_then(|right| self.range_of(right));
        let key = range.unwrap_or_else(|| old.route.range().clone()).start;
        RouteEvent {
            time_ms: old.retired_ms,
            kind,
            version: old.retired_version,
            retired: Kin::one(old.route.id()),
            created: old.children,
            key,
            groups: None,
        }
    }

    /// The remembered moves that changed a route's group.
    fn moved(&self) -> impl Iterator<Item = RouteEvent> {
        let under_way = self.moves().under_way().iter();
        let under_way = under_way
            .map(|moved| (moved.version, moved.moved_ms, moved.route_id, moved.from, moved.to));
        let ended = self.moves().ended();
        let ended = ended
            .map(|moved| (moved.version, moved.moved_ms, moved.route_id, moved.from, moved.to));
        let moved = ended.chain(under_way).filter(|(version, ..)| *version > 0);
        moved.filter_map(|(version, time_ms, route_id, from, to)| {
            Some(RouteEvent {
                time_ms,
                kind: DeltaKind::Move,
                version,
                retired: Kin::one(route_id),
                created: Kin::one(route_id),
                key: self.range_of(route_id)?.start,
                groups: Some((from, to)),
            })
        })
    }

    fn range_of(&self, id: RouteId) -> Option<KeyRange> {
        let live = self.table().by_id(id).map(|route| route.spec.range);
        live.or_else(|| self.retired(id).map(|old| old.route.range().clone()))
    }
}

fn event_touches(catalog: &Catalog, event: &RouteEvent, range: &KeyRange) -> bool {
    event.retired.iter().filter_map(|id| catalog.range_of(id)).any(|old| {
        range.end.as_ref().is_none_or(|end| old.start < *end)
            && old.end.as_ref().is_none_or(|end| range.start < *end)
    })
}

fn covers_all(routes: &[RouteSpec]) -> bool {
    let ends = |first: &RouteSpec, last: &RouteSpec| {
        first.range.start.is_empty() && last.range.end.is_none()
    };
    routes.first().zip(routes.last()).is_some_and(|(first, last)| ends(first, last))
        && routes.windows(2).all(|pair| pair[0].range.end.as_ref() == Some(&pair[1].range.start))
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
