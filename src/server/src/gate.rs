//! Which call needs which credential, in front of all services.
//!
//! | call | needs |
//! |---|---|
//! | `RaftTransport`, `KvPeer`, `KeyVizPeer`, `ClusterPeer` | a node's certificate or the secret |
//! | `KeyViz`, `Backup`, `Cluster.Verify`; changes by `Routes` and `Cluster` | the admin token |
//! | `Cluster.AddNode` | the same, or a node's credential: a node that joins calls for itself |
//! | `Kv`, reading `Routes` and `Cluster.GetStatus`, health, reflection | nothing |
//! | `/api/` of HTTP | the admin token, where there is one |
//!
//! A call that is not listed needs the strongest credential: a service or a call that is added
//! without a thought is closed. A caller whose certificate does not hold gets nothing at all.
//! Checks look at headers alone, so that a refused call has done nothing.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, Ready, ready};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::metadata::MetadataValue;
use tower::{Layer, Service};

use keyviz_security::{Caller, CallerCertificate, SECRET_HEADER, Security};

use keyviz_proto::metadata::NOT_APPLIED_METADATA;

/// Refusals are logged at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a call needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// The admin token.
    Token,
    /// The admin token, or to be a node.
    TokenOrNode,
    /// To be a node.
    Node,
}

impl Need {
    /// Of a gRPC path, `/package.Service/Method`.
    pub(crate) fn of(path: &str) -> Self {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return Need::Node;
        };
        match (service, method) {
            ("keyviz.v1.Kv", _) => Need::Nothing,
            ("keyviz.v1.Routes", "ListRoutes" | "WatchRoutes" | "RouteHistory") => Need::Nothing,
            ("keyviz.v1.Cluster", "GetStatus") => Need::Nothing,
            ("keyviz.v1.Cluster", "AddNode") => Need::TokenOrNode,
            (
                "keyviz.v1.Routes" | "keyviz.v1.Cluster" | "keyviz.v1.KeyViz" | "keyviz.v1.Backup",
                _,
            ) => Need::Token,
            (
                "grpc.health.v1.Health"
                | "grpc.reflection.v1.ServerReflection"
                | "grpc.reflection.v1alpha.ServerReflection",
                _,
            ) => Need::Nothing,
            _ => Need::Node,
        }
    }
}

/// What refused calls lacked, as named in the metrics.
const LACKING: [&str; 3] = ["certificate", "token", "node"];

/// The places in it.
#[derive(Clone, Copy)]
enum Lacking {
    Certificate,
    Token,
    Node,
}

impl Lacking {
    fn of(certificate: &CallerCertificate, need: Need) -> Self {
        match (certificate, need) {
            (CallerCertificate::Refused(_), _) => Lacking::Certificate,
            (_, Need::Node) => Lacking::Node,
            _ => Lacking::Token,
        }
    }
}

/// Lets calls in, or does not.
pub(crate) struct Gate {
    security: Security,
    refused: [AtomicU64; LACKING.len()],
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

/// Why a call is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum Refusal {
    #[error("the caller's certificate does not hold: {0}")]
    Certificate(Arc<str>),
    #[error("this needs the admin token, as `authorization: Bearer ...` (keyviz: --token-file)")]
    NoToken,
    #[error("the admin token is another one")]
    OtherToken,
    #[error("this call is between nodes of a cluster and needs its secret (--cluster-secret-file)")]
    NoSecret,
    #[error(
        "the caller has another cluster secret than this node; they are not of one cluster, or \
         --cluster-secret-file differs"
    )]
    OtherSecret,
    #[error("this call is between nodes and needs a node's certificate")]
    NoNodeCertificate,
    #[error(
        "this call is between nodes, and the caller's certificate is good for clients only \
         (extended key usage)"
    )]
    ClientCertificate,
}

impl Gate {
    /// `None` without any credential: then there is nothing to check.
    pub(crate) fn new(security: Security) -> Option<Arc<Self>> {
        let Security { tls, admin_token, cluster_secret, .. } = &security;
        let open = tls.is_none() && admin_token.is_none() && cluster_secret.is_none();
        (!open).then(|| {
            Arc::new(Gate { security, refused: Default::default(), told: Mutex::default() })
        })
    }

    /// Whether a call may go on. `caller` is absent only if the connection has no caller
    /// information, which counts as no certificate.
    pub(crate) fn admit(
        &self,
        need: Need,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Result<(), Status> {
        let certificate = caller.map_or(&CallerCertificate::Absent, |caller| &caller.certificate);
        let admitted = match (certificate, need) {
            (CallerCertificate::Refused(reason), _) => Err(Refusal::Certificate(reason.clone())),
            (_, Need::Nothing) => Ok(()),
            (_, Need::Token) => self.token(headers),
            (certificate, Need::Node) => self.node(certificate, headers),
            (certificate, Need::TokenOrNode) => self.token(headers).or_else(|no_token| {
                let node = self.shows_node(certificate, headers);
                if node { Ok(()) } else { Err(no_token) }
            }),
        };
        admitted.map_err(|refusal| {
            self.refused[Lacking::of(certificate, need) as usize].fetch_add(1, Ordering::Relaxed);
            self.tell(need, caller.map(|caller| caller.address.ip()), &refusal);
            let mut status = Status::unauthenticated(refusal.to_string());
            status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
            status
        })
    }

    /// Calls that were refused, by what they lacked.
    pub(crate) fn refused(&self) -> [(&'static str, u64); LACKING.len()] {
        let count = |at: usize| self.refused[at].load(Ordering::Relaxed);
        std::array::from_fn(|at| (LACKING[at], count(at)))
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.security.admin_token else { return Ok(()) };
        match bearer(headers) {
            Some(offered) if token.accepts(offered) => Ok(()),
            Some(_) => Err(Refusal::OtherToken),
            None => Err(Refusal::NoToken),
        }
    }

    fn node(&self, certificate: &CallerCertificate, headers: &HeaderMap) -> Result<(), Refusal> {
        let Security { tls, cluster_secret, .. } = &self.security;
        if let (Some(secret), Some(offered)) = (cluster_secret, headers.get(SECRET_HEADER)) {
            // A wrong secret belongs to another cluster, whatever certificate comes with it.
            return match secret.accepts(offered.as_bytes()) {
                true => Ok(()),
                false => Err(Refusal::OtherSecret),
            };
        }
        if tls.is_none() && cluster_secret.is_none() || *certificate == CallerCertificate::Node {
            return Ok(());
        }
        Err(match (cluster_secret, certificate) {
            (Some(_), _) => Refusal::NoSecret,
            (None, CallerCertificate::Client) => Refusal::ClientCertificate,
            (None, _) => Refusal::NoNodeCertificate,
        })
    }

    /// Whether the caller shows a node's credential, as opposed to none being required.
    fn shows_node(&self, certificate: &CallerCertificate, headers: &HeaderMap) -> bool {
        let shown = *certificate == CallerCertificate::Node
            || self.security.cluster_secret.is_some() && headers.contains_key(SECRET_HEADER);
        shown && self.node(certificate, headers).is_ok()
    }

    fn tell(&self, need: Need, from: Option<IpAddr>, refusal: &Refusal) {
        let mut told = self.told.lock();
        if told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            told.since += 1;
            return;
        }
        let unsaid = std::mem::take(&mut told.since);
        told.at = Some(Instant::now());
        drop(told);
        let what = if need == Need::Node { "a node" } else { "a call" };
        let from = from.map_or_else(|| "somewhere".to_owned(), |from| from.to_string());
        tracing::warn!(unsaid, "refused {what} from {from}: {refusal}");
    }
}

/// The token in `authorization: Bearer ...`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Puts a gate in front of the gRPC services; `None`: nothing.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Option<Arc<Gate>>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

/// Services behind a gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Option<Arc<Gate>>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(gate) = &self.gate {
            let need = Need::of(request.uri().path());
            let caller = request.extensions().get::<Caller>();
            if let Err(status) = gate.admit(need, caller, request.headers()) {
                return Either::Right(ready(Ok(status.into_http())));
            }
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
