//! `/api/v1/alerts`: the alerts of the cluster, as this node knows them, and their rules.
//! `/api/v1/alerts/stream`: the same as server-sent events, at once and with each change.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::reply::json;
use super::state::HttpState;
use crate::alerts::{AlertService, Rule};
use keyviz_json::{Key, series_name};
use keyviz_peer::matrix_wire::series_to_wire;

/// While nothing changes, an empty line is sent this often so that dead connections are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct AlertsJson<'a> {
    judged_ms: u64,
    alerts: Vec<AlertJson>,
    rules: Vec<RuleJson<'a>>,
}

#[derive(Serialize)]
struct AlertJson {
    rule: String,
    route_id: Option<u64>,
    /// firing, or resolved and about to be told.
    state: &'static str,
    starts_ms: u64,
    ends_ms: Option<u64>,
    rate: f64,
}

#[derive(Serialize)]
struct RuleJson<'a> {
    name: &'a str,
    start: Key<'a>,
    end: Option<Key<'a>>,
    each: &'static str,
    series: &'static str,
    above_rate: Option<f64>,
    above_share: Option<f64>,
    for_columns: u32,
    severity: &'a str,
    summary: &'a str,
}

fn rule_json(rule: &Rule) -> RuleJson<'_> {
    RuleJson {
        name: &rule.name,
        start: Key(&rule.range.start),
        end: rule.range.end.as_deref().map(Key),
        each: if rule.each_route { "route" } else { "all" },
        series: series_name(series_to_wire(rule.series)),
        above_rate: rule.above_rate,
        above_share: rule.above_share,
        for_columns: rule.for_columns,
        severity: &rule.severity,
        summary: &rule.summary,
    }
}

fn alerts_json(service: &AlertService) -> AlertsJson<'_> {
    let known = service.known();
    let alert = |alert: keyviz_proto::NotedAlert| AlertJson {
        rule: alert.rule,
        route_id: alert.route_id,
        state: if alert.ends_ms.is_some() { "resolved" } else { "firing" },
        starts_ms: alert.starts_ms,
        ends_ms: alert.ends_ms,
        rate: alert.rate,
    };
    AlertsJson {
        judged_ms: known.judged_ms,
        alerts: known.alerts.into_iter().map(alert).collect(),
        rules: service.rules.iter().map(rule_json).collect(),
    }
}

pub(super) async fn alerts(State(state): State<HttpState>) -> Response {
    json(&alerts_json(&state.alerts))
}

pub(super) async fn stream(State(state): State<HttpState>) -> Response {
    let changes = state.alerts.changes();
    let events = futures::stream::unfold((changes, true), move |(mut changes, first)| {
        let service = state.alerts.clone();
        async move {
            if !first {
                match changes.recv().await {
                    // What was missed is in the state that is sent now.
                    Ok(()) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
            let event = Event::default().event("alerts").json_data(alerts_json(&service));
            let event = event.unwrap_or_else(|_| Event::default().event("error"));
            Some((Ok::<_, Infallible>(event), (changes, false)))
        }
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here"))
        .into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
