//! The autopilot.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use keyviz_catalog::AppliedCatalog;
use keyviz_core::autopilot::Mode;

use super::gauges::gauges;
use super::page::Page;
use crate::autopilot::Autopilot;

/// What this node did as the one that acts, and the journal as applied here.
pub(super) fn encode(
    autopilot: &Autopilot,
    catalog: &AppliedCatalog,
    page: &mut Page<'_>,
) -> fmt::Result {
    let (mode, _) = autopilot.mode();
    let modes =
        Mode::ALL.into_iter().map(|of| ([("mode", of.name().to_owned())], u64::from(of == mode)));
    gauges(&mut page.0, "autopilot_mode", "1 for the mode of the autopilot", modes)?;
    let counters = autopilot.counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let help = "Looks of the autopilot at the load, on this node";
    page.counter("autopilot_looks", help, read(&counters.looks))?;
    let help = "Acts of the journal that this node carried out";
    page.counter("acts_done", help, read(&counters.done))?;
    let help = "Acts of the journal that this node could not carry out";
    page.counter("acts_failed", help, read(&counters.failed))?;
    let help = "Acts that the autopilot of this node began to take an earlier one back";
    page.counter("acts_undone", help, read(&counters.undone))?;
    let journal = catalog.journal();
    let under_way = journal.entries().filter(|entry| entry.ended_ms == 0).count() as u64;
    page.gauge("acts_under_way", "Acts of the journal that have not ended", under_way)?;
    let entries = journal.entries().len() as u64;
    page.gauge("journal_entries", "Entries of the journal", entries)?;
    let help = "The hottest node over the mean of all at the last look, on the node that acts";
    let imbalance = autopilot.imbalance();
    let encoder =
        page.0.encode_descriptor("autopilot_imbalance_ratio", help, None, MetricType::Gauge)?;
    ConstGauge::new(imbalance).encode(encoder)
}
