//! The connections of a node, one per peer, shared by all gRPC clients for that peer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tonic::Status;
use tonic::transport::Endpoint;

use super::identity::Identity;
use super::link::Link;
use super::wire::{RaftMessage, RaftReply, Wire};
use super::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES,
};
use crate::handshake::Roster;
use crate::types::RaftNodeId;
use keyviz_proto as proto;
use keyviz_proto::raft_transport_client::RaftTransportClient;
use keyviz_security::{AuthChannel, ClientTls, Credentials, connect_lazy};
use keyviz_types as ids;

/// A peer cannot be called at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// Its address is not one.
    #[error("the address {addr:?} of node {node} is not host:port")]
    Address {
        /// The peer.
        node: RaftNodeId,
        /// Replaces its address.
        addr: String,
    },
}

/// How a node calls its peers.
#[derive(Clone, Debug, Default)]
pub struct PeersOptions {
    /// TLS with these settings; `None`: plain text.
    pub tls: Option<ClientTls>,
    /// What each call shows.
    pub credentials: Credentials,
}

/// The connection pool of a node. Clones share it.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    options: PeersOptions,
    peers: Mutex<HashMap<RaftNodeId, Peer>>,
    /// The peers whose last answer said that their disk is full.
    full: ArcSwap<BTreeSet<RaftNodeId>>,
    /// The transport of Raft messages; `None`: gRPC.
    wire: Option<Arc<dyn Wire>>,
}

struct Peer {
    addr: String,
    channel: AuthChannel,
    link: Arc<Link>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Peers {
    /// A pool for `node`, without connections yet. `cluster_id` is empty before there is one. Peers
    /// are identified before a Raft message is sent to them or taken from them.
    pub fn new(
        node: RaftNodeId,
        cluster_id: impl Into<String>,
        options: PeersOptions,
        roster: Roster,
    ) -> Self {
        Self::of(node, cluster_id, options, Some(roster))
    }

    /// The same for a node that shows no disk and asks for none, as the versions before disk ids
    /// did.
    pub fn anonymous(node: RaftNodeId, cluster_id: &str, options: PeersOptions) -> Self {
        Self::of(node, cluster_id, options, None)
    }

    fn of(
        node: RaftNodeId,
        cluster_id: impl Into<String>,
        options: PeersOptions,
        roster: Option<Roster>,
    ) -> Self {
        let cluster_id = ArcSwap::from_pointee(cluster_id.into());
        let identity = Identity { node, cluster_id, roster };
        let inner = Inner {
            identity: Arc::new(identity),
            options,
            peers: Mutex::default(),
            full: ArcSwap::default(),
            wire: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A pool whose messages of Raft go over `wire`.
    pub fn over(node: RaftNodeId, wire: Arc<dyn Wire>, roster: Roster) -> Self {
        let roster = Some(roster);
        let identity = Identity { node, cluster_id: ArcSwap::default(), roster };
        let (options, peers, full) = Default::default();
        let inner = Inner { identity: Arc::new(identity), options, peers, full, wire: Some(wire) };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn wire(&self) -> Option<&Arc<dyn Wire>> {
        self.inner.wire.as_ref()
    }

    /// The node that calls.
    pub fn node(&self) -> RaftNodeId {
        self.inner.identity.node
    }

    /// The cluster this node belongs to; empty before there is one.
    pub fn cluster_id(&self) -> Arc<String> {
        self.inner.identity.cluster_id.load_full()
    }

    /// Learns the cluster's id, once it is known.
    pub fn set_cluster_id(&self, cluster_id: impl Into<String>) {
        self.inner.identity.cluster_id.store(Arc::new(cluster_id.into()));
    }

    /// The connection to `node` at `addr` (`host:port`), made when it is first used and again when
    /// it breaks. A new address replaces the old connection. Needs a Tokio runtime.
    pub fn channel(&self, node: RaftNodeId, addr: &str) -> Result<AuthChannel, PeerError> {
        self.with_peer(node, addr, |peer| peer.channel.clone())
    }

    /// Forgets a peer that left the cluster.
    pub fn forget(&self, node: RaftNodeId) {
        self.inner.peers.lock().remove(&node);
        self.note_space(node, false);
    }

    /// A peer said whether its disk is full.
    pub(crate) fn note_space(&self, node: RaftNodeId, is_full: bool) {
        if self.inner.full.load().contains(&node) == is_full {
            return;
        }
        self.inner.full.rcu(|full| {
            let mut full = BTreeSet::clone(full);
            if is_full {
                full.insert(node)
            } else {
                full.remove(&node)
            };
            full
        });
    }

    /// The peers that last reported a full disk.
    pub(crate) fn full(&self) -> Arc<BTreeSet<RaftNodeId>> {
        self.inner.full.load_full()
    }

    /// This node's start and those of its peers.
    pub fn roster(&self) -> Option<&Roster> {
        self.inner.identity.roster()
    }

    /// Fails while this node does not take part.
    pub(crate) fn may_take_part(&self) -> Result<(), Status> {
        self.inner.identity.may_take_part()
    }

    /// Identifies a peer before a message to it, unless it has been.
    pub(crate) async fn identified(&self, node: RaftNodeId, addr: &str) -> Result<(), Status> {
        let Some(roster) = self.roster() else { return Ok(()) };
        roster.may_take_part()?;
        let node = ids::NodeId(node);
        if roster.is_identified(node) {
            return Ok(());
        }
        self.identify(node, addr, false, false).await.map(drop)
    }

    /// A message to a peer failed: it may have restarted.
    pub(crate) fn forget_identity(&self, node: RaftNodeId) {
        if let Some(roster) = self.roster() {
            roster.forget(ids::NodeId(node));
        }
    }

    /// Identifies the node at an address as `node`, or refuses it. `fresh`: also where it was
    /// identified before. `identify_me`: the peer does the same with this node first.
    ///
    /// # Errors
    /// No answer (`UNAVAILABLE`), or an answer that is not this member's (`FAILED_PRECONDITION`).
    pub fn identify<'a>(
        &'a self,
        node: ids::NodeId,
        addr: &'a str,
        fresh: bool,
        identify_me: bool,
    ) -> BoxFuture<'a, Result<proto::RaftIdentity, Status>> {
        async move {
            let identity = &self.inner.identity;
            let Some(roster) = identity.roster() else { return Ok(proto::RaftIdentity::default()) };
            let cluster = identity.cluster_id.load_full();
            let ask = self.ask_identity(node, addr, identify_me);
            roster.identify(node, &cluster, fresh, ask).await
        }
        .boxed()
    }

    /// Identifies the node at an address without recording anything.
    ///
    /// # Errors
    /// Nobody answers, or an earlier version does (`UNIMPLEMENTED`).
    pub fn ask_identity<'a>(
        &'a self,
        node: ids::NodeId,
        addr: &'a str,
        identify_me: bool,
    ) -> BoxFuture<'a, Result<proto::RaftIdentity, Status>> {
        async move {
            let request = self.inner.identity.identify_request(node.0, identify_me);
            if let Some(wire) = self.wire() {
                return match wire.send(node.0, RaftMessage::Identify(request)).await? {
                    RaftReply::Identify(answer) => Ok(answer),
                    other => Err(Status::internal(format!("another message's answer: {other:?}"))),
                };
            }
            let failed = |error: PeerError| Status::unavailable(error.to_string());
            let mut client = RaftTransportClient::new(self.channel(node.0, addr).map_err(failed)?);
            Ok(client.identify(request).await?.into_inner())
        }
        .boxed()
    }

    /// Identifies the node at an address that `node` may have moved to, over a separate connection,
    /// so that the one to the member stays open.
    ///
    /// # Errors
    /// Nobody answers, or an earlier version does (`UNIMPLEMENTED`).
    pub fn ask_elsewhere<'a>(
        &'a self,
        node: ids::NodeId,
        addr: &'a str,
    ) -> BoxFuture<'a, Result<proto::RaftIdentity, Status>> {
        async move {
            let endpoint = self.endpoint(node.0, addr);
            let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let PeersOptions { tls, credentials } = &self.inner.options;
            let channel = connect_lazy(endpoint, tls.as_ref());
            let mut client =
                RaftTransportClient::new(AuthChannel::new(channel, credentials.clone()));
            let request = self.inner.identity.identify_request(node.0, false);
            Ok(client.identify(request).await?.into_inner())
        }
        .boxed()
    }

    pub(crate) fn link(&self, node: RaftNodeId, addr: &str) -> Result<Arc<Link>, PeerError> {
        self.with_peer(node, addr, |peer| peer.link.clone())
    }

    /// By peer: append requests that are queued or sent and have no answer yet.
    pub fn appends_in_flight(&self) -> Vec<(RaftNodeId, u64)> {
        let peers = self.inner.peers.lock();
        let mut waiting: Vec<_> =
            peers.iter().map(|(node, peer)| (*node, peer.link.in_flight())).collect();
        waiting.sort_unstable();
        waiting
    }

    pub(crate) fn hello(&self, to: RaftNodeId) -> proto::RaftHello {
        self.inner.identity.hello(to)
    }

    fn with_peer<T>(
        &self,
        node: RaftNodeId,
        addr: &str,
        use_peer: impl FnOnce(&Peer) -> T,
    ) -> Result<T, PeerError> {
        let mut peers = self.inner.peers.lock();
        if let Some(peer) = peers.get(&node).filter(|peer| peer.addr == addr) {
            return Ok(use_peer(peer));
        }
        let PeersOptions { tls, credentials } = &self.inner.options;
        let channel = connect_lazy(self.endpoint(node, addr)?, tls.as_ref());
        let channel = AuthChannel::new(channel, credentials.clone());
        let link = Arc::new(Link::new(self.inner.identity.clone(), node, channel.clone()));
        let peer = Peer { addr: addr.to_owned(), channel, link };
        let used = use_peer(&peer);
        peers.insert(node, peer);
        Ok(used)
    }

    /// Puts a link that leads nowhere in the place of the one to `node`.
    #[cfg(test)]
    pub(crate) fn detach(&self, node: RaftNodeId, addr: &str) -> super::link::Answers {
        let channel = self.channel(node, addr).expect("the address is one");
        let identity = self.inner.identity.clone();
        let (link, answers) = Link::detached(identity, node, channel);
        let mut peers = self.inner.peers.lock();
        peers.get_mut(&node).expect("made by the call for its channel").link = Arc::new(link);
        answers
    }

    fn endpoint(&self, node: RaftNodeId, addr: &str) -> Result<Endpoint, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|_| PeerError::Address { node, addr: addr.to_owned() })?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(endpoint)
    }
}
