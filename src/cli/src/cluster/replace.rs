//! `cluster replace-node`: replaces a member whose process is gone.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::super::client::NodeArgs;
use super::current::status;
use super::{Removal, remove};
use crate::CliError;
use crate::data::kv::OneFormat;
use crate::flags::values;
use crate::terminal::output;
use keyviz_client::Client;
use keyviz_json::NodeIdJson;
use keyviz_proto as proto;

/// Time for a new node to become a member.
const JOINS_WITHIN: Duration = Duration::from_secs(5);

const ASK_EVERY: Duration = Duration::from_millis(250);

#[derive(Args, Debug)]
pub(super) struct ReplaceNodeArgs {
    /// Id of the member to replace. Its process must be stopped, or excluded because of its disk
    #[arg(value_parser = |text: &str| values::number_in(text, 1, u64::MAX))]
    old: u64,
    /// Id of the replacement. It must be running, started with --join and an empty folder
    #[arg(
        long = "with",
        value_name = "NEW",
        value_parser = |text: &str| values::number_in(text, 1, u64::MAX),
    )]
    new: u64,
    /// Return as soon as the removal of the old member has begun; the moves continue in the
    /// background
    #[arg(long)]
    no_wait: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Why a member is not replaced. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplaceError {
    /// One id twice.
    #[error(
        "node {0} cannot take its own place: ids are never used again; give the new node another"
    )]
    Same(u64),
    /// There is no such member.
    #[error("node {0} is not a member of this cluster; see `keyviz cluster status`")]
    NotAMember(u64),
    /// It runs and takes part.
    #[error(
        "node {0} answers and takes part in its groups; stop its process first, or let it leave in \
         good order with `keyviz cluster remove-node {0}`"
    )]
    Answers(u64),
    /// The new node has not joined.
    #[error(
        "node {new} is not a member yet, or does not answer; start it with \
         `keyviz serve --id {new} --join {through}` and an empty --data, then run this again"
    )]
    NotJoined {
        /// The new node.
        new: u64,
        /// A member that answers.
        through: String,
    },
}

#[derive(Serialize)]
struct ReplacedJson {
    node_id: NodeIdJson,
    replaced_by: NodeIdJson,
    /// The old member is removed; otherwise it is leaving.
    gone: bool,
    /// Changes of replicas that were waited for.
    moves: u64,
}

/// Whether the member can be replaced by the node.
fn check(status: &proto::ClusterStatus, old: u64, new: u64) -> Result<(), ReplaceError> {
    if old == new {
        return Err(ReplaceError::Same(old));
    }
    let member = |id| status.members.iter().find(move |member| member.id == id);
    let found = member(old).ok_or(ReplaceError::NotAMember(old))?;
    if found.ok {
        return Err(ReplaceError::Answers(old));
    }
    if member(new).is_some_and(|member| member.ok) {
        return Ok(());
    }
    let through = status.members.iter().find(|member| member.ok);
    let through = through.map_or("HOST:PORT", |member| member.address.as_str()).to_owned();
    Err(ReplaceError::NotJoined { new, through })
}

/// Waits a moment for a new node that has just been added: the member that is asked may not have
/// heard of it.
async fn joined(client: &Client, old: u64, new: u64) -> Result<(), CliError> {
    let until = Instant::now() + JOINS_WITHIN;
    loop {
        match check(&status(client).await?, old, new) {
            Err(ReplaceError::NotJoined { .. }) if Instant::now() < until => {
                tokio::time::sleep(ASK_EVERY).await;
            }
            checked => return Ok(checked?),
        }
    }
}

pub(super) async fn run(args: ReplaceNodeArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    joined(&client, args.old, args.new).await?;
    let Removal { gone, moves } = remove(&client, args.old, !args.no_wait).await?;
    let (old, new) = (args.old, args.new);
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            let (node_id, replaced_by) = (NodeIdJson(old), NodeIdJson(new));
            let replaced = ReplacedJson { node_id, replaced_by, gone, moves };
            output::json_line(&mut out, &replaced)?;
        }
        OneFormat::Table if gone => {
            writeln!(out, "node {new} has taken the place of node {old}; {moves} replicas moved")?;
        }
        OneFormat::Table => writeln!(out, "node {old} is leaving; node {new} takes its place")?,
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, ok: bool) -> proto::Member {
        proto::Member { id, ok, address: format!("host-{id}:1"), ..Default::default() }
    }

    #[test]
    fn a_member_is_replaced_only_when_it_is_gone_and_another_is_there() {
        let members = vec![member(1, true), member(2, false), member(4, true), member(5, false)];
        let status = proto::ClusterStatus { members, ..Default::default() };
        assert_eq!(check(&status, 2, 4), Ok(()));
        assert_eq!(check(&status, 2, 2), Err(ReplaceError::Same(2)));
        assert_eq!(check(&status, 3, 4), Err(ReplaceError::NotAMember(3)));
        assert_eq!(check(&status, 1, 4), Err(ReplaceError::Answers(1)));
        for new in [5, 6] {
            let through = "host-1:1".to_owned();
            assert_eq!(check(&status, 2, new), Err(ReplaceError::NotJoined { new, through }));
        }
    }
}
