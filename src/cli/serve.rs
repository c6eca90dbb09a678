//! `serve`: one node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::keyviz_flags::{self, KeyvizArgs, KeyvizOptions, SizeError};
use super::running::{self, RunningNode, Signals};
use super::values::{self, Address};
use super::{CliError, UsageError};
use crate::api::json::key_text;

/// Raft groups of data where nothing else was said.
pub const DEFAULT_GROUPS: u64 = 4;
/// Most Raft groups of data.
pub const MAX_GROUPS: u64 = 1024;
/// Replicas of a group where nothing else was said.
pub const DEFAULT_REPLICATION: u64 = 3;
/// Most replicas of a group.
pub const MAX_REPLICATION: u64 = 9;
/// Most keys to split at: one route more than keys, and 100,000 routes in all.
pub const MAX_SPLITS: usize = 99_999;
/// Memory for cached pages where nothing else was said.
pub const DEFAULT_CACHE_BYTES: u64 = 64 << 20;
/// What a node logs where nothing else was said. Raft tells of every snapshot at info.
pub const DEFAULT_LOG: &str = "info,openraft=warn";

/// How a node comes to its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// As one of the first members, each of which is given the same list. Done once: with data
    /// of that cluster in the folder, the node just goes on.
    Bootstrap(Bootstrap),
    /// By asking a member.
    Join(Address),
    /// From what its folder says, which must hold a node.
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
    /// Where routes begin, beside the first: ascending, distinct keys that clients may use.
    pub split_at: Vec<Bytes>,
}

/// All that `serve` was told, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeOptions {
    /// Node id, at least 1.
    pub id: u64,
    /// Where to listen for gRPC.
    pub listen: SocketAddr,
    /// gRPC address that others reach this node under.
    pub advertise: Address,
    /// Where to listen for HTTP; `None`: not at all.
    pub http: Option<SocketAddr>,
    /// The node's folder.
    pub data: PathBuf,
    /// How it comes to its cluster.
    pub start: Start,
    /// Listening beyond loopback without TLS was asked for.
    pub insecure: bool,
    /// The visualizer.
    pub keyviz: KeyvizOptions,
    /// Memory for cached pages.
    pub cache_bytes: u64,
    /// Filter of the log on stderr.
    pub log: String,
}

/// `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// This node's id, at least 1; no other node may ever have it
    #[arg(long, env = "KEYVIZ_ID", value_name = "ID", value_parser = |text: &str| values::number_in(text, 1, u64::MAX))]
    id: u64,
    /// Where to listen for gRPC
    #[arg(long, env = "KEYVIZ_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:7401")]
    listen: SocketAddr,
    /// gRPC address that other nodes and clients reach this node under; absent: as --listen
    #[arg(long, env = "KEYVIZ_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// Where to listen for HTTP: the heatmap page, its API and metrics; absent: not at all
    #[arg(long, env = "KEYVIZ_HTTP", value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// Folder of this node, made where it does not exist
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Start a new cluster with these members; each of them is started with the same list. A node
    /// that already belongs to this cluster just goes on
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
    /// Raft groups that hold the data, 1 to 1,024; at bootstrap [default: 4]
    #[arg(long, env = "KEYVIZ_GROUPS", value_name = "N", value_parser = groups)]
    groups: Option<u64>,
    /// Replicas of each group, 1 to 9; at bootstrap [default: 3, or the number of members]
    #[arg(long, env = "KEYVIZ_REPLICATION", value_name = "N", value_parser = |text: &str| values::number_in(text, 1, MAX_REPLICATION))]
    replication: Option<u64>,
    /// Keys at which the first routes are split; routes go to the groups in turn; a key with a
    /// comma is given as hex:...; at bootstrap
    #[arg(long, env = "KEYVIZ_SPLIT_AT", value_name = "KEY,...", value_delimiter = ',', value_parser = values::key)]
    split_at: Vec<Bytes>,
    /// Listen beyond loopback although nothing is encrypted or authenticated
    #[arg(long, env = "KEYVIZ_INSECURE")]
    insecure: bool,
    /// Memory for cached pages, in bytes or as KiB, MiB or GiB; at least 1MiB
    #[arg(long, env = "KEYVIZ_CACHE_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = cache_bytes)]
    cache_bytes: u64,
    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as
    /// info,keyviz::raft=debug
    #[arg(long, env = "KEYVIZ_LOG", value_name = "FILTER", default_value = DEFAULT_LOG, value_parser = log_filter)]
    log: String,
    /// Length of a heatmap column, 1s to 1h; the same on every node
    #[arg(
        long,
        env = "KEYVIZ_STEP",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = keyviz_flags::step,
        help_heading = "Visualizer"
    )]
    keyviz_step: Duration,
    #[command(flatten)]
    keyviz: KeyvizArgs,
}

/// An entry of `--bootstrap` that names no member.
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
    Address(#[from] values::ValueError),
}

fn member(text: &str) -> Result<(u64, Address), MemberError> {
    let (id, address) = text.split_once('=').ok_or(MemberError::Form)?;
    let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or(MemberError::Id)?;
    Ok((id, address.trim().parse()?))
}

pub(super) fn groups(text: &str) -> Result<u64, values::ValueError> {
    values::number_in(text, 1, MAX_GROUPS)
}

fn cache_bytes(text: &str) -> Result<u64, SizeError> {
    keyviz_flags::size_in(text, 1 << 20, 1 << 40)
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    text.parse::<tracing_subscriber::EnvFilter>().map(|_| text.to_owned())
}

impl ServeArgs {
    /// Checks what no flag can check alone.
    ///
    /// # Errors
    /// Naming the flag and its value.
    pub fn options(self) -> Result<ServeOptions, UsageError> {
        let advertise = self.advertise.clone().unwrap_or_else(|| self.listen.into());
        self.check_exposure(&advertise)?;
        let start = self.start(&advertise)?;
        Ok(ServeOptions {
            id: self.id,
            listen: self.listen,
            advertise,
            http: self.http,
            data: self.data,
            start,
            insecure: self.insecure,
            keyviz: self.keyviz.options(self.keyviz_step),
            cache_bytes: self.cache_bytes,
            log: self.log,
        })
    }

    /// Nothing listens where others could reach it unprotected, unless that was asked for.
    fn check_exposure(&self, advertise: &Address) -> Result<(), UsageError> {
        for (flag, address) in
            [("--listen <IP:PORT>", Some(self.listen)), ("--http <IP:PORT>", self.http)]
        {
            let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
                continue;
            };
            if !self.insecure {
                let reason = "not a loopback address, and nothing is encrypted or authenticated; \
                    --insecure says that this is meant";
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
        Ok(self.join.clone().map_or(Start::Resume, Start::Join))
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
        let split_at = sorted_splits(self.split_at.clone())?;
        Ok(Bootstrap {
            members,
            groups: self.groups.unwrap_or(DEFAULT_GROUPS),
            replication,
            split_at,
        })
    }
}

fn sorted_splits(mut keys: Vec<Bytes>) -> Result<Vec<Bytes>, UsageError> {
    const FLAG: &str = "--split-at <KEY,...>";
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(UsageError::value(FLAG, key_text(&pair[0]), "this key is in the list twice"));
    }
    if keys.len() > MAX_SPLITS {
        let reason = format!("at most {MAX_SPLITS} keys");
        return Err(UsageError::value(FLAG, format!("{} keys", keys.len()), reason));
    }
    Ok(keys)
}

/// Runs one node until SIGINT or SIGTERM; a second signal ends the wait for a clean stop.
///
/// # Errors
/// Where the node cannot be started, or fails to stop cleanly.
pub async fn run_serve(options: ServeOptions) -> Result<(), CliError> {
    running::log_to_stderr(&options.log).map_err(CliError::Node)?;
    let mut signals = Signals::new()?;
    let insecure = options.insecure;
    let (id, address, http) = (options.id, options.advertise.clone(), options.http);
    let node = tokio::select! {
        node = RunningNode::start(options) => node.map_err(CliError::Node)?,
        () = signals.next() => return Ok(()),
    };
    eprintln!("keyviz: node {id} serves gRPC on {address}");
    if let Some(http) = http {
        eprintln!("keyviz: heatmap page on http://{http}/");
    }
    eprintln!(
        "keyviz: nothing is encrypted or authenticated{}",
        match insecure {
            true => " (--insecure)",
            false => "; listening on loopback only",
        }
    );
    let failure = tokio::select! {
        failure = node.failed() => Some(failure),
        () = signals.next() => None,
    };
    eprintln!("keyviz: node {id} stops");
    let stopped = tokio::select! {
        stopped = node.shutdown() => stopped.map_err(CliError::Node),
        () = signals.next() => Err(CliError::Node(anyhow::anyhow!("stopped before everything was written"))),
    };
    match failure {
        Some(failure) => Err(CliError::Node(failure)),
        None => stopped,
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
