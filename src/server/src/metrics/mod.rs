//! `/metrics`: read from the parts at each scrape, so that counting costs them nothing extra.

mod alerts;
mod autopilot;
mod copies;
mod edge;
mod gauges;
mod moves;
mod page;
mod parts;
mod process;
mod requests;
mod text;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use keyviz_fanout::HotKeysMode;
use keyviz_raft::{Group, GroupLoad, GroupStatus, WriterStats};

use crate::loops::LoopHealth;
use gauges::{by_group, counters, gauges};
use page::Page;
pub(crate) use parts::MetricsParts;
pub(crate) use requests::{RequestKind, Requests};
pub(crate) use text::TextForm;

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

    /// Everything.
    pub(crate) fn encode(&self, form: TextForm) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("a string takes text");
        match form {
            TextForm::OpenMetrics => page,
            TextForm::Plain => text::plain(&page),
        }
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
        moves::counters(self.0.coordinator.move_counters(), &mut page)?;
        moves::phases(&self.0.catalog.moves(), &mut page.0)?;
        autopilot::encode(&self.0.autopilot, &self.0.catalog, &mut page)?;
        verify::encode(&self.0.verification.totals(), &mut page.0)?;
        loops(&self.0.loops, &mut page.0)?;
        alerts::encode(&self.0.alerts, &mut page)?;
        edge::encode(&self.0, &mut page)
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
        page.counter("request_retries", retries, read(&counters.retries))?;
        let moved = "Requests whose keys had moved or were moving, and that were tried again";
        page.counter("requests_moved", moved, read(&counters.moved_keys))
    }

    fn groups(&self, page: &mut Page<'_>) -> fmt::Result {
        let groups = self.0.groups.list();
        let statuses: Vec<GroupStatus> = groups.iter().map(|group| group.status()).collect();
        for (name, help, number) in GROUP_NUMBERS {
            let values = statuses.iter().map(|status| (by_group(status.group.0), number(status)));
            gauges(&mut page.0, name, help, values)?;
        }
        let served = |group: &Arc<Group>| (by_group(group.id().0), group.served_by());
        let served: Vec<_> = groups.iter().map(served).collect();
        let here = self.0.groups.node();
        let leading = served.iter().map(|(labels, leader)| {
            (labels.clone(), u64::from(leader.as_ref().is_ok_and(|leader| *leader == here)))
        });
        let help = "1 while this node leads the group and a quorum confirms it";
        gauges(&mut page.0, "raft_leading", help, leading)?;
        let help = "1 while this node knows a leader of the group that a quorum confirmed within \
                    3 seconds";
        let quorum = served.iter();
        let quorum = quorum.map(|(labels, leader)| (labels.clone(), u64::from(leader.is_ok())));
        gauges(&mut page.0, "raft_quorum", help, quorum)?;
        let help = "On the leader: entries of its log that the member is not known to have";
        gauges(&mut page.0, "raft_follower_lag", help, statuses.iter().flat_map(follower_lags))?;
        self.load(page, &groups)?;
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

    fn load(&self, page: &mut Page<'_>, groups: &[Arc<Group>]) -> fmt::Result {
        let loads: Vec<_> =
            groups.iter().map(|group| (by_group(group.id().0), group.load())).collect();
        let numbers = |number: fn(&GroupLoad) -> u64| {
            loads.iter().map(move |(labels, load)| (labels.clone(), number(load)))
        };
        let help = "Commands that this node proposed to the group";
        counters(&mut page.0, "group_proposals", help, numbers(|load| load.proposals))?;
        let help = "Bytes of the commands that this node proposed to the group";
        counters(&mut page.0, "group_proposed_bytes", help, numbers(|load| load.bytes))?;
        let help = "Reads that this node served from its replica of the group";
        counters(&mut page.0, "group_reads", help, numbers(|load| load.reads))?;
        let changes = groups.iter();
        let changes = changes.map(|group| (by_group(group.id().0), group.leader_changes()));
        let help =
            "Elections of the group that this node saw: another leader, or a new term of one";
        counters(&mut page.0, "raft_leader_changes", help, changes)
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
        let full = u64::from(self.0.storage.check_space().is_err());
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
        let mode = u64::from(local.hot_keys_mode() != HotKeysMode::Off);
        page.gauge("hot_keys_enabled", "1 while keys of operations are looked at", mode)?;
        let what = "Operations whose keys were looked at";
        page.counter("hot_keys_operations", what, stats.hot_key_operations)?;
        let what = "Keys that lost their counter to another";
        page.counter("hot_keys_replaced", what, stats.hot_keys_replaced)?;
        let what = "Most operations that a key without a counter had in the last flush";
        page.gauge("hot_keys_error", what, stats.hot_key_error)?;
        let what = "Bytes of the counters of keys";
        page.gauge("hot_keys_bytes", what, stats.hot_key_bytes as u64)?;
        let flushes = local.flush_stats();
        page.counter("sampler_flushes", "Moves of counts into the history", flushes.flushes)?;
        let time = "Time in them";
        page.seconds("sampler_flush_seconds", time, flushes.time)?;
        let what = "Operations that no route could be told for; 0 unless something is wrong";
        page.counter("sampler_unattributed", what, flushes.unattributed)?;
        let held = local.history().holdings();
        page.gauge("history_columns", "Columns held", held.columns)?;
        page.gauge("history_bytes", "Bytes of history", held.bytes as u64)?;
        let what = "Bytes of the hot keys of closed columns";
        page.gauge("history_hot_keys_bytes", what, held.hot_key_bytes as u64)?;
        let what = "Stored records of the history that could not be read at the start; 0 unless \
                    something is wrong";
        page.gauge("history_damaged_records", what, local.damaged_records())?;
        copies::counters(local, page)
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
    let bounds = |n| {
        WriterStats::bucket_bound(n).map_or(f64::INFINITY, |bound: Duration| bound.as_secs_f64())
    };
    let buckets: Vec<_> =
        writer.sync_buckets.iter().enumerate().map(|(n, count)| (bounds(n), *count)).collect();
    let sync = writer.sync_time.as_secs_f64();
    page.histogram("log_sync_seconds", "Time of a durable sync", sync, &buckets)?;
    let bounds = |n| WriterStats::batch_bound(n).map_or(f64::INFINITY, |bound| bound as f64);
    let buckets: Vec<_> =
        writer.batch_buckets.iter().enumerate().map(|(n, count)| (bounds(n), *count)).collect();
    let help = "Operations (appends, votes, truncations, purges) that one sync covers";
    page.histogram("log_batch_operations", help, writer.operations as f64, &buckets)?;
    page.seconds("log_write_seconds", "Time in writes before the syncs", writer.write_time)
}
