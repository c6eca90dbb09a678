//! `autopilot`: shows and switches the autopilot, and its journal.

mod page;
#[cfg(test)]
mod tests;

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::CliError;
use super::client::{Client, NodeArgs};
use super::data::kv::OneFormat;
use super::flags::autopilot_flags::Piloting;
use super::terminal::output;
use keyviz_client::{Effect, MAX_ANSWER_BYTES};
use keyviz_core::autopilot::Mode;
use keyviz_json::{AutopilotJson, JournalJson};
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_security::AuthChannel;

pub(crate) use page::{entry_lines, forecast_line};

/// `autopilot`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Without MODE it says what the autopilot does, what it would do, and why it does nothing. The mode
holds for the whole cluster and stays after restarts. Acts that have begun are completed."
)]
pub struct AutopilotArgs {
    #[command(subcommand)]
    command: Option<AutopilotCommand>,
    /// Switch it: off, only say what it would do, or act
    #[arg(value_enum, value_name = "MODE")]
    mode: Option<Piloting>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Subcommand, Debug)]
enum AutopilotCommand {
    /// Show what changed the layout: who, when, why, the forecast and the measured outcome
    Log(LogArgs),
}

/// `autopilot log`.
#[derive(Args, Debug)]
struct LogArgs {
    /// Maximum number of entries, the newest ones, at most 1,024
    #[arg(
        long,
        value_name = "ENTRIES",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=1_024),
    )]
    limit: u32,
    /// Only entries before this one
    #[arg(long, value_name = "ID", default_value_t = 0)]
    before: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn stub(channel: AuthChannel) -> ClusterClient<AuthChannel> {
    ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// Runs `autopilot`.
pub async fn run(args: AutopilotArgs) -> Result<(), CliError> {
    let mut out = output::stdout();
    if let Some(AutopilotCommand::Log(log)) = args.command {
        let journal = journal(&log.nodes.client()?, log.limit, log.before).await?;
        match log.format {
            OneFormat::Json => output::json_line(&mut out, &JournalJson::from(&journal))?,
            OneFormat::Table => {
                out.write_all(page::journal(&journal, output::size().0).as_bytes())?;
            }
        }
        out.flush()?;
        return Ok(());
    }
    let client = args.nodes.client()?;
    let told = match args.mode {
        None => told(&client).await?,
        Some(mode) => switch(&client, mode).await?,
    };
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &AutopilotJson::from(&told))?,
        OneFormat::Table => out.write_all(page::page(&told, output::size().0).as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

/// What the autopilot does.
async fn told(client: &Client) -> Result<proto::Autopilot, CliError> {
    let answer = client.call(Effect::Read, |channel| async move {
        stub(channel).get_autopilot(proto::GetAutopilotRequest {}).await
    });
    Ok(answer.await?.into_inner())
}

async fn switch(client: &Client, mode: Piloting) -> Result<proto::Autopilot, CliError> {
    let request = &proto::SetAutopilotRequest {
        mode: Mode::from(mode).name().to_owned(),
        expected_revision: 0,
    };
    // Set twice it is the same.
    let answer = client.call(Effect::Repeatable, |channel| async move {
        stub(channel).set_autopilot(request.clone()).await
    });
    Ok(answer.await?.into_inner())
}

/// The newest entries of the journal.
pub(crate) async fn journal(
    client: &Client,
    limit: u32,
    before: u64,
) -> Result<proto::Journal, CliError> {
    let request = &proto::AutopilotLogRequest { limit, before };
    let answer = client.call(Effect::Read, |channel| async move {
        stub(channel).autopilot_log(request.clone()).await
    });
    Ok(answer.await?.into_inner())
}
