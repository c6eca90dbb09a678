//! `/metrics`: read from the parts at each scrape, so that counting costs them nothing extra.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::fanout::LocalMatrix;
use crate::kv::Coordinator;
use crate::raft::{AppliedCatalog, GroupStatus, Groups, Role, Storage};

/// Where the numbers come from.
pub(super) struct MetricsParts {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) groups: Groups,
    pub(super) local: Arc<LocalMatrix>,
    pub(super) catalog: AppliedCatalog,
    pub(super) storage: Storage,
}

/// The node's metrics.
pub(super) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(super) fn new(parts: MetricsParts) -> Self {
        let mut registry = Registry::with_prefix("keyviz");
        registry.register_collector(Box::new(Parts(parts)));
        Metrics { registry }
    }

    /// Everything, in the OpenMetrics text format.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes text");
        text
    }
}

struct Parts(MetricsParts);

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

impl Collector for Parts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.requests(&mut page)?;
        self.groups(&mut page)?;
        self.storage(&mut page)?;
        self.sampler(&mut page)
    }
}

/// One group's number in one metric.
type GroupNumber = (&'static str, &'static str, fn(&GroupStatus) -> u64);

const GROUP_NUMBERS: &[GroupNumber] = &[
    ("raft_leading", "1 while this node leads the group", |group| {
        u64::from(group.role == Role::Leader)
    }),
    ("raft_term", "Current term", |group| group.term.0),
    ("raft_last_log_index", "Last entry in the log", |group| group.last_log.unwrap_or(0)),
    ("raft_applied_index", "Last entry applied", |group| group.applied.map_or(0, |at| at.index)),
];

impl Parts {
    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = self.0.coordinator.counters();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        page.counter("writes_proposed", "Writes proposed by this node", read(&counters.proposed))?;
        page.counter("reads_served", "Reads served by this node", read(&counters.reads_served))?;
        let forwarded = "Writes sent on to another node";
        page.counter("writes_forwarded", forwarded, read(&counters.forwarded_writes))?;
        let forwarded = "Reads sent on to another node";
        page.counter("reads_forwarded", forwarded, read(&counters.forwarded_reads))?;
        let retries = "Requests tried again inside the server after a definite refusal";
        page.counter("request_retries", retries, read(&counters.retries))
    }

    fn groups(&self, page: &mut Page<'_>) -> fmt::Result {
        let groups: Vec<(u64, GroupStatus)> =
            self.0.groups.list().into_iter().map(|group| (group.id().0, group.status())).collect();
        for (name, help, number) in GROUP_NUMBERS {
            let values = groups.iter().map(|(id, metrics)| (*id, number(metrics)));
            page.gauge_by_group(name, help, values)?;
        }
        Ok(())
    }

    fn storage(&self, page: &mut Page<'_>) -> fmt::Result {
        let writer = self.0.storage.writer_stats();
        page.counter("log_batches", "Durable syncs of the log writer", writer.batches)?;
        page.counter("log_entries", "Log entries made durable", writer.entries)?;
        page.counter("log_bytes", "Bytes made durable", writer.bytes)?;
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        page.counter("log_sync_microseconds", "Time in durable syncs", micros(writer.sync_time))?;
        page.counter("log_write_microseconds", "Time in writes", micros(writer.write_time))?;
        let disk = self.0.storage.disk_bytes().unwrap_or(0);
        page.gauge("disk_bytes", "Bytes of the database on disk", disk)?;
        let faulty = u64::from(self.0.storage.fault().is_some());
        page.gauge(
            "storage_fault",
            "1 after the storage failed and the node stopped serving",
            faulty,
        )
    }

    fn sampler(&self, page: &mut Page<'_>) -> fmt::Result {
        let catalog = self.0.catalog.table();
        page.gauge("catalog_version", "Applied catalog version", catalog.version())?;
        page.gauge("catalog_routes", "Live routes", catalog.len() as u64)?;
        let local = &self.0.local;
        page.gauge("sampler_enabled", "1 while the sampler is on", u64::from(local.enabled()))?;
        let stats = local.sampler().stats();
        page.counter("sampler_epochs", "Epochs published", stats.epochs_published)?;
        page.gauge("sampler_epochs_draining", "Replaced epochs still held", stats.draining as u64)?;
        page.gauge("sampler_slots", "Slots of the current epoch", stats.slots as u64)?;
        page.gauge("sampler_shards", "Shards in use", stats.shards_in_use as u64)?;
        page.gauge("sampler_bytes", "Bytes of counters", stats.counter_bytes as u64)?;
        let held = local.history().holdings();
        page.gauge("history_columns", "Columns held", held.columns)?;
        page.gauge("history_bytes", "Bytes of history", held.bytes as u64)
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(signed(value)).encode(encoder)
    }

    fn gauge_by_group(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (u64, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (group, value) in values {
            let labels = [("group", group.to_string())];
            ConstGauge::new(signed(value)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Gauges are signed in the text format.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
