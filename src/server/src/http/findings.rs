//! `/api/v1/findings`: `GetFindings` as JSON, and `/api/v1/findings/stream`: `StreamFindings` as
//! server-sent events `findings`. Parameters are named as the fields of the requests. A failure of
//! the stream is an event `error` with the JSON of other errors, and its end.

use std::convert::Infallible;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde::Deserialize;
use tonic::Status;

use super::reply::{bad, json, number, parameters, problem};
use super::state::HttpState;
use super::stream::{KEEP_ALIVE, failure};
use keyviz_json::{FindingsJson, parse_key};
use keyviz_proto as proto;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FindingsParameters {
    from_ms: Option<String>,
    to_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    max_findings: Option<String>,
}

impl FindingsParameters {
    fn request(&self) -> Result<proto::GetFindingsRequest, Status> {
        let key = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
        };
        Ok(proto::GetFindingsRequest {
            from_ms: number("from_ms", &self.from_ms)?,
            to_ms: number("to_ms", &self.to_ms)?,
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            max_findings: number("max_findings", &self.max_findings)?.unwrap_or_default(),
        })
    }
}

pub(super) async fn findings(State(state): State<HttpState>, request: Request) -> Response {
    let answer = async {
        let parameters: FindingsParameters = parameters(request).await?;
        state.findings.get(parameters.request()?).await
    };
    match answer.await {
        Ok(findings) => json(&FindingsJson::from(&findings)),
        Err(status) => problem(&status),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct StreamParameters {
    last_ms: Option<String>,
    start: Option<String>,
    end: Option<String>,
    max_findings: Option<String>,
    every_ms: Option<String>,
}

impl StreamParameters {
    fn request(&self) -> Result<proto::StreamFindingsRequest, Status> {
        let key = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
        };
        Ok(proto::StreamFindingsRequest {
            last_ms: number("last_ms", &self.last_ms)?.unwrap_or_default(),
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            max_findings: number("max_findings", &self.max_findings)?.unwrap_or_default(),
            every_ms: number("every_ms", &self.every_ms)?.unwrap_or_default(),
        })
    }
}

/// Findings whenever they change.
pub(super) async fn stream(State(state): State<HttpState>, request: Request) -> Response {
    let updates = async {
        let parameters: StreamParameters = parameters(request).await?;
        std::sync::Arc::clone(&state.findings).stream(parameters.request()?)
    };
    let updates = match updates.await {
        Ok(updates) => updates,
        Err(status) => return problem(&status),
    };
    let events = updates.map(|update| {
        Ok::<_, Infallible>(match update {
            Ok(found) => match Event::default().json_data(FindingsJson::from(&found)) {
                Ok(event) => event.event("findings"),
                Err(error) => failure(&Status::internal(error.to_string())),
            },
            Err(status) => failure(&status),
        })
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Proxies must not hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
