//! Telling the receiver, one change after the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::state::{Alert, AlertKey};
use super::{AlertService, Rule};
use keyviz_types::RouteId;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Without a call for so long, it is looked whether there is something to tell.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The body of a webhook, as Alertmanager sends it (version 4).
#[derive(Serialize)]
pub(super) struct Body {
    version: &'static str,
    #[serde(rename = "groupKey")]
    group_key: String,
    #[serde(rename = "truncatedAlerts")]
    truncated: u64,
    status: &'static str,
    receiver: &'static str,
    #[serde(rename = "groupLabels")]
    group_labels: serde_json::Value,
    #[serde(rename = "commonLabels")]
    common_labels: serde_json::Value,
    #[serde(rename = "commonAnnotations")]
    common_annotations: serde_json::Value,
    #[serde(rename = "externalURL")]
    external_url: String,
    alerts: Vec<serde_json::Value>,
}

/// A moment as RFC 3339, to the millisecond.
fn rfc3339(unix_ms: u64) -> String {
    let (days, of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // From days since 1970 to the civil calendar (Howard Hinnant, chrono-compatible algorithms).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, millis) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// One change, in Alertmanager's form.
fn body(
    rule: &Rule,
    cluster: &str,
    key: &AlertKey,
    starts_ms: u64,
    alert: &Alert,
    resolved: bool,
) -> Body {
    let mut labels = serde_json::json!({
        "alertname": rule.name,
        "severity": rule.severity,
        "cluster": cluster,
        "series": keyviz_json::series_name(keyviz_peer::matrix_wire::series_to_wire(rule.series)),
    });
    if let Some(route) = key.route {
        labels["route_id"] = route.get().to_string().into();
    }
    let annotations = serde_json::json!({
        "summary": rule.summary,
        "rate": format!("{:.1}", alert.rate),
    });
    let status = if resolved { "resolved" } else { "firing" };
    let ends = alert.ends_ms.filter(|_| resolved).map(rfc3339);
    let told = serde_json::json!({
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(starts_ms),
        "endsAt": ends.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
        "generatorURL": "",
        "fingerprint": fingerprint(cluster, key),
    });
    Body {
        version: "4",
        group_key: format!("{{}}:{{alertname={:?}}}", rule.name),
        truncated: 0,
        status,
        receiver: "keyviz",
        group_labels: serde_json::json!({ "alertname": rule.name }),
        common_labels: labels,
        common_annotations: annotations,
        external_url: String::new(),
        alerts: vec![told],
    }
}

/// Equal for all that is told of one alert.
fn fingerprint(cluster: &str, key: &AlertKey) -> String {
    let route = key.route.map_or(0, RouteId::get).to_be_bytes();
    let bytes = cluster.bytes().chain([0]).chain(key.rule.bytes()).chain([0]).chain(route);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

impl AlertService {
    /// Tells the receiver what it has not been told, while this node leads.
    pub(super) async fn tell_receiver(&self) {
        let Some(webhook) = &self.webhook else { return std::future::pending().await };
        let mut pause = FIRST_PAUSE;
        loop {
            let Some((key, starts_ms, alert)) = self.untold() else {
                let _ = tokio::time::timeout(LOOK_EVERY, self.to_tell.notified()).await;
                continue;
            };
            // It fires first, even if it has ended meanwhile.
            let resolved = alert.firing_told;
            let Some(rule) = self.rules.iter().find(|rule| rule.name == key.rule) else {
                self.told(&key, starts_ms, true);
                continue;
            };
            let cluster = self.directory.cluster_id();
            let body = body(rule, cluster.as_str(), &key, starts_ms, &alert, resolved);
            match webhook.post(&body).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.counters.sent.fetch_add(1, Ordering::Relaxed);
                    self.told(&key, starts_ms, resolved);
                    self.told_members().await;
                }
                Err(error) => {
                    self.counters.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        alert = key.rule,
                        "the receiver of alerts was not told: {error}"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The oldest change that the receiver was not told; none while another node leads.
    fn untold(&self) -> Option<(AlertKey, u64, Alert)> {
        if !self.leads.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.lock();
        let untold =
            state.alerts.iter().filter(|(_, alert)| !alert.firing_told || alert.ends_ms.is_some());
        let oldest = untold.min_by_key(|((_, starts_ms), _)| *starts_ms);
        oldest.map(|((key, starts_ms), alert)| (key.clone(), *starts_ms, alert.clone()))
    }

    fn told(&self, key: &AlertKey, starts_ms: u64, resolved: bool) {
        let mut state = self.state.lock();
        let key = (key.clone(), starts_ms);
        if resolved {
            state.alerts.remove(&key);
        } else if let Some(alert) = state.alerts.get_mut(&key) {
            alert.firing_told = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_800_000_000_000), "2027-01-15T08:00:00.000Z");
    }

    #[test]
    fn a_firing_and_its_resolution_have_one_fingerprint_and_start() {
        let rules = super::super::parse_rules(super::super::DEFAULT_RULES).expect("shipped");
        let key = AlertKey { rule: rules[0].name.clone(), route: RouteId::new(7) };
        let alert = Alert { ends_ms: Some(60_000), rate: 12.0, firing_told: true };
        let of = |resolved| {
            let body = body(&rules[0], "c", &key, 1_000, &alert, resolved);
            serde_json::to_value(body).expect("it is JSON")
        };
        let (firing, resolved) = (of(false), of(true));
        assert_eq!(
            (&firing["status"], &resolved["status"]),
            (&"firing".into(), &"resolved".into())
        );
        let (fired, ended) = (&firing["alerts"][0], &resolved["alerts"][0]);
        for same in ["fingerprint", "startsAt", "labels"] {
            assert_eq!(fired[same], ended[same], "{same}");
        }
        assert_eq!(fired["labels"]["route_id"], "7");
        assert_eq!(ended["endsAt"], "1970-01-01T00:01:00.000Z");
        assert_eq!(firing["version"], "4");
    }
}
