//! `POST /api/v1/routes/split` and `/api/v1/routes/merge`: the page's buttons.
//!
//! The body is JSON with the fields of `SplitRouteRequest` and `MergeRoutesRequest`, the key as
//! text or `hex:...`; the answer is that of `routes split --format json`. Only JSON is accepted,
//! and no request that a browser marks as coming from another site: a page elsewhere must not be
//! able to change routes on behalf of a user who has this one open.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Status};

use keyviz_proto as proto;
use keyviz_proto::routes_server::Routes as _;

use super::reply::{bad, json, problem};
use super::state::HttpState;
use crate::grpc::routes::SharedRoutes;
use keyviz_json::{RouteChangeJson, parse_key};

/// Serves splits.
pub(crate) fn split() -> MethodRouter<HttpState> {
    post(change::<Split>)
}

/// Serves merges.
pub(crate) fn merge() -> MethodRouter<HttpState> {
    post(change::<Merge>)
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

/// The body of a request that changes routes.
trait Change: DeserializeOwned + Send + 'static {
    /// Makes the change.
    fn make(self, routes: SharedRoutes) -> impl Future<Output = Changed> + Send;
}

type Changed = Result<tonic::Response<proto::RouteChangeResponse>, Status>;

impl Change for Split {
    async fn make(self, routes: SharedRoutes) -> Changed {
        let Split { route_id, key, expected_version, request_id, cluster_id } = self;
        let key = parse_key(&key).map_err(|error| bad("key", &key, &error.to_string()))?;
        let split =
            proto::SplitRouteRequest { route_id, key, expected_version, request_id, cluster_id };
        routes.split_route(Request::new(split)).await
    }
}

impl Change for Merge {
    async fn make(self, routes: SharedRoutes) -> Changed {
        let Merge { left_id, right_id, expected_version, request_id, cluster_id } = self;
        let merge = proto::MergeRoutesRequest {
            left_id,
            right_id,
            expected_version,
            request_id,
            cluster_id,
        };
        routes.merge_routes(Request::new(merge)).await
    }
}

async fn change<C: Change>(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<C>, JsonRejection>,
) -> Response {
    let made = match checked(&headers, body) {
        Ok(change) => change.make(SharedRoutes(state.routes)).await,
        Err(refused) => Err(refused),
    };
    match made {
        Ok(change) => json(&RouteChangeJson::from(change.get_ref())),
        Err(status) => problem(&status),
    }
}

pub(super) fn checked<T>(
    headers: &HeaderMap,
    body: Result<Json<T>, JsonRejection>,
) -> Result<T, Status> {
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin");
    if foreign {
        return Err(Status::permission_denied("nothing is changed for a page of another site"));
    }
    let Json(body) = body.map_err(|error| Status::invalid_argument(error.body_text()))?;
    Ok(body)
}
