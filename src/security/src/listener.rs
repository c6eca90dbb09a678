//! Accepts connections, plain or TLS.
//!
//! Handshakes run concurrently, with a time limit each and a limit on their number, of which a
//! caller that has sent nothing takes no part; so a caller that never completes its handshake does
//! not delay others for long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream as FuturesStream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::connection::{Caller, Connection, Stream};
use super::connections::{Connections, Entry, Protocol};
use super::plain;
use super::tls::Tls;
use super::verdict::CallerCertificate;

/// Time limit of a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Concurrent handshakes. At about 50 KiB each they take at most 50 MiB.
const HANDSHAKES: usize = 1024;

/// Connections that wait for the server to accept them.
const READY: usize = 64;

/// The pause after accepting failed, for example for want of file handles.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The interval of the log message about refused connections.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A port that accepts connections.
pub struct Listener {
    local: SocketAddr,
    source: Source,
}

enum Source {
    Plain(TcpListener, Protocol, Connections),
    Tls(mpsc::Receiver<Connection>),
}

impl Listener {
    /// Accepts connections from `listener`, with TLS if it is configured. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If the address of the listener cannot be determined.
    pub fn new(
        listener: TcpListener,
        tls: Option<Tls>,
        edge: Protocol,
        connections: Connections,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let source = match tls {
            None => Source::Plain(listener, edge, connections),
            Some(tls) => {
                let (ready, shaken) = mpsc::channel(READY);
                tokio::spawn(take(listener, tls, edge, connections, ready));
                Source::Tls(shaken)
            }
        };
        Ok(Listener { local, source })
    }

    /// The next connection. Cancel safe.
    pub async fn next(&mut self) -> Connection {
        match &mut self.source {
            Source::Plain(listener, edge, connections) => {
                let (stream, address, entry) = accept(listener, *edge, connections).await;
                let (certificate, connection) = (CallerCertificate::Absent, entry.handle());
                let caller = Caller { address, certificate, connection };
                Connection { stream: Stream::Plain(stream), caller, entry }
            }
            Source::Tls(connections) => match connections.recv().await {
                Some(connection) => connection,
                // The runtime is shutting down.
                None => std::future::pending().await,
            },
        }
    }

    /// All connections.
    pub fn into_stream(
        self,
    ) -> impl FuturesStream<Item = Result<Connection, std::io::Error>> + Send + Unpin {
        futures::stream::unfold(self, |mut listener| async move {
            let connection = listener.next().await;
            Some((Ok(connection), listener))
        })
        .boxed()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let connection = self.next().await;
        let address = connection.caller.address;
        (connection, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Caller {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
        stream.io().caller.clone()
    }
}

async fn accept(
    listener: &TcpListener,
    edge: Protocol,
    connections: &Connections,
) -> (TcpStream, SocketAddr, Entry) {
    use std::io::ErrorKind;
    let mut told: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delays");
                }
                if let Some(entry) = connections.enter(edge) {
                    return (stream, address, entry);
                }
            }
            // The error concerns one connection, which is closed.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "no connection could be taken");
                }
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Accepts connections until the server stops.
async fn take(
    listener: TcpListener,
    tls: Tls,
    edge: Protocol,
    connections: Connections,
    ready: mpsc::Sender<Connection>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let (stream, address, entry) = tokio::select! {
            taken = accept(&listener, edge, &connections) => taken,
            () = ready.closed() => return,
        };
        let (tls, ready, handshakes) = (tls.clone(), ready.clone(), Arc::clone(&handshakes));
        tokio::spawn(async move {
            let shaken = handshake(stream, address, entry, &handshakes, &tls, edge);
            match tokio::time::timeout(HANDSHAKE_WITHIN, shaken).await {
                Ok(Ok(Some(connection))) => {
                    // If the server has stopped, the connection is dropped.
                    let _ = ready.send(connection).await;
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
        });
    }
}

/// `None`: the caller did not use TLS and was answered accordingly.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    entry: Entry,
    handshakes: &Semaphore,
    tls: &Tls,
    edge: Protocol,
) -> std::io::Result<Option<Connection>> {
    // Waits for the first byte: who says nothing takes no handshake's place.
    let plain = plain::speaks_plain(&stream).await?;
    let Ok(_one) = handshakes.acquire().await else { return Ok(None) };
    if plain {
        tracing::debug!(%address, "a caller speaks plain text to a TLS port");
        plain::refuse(stream).await;
        return Ok(None);
    }
    let settings = tls.settings();
    let config = match edge {
        Protocol::Grpc => &settings.grpc,
        Protocol::Http => &settings.http,
    };
    let stream = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
    let certificate = settings.judge.judge(stream.get_ref().1.peer_certificates());
    let caller = Caller { address, certificate, connection: entry.handle() };
    Ok(Some(Connection { stream: Stream::Tls(Box::new(stream)), caller, entry }))
}
