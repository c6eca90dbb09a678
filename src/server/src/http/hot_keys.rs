//! `/api/v1/hotkeys`: `GetHotKeys` as JSON.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::Status;

use keyviz_json::{HotKeysJson, parse_key, series_from_name};
use keyviz_proto as proto;

use super::reply::{bad, json, number, problem};
use super::state::HttpState;
use crate::grpc::keyviz::Scope;

/// Parameters, named as the fields of `GetHotKeysRequest`. Text throughout, so that a wrong one is
/// refused by name.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    series: Option<String>,
    from_ms: Option<String>,
    to_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<String>,
    by_node: Option<String>,
    points: Option<String>,
    scope: Option<String>,
}

impl Parameters {
    fn request(&self) -> Result<(Scope, proto::GetHotKeysRequest), Status> {
        let series = match self.series.as_deref() {
            None => proto::Series::Unspecified,
            Some(name) => {
                series_from_name(name).ok_or_else(|| bad("series", name, "one of reads, writes"))?
            }
        };
        let key = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
        };
        let scope = match self.scope.as_deref() {
            None | Some("cluster") => Scope::Cluster,
            Some("node") => Scope::Node,
            Some(scope) => return Err(bad("scope", scope, "one of cluster, node")),
        };
        let by_node = match self.by_node.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(bad("by_node", other, "true or false")),
        };
        let request = proto::GetHotKeysRequest {
            series: series.into(),
            from_ms: number("from_ms", &self.from_ms)?,
            to_ms: number("to_ms", &self.to_ms)?,
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            limit: number("limit", &self.limit)?.unwrap_or_default(),
            by_node,
            points: number("points", &self.points)?.unwrap_or_default(),
        };
        Ok((scope, request))
    }
}

pub(super) async fn hot_keys(
    State(state): State<HttpState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let answer = async {
        let Query(parameters) =
            parameters.map_err(|error| Status::invalid_argument(error.body_text()))?;
        let (scope, request) = parameters.request()?;
        state.keyviz.hot_keys(scope, request).await
    };
    match answer.await {
        Ok(hot_keys) => json(&HotKeysJson::from(&hot_keys)),
        Err(status) => problem(&status),
    }
}
