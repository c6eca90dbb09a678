//! `WatchRoutes`: one subscriber's stream.
//!
//! Messages are cut by bytes. A subscriber may ask for a key range: it gets the routes that share
//! keys with it, the changes that create one there, and progress over the others. It may ask for
//! leaders: all of them after the table, then those that change, looked at every
//! [`LEADERS_EVERY`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use keyviz_catalog::{ChangesError, Delta, Route, RouteTable, Subscription, WatchEvent};
use keyviz_proto as proto;
use keyviz_proto::watch_routes_response::Event;
use keyviz_types::{GroupId, KeyRange, NodeId};

use super::pages::range_of;
use super::{RoutesService, delta_to_wire, route_to_wire};
use crate::grpc::cut;

/// Interval of progress messages to an idle subscriber.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How often leaders are looked at.
const LEADERS_EVERY: Duration = Duration::from_millis(200);

/// Leaders in one message: their addresses are short.
const LEADERS_A_MESSAGE: usize = 1_024;

impl RoutesService {
    /// The stream of a subscriber.
    pub(super) fn watch(
        self: &Arc<Self>,
        request: proto::WatchRoutesRequest,
    ) -> Result<impl Stream<Item = Result<proto::WatchRoutesResponse, Status>> + use<>, Status>
    {
        let range = range_of(&request.start, &request.end)?;
        let whole = range == KeyRange::all();
        let (after, cluster_id) = (request.after_version, request.cluster_id);
        if after > 0 && cluster_id.is_empty() && (request.leaders || !whole) {
            return Err(Status::invalid_argument(
                "after_version needs the cluster_id that the version came with",
            ));
        }
        let ours = self.cluster_id();
        // At an equal version another cluster has other routes.
        let foreign = after > 0 && !cluster_id.is_empty() && cluster_id != ours;
        let after = if foreign { 0 } else { after };
        let subscription = self.catalog.applied().hub().subscribe(after).map_err(|error| {
            let message = error.to_string();
            match error {
                ChangesError::CursorAhead { .. } => Status::out_of_range(message),
                ChangesError::Hole { .. } => Status::data_loss(message),
            }
        })?;
        let watch = Watch {
            subscription,
            pending: VecDeque::new(),
            foreign,
            cluster_id: Some(ours),
            range: (!whole).then_some(range),
            leaders: request.leaders.then(|| Leaders::new(Arc::clone(self))),
            progress_at: Instant::now() + PROGRESS_EVERY,
        };
        Ok(futures::stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|response| (Ok(response), watch))
        }))
    }
}

/// One subscriber's stream.
struct Watch {
    subscription: Subscription,
    /// Messages that are made.
    pending: VecDeque<Event>,
    /// It came with a version of another cluster, and has not received the reset yet.
    foreign: bool,
    /// Until it is told.
    cluster_id: Option<String>,
    /// Only these keys; `None`: all.
    range: Option<KeyRange>,
    leaders: Option<Leaders>,
    progress_at: Instant,
}

impl Watch {
    async fn next(&mut self) -> Option<proto::WatchRoutesResponse> {
        while self.pending.is_empty() {
            self.wait().await?;
        }
        let event = self.pending.pop_front();
        let cluster_id = self.cluster_id.take().unwrap_or_default();
        Some(proto::WatchRoutesResponse { event, cluster_id })
    }

    /// Waits for an event, or for the time to look at leaders or to tell progress.
    async fn wait(&mut self) -> Option<()> {
        let look_at = self.leaders.as_ref().map(|leaders| leaders.look_at);
        let until = look_at.map_or(self.progress_at, |look_at| look_at.min(self.progress_at));
        match timeout_at(until, self.subscription.next()).await {
            Ok(event) => self.take(event?),
            Err(_) => {
                if let Some(leaders) = &mut self.leaders {
                    self.pending.extend(leaders.changes());
                }
                if Instant::now() >= self.progress_at {
                    self.progress_at = Instant::now() + PROGRESS_EVERY;
                    if let Some(WatchEvent::Progress(version)) = self.subscription.progress() {
                        self.pending.push_back(progress(version));
                    }
                }
            }
        }
        Some(())
    }

    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Snapshot { table, reset } => {
                let reset = reset || std::mem::take(&mut self.foreign);
                let snapshots = snapshot_messages(&table, self.range.as_ref(), reset);
                self.pending.extend(snapshots.into_iter().map(Event::Snapshot));
                if let Some(leaders) = &mut self.leaders {
                    self.pending.extend(leaders.all());
                }
            }
            WatchEvent::Deltas(deltas) => {
                let inside = deltas.iter().filter(|delta| self.is_inside(delta));
                let wire: Vec<proto::RouteDelta> =
                    inside.map(|delta| delta_to_wire(delta)).collect();
                let last = deltas.last().map(|delta| delta.version);
                let told = wire.last().map(|delta| delta.catalog_version);
                let messages = cut::by_bytes(wire).into_iter();
                let messages = messages.map(|deltas| Event::Deltas(proto::RouteDeltas { deltas }));
                self.pending.extend(messages);
                // What was left out has happened nevertheless.
                if let Some(version) = last.filter(|_| told != last) {
                    self.pending.push_back(progress(version));
                }
            }
            WatchEvent::Progress(version) => self.pending.push_back(progress(version)),
        }
    }

    /// Whether a change creates a route in the range; it retires one there then, and only then.
    fn is_inside(&self, delta: &Delta) -> bool {
        let Some(range) = &self.range else { return true };
        delta.created.iter().any(|route| overlap(route.range(), range))
    }
}

fn overlap(one: &KeyRange, other: &KeyRange) -> bool {
    let ends_before =
        |one: &KeyRange, other: &KeyRange| one.end.as_ref().is_some_and(|end| *end <= other.start);
    !ends_before(one, other) && !ends_before(other, one)
}

fn progress(catalog_version: u64) -> Event {
    Event::Progress(proto::RouteProgress { catalog_version })
}

/// A table as messages, at least one.
fn snapshot_messages(
    table: &RouteTable,
    range: Option<&KeyRange>,
    reset: bool,
) -> Vec<proto::RouteSnapshot> {
    let catalog_version = table.version();
    let rows = range.map_or(0..table.len(), |range| table.overlapping(range));
    let routes = rows.filter_map(|position| table.get(position));
    let routes = routes.map(|route: Route| route_to_wire(&route, None)).collect();
    let mut runs = cut::by_bytes(routes);
    if runs.is_empty() {
        runs.push(Vec::new());
    }
    let last = runs.len() - 1;
    let message = |(index, routes)| proto::RouteSnapshot {
        catalog_version,
        routes,
        more: index < last,
        reset,
    };
    runs.into_iter().enumerate().map(message).collect()
}

/// The leaders as the subscriber knows them.
struct Leaders {
    routes: Arc<RoutesService>,
    told: BTreeMap<GroupId, (Option<NodeId>, String)>,
    look_at: Instant,
}

impl Leaders {
    fn new(routes: Arc<RoutesService>) -> Self {
        Leaders { routes, told: BTreeMap::new(), look_at: Instant::now() + LEADERS_EVERY }
    }

    fn now(&self) -> BTreeMap<GroupId, (Option<NodeId>, String)> {
        let placement = self.routes.directory.placement();
        let groups = placement.keys().filter(|group| **group != GroupId::CATALOG);
        let of = |group: &GroupId| {
            let leader = self.routes.leader_of(*group);
            let address = leader.and_then(|leader| self.routes.directory.address(leader));
            (*group, (leader, address.map(|at| at.address).unwrap_or_default()))
        };
        groups.map(of).collect()
    }

    /// All of them, after a table.
    fn all(&mut self) -> Vec<Event> {
        self.told = self.now();
        let leaders = self.told.iter().map(leader_to_wire).collect();
        messages(leaders, true)
    }

    /// Those that have changed.
    fn changes(&mut self) -> Vec<Event> {
        self.look_at = Instant::now() + LEADERS_EVERY;
        // A subscriber that resumes after a version has no table, and is told all of them first.
        if self.told.is_empty() {
            return self.all();
        }
        let now = self.now();
        let changed = now.iter().filter(|(group, leader)| self.told.get(group) != Some(leader));
        let changed = changed.map(leader_to_wire).collect();
        self.told = now;
        messages(changed, false)
    }
}

fn leader_to_wire(
    (group, (leader, address)): (&GroupId, &(Option<NodeId>, String)),
) -> proto::GroupLeader {
    proto::GroupLeader {
        group_id: group.0,
        node_id: leader.map(|leader| leader.0),
        address: address.clone(),
    }
}

/// `all` is said of the first message; those after it add to it.
fn messages(leaders: Vec<proto::GroupLeader>, all: bool) -> Vec<Event> {
    let parts = leaders.chunks(LEADERS_A_MESSAGE).enumerate();
    let message = |(index, leaders): (usize, &[proto::GroupLeader])| {
        Event::Leaders(proto::RouteLeaders { leaders: leaders.to_vec(), all: all && index == 0 })
    };
    parts.map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_still_one_message() {
        let messages = snapshot_messages(&RouteTable::empty(), None, false);
        assert_eq!(messages.len(), 1);
        assert!(!messages[0].more);
    }

    #[test]
    fn all_leaders_are_said_to_be_all_once() {
        let leaders = |count| vec![proto::GroupLeader::default(); count];
        let said = |event: &Event| match event {
            Event::Leaders(leaders) => (leaders.leaders.len(), leaders.all),
            _ => panic!("{event:?}"),
        };
        let all: Vec<_> = messages(leaders(1_500), true).iter().map(said).collect();
        assert_eq!(all, [(1_024, true), (476, false)]);
        assert!(messages(Vec::new(), true).is_empty());
    }
}
