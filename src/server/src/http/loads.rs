//! `/api/v1/top` and `/api/v1/loads`: `TopRanges`, `GetLoads` and `GetNodeLoads` as JSON.
//! Parameters are named as the fields of the requests.

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::Status;

use super::reply::{bad, flag, json, key, keys, number, parameters, problem};
use super::state::HttpState;
use crate::grpc::keyviz::Scope;
use keyviz_json::{LoadsJson, TopRangesJson, grouping_from_name, rank_from_name};
use keyviz_proto as proto;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TopParameters {
    rank: Option<String>,
    from_ms: Option<String>,
    to_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<String>,
    routes: Option<String>,
}

impl TopParameters {
    fn request(&self) -> Result<proto::TopRangesRequest, Status> {
        let rank = match self.rank.as_deref() {
            None => proto::Rank::Unspecified,
            Some(name) => rank_from_name(name).ok_or_else(|| {
                bad("rank", name, "one of cost, reads, writes, read-bytes, write-bytes")
            })?,
        };
        Ok(proto::TopRangesRequest {
            rank: rank.into(),
            from_ms: number("from_ms", &self.from_ms)?,
            to_ms: number("to_ms", &self.to_ms)?,
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            limit: number("limit", &self.limit)?.unwrap_or_default(),
            routes: flag("routes", &self.routes)?,
        })
    }
}

pub(super) async fn top(State(state): State<HttpState>, request: Request) -> Response {
    let answer = async {
        let parameters: TopParameters = parameters(request).await?;
        state.loads.top(parameters.request()?).await
    };
    match answer.await {
        Ok(top) => json(&TopRangesJson::from(&top)),
        Err(status) => problem(&status),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LoadsParameters {
    by: Option<String>,
    from_ms: Option<String>,
    to_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    ids: Option<String>,
    prefix_depth: Option<String>,
    delimiter: Option<String>,
    prefixes: Option<String>,
    scope: Option<String>,
}

impl LoadsParameters {
    fn request(&self) -> Result<(Scope, proto::GetLoadsRequest), Status> {
        let by = match self.by.as_deref() {
            None => proto::LoadGrouping::Unspecified,
            Some(name) => grouping_from_name(name)
                .ok_or_else(|| bad("by", name, "one of route, group, leader, node, prefix"))?,
        };
        let scope = match self.scope.as_deref() {
            None | Some("cluster") => Scope::Cluster,
            Some("node") => Scope::Node,
            Some(scope) => return Err(bad("scope", scope, "one of cluster, node")),
        };
        let request = proto::GetLoadsRequest {
            by: by.into(),
            from_ms: number("from_ms", &self.from_ms)?,
            to_ms: number("to_ms", &self.to_ms)?,
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            ids: ids(&self.ids)?,
            prefix_depth: number("prefix_depth", &self.prefix_depth)?.unwrap_or_default(),
            delimiter: key("delimiter", &self.delimiter)?.unwrap_or_default(),
            prefixes: keys("prefixes", &self.prefixes)?,
        };
        Ok((scope, request))
    }
}

fn ids(text: &Option<String>) -> Result<Vec<u64>, Status> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let id = |id: &str| id.parse().map_err(|_| bad("ids", id, "whole numbers with commas between"));
    text.split(',').map(id).collect()
}

pub(super) async fn loads(State(state): State<HttpState>, request: Request) -> Response {
    let answer = async {
        let parameters: LoadsParameters = parameters(request).await?;
        let (scope, request) = parameters.request()?;
        state.loads.all_loads(scope, request).await
    };
    let loads = match answer.await {
        Ok(loads) => loads,
        Err(status) => return problem(&status),
    };
    match LoadsJson::of(&loads) {
        Some(loads) => json(&loads),
        None => problem(&Status::internal("the answer has no end")),
    }
}
