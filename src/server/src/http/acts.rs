//! The autopilot, acts and the journal.
//!
//! | path | answer |
//! |---|---|
//! | `/api/v1/autopilot` | `GetAutopilot` |
//! | `POST /api/v1/autopilot` | `SetAutopilot` |
//! | `/api/v1/autopilot/log` | `AutopilotLog` |
//! | `POST /api/v1/acts/preview`, `POST /api/v1/acts` | `PreviewAct`, `DoAct` |
//!
//! The bodies are JSON with the fields of the requests, those of an act beside the others, so that
//! a remedy of a finding can be sent back as it came. They are refused from pages of other sites.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;

use super::reply::{bad, json, number, parameters, problem};
use super::route_changes::checked;
use super::state::HttpState;
use crate::audit;
use crate::autopilot::Autopilot;
use keyviz_json::{ActPreviewJson, AutopilotJson, JournalEntryJson, JournalJson, parse_key};
use keyviz_proto as proto;

pub(super) async fn autopilot(State(state): State<HttpState>) -> Response {
    match state.autopilot.get().await {
        Ok(told) => json(&AutopilotJson::from(&told)),
        Err(status) => problem(&status),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    mode: String,
    #[serde(default)]
    expected_revision: u64,
}

pub(super) async fn set(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<Set>, JsonRejection>,
) -> Response {
    let set = async {
        let Set { mode, expected_revision } = checked(&headers, body)?;
        audit::note(format_args!("switch the autopilot to {mode:?}"));
        state.autopilot.set(proto::SetAutopilotRequest { mode, expected_revision }).await
    };
    match set.await {
        Ok(told) => json(&AutopilotJson::from(&told)),
        Err(status) => problem(&status),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LogParameters {
    limit: Option<String>,
    before: Option<String>,
}

pub(super) async fn log(State(state): State<HttpState>, request: Request) -> Response {
    let log = async {
        let LogParameters { limit, before } = parameters(request).await?;
        let limit = number("limit", &limit)?.unwrap_or_default();
        let before = number("before", &before)?.unwrap_or_default();
        state.autopilot.log(proto::AutopilotLogRequest { limit, before })
    };
    match log.await {
        Ok(journal) => json(&JournalJson::from(&journal)),
        Err(status) => problem(&status),
    }
}

/// An act, flat. Of a remedy, what is told beside the act is ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActBody {
    act: String,
    at: Option<String>,
    start: Option<String>,
    end: Option<String>,
    group: Option<u64>,
    node: Option<Value>,
    #[serde(default)]
    finding: String,
    #[serde(default)]
    expected_version: u64,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default, rename = "words")]
    _words: Option<Value>,
    #[serde(default, rename = "forecast")]
    _forecast: Option<Value>,
}

impl ActBody {
    fn request(self) -> Result<proto::ActRequest, Status> {
        let key = |name: &str, text: Option<String>| -> Result<Option<Bytes>, Status> {
            let text = text.as_deref();
            text.map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
        };
        let node = match self.node {
            None | Some(Value::Null) => None,
            // Ids that a reader of JSON would round are text.
            Some(Value::String(text)) => number("node", &Some(text))?,
            Some(Value::Number(id)) => number("node", &Some(id.to_string()))?,
            Some(other) => {
                return Err(bad("node", &other.to_string(), "a whole number, 0 or more"));
            }
        };
        let act = proto::Act {
            act: self.act,
            at: key("at", self.at)?,
            start: key("start", self.start)?,
            end: key("end", self.end)?,
            group: self.group,
            node,
        };
        Ok(proto::ActRequest {
            act: Some(act),
            finding: self.finding,
            expected_version: self.expected_version,
            request_id: self.request_id,
            cluster_id: self.cluster_id,
        })
    }
}

pub(super) async fn preview(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<ActBody>, JsonRejection>,
) -> Response {
    let preview = async { state.autopilot.preview(checked(&headers, body)?.request()?).await };
    match preview.await {
        Ok(preview) => json(&ActPreviewJson::from(&preview)),
        Err(status) => problem(&status),
    }
}

pub(super) async fn act(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Json<ActBody>, JsonRejection>,
) -> Response {
    let begun = async {
        let ask = checked(&headers, body)?.request()?;
        audit::note(format_args!("act: {}", Autopilot::named(&ask)));
        state.autopilot.act(ask).await
    };
    match begun.await {
        Ok(entry) => json(&JournalEntryJson::from(&entry)),
        Err(status) => problem(&status),
    }
}
