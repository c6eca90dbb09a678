//! Alerts that fire, and what became of telling their receiver.

use std::fmt;
use std::sync::atomic::Ordering;

use super::gauges::gauges;
use super::page::Page;
use crate::alerts::AlertService;

pub(super) fn encode(service: &AlertService, page: &mut Page<'_>) -> fmt::Result {
    let known = service.known();
    let firing = |name: &str| {
        let of = known.alerts.iter().filter(|alert| alert.ends_ms.is_none() && alert.rule == name);
        of.count() as u64
    };
    let rules = service.rules.iter();
    let values = rules.map(|rule| {
        let labels = [("alert", rule.name.clone()), ("severity", rule.severity.clone())];
        (labels, firing(&rule.name))
    });
    gauges(&mut page.0, "alert", "Alerts of the rule that fire", values)?;
    let judged = known.judged_ms / 1_000;
    let help = "End of the last column that was judged for alerts, in seconds since 1970";
    page.gauge("alerts_judged_timestamp_seconds", help, judged)?;
    let counters = &service.counters;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let help = "Changes of alerts that the receiver has taken";
    page.counter("alerts_sent", help, read(&counters.sent))?;
    let help = "Times that the receiver of alerts did not take a change";
    page.counter("alerts_failed", help, read(&counters.failed))?;
    let help = "Alerts that were forgotten because there were too many";
    page.counter("alerts_forgotten", help, read(&counters.forgotten))
}
