//! Starts and stops nodes, for `serve` and `demo`.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use keyviz_core::{HistoryConfig, NodeId, SamplerConfig};
use keyviz_node::{
    BootstrapSpec, DEFAULT_REQUEST_TIMEOUT, KeyvizConfig, LoopWrap, Node, NodeConfig, NodeError,
    Origin,
};

use super::flags::keyviz_flags::HotKeys;
use super::otlp::{self, SpanLayer};
use super::serve::{LogFormat, ServeOptions, Start};
use super::terminal::json_log::JsonLines;
use super::terminal::talk;

/// A node that runs in this process.
pub struct RunningNode(Node);

impl RunningNode {
    /// Starts a node. When this returns, it serves. `None` if `stopped` completed while the node
    /// waited to join. `wrap`: see [`LoopWrap`].
    ///
    /// # Errors
    /// If its port is taken, its folder is in use or unreadable, or it belongs to another node.
    pub async fn start(
        options: ServeOptions,
        stopped: impl Future<Output = ()> + Send,
        wrap: Option<LoopWrap>,
    ) -> anyhow::Result<Option<Self>> {
        let alerts = options.alerts.parsed()?;
        let config = NodeConfig { alerts, ..config(options)? };
        let started = match wrap {
            Some(wrap) => Node::start_wrapped(config, stopped, wrap).await?,
            None => Node::start_unless(config, stopped).await?,
        };
        Ok(started.map(RunningNode))
    }

    /// Waits until the node fails, and returns why.
    pub async fn failed(&self) -> anyhow::Error {
        anyhow::anyhow!(self.0.failed().await)
    }

    /// Reads certificates, token and secret again, and logs errors.
    pub async fn reload_security(&self) {
        for error in self.0.reload_security().await.err().into_iter().flatten() {
            tracing::error!("{error}; the previous credentials stay in force");
        }
    }

    /// Finishes the requests in flight, writes what is in memory, and stops.
    ///
    /// # Errors
    /// If something could not be written.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.0.shutdown().await.context("the node stopped, but its storage did not close in order")
    }
}

fn config(options: ServeOptions) -> Result<NodeConfig, NodeError> {
    let keyviz = &options.keyviz;
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let sampler = SamplerConfig {
        enabled: keyviz.enabled,
        max_tracked_routes: count(keyviz.max_tracked_routes),
        max_member_routes_per_slot: count(keyviz.max_member_routes_per_slot),
        resolution_slots: count(keyviz.resolution_slots),
        hot_keys: keyviz.hot_keys != HotKeys::Off,
        ..SamplerConfig::default()
    };
    let hash_keys = keyviz.hot_keys == HotKeys::Hashed;
    let history = HistoryConfig {
        step_ms: u64::try_from(keyviz.step.as_millis()).unwrap_or(u64::MAX),
        columns: count(keyviz.history_columns),
        bytes: count(keyviz.history_bytes),
    };
    let origin = match options.start {
        Start::Bootstrap(bootstrap) => {
            let members = bootstrap.members.into_iter();
            Origin::Bootstrap(BootstrapSpec::new(
                members.map(|(id, address)| (NodeId(id), address.to_string())).collect(),
                bootstrap.groups,
                bootstrap.replication,
                bootstrap.split_at,
            )?)
        }
        Start::Join(through) => Origin::Join(through.to_string()),
        Start::Replace(through) => Origin::Replace(through.to_string()),
        Start::Resume => Origin::Restart,
    };
    Ok(NodeConfig {
        id: NodeId(options.id),
        data: options.data,
        listen: options.listen,
        advertise: Some(options.advertise.to_string()),
        http: options.http,
        http_hosts: options.http_hosts,
        origin,
        keyviz: KeyvizConfig {
            sampler,
            history,
            hash_keys,
            copies: count(keyviz.history_copies),
            copies_bytes: count(keyviz.history_copies_bytes),
        },
        move_bytes_per_s: options.move_bytes_per_s,
        verify_every: options.verify_every,
        verify_bytes_per_s: options.verify_bytes_per_s,
        replace_after: options.replace_after,
        autopilot: options.autopilot,
        storage: (&options.storage).into(),
        queue_bytes: options.storage.queue_bytes,
        request_timeout: DEFAULT_REQUEST_TIMEOUT,
        security: options.security,
        lost_log_lines: talk::lost_lines,
        dropped_spans: otlp::dropped_spans,
        alerts: Default::default(),
    })
}

/// Starts logging to stderr with `filter`, and gives spans to `spans` whatever the filter.
///
/// # Errors
/// If the filter is malformed (the flags have checked theirs), or no thread can be had.
pub fn log_to_stderr(
    filter: &str,
    format: LogFormat,
    spans: Option<SpanLayer>,
) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    talk::start().context("the system gives no thread to write the log")?;
    // An embedding process may have set up logging already; it is kept.
    let _ = match spans {
        // The filter is that of all, so that what nobody logs costs nothing.
        None => tracing_subscriber::registry().with(filter).with(lines(format)).try_init(),
        Some(spans) => {
            let lines = lines(format).with_filter(filter);
            tracing_subscriber::registry().with(spans).with(lines).try_init()
        }
    };
    Ok(())
}

/// Writes events as lines to stderr.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        // An error inside the log is said on stderr, where it would be a panic.
        .log_internal_errors(false)
        .with_writer(talk::LogLines);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.with_ansi(false).event_format(JsonLines).boxed(),
    }
}

/// Waits for SIGHUP.
#[derive(Debug)]
pub struct Reloads(tokio::signal::unix::Signal);

impl Reloads {
    /// Handles the signal from now on, so that it no longer ends the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Reloads(signal(SignalKind::hangup())?))
    }

    /// The next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Waits for SIGINT or SIGTERM.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
