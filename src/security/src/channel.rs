//! Outgoing calls with credentials.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response, Uri};
use tonic::transport::{Channel, Endpoint, Error};
use tower::Service;

use super::secrets::SecretFile;
use super::tls::ClientTls;

/// The header with the cluster secret of a node.
pub const SECRET_HEADER: &str = "keyviz-cluster-secret";

/// The credentials that are sent with each call.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The cluster secret, sent by nodes.
    pub secret: Option<SecretFile>,
    /// The admin token, as a bearer token.
    pub token: Option<SecretFile>,
}

/// A connection whose calls carry credentials.
#[derive(Clone)]
pub struct AuthChannel {
    channel: Channel,
    credentials: Option<Arc<Credentials>>,
    /// A header of each call.
    header: Option<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for AuthChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthChannel")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl AuthChannel {
    /// Calls on `channel` with `credentials`.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let shows = credentials.secret.is_some() || credentials.token.is_some();
        AuthChannel { channel, credentials: shows.then(|| Arc::new(credentials)), header: None }
    }

    /// The same connection, with a header on each call.
    #[must_use]
    pub fn with_header(&self, name: HeaderName, value: HeaderValue) -> Self {
        AuthChannel { header: Some((name, value)), ..self.clone() }
    }
}

impl Service<Request<Body>> for AuthChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(credentials) = &self.credentials {
            let headers = request.headers_mut();
            if let Some(secret) = &credentials.secret {
                headers.insert(SECRET_HEADER, secret.bare());
            }
            if let Some(token) = &credentials.token {
                headers.insert(AUTHORIZATION, token.bearer());
            }
        }
        if let Some((name, value)) = &self.header {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.channel.call(request)
    }
}

/// Connects at once.
///
/// # Errors
/// If the connection or the TLS handshake fails.
pub async fn connect(endpoint: Endpoint, tls: Option<&ClientTls>) -> Result<Channel, Error> {
    match tls {
        None => endpoint.connect().await,
        Some(tls) => secured(endpoint).connect_with_connector(Connector(tls.clone())).await,
    }
}

/// Connects at first use, and reconnects when the connection breaks. Needs a Tokio runtime.
pub fn connect_lazy(endpoint: Endpoint, tls: Option<&ClientTls>) -> Channel {
    match tls {
        None => endpoint.connect_lazy(),
        Some(tls) => secured(endpoint).connect_with_connector_lazy(Connector(tls.clone())),
    }
}

/// The endpoint keeps the scheme `http`, because tonic would add its own TLS for `https`; the
/// requests have the scheme `https`.
fn secured(endpoint: Endpoint) -> Endpoint {
    let authority = endpoint.uri().authority().map(ToString::to_string).unwrap_or_default();
    match Uri::builder().scheme("https").authority(authority).path_and_query("/").build() {
        Ok(origin) => endpoint.origin(origin),
        // The endpoint's own URI parsed, so this one does too. The scheme is informative only.
        Err(_) => endpoint,
    }
}

/// Connects with the current TLS settings.
#[derive(Clone)]
struct Connector(ClientTls);

type Connecting =
    Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send + 'static>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let config = self.0.config();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let name = ServerName::try_from(host.clone())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
