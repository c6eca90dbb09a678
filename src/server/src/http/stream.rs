//! `/api/v1/stream`: columns as server-sent events.
//!
//! ```text
//! id: 1700000060000            the cursor: end of the last closed column
//! event: columns
//! data: {"series":"writes","columns":[...],"rows":[...],...}
//! ```
//!
//! `data` is a matrix of the new columns, in the requested encoding.
//!
//! A client that reconnects with `last-event-id` (or `after_ms`) misses none of the last 512
//! columns. The events of a matrix are the route and leader changes in its columns. A failure is an
//! event `error` with the JSON of other errors, and the end of the stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde::Deserialize;
use tonic::{Code, Status};

use keyviz_proto as proto;

use super::reply::{Encoding, bad, flag, keys, number, parameters, problem};
use super::state::HttpState;
use keyviz_json::{MatrixJson, PackedJson, parse_key, role_from_name, series_from_name};

/// While no column closes, an empty line is sent this often so that dead connections are noticed.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A browser waits this long before it comes back.
const RETRY: Duration = Duration::from_secs(1);

/// Parameters of the stream, named as the fields of `StreamColumnsRequest`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamParameters {
    series: Option<String>,
    start: Option<String>,
    end: Option<String>,
    max_rows: Option<String>,
    role: Option<String>,
    after_ms: Option<String>,
    spread: Option<String>,
    boundaries: Option<String>,
    encoding: Option<String>,
}

impl StreamParameters {
    fn request(&self, headers: &HeaderMap) -> Result<proto::StreamColumnsRequest, Status> {
        let series = self.series.as_deref().map(|name| {
            series_from_name(name)
                .ok_or_else(|| bad("series", name, "one of reads, writes, read-bytes, write-bytes"))
        });
        let role = self.role.as_deref().map(|name| {
            role_from_name(name)
                .ok_or_else(|| bad("role", name, "one of leader-write, leader-read, follower-read"))
        });
        let key = |name: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_key(text).map_err(|error| bad(name, text, &error.to_string())))
                .transpose()
        };
        let last = headers.get("last-event-id").map(|id| {
            let text = id.to_str().ok().and_then(|text| text.trim().parse().ok());
            text.ok_or_else(|| {
                Status::invalid_argument("last-event-id is not an id of this stream")
            })
        });
        Ok(proto::StreamColumnsRequest {
            series: series.transpose()?.unwrap_or_default().into(),
            role: role.transpose()?.unwrap_or_default().into(),
            start: key("start", &self.start)?.unwrap_or_default(),
            end: key("end", &self.end)?,
            max_rows: number("max_rows", &self.max_rows)?.unwrap_or_default(),
            spread: flag("spread", &self.spread)?,
            boundaries: keys("boundaries", &self.boundaries)?,
            after_ms: match last.transpose()? {
                Some(last) => Some(last),
                None => number("after_ms", &self.after_ms)?,
            },
        })
    }
}

pub(crate) async fn columns(
    State(state): State<HttpState>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let updates = async {
        let parameters: StreamParameters = parameters(request).await?;
        let encoding = Encoding::of(&parameters.encoding)?;
        Ok((state.keyviz.stream(parameters.request(&headers)?).await?, encoding))
    };
    let (updates, encoding) = match updates.await {
        Ok(updates) => updates,
        Err(status) => return problem(&status),
    };
    // The stream ends after a failure: the browser reconnects and gets the status.
    let events = updates.scan(false, move |failed, update| {
        let over = std::mem::replace(failed, update.is_err());
        futures::future::ready((!over).then(|| Ok::<_, Infallible>(event(update, encoding))))
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here"))
        .into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn event(update: Result<proto::ColumnsUpdate, Status>, encoding: Encoding) -> Event {
    let told = update.and_then(|update| {
        let matrix = update.matrix.unwrap_or_default();
        let event = Event::default().event("columns").id(update.cursor_ms.to_string()).retry(RETRY);
        match encoding {
            Encoding::Plain => event.json_data(MatrixJson::from(&matrix)),
            Encoding::Packed => event.json_data(PackedJson::from(&matrix)),
        }
        .map_err(|error| Status::internal(error.to_string()))
    });
    told.unwrap_or_else(|status| failure(&status))
}

/// The end of a stream.
pub(super) fn failure(status: &Status) -> Event {
    let code = match status.code() {
        Code::Unavailable => "UNAVAILABLE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        _ => "INTERNAL",
    };
    let problem = serde_json::json!({ "code": code, "message": status.message() });
    Event::default().event("error").data(problem.to_string())
}
