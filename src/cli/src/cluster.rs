//! `cluster`: members, groups and leaders.

mod current;
mod replace;
mod verify;
mod waiting;

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::CliError;
use super::client::{Client, Effect, NodeArgs};
use super::data::kv::OneFormat;
use super::flags::values::{self, Address};
use super::routes::move_words;
use super::terminal::{output, text};
pub(super) use current::status;
use keyviz_json::{ClusterJson, NodeIdJson};
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
pub use replace::ReplaceError;
pub use verify::VerifyFindings;
use waiting::{Until, Waited};

/// `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Show every member and every group, queried live
    Status(StatusArgs),
    /// Make a node a member, or cancel its removal, and wait until it has its share of the replicas
    /// and leaders
    AddNode(AddNodeArgs),
    /// Remove a node, dead or alive: its replicas are moved to other nodes first. Refused if a
    /// group would lose its quorum
    RemoveNode(RemoveNodeArgs),
    /// Replace a member that lost its disk, or whose disk went back, by a node that has joined: the
    /// member is removed, and its replicas are moved to other nodes
    ReplaceNode(replace::ReplaceNodeArgs),
    /// Compare all replicas of each group while they serve: each computes a digest of its rows as
    /// of the same applied entry. Exit code 0: all agree; 1: some differ; 6: some replicas gave no
    /// digest
    Verify(verify::VerifyArgs),
    /// Move the leadership of a Raft group to another of its replicas
    TransferLeader(TransferArgs),
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
struct AddNodeArgs {
    /// Id of the new node, at least 1
    #[arg(value_parser = |text: &str| values::number_in(text, 1, u64::MAX))]
    id: u64,
    /// gRPC address of the new node
    #[arg(value_name = "HOST:PORT")]
    address: Address,
    /// HTTP address of the new node; absent: none
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<Address>,
    /// Return as soon as it is a member; the moves continue in the background
    #[arg(long)]
    no_wait: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
struct RemoveNodeArgs {
    /// Id of the node
    #[arg(value_parser = |text: &str| values::number_in(text, 1, u64::MAX))]
    id: u64,
    /// Return as soon as its removal has begun; the moves continue in the background
    #[arg(long)]
    no_wait: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
struct TransferArgs {
    /// Raft group; 0 is the catalog group
    group: u64,
    /// Node that shall lead it
    #[arg(value_parser = |text: &str| values::number_in(text, 1, u64::MAX))]
    to: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Serialize)]
struct AddNodeJson<'a> {
    cluster_id: &'a str,
    node_id: NodeIdJson,
    /// Changes of replicas that were waited for.
    moves: u64,
    /// Changes of replicas that wait for members that do not answer.
    moves_waiting: u64,
    /// It votes in the catalog group; null if the command did not wait.
    voter: Option<bool>,
}

#[derive(Serialize)]
struct RemoveNodeJson {
    node_id: NodeIdJson,
    /// It is no longer a member; otherwise it is leaving.
    gone: bool,
    /// Changes of replicas that were waited for.
    moves: u64,
}

#[derive(Serialize)]
struct TransferJson {
    leader: NodeIdJson,
    term: u64,
}

/// Runs a `cluster` command.
pub async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.command {
        ClusterCommand::Status(args) => show_status(args).await,
        ClusterCommand::AddNode(args) => add_node(args).await,
        ClusterCommand::RemoveNode(args) => remove_node(args).await,
        ClusterCommand::ReplaceNode(args) => replace::run(args).await,
        ClusterCommand::Verify(args) => verify::run(args).await,
        ClusterCommand::TransferLeader(args) => transfer_leader(args).await,
    }
}

async fn add_node(args: AddNodeArgs) -> Result<(), CliError> {
    let request = &proto::AddNodeRequest {
        id: args.id,
        address: args.address.to_string(),
        http: args.http.map(|http| http.to_string()).unwrap_or_default(),
        disk: Default::default(),
    };
    // A repeated request for a node that is a member already has no effect.
    let client = args.nodes.client()?;
    let added = client
        .call(Effect::Repeatable, |channel| async move {
            ClusterClient::new(channel).add_node(request.clone()).await
        })
        .await?
        .into_inner();
    let waited = match args.no_wait {
        true => None,
        false => Some(waiting::wait(&client, Until::Settled(args.id)).await?),
    };
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            let added = AddNodeJson {
                cluster_id: &added.cluster_id,
                node_id: NodeIdJson(args.id),
                moves: waited.map_or(0, |waited| waited.moves),
                moves_waiting: waited.map_or(0, |waited| waited.waiting),
                voter: waited.map(|waited| waited.voter),
            };
            output::json_line(&mut out, &added)?;
        }
        OneFormat::Table => {
            let cluster = text::inert(&added.cluster_id);
            writeln!(out, "node {} is a member of cluster {cluster}", args.id)?;
            match waited {
                Some(Waited { moves, waiting: 0, .. }) => {
                    writeln!(out, "replicas and leaders are spread; {moves} replicas moved")?;
                }
                Some(Waited { moves, waiting, .. }) => writeln!(
                    out,
                    "{moves} replicas moved; {waiting} more will when the members answer that do \
                     not now (see keyviz cluster status)"
                )?,
                None => {}
            }
        }
    }
    out.flush()?;
    match waited {
        Some(Waited { waiting: 1.., .. }) => {
            Err(CliError::InPart("replicas wait for members that do not answer".into()))
        }
        _ => Ok(()),
    }
}

async fn remove_node(args: RemoveNodeArgs) -> Result<(), CliError> {
    let Removal { gone, moves } = remove(&args.nodes.client()?, args.id, !args.no_wait).await?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            let node_id = NodeIdJson(args.id);
            output::json_line(&mut out, &RemoveNodeJson { node_id, gone, moves })?;
        }
        OneFormat::Table if gone => {
            writeln!(
                out,
                "node {} has left; {moves} replicas moved. Its process may be stopped and its \
                 folder deleted",
                args.id
            )?;
        }
        OneFormat::Table => writeln!(out, "node {} is leaving; keep it running", args.id)?,
    }
    out.flush()?;
    Ok(())
}

/// How far the removal of a member has come.
struct Removal {
    /// It is removed; otherwise it is leaving.
    gone: bool,
    /// The moves of replicas that were waited for.
    moves: u64,
}

/// Requests the removal of a member and, if `wait`, waits until it is removed.
async fn remove(client: &Client, id: u64, wait: bool) -> Result<Removal, CliError> {
    let request = proto::RemoveNodeRequest { id };
    // For a member that is leaving already, the request has no effect.
    let removal = client.call(Effect::Repeatable, |channel| async move {
        ClusterClient::new(channel).remove_node(request).await
    });
    let gone = removal.await?.into_inner().gone;
    if !wait {
        return Ok(Removal { gone, moves: 0 });
    }
    // A node that has left receives no more entries, so the others are asked.
    let others = others(client, id).await?;
    let moves = waiting::wait(&others, Until::Gone(id)).await?.moves;
    Ok(Removal { gone: true, moves })
}

/// A client of all members but one.
async fn others(client: &Client, id: u64) -> Result<Client, CliError> {
    let members = status(client).await?.members.into_iter();
    let others = members.filter(|member| member.id != id && member.ok);
    let others: Vec<Address> = others.filter_map(|member| member.address.parse().ok()).collect();
    Ok(client.restricted_to(others))
}

/// Only the leader can transfer its leadership, so the leader is looked up and asked.
async fn transfer_leader(args: TransferArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let status = status(&client).await?;
    let group = status.groups.iter().find(|group| group.group_id == args.group);
    let group = group.ok_or(CliError::NoSuchGroup(args.group))?;
    let leader = group.leader.ok_or(CliError::NoLeader(args.group))?;
    let member = status.members.iter().find(|member| member.id == leader);
    let address = member.and_then(|member| member.address.parse::<Address>().ok());
    let address = address.ok_or(CliError::NoLeader(args.group))?;
    let request = proto::TransferLeaderRequest { group_id: args.group, to: args.to };
    let moved = client
        .at(address)
        .call(Effect::Write, |channel| async move {
            ClusterClient::new(channel).transfer_leader(request).await
        })
        .await?
        .into_inner();
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            let moved = TransferJson { leader: NodeIdJson(moved.leader), term: moved.term };
            output::json_line(&mut out, &moved)?;
        }
        OneFormat::Table => {
            let (leader, term) = (moved.leader, moved.term);
            writeln!(out, "node {leader} leads group {} in term {term}", args.group)?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn show_status(args: StatusArgs) -> Result<(), CliError> {
    let status = status(&args.nodes.client()?).await?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &ClusterJson::from(&status))?,
        OneFormat::Table => print_tables(&mut out, &status)?,
    }
    out.flush()?;
    Ok(())
}

fn print_tables(out: &mut impl Write, status: &proto::ClusterStatus) -> std::io::Result<()> {
    if !status.removed.is_empty() {
        writeln!(out, "{}; what follows is as it was before\n", text::inert(&status.removed))?;
    }
    let answered = status.members.iter().filter(|member| member.ok).count();
    writeln!(
        out,
        "cluster {}, catalog version {}, {answered} of {} members answer\n",
        text::inert(&status.cluster_id),
        status.catalog_version,
        status.members.len(),
    )?;
    writeln!(out, "{}\n", members(status).trim_fmt())?;
    writeln!(out, "{}", groups(status).trim_fmt())?;
    let left = left(status);
    for now in &status.moves {
        let left = left.as_deref().unwrap_or("no moves left");
        writeln!(out, "\n{}; {left}", waiting::move_words(now))?;
    }
    if let Some(left) = left.filter(|_| status.moves.is_empty()) {
        writeln!(out, "\n{left}")?;
    }
    for moving in &status.route_moves {
        writeln!(out, "\n{}", move_words(moving))?;
    }
    Ok(())
}

/// The remaining moves; `None`: none.
fn left(status: &proto::ClusterStatus) -> Option<String> {
    match (status.moves_left, status.moves_waiting) {
        (None, _) => Some(
            "moves left: not known; this node has not caught up with the catalog, or reaches no \
             majority"
                .to_owned(),
        ),
        (Some(0), _) => None,
        (Some(left), 0) => Some(format!("{left} moves left")),
        (Some(left), waiting) => Some(format!(
            "{left} moves left, {waiting} of them wait for members that do not answer"
        )),
    }
}

fn members(status: &proto::ClusterStatus) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "NODE", "ADDRESS", "HTTP", "STATE", "VOTER", "CATALOG", "VERSION", "UPTIME", "LATENCY",
    ]);
    for member in &status.members {
        let known = |text: String| if member.ok { text } else { "-".into() };
        table.add_row([
            member.id.to_string(),
            text::inert(&member.address).into_owned(),
            if member.http.is_empty() {
                "-".into()
            } else {
                text::inert(&member.http).into_owned()
            },
            state(member),
            if member.voter { "yes".into() } else { "no".into() },
            known(format!("v{}", member.catalog_version)),
            known(text::inert(&member.version).into_owned()),
            known(text::duration(Duration::from_secs(member.uptime_ms / 1000))),
            known(text::duration(Duration::from_millis(member.latency_ms))),
        ]);
    }
    right(&mut table, &[0]);
    table
}

fn state(member: &proto::Member) -> String {
    match (member.ok, member.read_only.as_str()) {
        (false, _) => format!("no answer: {}", text::inert(&member.error)),
        (true, "") if !member.not_ready.is_empty() => {
            format!("not ready: {}", text::inert(&member.not_ready))
        }
        (true, "") if member.leaving => "leaving".into(),
        (true, "") if !member.warning.is_empty() => {
            format!("ok; {}", text::inert(&member.warning))
        }
        (true, "") => "ok".into(),
        (true, reason) => format!("read-only: {}", text::inert(reason)),
    }
}

fn groups(status: &proto::ClusterStatus) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["GROUP", "LEADER", "TERM", "ROUTES", "REPLICAS (node role log/applied lag)"]);
    for group in &status.groups {
        let name = match group.group_id {
            0 => "catalog".into(),
            id => id.to_string(),
        };
        table.add_row([
            name,
            group.leader.map_or("none".into(), |leader| leader.to_string()),
            group.term.to_string(),
            group.routes.to_string(),
            group.replicas.iter().map(replica).collect::<Vec<_>>().join("; "),
        ]);
    }
    right(&mut table, &[0, 1, 2, 3]);
    table
}

fn replica(replica: &proto::Replica) -> String {
    if replica.role.is_empty() {
        return format!("{} no answer", replica.node_id);
    }
    let lag = replica.lag.map_or("lag unknown".into(), |lag| format!("lag {lag}"));
    let snapshot = replica.snapshot_rows.map_or(String::new(), |rows| {
        format!(", receives a snapshot: {} rows so far", text::thousands(rows))
    });
    format!(
        "{} {} {}/{} {lag}{snapshot}",
        replica.node_id,
        text::inert(&replica.role),
        replica.last_log_index,
        replica.applied_index,
    )
}

fn right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests;
