//! Which credential lets a call in, in front of all services.
//!
//! | call | needs |
//! |---|---|
//! | `Kv` | the store token, where there is one, or the admin token |
//! | reading `Routes`, `Cluster.GetStatus` | any token, where there is a store token |
//! | `KeyViz`, `GET /api/` | the token of a viewer, an operator or an admin |
//! | changes by `Routes`, leaders, `Cluster.Verify` | the token of an operator or an admin |
//! | changes of members, `Backup` | the admin token |
//! | `Cluster.AddNode` | the same, or a node's credential: a node that joins calls for itself |
//! | `RaftTransport`, `KvPeer`, `KeyVizPeer`, `ClusterPeer` | a node's certificate or the secret |
//! | health, reflection | nothing |
//!
//! The table of all calls is in `calls.rs`. Without any token of a viewer, an operator or an admin,
//! nothing asks for one. A caller whose certificate does not hold gets nothing at all. Checks look
//! at headers alone, so that a refused call has done nothing.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Ready, ready};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::metadata::MetadataValue;
use tower::{Layer, Service};

use keyviz_security::{Caller, CallerCertificate, SECRET_HEADER, SecretFile, Security};

use keyviz_proto::metadata::NOT_APPLIED_METADATA;

use crate::audit::{Role, Who, audited};
use crate::calls::{self, Need};

/// Refusals are logged at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What refused calls lacked, as named in the metrics.
const LACKING: [&str; 4] = ["certificate", "token", "node", "role"];

/// The places in it.
#[derive(Clone, Copy)]
enum Lacking {
    Certificate,
    Token,
    Node,
    Role,
}

impl Lacking {
    fn of(refusal: &Refusal, need: Need) -> Self {
        match (refusal, need) {
            (Refusal::Certificate(_), _) => Lacking::Certificate,
            (Refusal::Role { .. }, _) => Lacking::Role,
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
    #[error("this needs the {0} token, as `authorization: Bearer ...` (keyviz: --token-file)")]
    NoToken(Accepted),
    #[error("the token is another one; this needs the {0} token")]
    OtherToken(Accepted),
    #[error("this needs the {accepted} token, and the token given is that of the role {given}")]
    Role { accepted: Accepted, given: Role },
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

/// The roles that a call accepts, of those that have a token.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Accepted(Vec<Role>);

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(Role::to_string).collect();
        match names.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
            None => f.write_str("admin"),
        }
    }
}

impl Need {
    /// The roles whose tokens it accepts.
    fn roles(self) -> &'static [Role] {
        match self {
            Need::Store => &[Role::Store, Role::Admin],
            Need::Known => &[Role::Store, Role::Viewer, Role::Operator, Role::Admin],
            Need::Viewer => &[Role::Viewer, Role::Operator, Role::Admin],
            Need::Operator => &[Role::Operator, Role::Admin],
            Need::Admin | Need::AdminOrNode => &[Role::Admin],
            Need::Nothing | Need::Node => &[],
        }
    }
}

impl Gate {
    /// `None` without any credential: then there is nothing to check.
    pub(crate) fn new(security: Security) -> Option<Arc<Self>> {
        let Security { tls, cluster_secret, .. } = &security;
        let tokens = security.tokens().any(|token| token.is_some());
        (tls.is_some() || cluster_secret.is_some() || tokens).then(|| {
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
    ) -> Result<Who, Status> {
        let certificate = caller.map_or(&CallerCertificate::Absent, |caller| &caller.certificate);
        let admitted = match (certificate, need) {
            (CallerCertificate::Refused(reason), _) => Err(Refusal::Certificate(reason.clone())),
            (_, Need::Nothing) => Ok(Who::Anybody),
            (certificate, Need::Node) => self.node(certificate, headers).map(|()| Who::Node),
            (certificate, Need::AdminOrNode) => self.token(need, headers).or_else(|no_token| {
                let node = self.shows_node(certificate, headers);
                if node { Ok(Who::Node) } else { Err(no_token) }
            }),
            (_, need) => self.token(need, headers),
        };
        admitted.map_err(|refusal| {
            self.refused[Lacking::of(&refusal, need) as usize].fetch_add(1, Ordering::Relaxed);
            self.tell(need, caller.map(|caller| caller.address.ip()), &refusal);
            let words = refusal.to_string();
            let mut status = match refusal {
                Refusal::Role { .. } => Status::permission_denied(words),
                _ => Status::unauthenticated(words),
            };
            status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
            status
        })
    }

    /// Calls that were refused, by what they lacked.
    pub(crate) fn refused(&self) -> [(&'static str, u64); LACKING.len()] {
        let count = |at: usize| self.refused[at].load(Ordering::Relaxed);
        std::array::from_fn(|at| (LACKING[at], count(at)))
    }

    fn token(&self, need: Need, headers: &HeaderMap) -> Result<Who, Refusal> {
        let security = &self.security;
        let asked = match need {
            Need::Store | Need::Known => security.store_token.is_some(),
            // The admin token comes with each of the others; alone they close what is above them.
            _ => {
                security.admin_token.is_some()
                    || security.operator_token.is_some()
                    || security.viewer_token.is_some()
            }
        };
        if !asked {
            return Ok(Who::Anybody);
        }
        let held = |role: &Role| self.file(*role).is_some();
        let accepted = || Accepted(need.roles().iter().copied().filter(held).collect());
        let Some(offered) = bearer(headers) else { return Err(Refusal::NoToken(accepted())) };
        // A token that is in two files has the higher role.
        let found =
            [Role::Admin, Role::Operator, Role::Viewer, Role::Store].into_iter().find_map(|role| {
                self.file(role)?.position(offered).map(|at| Who::Token { role, line: at + 1 })
            });
        match found {
            Some(who @ Who::Token { role, .. }) if need.roles().contains(&role) => Ok(who),
            Some(Who::Token { role: given, .. }) => {
                Err(Refusal::Role { accepted: accepted(), given })
            }
            _ => Err(Refusal::OtherToken(accepted())),
        }
    }

    fn file(&self, role: Role) -> Option<&SecretFile> {
        let Security { store_token, viewer_token, operator_token, admin_token, .. } =
            &self.security;
        match role {
            Role::Store => store_token.as_ref(),
            Role::Viewer => viewer_token.as_ref(),
            Role::Operator => operator_token.as_ref(),
            Role::Admin => admin_token.as_ref(),
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
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>,
        Ready<Result<Response<Body>, Infallible>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let placed = calls::of_grpc(request.uri().path());
        let caller = request.extensions().get::<Caller>();
        let mut who = Who::Anybody;
        if let Some(gate) = &self.gate {
            who = match gate.admit(placed.need, caller, request.headers()) {
                Ok(who) => who,
                Err(status) => return Either::Right(ready(Ok(status.into_http()))),
            };
        }
        if placed.audited {
            let from = caller.map(|caller| caller.address.ip());
            // The handler begins within the audit, where it can say what it changes.
            let mut inner = self.inner.clone();
            std::mem::swap(&mut inner, &mut self.inner);
            let served = audited(placed, who, from, async move { inner.call(request).await });
            return Either::Left(Either::Right(served.boxed()));
        }
        Either::Left(Either::Left(self.inner.call(request)))
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
