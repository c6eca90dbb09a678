//! The HTTP edge: the page, the JSON API, metrics and health.
//!
//! | path | answer |
//! |---|---|
//! | `/` and the files of `web/` | the heatmap page, from the binary |
//! | `/api/v1/matrix` | `GetMatrix` as JSON; `scope=node`: this node alone, `encoding=packed` |
//! | `/api/v1/hotkeys` | `GetHotKeys` as JSON; `scope=node`: this node alone |
//! | `/api/v1/stream` | `StreamColumns` as server-sent events |
//! | `/api/v1/findings` | `GetFindings` as JSON |
//! | `/api/v1/findings/stream` | `StreamFindings` as server-sent events |
//! | `/api/v1/autopilot`, `/api/v1/acts` | the autopilot, acts and the journal (`acts.rs`) |
//! | `/api/v1/top`, `/api/v1/loads` | `TopRanges` and `GetLoads` as JSON |
//! | `/api/v1/alerts`, `/api/v1/alerts/stream` | alerts, and server-sent events of them |
//! | `/api/v1/routes`, `/api/v1/cluster` | `ListRoutes` and `GetStatus` as JSON |
//! | `POST /api/v1/routes/split`, `POST /api/v1/routes/merge` | `SplitRoute` and `MergeRoutes` |
//! | `/metrics` | Prometheus text; it names no keys, so that it needs no token |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when the node serves, with the reason where it only reads; else 503 and why |
//!
//! Without an admin token, a node that listens on loopback answers only to names of its own, and
//! changes come from its own page or from none (`host.rs`).
//!
//! Where there are tokens, everything under `/api/` needs one of the right role (`calls.rs`):
//! `authorization: Bearer ...`.
//! Errors are `{"code": "...", "message": "..."}` with the matching status.

mod acts;
mod alerts;
mod findings;
mod host;
mod hot_keys;
mod loads;
mod reply;
mod route_changes;
mod state;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use serde::Deserialize;
use tonic::{Code, Status};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use keyviz_proto as proto;
use keyviz_security::Caller;

use crate::audit::{Who, audited};
use crate::calls;
use crate::grpc::keyviz::Scope;
use crate::metrics::TextForm;
use crate::request_id::RequestIdLayer;
pub(crate) use host::Names;
pub(crate) use state::HttpState;

use keyviz_json::{ClusterJson, RoutesJson, axis_from_name, role_from_name, series_from_name};
pub(crate) use reply::problem;
use reply::{Encoding, bad, flag, json, key, keys, number, parameters};

/// Only the page's own files may run or be requested; keys are data and stay text.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

#[derive(rust_embed::RustEmbed)]
#[folder = "../../web/"]
struct Page;

pub(crate) fn router(state: HttpState) -> Router {
    let fixed = |name, value| {
        SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let api = handlers()
        .into_iter()
        .fold(Router::new(), |api, (path, _, handler)| api.route(path, handler));
    let api = api
        .route("/api/{*rest}", any(no_such_call))
        .layer(from_fn_with_state(state.clone(), admit));
    Router::new()
        .route("/", get(|| async { asset("index.html") }))
        .route("/{*file}", get(|Path(file): Path<String>| async move { asset(&file) }))
        .merge(api)
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest))
        .layer(fixed("content-security-policy", CONTENT_SECURITY_POLICY))
        .layer(fixed("x-content-type-options", "nosniff"))
        .layer(fixed("referrer-policy", "no-referrer"))
        .layer(from_fn_with_state(Arc::clone(&state.names), host::check))
        .layer(RequestIdLayer)
        .with_state(state)
}

/// The calls of the API: path, methods, handler. `calls.rs` has the role that each needs.
fn handlers() -> Vec<(&'static str, &'static [&'static str], MethodRouter<HttpState>)> {
    vec![
        ("/api/v1/matrix", &["GET", "POST"], get(matrix).post(matrix)),
        ("/api/v1/hotkeys", &["GET"], get(hot_keys::hot_keys)),
        ("/api/v1/stream", &["GET", "POST"], get(stream::columns).post(stream::columns)),
        ("/api/v1/findings", &["GET", "POST"], get(findings::findings).post(findings::findings)),
        ("/api/v1/findings/stream", &["GET"], get(findings::stream)),
        ("/api/v1/autopilot", &["GET", "POST"], get(acts::autopilot).post(acts::set)),
        ("/api/v1/autopilot/log", &["GET"], get(acts::log)),
        ("/api/v1/acts/preview", &["POST"], post(acts::preview)),
        ("/api/v1/acts", &["POST"], post(acts::act)),
        ("/api/v1/top", &["GET"], get(loads::top)),
        ("/api/v1/loads", &["GET", "POST"], get(loads::loads).post(loads::loads)),
        ("/api/v1/alerts", &["GET"], get(alerts::alerts)),
        ("/api/v1/alerts/stream", &["GET"], get(alerts::stream)),
        ("/api/v1/routes", &["GET"], get(routes)),
        ("/api/v1/cluster", &["GET"], get(cluster)),
        ("/api/v1/routes/split", &["POST"], route_changes::split()),
        ("/api/v1/routes/merge", &["POST"], route_changes::merge()),
    ]
}

/// Admits a call of the API if it has the required credential.
async fn admit(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let placed = calls::of_http(request.method(), request.uri().path());
    let mut who = Who::Anybody;
    if let Some(gate) = &state.gate {
        who = match gate.admit(placed.need, None, request.headers()) {
            Ok(who) => who,
            Err(status) => return refused(&status),
        };
    }
    if !placed.audited {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<ConnectInfo<Caller>>();
    let from = caller.map(|ConnectInfo(caller)| caller.address.ip());
    let served = async { Ok::<_, Infallible>(next.run(request).await) };
    match audited(placed, who, from, served).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn refused(status: &Status) -> Response {
    let mut response = problem(status);
    if status.code() == Code::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"keyviz\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn asset(file: &str) -> Response {
    match Page::get(file) {
        Some(found) => {
            let headers =
                [(header::CONTENT_TYPE, content_type(file)), (header::CACHE_CONTROL, "no-cache")];
            (headers, found.data).into_response()
        }
        None => problem(&Status::not_found(format!("there is no page /{file}"))),
    }
}

fn content_type(file: &str) -> &'static str {
    match file.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

async fn no_such_call(uri: Uri) -> Response {
    problem(&Status::not_found(format!("there is no API call {}", uri.path())))
}

/// Parameters of `/api/v1/matrix`, named as the fields of `GetMatrixRequest`. Text throughout, so
/// that a wrong one is refused by name.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MatrixParameters {
    series: Option<String>,
    from_ms: Option<String>,
    to_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    max_rows: Option<String>,
    max_columns: Option<String>,
    role: Option<String>,
    axis: Option<String>,
    by_node: Option<String>,
    spread: Option<String>,
    boundaries: Option<String>,
    scope: Option<String>,
    encoding: Option<String>,
}

impl MatrixParameters {
    fn request(&self) -> Result<proto::GetMatrixRequest, Status> {
        let series = match self.series.as_deref() {
            None => proto::Series::Unspecified,
            Some(name) => series_from_name(name).ok_or_else(|| {
                bad("series", name, "one of reads, writes, read-bytes, write-bytes")
            })?,
        };
        let role = match self.role.as_deref() {
            None => proto::Role::Unspecified,
            Some(name) => role_from_name(name).ok_or_else(|| {
                bad("role", name, "one of leader-write, leader-read, follower-read")
            })?,
        };
        let axis = match self.axis.as_deref() {
            None => proto::Axis::Unspecified,
            Some(name) => {
                axis_from_name(name).ok_or_else(|| bad("axis", name, "one of now, then"))?
            }
        };
        Ok(proto::GetMatrixRequest {
            series: series.into(),
            role: role.into(),
            from_ms: number("from_ms", &self.from_ms)?,
            to_ms: number("to_ms", &self.to_ms)?,
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            max_rows: number("max_rows", &self.max_rows)?.unwrap_or_default(),
            max_columns: number("max_columns", &self.max_columns)?.unwrap_or_default(),
            axis: axis.into(),
            by_node: flag("by_node", &self.by_node)?,
            spread: flag("spread", &self.spread)?,
            boundaries: keys("boundaries", &self.boundaries)?,
            ..Default::default()
        })
    }
}

async fn matrix(State(state): State<HttpState>, headers: HeaderMap, request: Request) -> Response {
    let answer = async {
        let parameters: MatrixParameters = parameters(request).await?;
        let request = parameters.request()?;
        let encoding = Encoding::of(&parameters.encoding)?;
        let scope = match parameters.scope.as_deref() {
            None | Some("cluster") => Scope::Cluster,
            Some("node") => Scope::Node,
            Some(scope) => return Err(bad("scope", scope, "one of cluster, node")),
        };
        let gzip = takes_gzip(&headers);
        state.keyviz.matrix(scope, request, move |matrix| encoding.answer(&matrix, gzip)).await
    };
    answer.await.unwrap_or_else(|status| problem(&status))
}

/// Whether the caller reads gzip. What else it may say of it is left to the compression of all
/// other answers.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let said =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("gzip"))
}

/// Parameters of `/api/v1/routes`, named as the fields of `ListRoutesRequest`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RoutesParameters {
    start: Option<String>,
    end: Option<String>,
    page_size: Option<String>,
    page_token: Option<String>,
}

async fn routes(State(state): State<HttpState>, request: Request) -> Response {
    let answer = async {
        let asked: RoutesParameters = parameters(request).await?;
        state.routes.list(&proto::ListRoutesRequest {
            start: key("start", &asked.start)?.unwrap_or_default(),
            end: key("end", &asked.end)?,
            page_size: number("page_size", &asked.page_size)?.unwrap_or_default(),
            page_token: key("page_token", &asked.page_token)?.unwrap_or_default(),
        })
    };
    match answer.await {
        Ok(routes) => json(&RoutesJson::from(&routes)),
        Err(status) => problem(&status),
    }
}

async fn cluster(State(state): State<HttpState>) -> Response {
    match state.cluster.status().await {
        Ok(status) => json(&ClusterJson::from(&status)),
        Err(status) => problem(&status),
    }
}

async fn metrics(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = TextForm::accepted(accept);
    let headers = [(header::CONTENT_TYPE, form.content_type()), (header::VARY, "accept")];
    (headers, state.metrics.encode(form)).into_response()
}

async fn ready(State(state): State<HttpState>) -> Response {
    let warning = state.cluster.security.warning().map(|words| format!("{words}\n"));
    let warning = warning.unwrap_or_default();
    match state.cluster.readiness() {
        Ok(()) => match state.cluster.read_only() {
            // Reads and matrices are still served, so traffic may continue.
            Some(reason) => format!("ready, read-only: {reason}\n{warning}").into_response(),
            None => format!("ready\n{warning}").into_response(),
        },
        Err(error) => problem(&Status::unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_and_method_is_placed_and_nothing_else_is() {
        let served = handlers().into_iter().flat_map(|(path, methods, _)| {
            methods.iter().map(move |method| format!("{method} {path}"))
        });
        let mut served: Vec<String> = served.collect();
        let mut placed: Vec<String> = calls::HTTP.iter().map(|call| call.name.to_owned()).collect();
        served.sort();
        placed.sort();
        // A call that is missing on the left has to be placed in calls.rs.
        assert_eq!(placed, served);
    }
}
