//! `cluster`: members, groups and leaders.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use super::kv::OneFormat;
use super::values::{self, Address};
use super::{CliError, output, text};
use crate::api::json::ClusterJson;
use crate::proto;
use crate::proto::cluster_client::ClusterClient;

/// `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Show every member and every group, asked live
    Status(StatusArgs),
    /// Make a node a member: it follows the catalog and serves requests
    AddNode(AddNodeArgs),
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
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
struct TransferArgs {
    /// Raft group; 0 is the catalog's
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
}

#[derive(Serialize)]
struct TransferJson {
    leader: u64,
    term: u64,
}

/// Runs a `cluster` command.
pub async fn run(args: ClusterArgs) -> Result<(), CliError> {
    match args.command {
        ClusterCommand::Status(args) => show_status(args).await,
        ClusterCommand::AddNode(args) => add_node(args).await,
        ClusterCommand::TransferLeader(args) => transfer_leader(args).await,
    }
}

async fn add_node(args: AddNodeArgs) -> Result<(), CliError> {
    let request = &proto::AddNodeRequest {
        id: args.id,
        address: args.address.to_string(),
        http: args.http.map(|http| http.to_string()).unwrap_or_default(),
    };
    // A node that is a member already is told so; asking twice changes nothing.
    let added = Client::from(args.nodes)
        .call(Effect::Repeatable, |channel| async move {
            ClusterClient::new(channel).add_node(request.clone()).await
        })
        .await?
        .into_inner();
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            output::json_line(&mut out, &AddNodeJson { cluster_id: &added.cluster_id })?;
        }
        OneFormat::Table => {
            let cluster = text::inert(&added.cluster_id);
            writeln!(out, "node {} is a member of cluster {cluster}", args.id)?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Only the leader can hand its leadership over, so the leader is looked up and asked.
async fn transfer_leader(args: TransferArgs) -> Result<(), CliError> {
    let client = Client::from(args.nodes);
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
            let moved = TransferJson { leader: moved.leader, term: moved.term };
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

async fn status(client: &Client) -> Result<proto::ClusterStatus, CliError> {
    let status = client
        .call(Effect::Read, |channel| async move {
            ClusterClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER_BYTES)
                .get_status(proto::GetStatusRequest {})
                .await
        })
        .await?
        .into_inner();
    Ok(status)
}

async fn show_status(args: StatusArgs) -> Result<(), CliError> {
    let status = status(&Client::from(args.nodes)).await?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &ClusterJson::from(&status))?,
        OneFormat::Table => print_tables(&mut out, &status)?,
    }
    out.flush()?;
    Ok(())
}

fn print_tables(out: &mut impl Write, status: &proto::ClusterStatus) -> std::io::Result<()> {
    let answered = status.members.iter().filter(|member| member.ok).count();
    writeln!(
        out,
        "cluster {}, catalog version {}, {answered} of {} members answer\n",
        text::inert(&status.cluster_id),
        status.catalog_version,
        status.members.len(),
    )?;
    writeln!(out, "{}\n", members(status).trim_fmt())?;
    writeln!(out, "{}", groups(status).trim_fmt())
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
            if member.ok {
                "ok".into()
            } else {
                format!("no answer: {}", text::inert(&member.error))
            },
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
    format!(
        "{} {} {}/{} {lag}",
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
mod tests {
    use super::*;

    fn status() -> proto::ClusterStatus {
        let member = |id: u64, ok: bool| proto::Member {
            id,
            address: format!("127.0.0.1:740{id}"),
            http: if id == 1 { "127.0.0.1:7501".into() } else { String::new() },
            ok,
            error: if ok { String::new() } else { "connection refused\x1b[0m".into() },
            catalog_version: 3,
            version: "0.1.0".into(),
            voter: true,
            uptime_ms: 61_500,
            latency_ms: 2,
        };
        let replica = |node_id, role: &str, lag| proto::Replica {
            node_id,
            voter: true,
            role: role.into(),
            last_log_index: 12,
            applied_index: 10,
            lag,
        };
        let group = |group_id, leader| proto::Group {
            group_id,
            leader,
            term: 2,
            routes: group_id * 4,
            replicas: vec![
                replica(1, "leader", Some(0)),
                replica(2, "follower", None),
                replica(3, "", None),
            ],
        };
        proto::ClusterStatus {
            cluster_id: "c0ffee".into(),
            catalog_version: 3,
            members: vec![member(1, true), member(2, true), member(3, false)],
            groups: vec![group(0, Some(1)), group(1, None)],
        }
    }

    #[test]
    fn a_member_that_does_not_answer_is_shown_with_its_reason() {
        let mut out = Vec::new();
        print_tables(&mut out, &status()).expect("a vector takes everything");
        insta::assert_snapshot!(String::from_utf8(out).expect("output is text"));
    }

    #[test]
    fn the_status_for_programs_has_the_names_of_the_protos() {
        let json = serde_json::to_string_pretty(&ClusterJson::from(&status()));
        insta::assert_snapshot!(json.expect("it has no map with odd keys"));
    }
}
