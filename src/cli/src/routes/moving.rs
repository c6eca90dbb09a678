//! `routes move`: puts a route into another group, and shows how far it is.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;

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
    while !is_decided(&moving) {
        tokio::time::sleep(ASK_EVERY).await;
        match client.moves().await {
            Ok(moves) => {
                heard = Instant::now();
                // A node that is behind may not have heard of it.
                let now = moves.into_iter().find(|now| now.move_id == moving.move_id);
                moving = now.unwrap_or(moving);
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => {}
        }
        let phase = moving.phase.clone();
        if phase != said && !is_decided(&moving) {
            say!("keyviz: {}", words(&moving));
            said = phase;
        }
    }
    Ok(moving)
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
        phase => format!("{of} (move {move_id}): {}", text::inert(phase)),
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
