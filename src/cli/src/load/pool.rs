//! Connections: a few HTTP/2 channels a node, shared by the clients of that node, and which nodes
//! are worth trying.
//!
//! A client has a home node and goes there whenever that is not marked as down. A mark lasts
//! [`DOWN_FOR`]; the first client that comes back after it finds out for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::Endpoint;

use super::super::client::{self, Nodes};
use super::super::values::Address;
use super::error::LoadError;
use keyviz_proto::kv_client::KvClient;
use keyviz_security::{AuthChannel, connect_lazy};

/// Clients that share a channel: enough for their requests to travel in few packets.
const CLIENTS_PER_CHANNEL: usize = 64;
/// How long a node that broke a connection is left alone.
const DOWN_FOR: Duration = Duration::from_millis(500);
/// Time without an answer after which a connection is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

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
    /// Milliseconds after `started` until which the node is left alone. Only a hint, so that
    /// relaxed order is enough.
    down_until_ms: AtomicU64,
}

/// A node of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeIndex(pub usize);

impl Pool {
    /// Prepares channels for `clients` clients, and makes sure that at least one node is there.
    ///
    /// # Errors
    /// [`LoadError::NoNode`] where none takes a connection.
    pub async fn connect(
        nodes: &Nodes,
        clients: usize,
        timeout: Duration,
    ) -> Result<Arc<Self>, LoadError> {
        let Nodes { addresses, access } = nodes;
        let checks = addresses.iter().map(|address| client::connect(address, access, timeout));
        let reached = futures::future::join_all(checks).await;
        if reached.iter().all(Result::is_err) {
            let reasons = reached.into_iter().zip(addresses).filter_map(|(reached, address)| {
                Some((address.clone(), keyviz_client::reason(&reached.err()?)))
            });
            return Err(LoadError::NoNode(client::CallError::NoNode(reasons.collect())));
        }
        let channels = clients.div_ceil(addresses.len()).div_ceil(CLIENTS_PER_CHANNEL);
        let connect = timeout.min(client::CONNECT_TIMEOUT);
        let nodes = addresses.iter().map(|address| {
            let endpoint = client::endpoint(address, connect).map_err(LoadError::Endpoint)?;
            let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE);
            let channel = |endpoint: &Endpoint| {
                let channel = connect_lazy(endpoint.clone(), access.tls.as_ref());
                AuthChannel::new(channel, access.credentials.clone())
            };
            Ok(Node {
                address: address.clone(),
                channels: (0..channels).map(|_| channel(&endpoint)).collect(),
                down_until_ms: AtomicU64::new(0),
            })
        });
        let nodes = nodes.collect::<Result<_, LoadError>>()?;
        Ok(Arc::new(Pool { nodes, started: Instant::now() }))
    }

    /// Nodes that can be tried.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The address of a node.
    pub fn address(&self, node: NodeIndex) -> &Address {
        &self.nodes[node.0].address
    }

    /// The home of a client: clients are dealt out evenly.
    pub fn home(&self, client: usize) -> NodeIndex {
        NodeIndex(client % self.nodes.len())
    }

    /// The next node from `from` on that is not marked as down; where all are, `from`.
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

    /// The stub that a client uses at a node.
    pub fn stub(&self, node: NodeIndex, client: usize) -> KvClient<AuthChannel> {
        let channels = &self.nodes[node.0].channels;
        let place = client / self.nodes.len() / CLIENTS_PER_CHANNEL;
        let channel = channels[place % channels.len()].clone();
        KvClient::new(channel).max_decoding_message_size(client::MAX_ANSWER_BYTES)
    }

    fn now_ms(&self) -> u64 {
        // A run does not last 2^64 milliseconds.
        self.started.elapsed().as_millis() as u64
    }
}
