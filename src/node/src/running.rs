//! A node that runs, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use keyviz_kv::Coordinator;
use keyviz_raft::Groups;
use keyviz_security::{Security, SecurityError};
use keyviz_types::NodeId;

use super::loops::copier::Copier;

/// Requests in flight have this long to finish at a stop.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Groups that this node leads have this long to find another leader at a stop.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Connections have this long to take the last answers.
const LINGER: Duration = Duration::from_millis(250);

/// One running node. Stop it with [`Node::shutdown`]; dropped without, it stops like a process that
/// is killed, and loses nothing that was acknowledged.
pub struct Node {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) http: Option<SocketAddr>,
    pub(super) coordinator: Arc<Coordinator>,
    /// Flushes the sampler.
    pub(super) flusher: Option<JoinHandle<()>>,
    /// Ends the flusher, after the last request.
    pub(super) flushed: CancellationToken,
    /// Sends columns to those who keep copies.
    pub(super) copier: Arc<Copier>,
    pub(super) groups: Groups,
    pub(super) security: Security,
    pub(super) stop: CancellationToken,
    pub(super) servers: Vec<JoinHandle<()>>,
    pub(super) failure: tokio::sync::watch::Receiver<Option<String>>,
}

impl Node {
    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where gRPC listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Rereads certificates, tokens and secrets at once, which otherwise happens within a second.
    ///
    /// # Errors
    /// Of each file that cannot be used; the previous credentials stay in force.
    pub fn reload_security(&self) -> BoxFuture<'_, Result<(), Vec<SecurityError>>> {
        async move {
            let security = self.security.clone();
            tokio::task::spawn_blocking(move || security.reload())
                .await
                .expect("reading credentials does not panic")
        }
        .boxed()
    }

    /// Waits until the node must stop, and returns why.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The node stops; it has not failed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops in good order: accepts no further requests, finishes those in flight, hands its groups
    /// to other leaders, flushes the column in progress, stops its groups and makes everything
    /// durable.
    pub fn shutdown(mut self) -> BoxFuture<'static, Result<(), std::io::Error>> {
        async move {
            self.stop.cancel();
            if tokio::time::timeout(FINISH_WITHIN, self.coordinator.idle()).await.is_err() {
                tracing::warn!("some requests did not finish within {FINISH_WITHIN:?}");
            }
            let (led, moved) = self.groups.hand_over(HAND_OVER_WITHIN).await;
            if moved < led {
                tracing::warn!("{} of {led} groups were not handed over", led - moved);
            }
            tokio::time::sleep(LINGER).await;
            self.flushed.cancel();
            if let Some(flusher) = self.flusher.take()
                && let Err(error) = flusher.await
            {
                tracing::error!(%error, "the column in progress was not flushed");
            }
            // What the flush closed reaches the holders, so that they lack nothing.
            self.copier.finish().await;
            let stopped = self.groups.shutdown().await;
            for server in self.servers.drain(..) {
                server.abort();
            }
            stopped
        }
        .boxed()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        self.flushed.cancel();
        for server in &self.servers {
            server.abort();
        }
    }
}
