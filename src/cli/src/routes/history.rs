//! `routes history`: the retained changes and the retired routes.

use std::io::Write;

use clap::Args;

use super::super::client::{Effect, NodeArgs};
use super::{delta_words, ids, moving, route_words, stub};
use crate::CliError;
use crate::data::kv::OneFormat;
use crate::terminal::{output, text};
use keyviz_json::RouteHistoryJson;
use keyviz_proto as proto;

/// `routes history`.
#[derive(Args, Debug)]
pub(super) struct HistoryArgs {
    /// Only changes after this catalog version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
    /// Only changes before this catalog version, which the answer before names; 0: all
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    before: u64,
    /// Cluster whose catalog version that is; another cluster, or the same after a restore, refuses
    #[arg(long, value_name = "ID", requires = "after")]
    cluster: Option<String>,
    /// Maximum number of changes and of retired routes, the newest ones, at most 1,024
    #[arg(
        long,
        value_name = "CHANGES",
        default_value_t = 1_024,
        value_parser = clap::value_parser!(u32).range(1..=1_024),
    )]
    limit: u32,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Runs `routes history`.
pub(super) async fn run(args: HistoryArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let request = &proto::RouteHistoryRequest {
        after_version: args.after,
        limit: args.limit,
        cluster_id: args.cluster.unwrap_or_default(),
        before_version: args.before,
    };
    let history = client.call(Effect::Read, |channel| async move {
        stub(channel).route_history(request.clone()).await
    });
    let history = history.await?.into_inner();
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &RouteHistoryJson::from(&history))?,
        OneFormat::Table => print(&mut out, &history)?,
    }
    out.flush()?;
    Ok(())
}

fn print(out: &mut impl Write, history: &proto::RouteHistoryResponse) -> std::io::Result<()> {
    writeln!(out, "changes up to catalog version {}", history.catalog_version)?;
    if history.truncated {
        match history.next_before_version {
            0 => writeln!(out, "  (older ones are not listed)")?,
            before => writeln!(out, "  (older ones: --before {before})")?,
        }
    }
    for delta in &history.changes {
        writeln!(out, "  {}", delta_words(delta))?;
    }
    if !history.moves.is_empty() {
        writeln!(out, "moves")?;
    }
    for moving in &history.moves {
        writeln!(out, "  {} {}", text::time_utc(moving.started_ms), moving::words(moving))?;
    }
    writeln!(out, "retired routes")?;
    for retired in &history.retired {
        let Some(route) = &retired.route else { continue };
        let parents = match route.parents.is_empty() {
            true => "bootstrap".to_owned(),
            false => ids(&route.parents, " and "),
        };
        writeln!(
            out,
            "  {}: of {parents}, v{} to v{} ({}), then {}",
            route_words(route),
            route.created_version,
            retired.retired_version,
            text::time_utc(retired.retired_ms),
            ids(&retired.children, " and "),
        )?;
    }
    Ok(())
}
