//! `routes move`: puts a route into another group, and shows how far it is.

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{ChangeArgs, route_id};
use crate::client::Client;
use crate::data::kv::OneFormat;
use crate::terminal::talk::say;
use crate::terminal::{output, text};
use crate::{CliError, UsageError};
use keyviz_json::MoveJson;
use keyviz_proto as proto;

/// Interval of the status requests.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Interval of the requests for what has been copied.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The wait ends after this time without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `routes move`.
#[derive(Args, Debug)]
pub(super) struct MoveArgs {
    /// Route to move
    #[arg(value_parser = route_id)]
    id: u64,
    /// Raft group that gets it
    #[arg(value_parser = route_id, required_unless_present = "cancel", conflicts_with = "cancel")]
    group: Option<u64>,
    /// Take the move of this route back
    #[arg(long)]
    cancel: bool,
    /// Return once the move is recorded; `routes list` shows how far it is
    #[arg(long, conflicts_with = "cancel")]
    no_wait: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `routes move`.
pub(super) async fn run(args: MoveArgs) -> Result<(), CliError> {
    let client = args.change.nodes.client()?;
    let format = args.change.format;
    let Some(group) = args.group else {
        if args.change.expected_version > 0 || args.change.request_id.is_some() {
            let reason = "a move is taken back whatever the catalog version";
            return Err(UsageError::value("--cancel", "--expected-version", reason).into());
        }
        let cancelled = client.cancel_move(args.id, args.change.expected_cluster.clone()).await?;
        return cancelled.map_or(Ok(()), |moving| print(&moving, format));
    };
    let begun = client.move_route(args.id, group, args.change.options()).await?;
    let Some(begun) = begun.r#move else { return Ok(()) };
    let ended = if args.no_wait { begun } else { wait(&client, begun).await? };
    print(&ended, format)?;
    abandoned(&ended)
}

/// A move that was abandoned did not do what was asked for.
fn abandoned(moving: &proto::RouteMove) -> Result<(), CliError> {
    match moving.phase.as_str() {
        "abandoning" | "abandoned" => Err(CliError::MoveAbandoned {
            id: moving.route_id,
            reason: text::inert(&moving.reason).into_owned(),
        }),
        _ => Ok(()),
    }
}

/// Moves a route and waits until it has moved.
pub(super) async fn move_and_wait(
    client: &Client,
    id: u64,
    group: u64,
    change: &ChangeArgs,
) -> Result<(), CliError> {
    let mut options = change.options();
    // The version is that of the merge that follows, and so is the id.
    (options.expected_version, options.request_id) = (0, None);
    let begun = client.move_route(id, group, options).await?;
    let Some(begun) = begun.r#move else { return Ok(()) };
    say!("keyviz: {}", words(&begun));
    abandoned(&wait(client, begun).await?)
}

/// Waits until the route has moved, or the move is abandoned.
async fn wait(client: &Client, mut moving: proto::RouteMove) -> Result<proto::RouteMove, CliError> {
    let mut heard = Instant::now();
    let mut said = String::new();
    let mut asked = Instant::now();
    let bar = bar();
    while !is_decided(&moving) {
        tokio::time::sleep(ASK_EVERY).await;
        match client.moves().await {
            Ok(moves) => {
                heard = Instant::now();
                // A node that is behind may not have heard of it.
                if let Some(now) = moves.into_iter().find(|now| now.move_id == moving.move_id) {
                    let copied = (moving.copied_rows, moving.copied_bytes);
                    moving = now;
                    (moving.copied_rows, moving.copied_bytes) = copied;
                }
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => {}
        }
        if is_decided(&moving) {
            break;
        }
        if asked.elapsed() > PROGRESS_EVERY {
            copied(client, &mut moving).await;
            asked = Instant::now();
        }
        bar.set_message(words(&moving));
        if moving.phase != said {
            bar.suspend(|| say!("keyviz: {}", words(&moving)));
            said.clone_from(&moving.phase);
        }
    }
    bar.finish_and_clear();
    Ok(moving)
}

/// Asks what has been copied. Nothing where no node that answers drives the move.
async fn copied(client: &Client, moving: &mut proto::RouteMove) {
    let Ok(status) = client.cluster_status().await else { return };
    let now = status.route_moves.into_iter().find(|now| now.move_id == moving.move_id);
    if let Some(now) = now.filter(|now| now.copied_bytes.is_some()) {
        *moving = now;
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed}: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(PROGRESS_EVERY / 10);
    bar
}

/// Whether it is clear in which group the route is.
fn is_decided(moving: &proto::RouteMove) -> bool {
    matches!(moving.phase.as_str(), "cleaning" | "moved" | "abandoning" | "abandoned")
}

fn print(moving: &proto::RouteMove, format: OneFormat) -> Result<(), CliError> {
    let mut out = output::stdout();
    match format {
        OneFormat::Json => output::json_line(&mut out, &MoveJson::from(moving))?,
        OneFormat::Table => writeln!(out, "{}", words(moving))?,
    }
    out.flush()?;
    Ok(())
}

/// A move in words.
pub(crate) fn words(moving: &proto::RouteMove) -> String {
    let proto::RouteMove { move_id, route_id, from_group, to_group, .. } = *moving;
    let of = format!("route {route_id} from group {from_group} to group {to_group}");
    let took = |to_ms: u64| {
        let millis = to_ms.saturating_sub(moving.started_ms);
        format!("{}.{:03} s", millis / 1_000, millis % 1_000)
    };
    let reason = text::inert(&moving.reason);
    match moving.phase.as_str() {
        "moved" | "cleaning" => {
            let (version, took) = (moving.moved_version, took(moving.moved_ms));
            let left = if moving.ended_ms > 0 { "" } else { "; its old rows are being deleted" };
            format!("v{version} {of} (move {move_id}) in {took}{left}")
        }
        "abandoned" | "abandoning" => format!("{of} (move {move_id}) abandoned: {reason}"),
        phase => {
            let phase = text::inert(phase);
            let copied = moving.copied_bytes.map_or_else(String::new, |bytes| {
                let rows = text::thousands(moving.copied_rows.unwrap_or_default());
                format!(", {} in {rows} rows copied", text::short_bytes(bytes))
            });
            format!("{of} (move {move_id}): {phase}{copied}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_what_moves_where_and_what_became_of_it() {
        let mut moving = proto::RouteMove {
            move_id: 3,
            route_id: 7,
            from_group: 1,
            to_group: 2,
            phase: "copying".to_owned(),
            started_ms: 1_000,
            ..Default::default()
        };
        assert_eq!(words(&moving), "route 7 from group 1 to group 2 (move 3): copying");
        assert!(!is_decided(&moving) && abandoned(&moving).is_ok());
        (moving.copied_rows, moving.copied_bytes) = (Some(1_031), Some(4 << 20));
        let now = "route 7 from group 1 to group 2 (move 3): copying, 4.0 MiB in 1,031 rows copied";
        assert_eq!(words(&moving), now);
        (moving.phase, moving.moved_version, moving.moved_ms) = ("cleaning".to_owned(), 9, 1_250);
        let now = "v9 route 7 from group 1 to group 2 (move 3) in 0.250 s";
        assert_eq!(words(&moving), format!("{now}; its old rows are being deleted"));
        (moving.phase, moving.ended_ms) = ("moved".to_owned(), 2_000);
        assert_eq!(words(&moving), now);
        (moving.phase, moving.reason) = ("abandoned".to_owned(), "it was cancelled".to_owned());
        assert!(words(&moving).ends_with("abandoned: it was cancelled"));
        assert!(is_decided(&moving) && abandoned(&moving).is_err());
    }
}
