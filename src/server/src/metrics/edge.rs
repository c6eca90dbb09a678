//! Connections, refused calls, the certificate, the log and the process: what the edge sees.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::gauges::{gauges, signed};
use super::page::Page;
use super::parts::MetricsParts;
use super::process::Process;
use keyviz_raft::DATA_FORMAT;
use keyviz_security::Tls;

pub(super) fn encode(parts: &MetricsParts, page: &mut Page<'_>) -> fmt::Result {
    let counts = parts.security.connections.counts();
    let open = [("grpc", counts.grpc), ("http", counts.http)];
    let open = open.into_iter().map(|(port, count)| ([("port", port.to_owned())], count));
    gauges(&mut page.0, "connections", "Connections of callers that are open, by port", open)?;
    let help = "Connections of callers that were taken";
    page.counter("connections_taken", help, counts.taken)?;
    let help = "Connections of callers that were closed because nothing moved on them";
    page.counter("connections_closed_idle", help, counts.closed_idle)?;
    let help = "Connections that were closed at once because callers hold all that there may be";
    page.counter("connections_turned_away", help, counts.turned_away)?;
    let help = "Answers that were given up because the caller did not take them";
    page.counter("answers_unread", help, counts.unread)?;
    let help = "Calls that were refused, by what they lacked";
    let kind = MetricType::Counter;
    let mut family = page.0.encode_descriptor("calls_refused", help, None, kind)?;
    let refused = parts.gate.as_ref().map(|gate| gate.refused()).unwrap_or_default();
    for (lacking, count) in refused {
        let labels = [("lacking", lacking)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    if let Some(end) = parts.security.tls.as_ref().and_then(Tls::ends_at) {
        let help = "When the certificate of this node, or a link of it to the CA, expires, in \
                    seconds since 1970";
        page.gauge("certificate_expiry_timestamp_seconds", help, end)?;
    }
    let lost = (parts.lost_log_lines)();
    page.counter("log_lines_lost", "Lines of the log that could not be written", lost)?;
    let help =
        "Spans that were not exported: there were too many, or the collector did not take them";
    page.counter("otlp_spans_dropped", help, (parts.dropped_spans)())?;
    build(page)?;
    process(parts.started, page)
}

fn build(page: &mut Page<'_>) -> fmt::Result {
    let help = "Always 1; the labels say what runs";
    let kind = MetricType::Gauge;
    let mut family = page.0.encode_descriptor("build_info", help, None, kind)?;
    let format = DATA_FORMAT.to_string();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("data_format", format.as_str())];
    ConstGauge::new(signed(1)).encode(family.encode_family(&labels)?)
}

fn process(started: SystemTime, page: &mut Page<'_>) -> fmt::Result {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    page.gauge("start_time_seconds", "When the node started, in seconds since 1970", since)?;
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
