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
//! | `/api/v1/routes`, `/api/v1/cluster` | `ListRoutes` and `GetStatus` as JSON |
//! | `POST /api/v1/routes/split`, `POST /api/v1/routes/merge` | `SplitRoute` and `MergeRoutes` |
//! | `/metrics` | Prometheus text; it names no keys, so that it needs no token |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when the node serves, with the reason where it only reads; else 503 and why |
//!
//! Without an admin token, a node that listens on loopback answers only to names of its own, and
//! changes come from its own page or from none (`host.rs`).
//!
//! Where there is an admin token, everything under `/api/` needs it: `authorization: Bearer ...`.
//! Errors are `{"code": "...", "message": "..."}` with the matching status.

mod acts;
mod findings;
mod host;
mod hot_keys;
mod reply;
mod route_changes;
mod state;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Deserialize;
use tonic::Status;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use keyviz_proto as proto;

use crate::gate::Need;
use crate::grpc::keyviz::Scope;
use crate::metrics::TextForm;
use crate::request_id::RequestIdLayer;
pub(crate) use host::Names;
pub(crate) use state::HttpState;

use keyviz_json::{
    ClusterJson, RoutesJson, axis_from_name, parse_key, role_from_name, series_from_name,
};
pub(crate) use reply::problem;
use reply::{Encoding, bad, flag, json, keys, number, parameters};

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
    let api = Router::new()
        .route("/api/v1/matrix", get(matrix).post(matrix))
        .route("/api/v1/hotkeys", get(hot_keys::hot_keys))
        .route("/api/v1/stream", get(stream::columns).post(stream::columns))
        .route("/api/v1/findings", get(findings::findings).post(findings::findings))
        .route("/api/v1/routes", get(routes))
        .route("/api/v1/cluster", get(cluster))
        .route("/api/v1/findings/stream", get(findings::stream))
        .merge(route_changes::routes())
        .merge(acts::routes())
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

/// Admits a call of the API if it has the required credential.
async fn admit(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    if let Some(gate) = &state.gate
        && let Err(status) = gate.admit(Need::Token, None, request.headers())
    {
        let mut response = problem(&status);
        let challenge = HeaderValue::from_static("Bearer realm=\"keyviz\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    next.run(request).await
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
        let key = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
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

async fn routes(State(state): State<HttpState>) -> Response {
    match state.routes.list() {
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
