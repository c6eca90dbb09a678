//! `demo`: a whole cluster in one process, a workload, and its heatmap.

mod watch;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::keyviz_flags::{self, KeyvizArgs, KeyvizOptions};
use super::load::{
    DEFAULT_VALUE_BYTES, LoadOptions, LoadReport, Pattern, PatternOptions, Progress, Workload,
    latency_words, run, split_keys,
};
use super::output::ColorDepth;
use super::running::{self, RunningNode, Signals};
use super::serve::{self, Bootstrap, DEFAULT_REPLICATION, MAX_REPLICATION, ServeOptions, Start};
use super::storage_flags::{StorageArgs, StorageFlags};
use super::talk::say;
use super::text::thousands;
use super::values::{self, Address};
use super::{CliError, UsageError};
use keyviz_raft::GroupOptions;
use keyviz_security::SecurityConfig;
use watch::Watch;

/// Nodes where nothing else was said.
pub const DEFAULT_NODES: u64 = 3;
/// First gRPC port where nothing else was said.
pub const DEFAULT_PORT: u16 = 7401;
/// HTTP ports are this much above the gRPC ports.
pub const HTTP_PORT_OFFSET: u16 = 100;
/// Routes at the start: enough rows to see a pattern, few enough for one screen.
pub const ROUTES: u64 = 32;
/// Beginning of the workload's keys: not that of `load`, which verifies what it wrote.
pub const KEY_PREFIX: &str = "demo/";
/// Distinct keys of the workload.
pub const KEYS: u64 = 100_000;
/// Operations a second of the workload: busy, but no burden for a laptop.
pub const RATE: f64 = 1_000.0;
/// Clients of the workload.
pub const CLIENTS: usize = 24;
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the nodes log where nothing is drawn in place.
const LOG: &str = "error";
/// Attempts at removing the temporary folder.
const REMOVALS: u32 = 20;
/// Time between two of them.
const REMOVE_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Memory for cached pages of each node.
const CACHE_BYTES: u64 = 8 << 20;

/// All that `demo` was told, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct DemoOptions {
    /// Nodes, at least 1.
    pub nodes: u64,
    /// Raft groups of data.
    pub groups: u64,
    /// Folder for the nodes' folders; `None`: a temporary one that is removed.
    pub data: Option<PathBuf>,
    /// gRPC port of the first node; the others follow.
    pub port: u16,
    /// The workload; `None`: none.
    pub load: Option<Pattern>,
    /// When to end; `None`: at Ctrl-C.
    pub duration: Option<Duration>,
    /// The visualizer.
    pub keyviz: KeyvizOptions,
    /// Memory and disk.
    pub storage: StorageFlags,
}

/// `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Nodes, 1 to 9
    #[arg(long, env = "KEYVIZ_NODES", value_name = "N", default_value_t = DEFAULT_NODES, value_parser = |text: &str| values::number_in(text, 1, MAX_REPLICATION))]
    nodes: u64,
    /// Raft groups that hold the data, 1 to 1,024
    #[arg(long, env = "KEYVIZ_GROUPS", value_name = "N", default_value_t = serve::DEFAULT_GROUPS, value_parser = serve::groups)]
    groups: u64,
    /// Length of a heatmap column, 1s to 1h
    #[arg(long, visible_alias = "keyviz-step", env = "KEYVIZ_STEP", value_name = "DURATION", default_value = "2s", value_parser = keyviz_flags::step)]
    step: Duration,
    /// Folder for the nodes' data; absent: a temporary one that is removed at the end
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// gRPC port of the first node on loopback; the others follow, and HTTP is 100 above each
    #[arg(long, env = "KEYVIZ_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Pattern of the workload: 1,000 operations a second, half of them writes, over 100,000 keys
    /// that begin with demo/
    #[arg(long, value_enum, value_name = "PATTERN", default_value = "hotspot")]
    load: Pattern,
    /// End after this long, such as 30s; absent: at Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Start no workload
    #[arg(long, conflicts_with = "load")]
    no_load: bool,
    #[command(flatten)]
    keyviz: KeyvizArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

impl DemoArgs {
    /// Checks what no flag can check alone.
    ///
    /// # Errors
    /// Naming the flag and its value.
    pub fn options(self) -> Result<DemoOptions, UsageError> {
        let last = u64::from(self.port) + u64::from(HTTP_PORT_OFFSET) + self.nodes - 1;
        if last > u64::from(u16::MAX) {
            let reason = format!("the HTTP port of the last node would be {last}");
            return Err(UsageError::value("--port <PORT>", self.port, reason));
        }
        Ok(DemoOptions {
            nodes: self.nodes,
            groups: self.groups,
            data: self.data,
            port: self.port,
            load: (!self.no_load).then_some(self.load),
            duration: self.duration,
            keyviz: self.keyviz.options(self.step),
            storage: self.storage.flags(CACHE_BYTES),
        })
    }
}

impl DemoOptions {
    fn address(&self, node: u64, offset: u16) -> SocketAddr {
        // Checked when the options were made: the last port exists.
        let port = self.port + offset + (node - 1) as u16;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    /// gRPC addresses of all nodes.
    pub fn addresses(&self) -> Vec<Address> {
        (1..=self.nodes).map(|node| self.address(node, 0).into()).collect()
    }

    /// One `serve` a node, with folders below `data`.
    pub fn members(&self, data: &Path) -> Vec<ServeOptions> {
        let members: BTreeMap<u64, Address> = (1..).zip(self.addresses()).collect();
        let node = |id| ServeOptions {
            id,
            listen: self.address(id, 0),
            advertise: self.address(id, 0).into(),
            http: Some(self.address(id, HTTP_PORT_OFFSET)),
            http_hosts: Vec::new(),
            data: data.join(format!("node{id}")),
            start: Start::Bootstrap(Bootstrap {
                members: members.clone(),
                groups: self.groups,
                replication: DEFAULT_REPLICATION.min(self.nodes),
                split_at: split_keys(KEY_PREFIX, KEYS, ROUTES),
            }),
            insecure: false,
            security: SecurityConfig::default(),
            keyviz: self.keyviz.clone(),
            storage: self.storage.clone(),
            move_bytes_per_s: GroupOptions::MOVE_BYTES_PER_S,
            verify_every: Duration::ZERO,
            verify_bytes_per_s: 0,
            log: LOG.into(),
        };
        (1..=self.nodes).map(node).collect()
    }

    fn workload(&self, pattern: Pattern) -> LoadOptions {
        LoadOptions {
            workload: Workload::Pattern(PatternOptions {
                pattern,
                read_ratio: 0.5,
                keys: KEYS,
                value_bytes: DEFAULT_VALUE_BYTES,
                key_prefix: KEY_PREFIX.into(),
                rate: Some(RATE),
                operations: None,
            }),
            clients: CLIENTS,
            seed: 1,
            duration: None,
            timeout: TIMEOUT,
            spread: false,
            verify: false,
            record: None,
        }
    }
}

/// Runs the cluster until Ctrl-C or the end of its time, and ends it cleanly.
///
/// # Errors
/// Where a node cannot be started or stopped, or the heatmap cannot be drawn.
pub async fn run_demo(options: DemoOptions, color: ColorDepth) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        // A log would tear a picture that is drawn in place.
        running::log_to_stderr(LOG).map_err(CliError::Node)?;
    }
    let mut signals = Signals::new()?;
    if let Some(data) = options.data.clone() {
        return run_in(&data, &options, color, &mut signals).await;
    }
    let temporary = tempfile::Builder::new().prefix("keyviz-demo-").tempdir()?;
    let ran = run_in(temporary.path(), &options, color, &mut signals).await;
    remove(temporary).await;
    ran
}

/// Removes the nodes' folders. A storage engine may still put its last file down after a node has
/// stopped, which lets the removal of its folder fail for a moment.
async fn remove(temporary: tempfile::TempDir) {
    let path = temporary.keep();
    for _ in 0..REMOVALS {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
            }
            _ => return,
        }
    }
    say!("keyviz: cannot remove {}", path.display());
}

async fn run_in(
    data: &Path,
    options: &DemoOptions,
    color: ColorDepth,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let starts = options.members(data).into_iter().map(RunningNode::start);
    let (nodes, failed): (Vec<_>, Vec<_>) =
        futures::future::join_all(starts).await.into_iter().partition(Result::is_ok);
    let nodes = nodes.into_iter().flatten().collect();
    if let Some(Err(error)) = failed.into_iter().next() {
        // The first reason counts; what is running is stopped all the same.
        let _ = stop(nodes).await;
        return Err(CliError::Node(error));
    }
    let shown = show(options, color, signals).await;
    let stopped = tokio::select! {
        stopped = stop(nodes) => stopped,
        () = signals.next() => Err(CliError::Node(anyhow::anyhow!("stopped before everything was written"))),
    };
    shown.and(stopped)
}

async fn stop(nodes: Vec<RunningNode>) -> Result<(), CliError> {
    let stops = nodes.into_iter().map(RunningNode::shutdown);
    let stopped = futures::future::join_all(stops).await.into_iter().collect::<Result<(), _>>();
    stopped.map_err(CliError::Node)
}

/// Workload and heatmap on a running cluster, until Ctrl-C or the end of its time.
async fn show(
    options: &DemoOptions,
    color: ColorDepth,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let progress = Arc::new(Progress::default());
    let workload = options.load.map(|pattern| {
        let load = run(options.workload(pattern), options.addresses(), progress.clone());
        tokio::spawn(load)
    });
    let mut watch = Watch::new(options, color, &progress)?;
    let looked = watch.until_the_end(signals).await;
    progress.stop();
    let report = match workload {
        Some(workload) => workload.await.map_err(super::load::LoadError::from)?,
        None => Ok(LoadReport::default()),
    };
    watch.leave_screen();
    looked?;
    watch.last_picture().await?;
    let report = report?;
    if options.load.is_some() {
        let findings = report.findings();
        let errors = thousands(report.errors);
        say!(
            "keyviz: {} writes, {} reads, {errors} errors, p99 {}",
            thousands(report.writes_acked),
            thousands(report.reads_ok + report.scans_ok),
            latency_words(report.p99_us),
        );
        if !findings.is_clean() {
            return Err(CliError::LoadFindings(findings));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "demo_tests.rs"]
mod tests;
