//! Connections for many concurrent callers: a few HTTP/2 channels per node, shared by the callers
//! of that node, and which nodes are up.
//!
//! A load generator uses this rather than [`crate::Client`], which has one connection per node.
//! Each caller has a home node and uses it unless it is marked as down. A mark lasts [`DOWN_FOR`];
//! the first caller that returns after it finds out for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use tonic::transport::Endpoint;

use super::address::Address;
use super::connection::{self, CONNECT_TIMEOUT, MAX_ANSWER_BYTES, Nodes};
use crate::error::Error;
use crate::failure;
use keyviz_proto::kv_client::KvClient;
use keyviz_security::{AuthChannel, connect_lazy};

/// Callers that share a channel: enough for their requests to share packets.
const CLIENTS_PER_CHANNEL: usize = 64;
/// A node that broke a connection is not used for this long.
const DOWN_FOR: Duration = Duration::from_millis(500);

/// All connections of a run.
#[derive(Debug)]
pub struct Pool {
    nodes: Vec<Node>,
    started: Instant,
}

#[derive(Debug)]
struct Node {
    address: Address,
    channels: Vec<AuthChannel>,
    /// Milliseconds after `started` until which the node counts as down. A hint, so relaxed order
    /// is enough.
    down_until_ms: AtomicU64,
}

/// A node of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeIndex(pub usize);

impl Pool {
    /// Prepares channels for `clients` callers, and checks that at least one node accepts
    /// connections.
    ///
    /// # Errors
    /// [`Error::NoNode`] where none does.
    pub fn connect(
        nodes: &Nodes,
        clients: usize,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Arc<Self>, Error>> {
        async move {
            let Nodes { addresses, access } = nodes;
            let checks =
                addresses.iter().map(|address| connection::connect(address, access, timeout));
            let reached = futures::future::join_all(checks).await;
            if reached.iter().all(Result::is_err) {
                let reasons =
                    reached.into_iter().zip(addresses).filter_map(|(reached, address)| {
                        Some((address.clone(), failure::reason(&reached.err()?)))
                    });
                return Err(Error::NoNode(reasons.collect()));
            }
            let channels = clients.div_ceil(addresses.len()).div_ceil(CLIENTS_PER_CHANNEL);
            let connect = timeout.min(CONNECT_TIMEOUT);
            let nodes = addresses.iter().map(|address| {
                let endpoint = connection::endpoint(address, connect);
                let endpoint = endpoint.expect("an address is a URI authority");
                let channel = |endpoint: &Endpoint| {
                    let channel = connect_lazy(endpoint.clone(), access.tls.as_ref());
                    AuthChannel::new(channel, access.credentials.clone())
                };
                Node {
                    address: address.clone(),
                    channels: (0..channels).map(|_| channel(&endpoint)).collect(),
                    down_until_ms: AtomicU64::new(0),
                }
            });
            Ok(Arc::new(Pool { nodes: nodes.collect(), started: Instant::now() }))
        }
        .boxed()
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The address of a node.
    pub fn address(&self, node: NodeIndex) -> &Address {
        &self.nodes[node.0].address
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The home node of a caller; callers are spread evenly.
    pub fn home(&self, client: usize) -> NodeIndex {
        NodeIndex(client % self.nodes.len())
    }

    /// The next node from `from` on that is not marked as down; if all are, `from`.
    pub fn up_from(&self, from: NodeIndex) -> NodeIndex {
        let mut ring =
            (0..self.nodes.len()).map(|step| NodeIndex((from.0 + step) % self.nodes.len()));
        ring.find(|node| self.is_up(*node)).unwrap_or(from)
    }

    /// Whether a node is not marked as down.
    pub fn is_up(&self, node: NodeIndex) -> bool {
        self.nodes[node.0].down_until_ms.load(Ordering::Relaxed) <= self.now_ms()
    }

    /// The node after this one.
    pub fn after(&self, node: NodeIndex) -> NodeIndex {
        NodeIndex((node.0 + 1) % self.nodes.len())
    }

    /// A node broke a connection or refused one.
    pub fn mark_down(&self, node: NodeIndex) {
        let until_ms = self.now_ms() + DOWN_FOR.as_millis() as u64;
        self.nodes[node.0].down_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// The stub of a caller at a node.
    pub fn stub(&self, node: NodeIndex, client: usize) -> KvClient<AuthChannel> {
        let channels = &self.nodes[node.0].channels;
        let place = client / self.nodes.len() / CLIENTS_PER_CHANNEL;
        let channel = channels[place % channels.len()].clone();
        KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn now_ms(&self) -> u64 {
        // A run does not last 2^64 milliseconds.
        self.started.elapsed().as_millis() as u64
    }
}
