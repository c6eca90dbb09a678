//! `serve`: one node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};

use super::UsageError;
use super::flags::alert_flags::{AlertArgs, AlertFlags};
use super::flags::autopilot_flags::{AutopilotArgs, Piloting};
use super::flags::keyviz_flags::{self, KeyvizArgs, KeyvizOptions, SizeError};
use super::flags::security_flags::SecurityArgs;
use super::flags::storage_flags::{DEFAULT_CACHE_BYTES, StorageArgs, StorageFlags};
use super::flags::values::{self, Address};
use super::otlp::Endpoint;
use keyviz_node::AutopilotConfig;
use keyviz_raft::GroupOptions;
use keyviz_security::SecurityConfig;

mod run;
mod splits;

pub use run::run_serve;

/// Default number of data groups.
pub const DEFAULT_GROUPS: u64 = 4;
/// Maximum number of data groups.
pub const MAX_GROUPS: u64 = 1024;
/// Default number of replicas of a group.
pub const DEFAULT_REPLICATION: u64 = 3;
/// Maximum number of replicas of a group.
pub const MAX_REPLICATION: u64 = 9;
/// Maximum number of split keys: there is one route more than keys, and at most 100,000 routes.
pub const MAX_SPLITS: usize = 99_999;
/// Default log filter. openraft warns about each attempt of each group to reach a peer, which the
/// node itself logs once.
pub const DEFAULT_LOG: &str = "info,openraft=error";

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// How a node starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// As one of the first members of a new cluster, each of which gets the same list. If the
    /// folder holds a node of that cluster, it is restarted.
    Bootstrap(Bootstrap),
    /// By asking a member.
    Join(Address),
    /// The same, in the place of the member that has this node's address.
    Replace(Address),
    /// From its folder, which must hold a node.
    Resume,
}

/// A new cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bootstrap {
    /// Node id and gRPC address of each first member, this node among them.
    pub members: BTreeMap<u64, Address>,
    /// Raft groups of data, at least 1.
    pub groups: u64,
    /// Replicas of each group, at least 1 and at most the number of members.
    pub replication: u64,
    /// The first keys of all routes but the first: ascending, distinct keys that clients may use.
    pub split_at: Vec<Bytes>,
}

/// The checked options of `serve`.
#[derive(Clone, PartialEq, Debug)]
pub struct ServeOptions {
    /// Node id, at least 1.
    pub id: u64,
    /// Where to listen for gRPC.
    pub listen: SocketAddr,
    /// gRPC address under which others reach this node.
    pub advertise: Address,
    /// Where to listen for HTTP; `None`: not at all.
    pub http: Option<SocketAddr>,
    /// More names under which it is reached.
    pub http_hosts: Vec<String>,
    /// The node's folder.
    pub data: PathBuf,
    /// How it comes to its cluster.
    pub start: Start,
    /// Whether listening beyond loopback without TLS and token is allowed.
    pub insecure: bool,
    /// TLS, tokens and secrets.
    pub security: SecurityConfig,
    /// The visualizer.
    pub keyviz: KeyvizOptions,
    /// Bytes per second that this node sends to replicas that need rows.
    pub move_bytes_per_s: u64,
    /// All groups are verified once in this time; zero: never.
    pub verify_every: Duration,
    /// Bytes of rows per second that each replica reads for that.
    pub verify_bytes_per_s: u64,
    /// A member that has not answered for so long is replaced; zero: never.
    pub replace_after: Duration,
    /// Mode and limits of the autopilot.
    pub autopilot: AutopilotConfig,
    /// Memory and disk.
    pub storage: StorageFlags,
    /// Filter of the log on stderr.
    pub log: String,
    /// How its lines are written.
    pub log_format: LogFormat,
    /// The collector of its spans.
    pub otlp: Option<Endpoint>,
    /// Alerts.
    pub alerts: AlertFlags,
}

/// `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Id of this node, at least 1; unique in the cluster and never reused
    #[arg(
        long,
        env = "KEYVIZ_ID",
        value_name = "ID",
        value_parser = |text: &str| values::number_in(text, 1, u64::MAX),
    )]
    id: u64,
    /// Where to listen for gRPC
    #[arg(long, env = "KEYVIZ_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:7401")]
    listen: SocketAddr,
    /// gRPC address under which nodes and clients reach this node; absent: as --listen
    #[arg(long, env = "KEYVIZ_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// Where to listen for HTTP: the page, its API and metrics; absent: no HTTP
    #[arg(long, env = "KEYVIZ_HTTP", value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// More names under which --http is reached, such as that of a proxy. Without an admin token, a
    /// node that listens on loopback refuses requests under unknown names, so that no page of
    /// another site can impersonate its own
    #[arg(
        long,
        env = "KEYVIZ_HTTP_HOST",
        value_name = "NAME,...",
        value_delimiter = ',',
        requires = "http"
    )]
    http_host: Vec<String>,
    /// Folder of this node; created if it does not exist
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Start a new cluster with these members; each of them is started with the same list. If the
    /// node already belongs to this cluster, it is restarted
    #[arg(
        long,
        env = "KEYVIZ_BOOTSTRAP",
        value_name = "ID=HOST:PORT,...",
        value_delimiter = ',',
        value_parser = member,
        conflicts_with = "join"
    )]
    bootstrap: Vec<(u64, Address)>,
    /// Join the cluster of the node at this address
    #[arg(long, env = "KEYVIZ_JOIN", value_name = "HOST:PORT")]
    join: Option<Address>,
    /// With --join: take the place of the member that has this node's address and has lost its
    /// disk. It is removed first; its id is never used again
    #[arg(long, env = "KEYVIZ_REPLACE_LOST", requires = "join")]
    replace_lost: bool,
    /// Raft groups that hold the data, 1 to 1,024; at bootstrap [default: 4]
    #[arg(long, env = "KEYVIZ_GROUPS", value_name = "N", value_parser = groups)]
    groups: Option<u64>,
    /// Replicas of each group, 1 to 9; at bootstrap [default: 3, or the number of members]
    #[arg(
        long,
        env = "KEYVIZ_REPLICATION",
        value_name = "N",
        value_parser = |text: &str| values::number_in(text, 1, MAX_REPLICATION),
    )]
    replication: Option<u64>,
    /// Keys at which the first routes are split; routes are assigned to the groups in turn; a comma
    /// in a key is written as \x2c; at bootstrap
    #[arg(
        long,
        env = "KEYVIZ_SPLIT_AT",
        value_name = "KEY,...",
        value_delimiter = ',',
        value_parser = values::key,
    )]
    split_at: Vec<Bytes>,
    #[command(flatten)]
    security: SecurityArgs,
    /// Most bytes of rows per second that this node sends to replicas that are new or far behind,
    /// over all groups, and copies for moves of routes; bytes, KiB, MiB or GiB; at least 64KiB.
    /// Replicas that catch up from the log (15,000 entries or 64 MiB a group) are not limited
    #[arg(
        long,
        env = "KEYVIZ_MOVE_RATE",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = move_rate,
    )]
    move_rate: u64,
    /// Compare the replicas of all groups once in this time, one group after the other, on the
    /// leader of the catalog group. Differences are logged and counted in metrics. At least 1s; 0s:
    /// never. See `keyviz cluster verify`
    #[arg(
        long,
        env = "KEYVIZ_VERIFY_EVERY",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = verify_every,
    )]
    verify_every: Duration,
    /// Maximum bytes of rows per second that each replica reads for --verify-every; in bytes or as
    /// KiB, MiB or GiB; at least 64KiB
    #[arg(
        long,
        env = "KEYVIZ_VERIFY_RATE",
        value_name = "SIZE",
        default_value = "4MiB",
        value_parser = verify_rate,
    )]
    verify_rate: u64,
    /// Remove a member that has not answered for this time, where the others have a majority and as
    /// many of them answer as groups keep replicas; its replicas are made again on them. The leader
    /// of the catalog group does this, so give it on every node. At least 10s; 0s: never
    #[arg(
        long,
        env = "KEYVIZ_REPLACE_AFTER",
        value_name = "DURATION",
        default_value = "0s",
        value_parser = replace_after
    )]
    replace_after: Duration,
    /// Log level on stderr: error, warn, info, debug or trace, or a filter such as
    /// info,keyviz_raft=debug
    #[arg(
        long,
        env = "KEYVIZ_LOG",
        value_name = "FILTER",
        default_value = DEFAULT_LOG,
        value_parser = log_filter,
    )]
    log: String,
    /// Length of a heatmap column, 1s to 1h; the same on every node
    #[arg(
        long,
        visible_alias = "step",
        env = "KEYVIZ_STEP",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = keyviz_flags::step,
        help_heading = "Visualizer"
    )]
    keyviz_step: Duration,
    /// How log lines are written
    #[arg(
        long,
        env = "KEYVIZ_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    /// Send the spans of requests to the collector at http://HOST:PORT, with OTLP over gRPC
    #[arg(long, env = "KEYVIZ_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<Endpoint>,
    #[command(flatten)]
    alerts: AlertArgs,
    #[command(flatten)]
    keyviz: KeyvizArgs,
    /// What the autopilot does while this node leads the catalog group, unless it was switched at
    /// run time (`keyviz autopilot`): nothing, say what it would do, or act
    #[arg(long, env = "KEYVIZ_AUTOPILOT", value_name = "MODE", default_value = "advise")]
    autopilot: Piloting,
    #[command(flatten)]
    autopilot_limits: AutopilotArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

/// Why an entry of `--bootstrap` is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemberError {
    /// No `=`.
    #[error("a member is ID=HOST:PORT")]
    Form,
    /// A number below 1, or none.
    #[error("the id in front of '=' is not a number from 1")]
    Id,
    /// No address.
    #[error(transparent)]
    Address(#[from] keyviz_client::AddressError),
}

pub(super) fn member(text: &str) -> Result<(u64, Address), MemberError> {
    let (id, address) = text.split_once('=').ok_or(MemberError::Form)?;
    let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or(MemberError::Id)?;
    Ok((id, address.trim().parse()?))
}

pub(super) fn groups(text: &str) -> Result<u64, values::ValueError> {
    values::number_in(text, 1, MAX_GROUPS)
}

fn move_rate(text: &str) -> Result<u64, SizeError> {
    keyviz_flags::size_in(text, GroupOptions::MIN_MOVE_BYTES_PER_S, 1 << 40)
}

fn verify_every(text: &str) -> Result<Duration, values::ValueError> {
    values::duration_or_never(text, Duration::from_secs(1))
}

fn replace_after(text: &str) -> Result<Duration, values::ValueError> {
    values::duration_or_never(text, Duration::from_secs(10))
}

/// A rate of reading rows.
pub(super) fn verify_rate(text: &str) -> Result<u64, SizeError> {
    keyviz_flags::size_in(text, 64 << 10, 1 << 40)
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    text.parse::<tracing_subscriber::EnvFilter>().map(|_| text.to_owned())
}

impl ServeArgs {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// Names the flag and its value.
    pub fn options(self) -> Result<ServeOptions, UsageError> {
        let advertise = self.advertise.clone().unwrap_or_else(|| self.listen.into());
        self.check_exposure(&advertise)?;
        let start = self.start(&advertise)?;
        let security = self.security.config();
        let alerts = self.alerts.flags()?;
        Ok(ServeOptions {
            id: self.id,
            listen: self.listen,
            advertise,
            http: self.http,
            http_hosts: self.http_host,
            data: self.data,
            start,
            insecure: self.security.insecure,
            security,
            keyviz: self.keyviz.options(self.keyviz_step),
            move_bytes_per_s: self.move_rate,
            verify_every: self.verify_every,
            verify_bytes_per_s: self.verify_rate,
            replace_after: self.replace_after,
            autopilot: self.autopilot_limits.config(self.autopilot)?,
            storage: self.storage.flags(DEFAULT_CACHE_BYTES),
            log: self.log,
            log_format: self.log_format,
            otlp: self.otlp_endpoint,
            alerts,
        })
    }

    /// No port is reachable by others without protection, unless explicitly requested.
    fn check_exposure(&self, advertise: &Address) -> Result<(), UsageError> {
        for (flag, address) in
            [("--listen <IP:PORT>", Some(self.listen)), ("--http <IP:PORT>", self.http)]
        {
            let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
                continue;
            };
            let SecurityConfig { tls, admin_token, .. } = self.security.config();
            let missing = match (&tls, &admin_token) {
                (Some(_), Some(_)) => continue,
                (None, None) => {
                    "nothing is encrypted or authenticated (--tls-cert, --admin-token-file)"
                }
                (None, Some(_)) => "nothing is encrypted (--tls-cert)",
                (Some(_), None) => "anybody may change routes and members (--admin-token-file)",
            };
            if !self.security.insecure {
                let reason = format!(
                    "not a loopback address, and {missing}; --insecure says that this is meant"
                );
                return Err(UsageError::value(flag, address, reason));
            }
        }
        if self.listen.port() == 0 {
            let reason = "other nodes need to know the port";
            return Err(UsageError::value("--listen <IP:PORT>", self.listen, reason));
        }
        let anywhere = matches!(advertise.host(), "0.0.0.0" | "::");
        if anywhere {
            let reason = "nobody can reach this address; give the one that others use";
            return Err(UsageError::value("--advertise <HOST:PORT>", advertise, reason));
        }
        Ok(())
    }

    fn start(&self, advertise: &Address) -> Result<Start, UsageError> {
        if !self.bootstrap.is_empty() {
            return self.bootstrap(advertise).map(Start::Bootstrap);
        }
        let bootstrap_only = [
            ("--groups <N>", self.groups.is_some()),
            ("--replication <N>", self.replication.is_some()),
            ("--split-at <KEY,...>", !self.split_at.is_empty()),
        ];
        if let Some((flag, _)) = bootstrap_only.into_iter().find(|(_, given)| *given) {
            return Err(UsageError::Needs { flag, needs: "--bootstrap <ID=HOST:PORT,...>" });
        }
        Ok(match (self.join.clone(), self.replace_lost) {
            (None, _) => Start::Resume,
            (Some(through), false) => Start::Join(through),
            (Some(through), true) => Start::Replace(through),
        })
    }

    fn bootstrap(&self, advertise: &Address) -> Result<Bootstrap, UsageError> {
        let mut members = BTreeMap::new();
        for (id, address) in &self.bootstrap {
            let wrong = |reason: String| {
                let entry = format!("{id}={address}");
                Err(UsageError::value("--bootstrap <ID=HOST:PORT,...>", entry, reason))
            };
            if let Some((other, _)) = members.iter().find(|(_, known)| *known == address) {
                return wrong(format!("node {other} has this address too"));
            }
            if members.insert(*id, address.clone()).is_some() {
                return wrong("this id is in the list twice".into());
            }
        }
        match members.get(&self.id) {
            None => {
                let reason = "this node is not in the list of --bootstrap";
                return Err(UsageError::value("--id <ID>", self.id, reason));
            }
            Some(listed) if listed != advertise => {
                let reason = format!("--bootstrap gives this node as {listed}");
                let (flag, value) = ("--advertise <HOST:PORT>", advertise);
                return Err(UsageError::value(flag, value, reason));
            }
            Some(_) => {}
        }
        let count = members.len() as u64;
        let replication = self.replication.unwrap_or(DEFAULT_REPLICATION.min(count));
        if replication > count {
            let reason = format!("there are only {count} members");
            return Err(UsageError::value("--replication <N>", replication, reason));
        }
        let split_at = splits::sorted(self.split_at.clone())?;
        Ok(Bootstrap {
            members,
            groups: self.groups.unwrap_or(DEFAULT_GROUPS),
            replication,
            split_at,
        })
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
