//! `demo`: runs a whole cluster in one process, a workload, and its heatmap.

mod run;
mod story;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::UsageError;
use super::flags::autopilot_flags::{AutopilotArgs, Piloting};
use super::flags::keyviz_flags::{self, KeyvizArgs, KeyvizOptions};
use super::flags::storage_flags::{StorageArgs, StorageFlags};
use super::flags::values::{self, Address};
use super::load::{
    DEFAULT_VALUE_BYTES, LoadOptions, Pattern, PatternOptions, Workload, split_keys,
};
use super::serve::{
    self, Bootstrap, DEFAULT_REPLICATION, LogFormat, MAX_REPLICATION, ServeOptions, Start,
};
use keyviz_node::AutopilotConfig;
use keyviz_raft::GroupOptions;
use keyviz_security::SecurityConfig;

pub use run::run_demo;

/// Default number of nodes.
pub const DEFAULT_NODES: u64 = 3;
/// Default of the first gRPC port.
pub const DEFAULT_PORT: u16 = 7401;
/// Offset of the HTTP ports from the gRPC ports.
pub const HTTP_PORT_OFFSET: u16 = 100;
/// Routes at the start: enough rows to see a pattern, few enough for one screen.
pub const ROUTES: u64 = 32;
/// Prefix of the workload's keys. It differs from that of `load`, which verifies what it wrote.
pub const KEY_PREFIX: &str = "demo/";
/// Distinct keys of the workload.
pub const KEYS: u64 = 100_000;
/// Operations per second of the workload: busy, but light enough for a laptop.
pub const RATE: f64 = 1_000.0;
/// Clients of the workload.
pub const CLIENTS: usize = 24;
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The log filter of the nodes when nothing is drawn in place.
const LOG: &str = "error";
/// Memory for cached pages of each node.
const CACHE_BYTES: u64 = 8 << 20;

/// The checked options of `demo`.
#[derive(Clone, PartialEq, Debug)]
pub struct DemoOptions {
    /// Nodes, at least 1.
    pub nodes: u64,
    /// Raft groups of data.
    pub groups: u64,
    /// Parent of the nodes' folders; `None`: a temporary folder that is removed.
    pub data: Option<PathBuf>,
    /// gRPC port of the first node; those of the others follow.
    pub port: u16,
    /// The workload; `None`: none.
    pub load: Option<Pattern>,
    /// When to end; `None`: at Ctrl-C.
    pub duration: Option<Duration>,
    /// The visualizer.
    pub keyviz: KeyvizOptions,
    /// Mode and limits of the autopilot.
    pub autopilot: AutopilotConfig,
    /// Memory and disk.
    pub storage: StorageFlags,
}

/// `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Nodes, 1 to 9
    #[arg(
        long,
        env = "KEYVIZ_NODES",
        value_name = "N",
        default_value_t = DEFAULT_NODES,
        value_parser = |text: &str| values::number_in(text, 1, MAX_REPLICATION),
    )]
    nodes: u64,
    /// Raft groups that hold the data, 1 to 1,024
    #[arg(
        long,
        env = "KEYVIZ_GROUPS",
        value_name = "N",
        default_value_t = serve::DEFAULT_GROUPS,
        value_parser = serve::groups,
    )]
    groups: u64,
    /// Length of a heatmap column, 1s to 1h
    #[arg(
        long,
        visible_alias = "keyviz-step",
        env = "KEYVIZ_STEP",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = keyviz_flags::step,
    )]
    step: Duration,
    /// Folder for the data of the nodes; absent: a temporary folder that is removed at the end
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// gRPC port of the first node on loopback; those of the others follow, and HTTP ports are 100
    /// higher
    #[arg(
        long,
        env = "KEYVIZ_PORT",
        value_name = "PORT",
        default_value_t = DEFAULT_PORT,
        value_parser = clap::value_parser!(u16).range(1..),
    )]
    port: u16,
    /// Pattern of the workload: 1,000 operations per second, half of them writes, over 100,000 keys
    /// that begin with demo/
    #[arg(long, value_enum, value_name = "PATTERN", default_value = "hotspot")]
    load: Pattern,
    /// Stop after this time, such as 30s; absent: at Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Start no workload
    #[arg(long, conflicts_with = "load")]
    no_load: bool,
    /// What the autopilot does about the workload, unless it was switched at run time (`keyviz
    /// autopilot`): nothing, say what it would do, or act
    #[arg(long, env = "KEYVIZ_AUTOPILOT", value_name = "MODE", default_value = "act")]
    autopilot: Piloting,
    #[command(flatten)]
    autopilot_limits: AutopilotArgs,
    #[command(flatten)]
    keyviz: KeyvizArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

impl DemoArgs {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// Names the flag and its value.
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
            autopilot: self.autopilot_limits.config(self.autopilot)?,
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

    /// The options of each node, with folders below `data`.
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
            replace_after: Duration::ZERO,
            autopilot: self.autopilot.clone(),
            log: LOG.into(),
            log_format: LogFormat::Text,
            otlp: None,
            alerts: Default::default(),
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

#[cfg(test)]
#[path = "demo_tests.rs"]
mod tests;
