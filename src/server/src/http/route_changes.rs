//! `POST /api/v1/routes/split` and `/api/v1/routes/merge`: the page's buttons.
//!
//! The body is JSON with the fields of `SplitRouteRequest` and `MergeRoutesRequest`, the key as
//! text or `hex:...`; the answer is that of `routes split --format json`. Only JSON is taken, and
//! nothing that a browser says comes from another site: a page elsewhere must not be able to change
//! routes behind the back of who has this one open.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Json, Router, routing::post};
use serde::Deserialize;
use tonic::{Request, Status};

use keyviz_proto as proto;
use keyviz_proto::routes_server::Routes as _;

use super::reply::{bad, json, problem};
use super::state::HttpState;
use crate::grpc::routes::SharedRoutes;
use keyviz_json::{RouteChangeJson, parse_key};

pub(crate) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/api/v1/routes/split", post(split))
        .route("/api/v1/routes/merge", post(merge))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    route_id: u64,
    key: String,
    #[serde(default)]
    expected_version: u64,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    cluster_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Merge {
    left_id: u64,
    right_id: u64,
    #[serde(default)]
    expected_version: u64,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    cluster_id: String,
}

async fn split(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<Split>, JsonRejection>,
) -> Response {
    let changed = async {
        let Split { route_id, key, expected_version, request_id, cluster_id } =
            checked(&headers, body)?;
        let key = parse_key(&key).map_err(|error| bad("key", &key, &error.to_string()))?;
        let split =
            proto::SplitRouteRequest { route_id, key, expected_version, request_id, cluster_id };
        SharedRoutes(state.routes).split_route(Request::new(split)).await
    };
    answer(changed.await)
}

async fn merge(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<Merge>, JsonRejection>,
) -> Response {
    let changed = async {
        let Merge { left_id, right_id, expected_version, request_id, cluster_id } =
            checked(&headers, body)?;
        let merge = proto::MergeRoutesRequest {
            left_id,
            right_id,
            expected_version,
            request_id,
            cluster_id,
        };
        SharedRoutes(state.routes).merge_routes(Request::new(merge)).await
    };
    answer(changed.await)
}

fn checked<T>(headers: &HeaderMap, body: Result<Json<T>, JsonRejection>) -> Result<T, Status> {
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin");
    if foreign {
        return Err(Status::permission_denied("routes are not changed for a page of another site"));
    }
    let Json(body) = body.map_err(|error| Status::invalid_argument(error.body_text()))?;
    Ok(body)
}

fn answer(changed: Result<tonic::Response<proto::RouteChangeResponse>, Status>) -> Response {
    match changed {
        Ok(change) => json(&RouteChangeJson::from(change.get_ref())),
        Err(status) => problem(&status),
    }
}
