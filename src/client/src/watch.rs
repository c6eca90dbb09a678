//! A watch of the route catalog, and the table that it keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tonic::{Code, Streaming};

use super::client::{Client, Effect};
use super::error::Error;
use super::failure::Meaning;
use super::nodes::address::Address;
use super::routes::{Route, stub};
use keyviz_proto as proto;
use keyviz_proto::watch_routes_response::Event;
use keyviz_proto::{GroupLeader, RouteDelta};
use keyviz_types::KeyRange;

/// The pause before a broken stream is opened again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Nodes in a row that have not applied the version to resume after, before the watch fails.
const MAX_BEHIND: u32 = 25;

/// All routes as of one catalog version. They cover the key space without gap or overlap.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RouteTable {
    version: u64,
    by_start: BTreeMap<Bytes, Route>,
}

impl RouteTable {
    /// The catalog version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The route that holds a key.
    pub fn route_of(&self, key: &[u8]) -> Option<&Route> {
        let before = (std::ops::Bound::Unbounded, std::ops::Bound::Included(key));
        self.by_start.range::<[u8], _>(before).next_back().map(|(_, route)| route)
    }

    /// The routes in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.by_start.values()
    }

    /// The number of routes.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether there is no route, as before the first snapshot.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    fn replace(&mut self, version: u64, routes: Vec<Route>) {
        self.version = version;
        self.by_start = routes.into_iter().map(|route| (route.start.clone(), route)).collect();
    }

    /// Applies a change. `Err`: it does not follow on this table.
    fn apply(&mut self, delta: &RouteDelta) -> Result<(), &'static str> {
        if delta.catalog_version != self.version + 1 {
            return Err("a change of the catalog is missing");
        }
        // The created routes cover exactly the keys of the retired ones.
        let before = self.by_start.len();
        self.by_start.retain(|_, route| !delta.retired.contains(&route.route_id));
        if before - self.by_start.len() != delta.retired.len() {
            return Err("a change retires a route that is not in the table");
        }
        for route in &delta.created {
            if self.by_start.insert(route.start.clone(), route.clone()).is_some() {
                return Err("a change creates a route at the start of another one");
            }
        }
        self.version = delta.catalog_version;
        Ok(())
    }
}

/// What [`RouteWatch::next`] saw. The table has it already.
#[derive(Clone, PartialEq, Debug)]
pub enum RouteUpdate {
    /// The whole table was sent: at the start, and where the watch fell behind the changes that the
    /// cluster retains.
    Table,
    /// Changes, oldest first.
    Changes(Vec<RouteDelta>),
    /// Leaders of groups, if the watch follows them.
    Leaders,
}

/// A watch of the route catalog, made by [`Client::watch_routes`]. It does not end by itself: when
/// a connection breaks or a node stops, it continues at another node after the last version seen.
///
/// ```no_run
/// # async fn example(client: keyviz_client::Client) -> Result<(), keyviz_client::Error> {
/// let mut watch = client.watch_routes();
/// loop {
///     watch.next().await?;
///     let table = watch.table();
///     println!("version {}: {} routes", table.version(), table.len());
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a watch reads nothing until `next` is called"]
pub struct RouteWatch {
    client: Client,
    /// The version up to which everything was returned.
    after: u64,
    /// The cluster that it is a version of; empty: not known.
    cluster_id: String,
    stream: Option<(Address, Streaming<proto::WatchRoutesResponse>)>,
    /// The node of the last message.
    from: Option<Address>,
    table: RouteTable,
    /// Routes of a snapshot of which more follows.
    partial: Vec<Route>,
    /// Nodes in a row that were behind this watch.
    behind: u32,
    streams: u64,
    /// Leaders are asked for too.
    leaders: bool,
    /// The keys whose routes are asked for.
    range: KeyRange,
    /// The leaders of groups, with their addresses.
    led_by: BTreeMap<u64, GroupLeader>,
}

impl Client {
    /// Follows the route catalog and keeps a table of it; see [`RouteWatch`].
    pub fn watch_routes(&self) -> RouteWatch {
        RouteWatch::new(self.clone(), 0, String::new())
    }

    /// Follows the changes after a catalog version, without a table; see
    /// [`RouteWatch::next_message`].
    pub fn watch_routes_after(&self, version: u64) -> RouteWatch {
        RouteWatch::new(self.clone(), version, String::new())
    }

    /// The same after a version of this cluster ([`RouteWatch::cluster_id`]): another one, or the
    /// same after it was restored from a backup, sends its whole table.
    pub fn watch_routes_of(&self, version: u64, cluster_id: String) -> RouteWatch {
        RouteWatch::new(self.clone(), version, cluster_id)
    }
}

impl RouteWatch {
    pub(crate) fn new(client: Client, after: u64, cluster_id: String) -> Self {
        let (table, partial) = (RouteTable::default(), Vec::new());
        RouteWatch {
            client,
            after,
            cluster_id,
            stream: None,
            from: None,
            table,
            partial,
            behind: 0,
            streams: 0,
            leaders: false,
            range: KeyRange::all(),
            led_by: BTreeMap::new(),
        }
    }

    /// Also follows the leaders of groups; see [`RouteWatch::leader_of`].
    pub fn with_leaders(mut self) -> Self {
        self.leaders = true;
        self
    }

    /// Only routes that share keys with this range, and the changes that create one there. Such a
    /// watch keeps no table: read it with [`RouteWatch::next_message`].
    pub fn with_range(mut self, range: impl Into<KeyRange>) -> Self {
        self.range = range.into();
        self
    }

    /// The leader of the group that holds a key, as the node watched knows it; `None` while it is
    /// unknown, as during an election. Needs [`RouteWatch::with_leaders`].
    pub fn leader_of(&self, key: &[u8]) -> Option<&GroupLeader> {
        let group = self.table.route_of(key)?.group_id;
        self.led_by.get(&group).filter(|leader| leader.node_id.is_some())
    }

    /// The table as of the last update.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Hands over the table.
    pub fn into_table(self) -> RouteTable {
        self.table
    }

    /// The catalog version up to which everything was returned.
    pub fn version(&self) -> u64 {
        self.after
    }

    /// The cluster that versions are of; empty before the first message.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Streams opened so far: above 1 the watch continued after an interruption.
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// Waits for the table, or for the next changes, and applies them to the table.
    ///
    /// # Errors
    /// Where no node serves the watch within the deadline, or one refuses it. It can be called
    /// again.
    pub async fn next(&mut self) -> Result<RouteUpdate, Error> {
        // Changes need a table to be applied to.
        if self.table.is_empty() && self.after > 0 {
            (self.after, self.stream) = (0, None);
        }
        loop {
            let message = self.next_message().await?;
            match self.take(message) {
                Ok(Some(update)) => return Ok(update),
                Ok(None) => {}
                Err(reason) => {
                    let address = self.from.clone().expect("a message came from a node");
                    // The table is fetched anew when this is called again.
                    (self.after, self.stream, self.table) = (0, None, RouteTable::default());
                    return Err(Error::Malformed { address, reason });
                }
            }
        }
    }

    fn take(
        &mut self,
        message: proto::WatchRoutesResponse,
    ) -> Result<Option<RouteUpdate>, &'static str> {
        match message.event {
            Some(Event::Snapshot(snapshot)) => {
                self.partial.extend(snapshot.routes);
                if snapshot.more {
                    return Ok(None);
                }
                let routes = std::mem::take(&mut self.partial);
                self.table.replace(snapshot.catalog_version, routes);
                Ok(Some(RouteUpdate::Table))
            }
            Some(Event::Deltas(deltas)) => {
                for delta in &deltas.deltas {
                    self.table.apply(delta)?;
                }
                Ok(Some(RouteUpdate::Changes(deltas.deltas)))
            }
            Some(Event::Leaders(leaders)) => {
                if leaders.all {
                    self.led_by.clear();
                }
                let leaders = leaders.leaders.into_iter();
                self.led_by.extend(leaders.map(|leader| (leader.group_id, leader)));
                Ok(Some(RouteUpdate::Leaders))
            }
            Some(Event::Progress(_)) | None => Ok(None),
        }
    }

    /// The next message as the node sent it, for programs that keep no table. Parts of a snapshot
    /// come one by one.
    ///
    /// # Errors
    /// As [`RouteWatch::next`].
    pub fn next_message(&mut self) -> BoxFuture<'_, Result<proto::WatchRoutesResponse, Error>> {
        async move {
        loop {
            if self.stream.is_none() {
                match self.open().await {
                    Ok(opened) => {
                        self.stream = Some(opened);
                        self.streams += 1;
                    }
                    Err(error) => {
                        self.pass_over(error)?;
                        tokio::time::sleep(AGAIN_AFTER).await;
                        continue;
                    }
                }
                // Of a snapshot that was cut nothing is kept.
                self.partial.clear();
            }
            let Some((address, stream)) = &mut self.stream else { continue };
            self.from = Some(address.clone());
            match stream.message().await {
                Ok(Some(message)) => {
                    self.behind = 0;
                    if !message.cluster_id.is_empty() {
                        self.cluster_id.clone_from(&message.cluster_id);
                    }
                    self.after = version_after(&message).unwrap_or(self.after);
                    return Ok(message);
                }
                // The node stops.
                Ok(None) => {}
                Err(status) if Meaning::of(&status).read_again(&status) => {}
                Err(status) => {
                    let error =
                        Error::Refused { address: address.clone(), status: Box::new(status) };
                    self.stream = None;
                    self.pass_over(error)?;
                    continue;
                }
            }
            tracing::debug!(%address, after = self.after, "the watch of routes goes on elsewhere");
            self.stream = None;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }.boxed()
    }

    /// A node may not have applied yet what another one has sent; then the watch is opened again.
    fn pass_over(&mut self, error: Error) -> Result<(), Error> {
        let behind = self.from.is_some() && error.code() == Some(Code::OutOfRange);
        if !behind || self.behind == MAX_BEHIND {
            self.behind = 0;
            return Err(error);
        }
        self.behind += 1;
        Ok(())
    }

    async fn open(&self) -> Result<(Address, Streaming<proto::WatchRoutesResponse>), Error> {
        let (after_version, cluster_id) = (self.after, self.cluster_id.clone());
        let KeyRange { start, end } = self.range.clone();
        let leaders = self.leaders;
        let request = &proto::WatchRoutesRequest { after_version, cluster_id, leaders, start, end };
        let opened = self.client.call_where(Effect::Read, |channel| async move {
            stub(channel).watch_routes(request.clone()).await
        });
        let (address, stream) = opened.await?;
        Ok((address.clone(), stream.into_inner()))
    }
}

/// The version up to which a subscriber is current after this message; `None` inside a snapshot.
fn version_after(message: &proto::WatchRoutesResponse) -> Option<u64> {
    match message.event.as_ref()? {
        Event::Snapshot(snapshot) => (!snapshot.more).then_some(snapshot.catalog_version),
        Event::Deltas(deltas) => deltas.deltas.last().map(|delta| delta.catalog_version),
        Event::Progress(progress) => Some(progress.catalog_version),
        Event::Leaders(_) => None,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
