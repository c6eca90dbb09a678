//! `routes`: lists, changes and watches routes.

mod halves;
mod history;
mod load;
mod moving;

pub(crate) use moving::words as move_words;

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use super::data::kv::OneFormat;
use super::flags::values;
use super::terminal::output::{self, Format};
use super::terminal::talk::say;
use super::terminal::{notation, text};
use super::{CliError, UsageError};
use keyviz_client::ChangeOptions;
use keyviz_json::{MoveJson, RouteChangeJson, RouteJson, WatchJson, key_text};
use keyviz_proto as proto;
use keyviz_proto::routes_client::RoutesClient;
use keyviz_proto::watch_routes_response::Event;
use keyviz_security::AuthChannel;

/// `routes`.
#[derive(Args, Debug)]
pub struct RoutesArgs {
    #[command(subcommand)]
    command: RoutesCommand,
}

#[derive(Subcommand, Debug)]
enum RoutesCommand {
    /// List all routes in key order, with the load of the last column
    List(ListArgs),
    /// Retire a route and create two in its place
    Split(SplitArgs),
    /// Retire two neighbouring routes of one Raft group and create one in their place
    Merge(MergeArgs),
    /// Put a route into another Raft group, under load; it keeps its id
    Move(moving::MoveArgs),
    /// Show the routes, or the changes after a version, and every change from then on
    Watch(WatchArgs),
    /// List the retained changes and the routes that they retired
    History(history::HistoryArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
struct SplitArgs {
    /// Route to split
    #[arg(value_parser = route_id)]
    id: u64,
    /// First key of the right part; inside the route
    #[arg(value_parser = values::key, required_unless_present = "auto", conflicts_with = "auto")]
    key: Option<Bytes>,
    /// Split at the key that halves the reads and writes of the window; newer columns weigh more,
    /// by half a minute
    #[arg(long)]
    auto: bool,
    /// Window until now whose reads and writes are halved (--auto), with the column in progress
    #[arg(long, value_name = "DURATION", default_value = "1h", requires = "auto")]
    #[arg(value_parser = values::duration)]
    last: Duration,
    /// Print the key and its halves, and split nothing (--auto)
    #[arg(long, requires = "auto")]
    dry_run: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct MergeArgs {
    /// Left route
    #[arg(value_parser = route_id)]
    left: u64,
    /// Its right neighbour
    #[arg(value_parser = route_id)]
    right: u64,
    /// Where they are in different groups, move the right one to the group of the left one first
    #[arg(long = "move")]
    moves: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct ChangeArgs {
    /// Refuse the change unless the catalog has this version; 0: any
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    expected_version: u64,
    /// Cluster whose catalog version that is (`cluster_id` of `routes list --format json`); another
    /// cluster, or the same after a restore, refuses the change
    #[arg(long, value_name = "ID", requires = "expected_version")]
    expected_cluster: Option<String>,
    /// Request id: changes with the same id are made once; absent: a random id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

impl ChangeArgs {
    fn options(&self) -> ChangeOptions {
        ChangeOptions {
            expected_version: self.expected_version,
            expected_cluster: self.expected_cluster.clone(),
            request_id: self.request_id.clone(),
        }
    }
}

#[derive(Args, Debug)]
struct WatchArgs {
    /// Only changes after this catalog version; 0: the whole table first
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
    /// Cluster whose catalog version that is (`cluster_id` of the first object of an earlier
    /// watch); another cluster, or the same after a restore, shows the whole table first
    #[arg(long, value_name = "ID", requires = "after")]
    cluster: Option<String>,
    /// Also show the leaders of groups, with their addresses; with --after it needs --cluster
    #[arg(long)]
    leaders: bool,
    /// How to print; json prints one object per line
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn route_id(text: &str) -> Result<u64, values::ValueError> {
    values::number_in(text, 1, u64::MAX)
}

/// Runs a `routes` command.
pub async fn run(args: RoutesArgs) -> Result<(), CliError> {
    match args.command {
        RoutesCommand::List(args) => list(args).await,
        RoutesCommand::Split(args) => split(args).await,
        RoutesCommand::Merge(args) => merge(args).await,
        RoutesCommand::Move(args) => moving::run(args).await,
        RoutesCommand::Watch(args) => watch(args).await,
        RoutesCommand::History(args) => history::run(args).await,
    }
}

fn stub(channel: AuthChannel) -> RoutesClient<AuthChannel> {
    RoutesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let list = fetch(&client).await?;
    let load = load::of_routes(&client).await;
    let mut out = output::stdout();
    print(&mut out, &list, load.as_ref(), args.format)?;
    out.flush()?;
    Ok(())
}

/// All routes.
async fn fetch(client: &Client) -> Result<proto::ListRoutesResponse, CliError> {
    let list = client.call(Effect::Read, |channel| async move {
        stub(channel).list_routes(proto::ListRoutesRequest::default()).await
    });
    Ok(list.await?.into_inner())
}

/// The JSON of `routes list`.
#[derive(Serialize)]
struct ListJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<&'a str>,
    catalog_version: u64,
    /// The column of the loads; absent if they are not known.
    load_from_ms: Option<u64>,
    load_to_ms: Option<u64>,
    routes: Vec<ListedRoute<'a>>,
    moves: Vec<MoveJson<'a>>,
}

#[derive(Serialize)]
struct ListedRoute<'a> {
    #[serde(flatten)]
    route: RouteJson<'a>,
    reads: Option<u64>,
    writes: Option<u64>,
}

impl<'a> ListJson<'a> {
    fn new(list: &'a proto::ListRoutesResponse, load: Option<&load::RouteLoads>) -> Self {
        let listed = |route: &'a proto::Route| ListedRoute {
            route: route.into(),
            reads: load.and_then(|load| load.reads(route.route_id)),
            writes: load.and_then(|load| load.writes(route.route_id)),
        };
        ListJson {
            cluster_id: Some(list.cluster_id.as_str()).filter(|id| !id.is_empty()),
            catalog_version: list.catalog_version,
            load_from_ms: load.map(|load| load.from_ms),
            load_to_ms: load.map(|load| load.to_ms),
            routes: list.routes.iter().map(listed).collect(),
            moves: list.moves.iter().map(MoveJson::from).collect(),
        }
    }
}

async fn split(args: SplitArgs) -> Result<(), CliError> {
    let client = args.change.nodes.client()?;
    let options = args.change.options();
    let key = match args.key {
        Some(key) => key,
        None => {
            let list = fetch(&client).await?;
            let choice = halves::choose(&client, list, args.id, args.last).await?;
            if args.dry_run {
                return choice.print(args.change.format);
            }
            say!("keyviz: {choice}");
            choice.key
        }
    };
    let change = client.split_route(args.id, key, options).await?;
    print_change(&change, args.change.format)
}

async fn merge(args: MergeArgs) -> Result<(), CliError> {
    if args.left == args.right {
        let reason = "a route is not its own neighbour";
        return Err(UsageError::value("<RIGHT>", args.right, reason).into());
    }
    let client = args.change.nodes.client()?;
    if args.moves {
        move_together(&client, &args).await?;
    }
    let options = args.change.options();
    let change = client.merge_routes(args.left, args.right, options).await?;
    print_change(&change, args.change.format)
}

/// Puts the right route into the group of the left one.
async fn move_together(client: &Client, args: &MergeArgs) -> Result<(), CliError> {
    let list = fetch(client).await?;
    let route = |id: u64| list.routes.iter().find(|route| route.route_id == id);
    // What is no route any more or no neighbour is left to the merge, which says so, or was made
    // before and says that; nothing is moved for it.
    let (Some(left), Some(right)) = (route(args.left), route(args.right)) else { return Ok(()) };
    if left.group_id == right.group_id || left.end.as_ref() != Some(&right.start) {
        return Ok(());
    }
    moving::move_and_wait(client, args.right, left.group_id, &args.change).await
}

fn print_change(change: &proto::RouteChangeResponse, format: OneFormat) -> Result<(), CliError> {
    let mut out = output::stdout();
    match format {
        OneFormat::Json => output::json_line(&mut out, &RouteChangeJson::from(change))?,
        OneFormat::Table => {
            let created = change_words(&change.retired, &change.created);
            writeln!(out, "v{} {created}", change.catalog_version)?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Shows changes until Ctrl-C. If the stream breaks, the watch resumes at any node after the last
/// version shown.
async fn watch(args: WatchArgs) -> Result<(), CliError> {
    let mut watch =
        args.nodes.client()?.watch_routes_of(args.after, args.cluster.unwrap_or_default());
    watch = if args.leaders { watch.with_leaders() } else { watch };
    let mut streams = 1;
    loop {
        let from = watch.version();
        let message = watch.next_message().await?;
        if watch.streams() > streams {
            streams = watch.streams();
            say!("keyviz: the stream ended; going on after version {from}");
        }
        show_event(&message, args.format)?;
    }
}

fn show_event(message: &proto::WatchRoutesResponse, format: OneFormat) -> std::io::Result<()> {
    let mut out = output::stdout();
    match format {
        OneFormat::Json => {
            if let Some(event) = WatchJson::new(message) {
                output::json_line(&mut out, &event)?;
            }
        }
        OneFormat::Table => event_lines(&mut out, message)?,
    }
    out.flush()
}

fn event_lines(out: &mut impl Write, message: &proto::WatchRoutesResponse) -> std::io::Result<()> {
    match &message.event {
        Some(Event::Snapshot(snapshot)) => {
            let again = if snapshot.reset { " again, changes were missed" } else { "" };
            let routes = snapshot.routes.len();
            writeln!(out, "v{} the table{again}: {routes} routes", snapshot.catalog_version)?;
            for route in &snapshot.routes {
                writeln!(out, "  {}", route_words(route))?;
            }
        }
        Some(Event::Deltas(deltas)) => {
            for delta in &deltas.deltas {
                writeln!(out, "{}", delta_words(delta))?;
            }
        }
        Some(Event::Leaders(leaders)) => {
            for leader in &leaders.leaders {
                writeln!(out, "{}", leader_words(leader))?;
            }
        }
        // Progress messages are for programs.
        Some(Event::Progress(_)) | None => {}
    }
    Ok(())
}

fn leader_words(leader: &proto::GroupLeader) -> String {
    match leader.node_id {
        Some(node) => {
            let address = text::inert(&leader.address);
            format!("group {}: led by node {node} at {address}", leader.group_id)
        }
        None => format!("group {}: no leader is known", leader.group_id),
    }
}

fn delta_words(delta: &proto::RouteDelta) -> String {
    let (time, kind) = (text::time_utc(delta.time_ms), text::inert(&delta.kind));
    // A route that moves is retired and created in one, under its id.
    let moves = delta.kind == "move";
    let retired = if moves { &[][..] } else { &delta.retired };
    let change = change_words(retired, &delta.created);
    format!("v{} {time} {kind}: {change}", delta.catalog_version)
}

fn change_words(retired: &[u64], created: &[proto::Route]) -> String {
    let created: Vec<_> = created.iter().map(route_words).collect();
    match retired {
        [] => created.join("; "),
        retired => format!("{} retired; {}", ids(retired, " and "), created.join("; ")),
    }
}

fn route_words(route: &proto::Route) -> String {
    let range = notation::range(&route.start, route.end.as_deref());
    format!("route {} {range} in group {}", route.route_id, route.group_id)
}

fn print(
    out: &mut impl Write,
    list: &proto::ListRoutesResponse,
    load: Option<&load::RouteLoads>,
    format: Format,
) -> std::io::Result<()> {
    match format {
        Format::Json => output::json_line(out, &ListJson::new(list, load)),
        Format::Csv => csv_rows(out, list, load),
        Format::Table => {
            writeln!(out, "{}", table(list, load).trim_fmt())?;
            let routes = text::thousands(list.routes.len() as u64);
            write!(out, "{routes} routes, catalog version {}", list.catalog_version)?;
            match load {
                Some(load) => writeln!(
                    out,
                    "; READS and WRITES from {} to {}",
                    text::time_utc(load.from_ms),
                    text::time_utc(load.to_ms)
                ),
                None => writeln!(out, "; their load is not known"),
            }?;
            for moving in &list.moves {
                writeln!(out, "moving: {}", moving::words(moving))?;
            }
            Ok(())
        }
    }
}

fn table(list: &proto::ListRoutesResponse, load: Option<&load::RouteLoads>) -> Table {
    let count = |count: Option<u64>| count.map_or("-".into(), text::short_count);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "ROUTE", "START", "END", "GROUP", "LEADER", "PARENTS", "CREATED", "SINCE", "READS",
        "WRITES",
    ]);
    for route in &list.routes {
        table.add_row([
            route.route_id.to_string(),
            notation::start(&route.start).into_owned(),
            notation::end(&route.start, route.end.as_deref()).into_owned(),
            route.group_id.to_string(),
            route.leader.map_or("-".into(), |leader| leader.to_string()),
            ids(&route.parents, ","),
            text::time_utc(route.created_ms),
            format!("v{}", route.created_version),
            count(load.and_then(|load| load.reads(route.route_id))),
            count(load.and_then(|load| load.writes(route.route_id))),
        ]);
    }
    for numeric in [0, 3, 4, 8, 9] {
        if let Some(column) = table.column_mut(numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn csv_rows(
    out: &mut impl Write,
    list: &proto::ListRoutesResponse,
    load: Option<&load::RouteLoads>,
) -> std::io::Result<()> {
    let count = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        "route_id",
        "start",
        "end",
        "group_id",
        "leader",
        "parents",
        "created_version",
        "created_ms",
        "reads",
        "writes",
    ])?;
    for route in &list.routes {
        csv.write_record([
            route.route_id.to_string().as_str(),
            &key_text(&route.start),
            &route.end.as_deref().map(key_text).unwrap_or_default(),
            &route.group_id.to_string(),
            &route.leader.map(|leader| leader.to_string()).unwrap_or_default(),
            &ids(&route.parents, " "),
            &route.created_version.to_string(),
            &route.created_ms.to_string(),
            &count(load.and_then(|load| load.reads(route.route_id))),
            &count(load.and_then(|load| load.writes(route.route_id))),
        ])?;
    }
    csv.flush()
}

fn ids(ids: &[u64], between: &str) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
