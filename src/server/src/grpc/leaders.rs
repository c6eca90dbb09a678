//! Changes of leaders, as this node has seen them since it started: data for the marks of a
//! heatmap.
//!
//! Terms and leaders are polled twice a second, so a mark is late by at most half a second, and a
//! leader that came and went between two polls is not marked. The counts do not depend on any of
//! this: they carry their terms.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use keyviz_directory::Directory;
use keyviz_proto as proto;
use keyviz_raft::Groups;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteSpec};

/// Most changes that are remembered; older ones are forgotten.
const MAX_CHANGES: usize = 1_024;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One group got another leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Change {
    time_ms: u64,
    group: GroupId,
    leader: NodeId,
    /// Known if the node holds a replica of the group.
    term: Option<u64>,
}

/// The leaders and changes seen.
#[derive(Default)]
pub(crate) struct LeaderLog {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    leaders: BTreeMap<GroupId, NodeId>,
    changes: VecDeque<Change>,
}

impl LeaderLog {
    /// Looks until `stop`.
    pub(crate) async fn watch(
        self: Arc<Self>,
        groups: Groups,
        directory: Arc<Directory>,
        now_ms: impl Fn() -> u64,
        stop: CancellationToken,
    ) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            for group in directory.placement().keys().copied() {
                let (leader, term) = match groups.get(group) {
                    Some(local) => (local.leader(), Some(local.status().term.0)),
                    None => (directory.leader_hint(group), None),
                };
                if let Some(leader) = leader {
                    self.saw(now_ms(), group, leader, term);
                }
            }
        }
    }

    /// The first leader seen is not a change, nor is a time without a leader.
    fn saw(&self, time_ms: u64, group: GroupId, leader: NodeId, term: Option<u64>) {
        let mut seen = self.seen.lock();
        let before = seen.leaders.insert(group, leader);
        if before.is_none() || before == Some(leader) {
            return;
        }
        if seen.changes.len() == MAX_CHANGES {
            seen.changes.pop_front();
        }
        seen.changes.push_back(Change { time_ms, group, leader, term });
    }

    /// Changes from `from_ms` until before `to_ms` of groups that hold keys of the range, each at
    /// the first of these keys.
    pub(crate) fn events(
        &self,
        (from_ms, to_ms): (u64, u64),
        range: &KeyRange,
        routes: &[RouteSpec],
    ) -> Vec<proto::RouteEvent> {
        let first_key = |group| {
            let held = routes.iter().filter(|route| route.group == group);
            let mut held = held.filter(|route| {
                let ends = |end: &Option<bytes::Bytes>, key: &bytes::Bytes| {
                    end.as_ref().is_some_and(|end| end <= key)
                };
                !ends(&route.range.end, &range.start) && !ends(&range.end, &route.range.start)
            });
            held.next().map(|route| route.range.start.clone().max(range.start.clone()))
        };
        let seen = self.seen.lock();
        let inside = |change: &&Change| from_ms <= change.time_ms && change.time_ms < to_ms;
        let told = seen.changes.iter().filter(inside).filter_map(|change| {
            Some(proto::RouteEvent {
                time_ms: change.time_ms,
                kind: "leader".to_owned(),
                key: first_key(change.group)?,
                group_id: Some(change.group.0),
                leader: Some(change.leader.0),
                term: change.term,
                ..Default::default()
            })
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn range(start: &'static str, end: Option<&'static str>) -> KeyRange {
        KeyRange { start: Bytes::from_static(start.as_bytes()), end: end.map(Bytes::from) }
    }

    #[test]
    fn a_change_is_told_at_the_first_key_of_its_group_in_the_range() {
        let id = |id| keyviz_types::RouteId::new(id).expect("not 0");
        let route = |at, range, group| RouteSpec { id: id(at), range, group: GroupId(group) };
        let routes = [route(1, range("", Some("m")), 1), route(2, range("m", None), 2)];
        let log = LeaderLog::default();
        for (time_ms, leader) in [(10, 1), (20, 1), (30, 3), (40, 2)] {
            log.saw(time_ms, GroupId(2), NodeId(leader), Some(leader + 4));
        }
        let told = |from, to, range| {
            let events = log.events((from, to), &range, &routes);
            events.into_iter().map(|e| (e.time_ms, e.leader, e.term, e.key)).collect::<Vec<_>>()
        };
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let (third, second) = ((Some(3), Some(7)), (Some(2), Some(6)));
        assert_eq!(
            told(0, 99, range("", None)),
            [(30, third.0, third.1, key("m")), (40, second.0, second.1, key("m"))]
        );
        assert_eq!(told(31, 99, range("p", None)), [(40, second.0, second.1, key("p"))]);
        assert!(told(0, 99, range("", Some("m"))).is_empty());
    }

    #[test]
    fn bounds_old_changes_are_forgotten() {
        let log = LeaderLog::default();
        for at in 0..3_000 {
            log.saw(at, GroupId(1), NodeId(1 + at % 2), None);
        }
        assert_eq!(log.seen.lock().changes.len(), MAX_CHANGES);
    }
}
