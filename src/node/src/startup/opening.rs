//! Opens what a node needs before it can start: listeners, credentials, storage, history.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use keyviz_core::copies::Copies;
use keyviz_fanout::LocalMatrix;
use keyviz_raft::Storage;
use keyviz_security::{self as security, Listener, Security};

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::folder::archive::HistoryArchive;
use crate::folder::history_handoffs::HistoryHandoffs;

/// Whether there is no folder, or nothing in it.
pub(crate) fn is_empty(folder: &std::path::Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

pub(crate) async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

pub(crate) fn secured(
    listener: TcpListener,
    security: &Security,
    edge: security::Protocol,
    address: SocketAddr,
) -> Result<Listener, NodeError> {
    let what = match edge {
        security::Protocol::Grpc => "gRPC",
        security::Protocol::Http => "HTTP",
    };
    let failed = |source| NodeError::Listen { what, address, source };
    Listener::new(listener, security.tls.clone(), edge, security.connections.clone())
        .map_err(failed)
}

pub(crate) async fn open_security(config: &NodeConfig) -> Result<Security, NodeError> {
    let config = config.security.clone();
    let opened = tokio::task::spawn_blocking(move || Security::open(&config));
    Ok(opened.await.expect("opening credentials does not panic")?)
}

pub(crate) async fn open_storage(config: &NodeConfig) -> Result<Storage, NodeError> {
    let (data, options) = (config.data.clone(), config.storage);
    let opened = tokio::task::spawn_blocking(move || Storage::open(data, options));
    Ok(opened.await.expect("opening a storage does not panic")?)
}

/// The copies of other nodes' histories, which are opened later: no request waits for them.
pub(crate) fn no_copies_yet(config: &NodeConfig) -> Arc<Copies> {
    let (step_ms, bytes) = (config.keyviz.history.step_ms, config.keyviz.copies_bytes);
    Arc::new(Copies::new(config.id, step_ms, bytes, rand::random()))
}

/// The stored history. One that cannot be used is left alone: the store matters more.
pub(crate) async fn open_archive(
    storage: &Storage,
    local: &Arc<LocalMatrix>,
) -> Option<HistoryArchive> {
    let (storage, kept) = (storage.clone(), Arc::clone(local));
    let local = Arc::clone(local);
    let opened = tokio::task::spawn_blocking(move || HistoryArchive::open(&storage, &local));
    match opened.await.expect("opening the history does not panic") {
        Ok(archive) => Some(archive),
        Err(error) => {
            tracing::error!(%error, "the history is kept in memory only");
            kept.history().forget_before(kept.clock().now_ms());
            None
        }
    }
}

pub(crate) async fn open_handoffs(
    storage: &Storage,
    local: &Arc<LocalMatrix>,
) -> Arc<HistoryHandoffs> {
    let (storage, local) = (storage.clone(), Arc::clone(local));
    let opened = tokio::task::spawn_blocking(move || HistoryHandoffs::open(&storage, &local));
    opened.await.expect("opening what was inherited does not panic")
}
