//! `/api/v1/findings`: `GetFindings` as JSON. Parameters are named as the fields of the request.

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::Status;

use super::reply::{bad, json, number, parameters, problem};
use super::state::HttpState;
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
