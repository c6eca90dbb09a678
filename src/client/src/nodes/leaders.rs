//! Leader hints: which node leads the group of a key, as far as this client knows.
//!
//! Any node accepts any request, but a node that does not lead the group forwards it, which about
//! doubles its cost. A client that makes many calls therefore learns the ranges of the groups once
//! from the route catalog, and the leader of each group from the answers: a node that is not the
//! leader names it in its answer ([`LEADER_METADATA`]). A hint may be out of date. Then the request
//! is forwarded, and the answer has the new leader.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tonic::metadata::MetadataMap;

use super::access::Access;
use super::address::Address;
use super::connection::{self, MAX_ANSWER_BYTES};
use keyviz_proto as proto;
use keyviz_proto::metadata::LEADER_METADATA;
use keyviz_proto::routes_client::RoutesClient;

/// No leader is known.
const NOBODY: usize = usize::MAX;

/// A group, by its index in [`Leaders`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupAt(usize);

/// The leaders of the groups. Nodes are numbered in the order given.
#[derive(Debug, Default)]
pub struct Leaders {
    addresses: Vec<String>,
    /// First key and group of each range, in key order; neighbours differ in their group.
    ranges: Vec<(Bytes, GroupAt)>,
    /// The node that leads each group, or [`NOBODY`]. A hint, so relaxed order is enough.
    leaders: Vec<AtomicUsize>,
}

impl Leaders {
    /// Fetches the ranges of the groups from the first of `nodes` that answers. If none does, there
    /// is no hint for any key.
    pub fn learn<'a>(
        nodes: &'a [Address],
        access: &'a Access,
        timeout: Duration,
    ) -> BoxFuture<'a, Self> {
        async move {
            for address in nodes {
                let Ok(channel) = connection::connect(address, access, timeout).await else {
                    continue;
                };
                let mut stub =
                    RoutesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                let asked = stub.list_routes(proto::ListRoutesRequest::default());
                if let Ok(Ok(answer)) = tokio::time::timeout(timeout, asked).await {
                    return Self::of(nodes, &answer.into_inner().routes);
                }
            }
            Self::default()
        }
        .boxed()
    }

    pub(crate) fn of(nodes: &[Address], routes: &[proto::Route]) -> Self {
        let mut groups = Vec::new();
        let mut ranges: Vec<(Bytes, GroupAt)> = Vec::new();
        for route in routes {
            let known = groups.iter().position(|group| *group == route.group_id);
            let group = GroupAt(known.unwrap_or_else(|| {
                groups.push(route.group_id);
                groups.len() - 1
            }));
            if ranges.last().is_none_or(|(_, before)| *before != group) {
                ranges.push((route.start.clone(), group));
            }
        }
        Leaders {
            addresses: nodes.iter().map(ToString::to_string).collect(),
            ranges,
            leaders: groups.iter().map(|_| AtomicUsize::new(NOBODY)).collect(),
        }
    }

    /// The group of a key.
    pub fn group_of(&self, key: &[u8]) -> Option<GroupAt> {
        let after = self.ranges.partition_point(|(start, _)| start.as_ref() <= key);
        Some(self.ranges[after.checked_sub(1)?].1)
    }

    /// The node that leads a group.
    pub fn leader(&self, group: GroupAt) -> Option<usize> {
        Some(self.leaders[group.0].load(Ordering::Relaxed)).filter(|node| *node != NOBODY)
    }

    /// Node `by` served a request of a group, with this metadata in its answer.
    pub fn answered(&self, group: GroupAt, by: usize, said: &MetadataMap) {
        let leader = match said.get(LEADER_METADATA) {
            None => by,
            Some(address) => {
                let known = self.addresses.iter().position(|given| address == given.as_str());
                // The client has no address of a leader that it was not given.
                known.unwrap_or(NOBODY)
            }
        };
        if self.leaders[group.0].load(Ordering::Relaxed) != leader {
            self.leaders[group.0].store(leader, Ordering::Relaxed);
        }
    }

    /// Node `by` did not serve a request of a group; it is no longer the one to ask first.
    pub fn failed(&self, group: GroupAt, by: usize) {
        // Another task may have learned of a new leader meanwhile; that stays.
        let _ = self.leaders[group.0].compare_exchange(
            by,
            NOBODY,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(start: &str, group_id: u64) -> proto::Route {
        proto::Route { start: Bytes::from(start.to_owned()), group_id, ..Default::default() }
    }

    fn said(leader: &str) -> MetadataMap {
        let mut said = MetadataMap::new();
        said.insert(LEADER_METADATA, leader.parse().expect("an address"));
        said
    }

    fn two_nodes() -> Leaders {
        let nodes = ["127.0.0.1:1", "127.0.0.1:2"].map(|node| node.parse().expect("an address"));
        Leaders::of(&nodes, &[route("", 7), route("d", 7), route("m", 9), route("t", 7)])
    }

    #[test]
    fn a_key_belongs_to_the_group_of_its_range() {
        let leaders = two_nodes();
        assert_eq!(leaders.ranges.len(), 3, "two neighbours of one group are one range");
        let group = |key: &[u8]| leaders.group_of(key).expect("every key has one");
        assert_eq!(group(b""), group(b"lzz"));
        assert_eq!(group(b"a"), group(b"t"));
        assert_ne!(group(b"m"), group(b"t"));
        assert_eq!(Leaders::default().group_of(b"a"), None, "nothing was learned");
    }

    #[test]
    fn answers_teach_who_leads_and_failures_make_forget() {
        let leaders = two_nodes();
        let (group, other) = (leaders.group_of(b"a").unwrap(), leaders.group_of(b"m").unwrap());
        assert_eq!(leaders.leader(group), None);
        leaders.answered(group, 0, &said("127.0.0.1:2"));
        leaders.answered(other, 0, &MetadataMap::new());
        assert_eq!((leaders.leader(group), leaders.leader(other)), (Some(1), Some(0)));
        leaders.failed(group, 0);
        assert_eq!(leaders.leader(group), Some(1), "another node failed than the one that leads");
        leaders.failed(group, 1);
        assert_eq!(leaders.leader(group), None);
        leaders.answered(other, 0, &said("10.0.0.9:7401"));
        assert_eq!(leaders.leader(other), None, "not one of the given nodes");
    }
}
