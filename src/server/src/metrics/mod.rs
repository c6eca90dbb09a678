//! `/metrics`: read from the parts at each scrape, so that counting costs them nothing extra.

mod gauges;
mod process;
mod requests;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use keyviz_catalog::AppliedCatalog;
use keyviz_fanout::Fanout;
use keyviz_kv::Coordinator;
use keyviz_raft::{Group, GroupStatus, Groups, Role, Storage, WriterStats};

use crate::loops::LoopHealth;
use crate::verify::Verification;
use gauges::{by_group, gauges, signed};
use process::Process;
pub(crate) use requests::{RequestKind, Requests};

/// Where the numbers come from.
pub(crate) struct MetricsParts {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) groups: Groups,
    pub(crate) fanout: Arc<Fanout>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) catalog: AppliedCatalog,
    pub(crate) storage: Storage,
    pub(crate) verification: Arc<Verification>,
    pub(crate) loops: Arc<LoopHealth>,
}

/// The node's metrics.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(parts: MetricsParts) -> Self {
        let mut registry = Registry::with_prefix("keyviz");
        let requests = requests::RequestsCollector(Arc::clone(&parts.requests));
        registry.register_collector(Box::new(requests));
        registry.register_collector(Box::new(Parts(parts)));
        Metrics { registry }
    }

    /// Everything, in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> String {
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
        self.sampler(&mut page)?;
        self.fanout(&mut page)?;
        verify::encode(&self.0.verification.totals(), &mut page.0)?;
        loops(&self.0.loops, &mut page.0)?;
        process(&mut page)
    }
}

/// The restarts of control loops.
fn loops(health: &LoopHealth, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Restarts of a control loop after it ended or panicked";
    let mut restarts =
        encoder.encode_descriptor("loop_restarts", help, None, MetricType::Counter)?;
    for (name, count) in health.restarts() {
        ConstCounter::new(count).encode(restarts.encode_family(&[("loop", name)])?)?;
    }
    Ok(())
}

/// One group's number in one metric.
type GroupNumber = (&'static str, &'static str, fn(&GroupStatus) -> u64);

const GROUP_NUMBERS: &[GroupNumber] = &[
    ("raft_leading", "1 while this node leads the group", |group| {
        u64::from(group.role == Role::Leader)
    }),
    ("raft_term", "Current term", |group| group.term.0),
    ("raft_last_log_index", "Last entry in the log", |group| group.last_log.unwrap_or(0)),
    ("raft_commit_index", "Last entry known to be committed", |group| {
        group.committed.map_or(0, |at| at.index)
    }),
    ("raft_applied_index", "Last entry applied", |group| group.applied.map_or(0, |at| at.index)),
    ("raft_apply_lag", "Entries in the log here that are not applied here", |group| {
        let applied = group.applied.map_or(0, |at| at.index);
        group.last_log.unwrap_or(0).saturating_sub(applied)
    }),
    ("raft_stopped", "1 after the group stopped on this node for a fault", |group| {
        u64::from(group.stopped.is_some())
    }),
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
        let (clients, nodes) = self.0.coordinator.under_way();
        page.gauge("requests_under_way", "Requests of clients under way", clients)?;
        page.gauge("peer_requests_under_way", "Requests of other nodes under way", nodes)?;
        let retries = "Requests tried again inside the server after a definite refusal";
        page.counter("request_retries", retries, read(&counters.retries))
    }

    fn groups(&self, page: &mut Page<'_>) -> fmt::Result {
        let groups = self.0.groups.list();
        let statuses: Vec<GroupStatus> = groups.iter().map(|group| group.status()).collect();
        for (name, help, number) in GROUP_NUMBERS {
            let values = statuses.iter().map(|status| (by_group(status.group.0), number(status)));
            gauges(&mut page.0, name, help, values)?;
        }
        let help = "On the leader: entries of its log that the member is not known to have";
        gauges(&mut page.0, "raft_follower_lag", help, statuses.iter().flat_map(follower_lags))?;
        let under_way = |group: &Arc<Group>| (by_group(group.id().0), group.proposals_under_way());
        let help = "Proposals made here and not answered yet";
        gauges(&mut page.0, "raft_proposals_under_way", help, groups.iter().map(under_way))?;
        let help = "Bytes of proposals made here that have no outcome yet";
        page.gauge("raft_queue_bytes", help, self.0.groups.queue_bytes())?;
        let waiting = self.0.groups.peers().appends_in_flight().into_iter();
        let waiting = waiting.map(|(peer, count)| ([("peer", peer.to_string())], count));
        let help = "Append requests queued for or sent to a peer and not answered yet";
        gauges(&mut page.0, "raft_appends_in_flight", help, waiting)
    }

    fn storage(&self, page: &mut Page<'_>) -> fmt::Result {
        let writer = self.0.storage.writer_stats();
        page.counter("log_batches", "Durable syncs of the log writer", writer.batches)?;
        page.counter("log_entries", "Log entries made durable", writer.entries)?;
        page.counter("log_bytes", "Bytes made durable", writer.bytes)?;
        log_histograms(page, &writer)?;
        let queued = self.0.storage.writer_queue() as u64;
        page.gauge("log_queue", "Operations that wait for the log writer", queued)?;
        let disk = self.0.storage.disk_bytes().unwrap_or(0);
        page.gauge("disk_bytes", "Bytes of the databases on disk", disk)?;
        let (free, floor) = self.0.storage.free_bytes();
        page.gauge("disk_free_bytes", "Bytes free on the disk of the data", free)?;
        let help = "Free bytes below which writes are refused; 0: none are";
        page.gauge("disk_min_free_bytes", help, floor)?;
        let full = u64::from(self.0.storage.check_room().is_err());
        page.gauge("disk_full", "1 while writes are refused because the disk is full", full)?;
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
        let local = self.0.fanout.local();
        page.gauge("sampler_enabled", "1 while the sampler is on", u64::from(local.enabled()))?;
        let stats = local.sampler().stats();
        page.counter("sampler_epochs", "Epochs published", stats.epochs_published)?;
        page.gauge("sampler_epochs_draining", "Replaced epochs still held", stats.draining as u64)?;
        page.gauge("sampler_slots", "Slots of the current epoch", stats.slots as u64)?;
        page.gauge("sampler_shards", "Shards in use", stats.shards_in_use as u64)?;
        page.gauge("sampler_bytes", "Bytes of counters", stats.counter_bytes as u64)?;
        let shared = "Records that had to share a counter with other threads";
        page.counter("sampler_overflow_records", shared, stats.overflow_records)?;
        let flushes = local.flush_stats();
        page.counter("sampler_flushes", "Moves of counts into the history", flushes.flushes)?;
        let time = "Time in them";
        page.seconds("sampler_flush_seconds", time, flushes.time)?;
        let what = "Operations that no route could be told for; 0 unless something is wrong";
        page.counter("sampler_unattributed", what, flushes.unattributed)?;
        let held = local.history().holdings();
        page.gauge("history_columns", "Columns held", held.columns)?;
        page.gauge("history_bytes", "Bytes of history", held.bytes as u64)?;
        let what = "Stored records of the history that could not be read at the start; 0 unless something is wrong";
        page.gauge("history_damaged_records", what, local.damaged_records())
    }

    fn fanout(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = self.0.fanout.counters();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        page.counter("fanout_queries", "Matrices put together here", read(&counters.queries))?;
        let what = "Questions answered with the matrix of another, identical one";
        page.counter("fanout_shared", what, read(&counters.shared))?;
        let what = "Questions refused because too many were under way";
        page.counter("fanout_refused", what, read(&counters.refused))?;
        let what = "Computations for a matrix that ended early because nobody waited any more";
        let called_off = self.0.fanout.local().work().called_off();
        page.counter("fanout_called_off", what, called_off as u64)?;
        let help = "Members asked for their part of a matrix, by what came of it";
        let kind = MetricType::Counter;
        let mut family = page.0.encode_descriptor("fanout_members", help, None, kind)?;
        for (outcome, count) in
            [("answered", read(&counters.answered)), ("failed", read(&counters.failed))]
        {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn follower_lags(
    status: &GroupStatus,
) -> impl Iterator<Item = ([(&'static str, String); 2], u64)> + '_ {
    let last = status.last_log.unwrap_or(0);
    status.matched.iter().map(move |(peer, matched)| {
        let labels = [("group", status.group.0.to_string()), ("peer", peer.to_string())];
        (labels, last.saturating_sub(matched.unwrap_or(0)))
    })
}

fn log_histograms(page: &mut Page<'_>, writer: &WriterStats) -> fmt::Result {
    let bounds =
        |n| WriterStats::bucket_bound(n).map_or(f64::MAX, |bound: Duration| bound.as_secs_f64());
    let buckets: Vec<_> =
        writer.sync_buckets.iter().enumerate().map(|(n, count)| (bounds(n), *count)).collect();
    let sync = writer.sync_time.as_secs_f64();
    page.histogram("log_sync_seconds", "Time of a durable sync", sync, &buckets)?;
    let bounds = |n| WriterStats::batch_bound(n).map_or(f64::MAX, |bound| bound as f64);
    let buckets: Vec<_> =
        writer.batch_buckets.iter().enumerate().map(|(n, count)| (bounds(n), *count)).collect();
    let help = "Operations (appends, votes, truncations, purges) that one sync covers";
    page.histogram("log_batch_operations", help, writer.operations as f64, &buckets)?;
    page.seconds("log_write_seconds", "Time in writes before the syncs", writer.write_time)
}

fn process(page: &mut Page<'_>) -> fmt::Result {
    let Some(process) = Process::now() else { return Ok(()) };
    page.gauge("process_resident_bytes", "Memory in use", process.resident_bytes)?;
    page.gauge("process_virtual_bytes", "Address space", process.virtual_bytes)?;
    page.gauge("process_open_fds", "Open files and sockets", process.open_fds)?;
    if let Some(most) = process.max_fds {
        page.gauge("process_max_fds", "Files and sockets that may be open", most)?;
    }
    page.gauge("process_threads", "Threads", process.threads)?;
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let tasks = runtime.metrics().num_alive_tasks() as u64;
        page.gauge("process_tasks", "Asynchronous tasks that have not ended", tasks)?;
    }
    let cpu = Duration::from_secs_f64(process.cpu_seconds);
    page.seconds("process_cpu_seconds", "Time on a core", cpu)
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

    /// Seconds spent so far.
    fn seconds(&mut self, name: &str, help: &str, time: Duration) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(time.as_secs_f64()).encode(encoder)
    }

    /// Buckets are given with their upper bounds and what is in each alone.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}
