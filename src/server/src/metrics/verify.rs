//! The results of replica verifications.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::gauges::{by_group, gauges};
use crate::verify::Totals;

pub(crate) fn encode(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Verifications of a group that this node coordinated, by what they came to";
    let mut runs = encoder.encode_descriptor("verify_runs", help, None, MetricType::Counter)?;
    for (result, count) in totals.runs {
        ConstCounter::new(count).encode(runs.encode_family(&[("result", result)])?)?;
    }
    let help =
        "Replicas of the group with other rows than the majority, when they were last compared";
    let compared = totals.compared.iter();
    let differing = compared.clone().map(|(group, last)| (by_group(group.0), last.differing));
    gauges(encoder, "verify_differing_replicas", help, differing)?;
    let help = "When the replicas of the group were last compared, in seconds since 1970";
    let at = compared.map(|(group, last)| (by_group(group.0), last.at_ms / 1_000));
    gauges(encoder, "verify_last_timestamp_seconds", help, at)
}
