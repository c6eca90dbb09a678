//! `heat`: requests a matrix and draws or prints it.

mod by_node;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tonic::Code;

use super::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use super::flags::values;
use super::heatmap::{Drawing, render};
use super::terminal::output::{self, ColorDepth, Format};
use super::terminal::screen::Screen;
use super::terminal::text;
use super::{CallError, CliError, UsageError, live};
use keyviz_json::{MatrixJson, key_text};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;

/// Most rows of a matrix.
pub const MAX_ROWS: u64 = 1024;
/// Most columns of a matrix.
pub const MAX_COLUMNS: u64 = 2048;
/// Shortest and longest time between two drawings of a live heatmap.
const LIVE_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Maximum lead of a clock of the cluster over that of this machine.
const MOST_AHEAD_MS: u64 = 60_000;
/// Maximum number of times that a window is narrowed to its counts; each time columns get shorter.
const CLIPS: u32 = 3;

/// Whose counts to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Scope {
    /// Every node of the cluster, merged
    #[default]
    Cluster,
    /// The asked node alone
    Node,
}

/// `heat`.
#[derive(Args, Debug)]
pub struct HeatArgs {
    /// What to count: reads, writes, read-bytes or write-bytes
    #[arg(long, value_name = "SERIES", default_value = "writes", value_parser = values::series)]
    series: proto::Series,
    /// Length of the window until now, such as 5m or 1h, including the column in progress [default:
    /// 1h]. A drawing begins at the first count
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        conflicts_with_all = ["from", "to"],
    )]
    last: Option<Duration>,
    /// Start of the window: RFC 3339 or Unix milliseconds; absent: 1h before its end
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    from: Option<u64>,
    /// End of the window, exclusive: RFC 3339 or Unix milliseconds; absent: now, including the
    /// column in progress
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    to: Option<u64>,
    /// First key, inclusive; absent: the beginning of the key space
    #[arg(long, value_name = "KEY", value_parser = values::bound)]
    start: Option<Bytes>,
    /// First key after the range; absent: the end of the key space
    #[arg(long, value_name = "KEY", value_parser = values::bound)]
    end: Option<Bytes>,
    /// Maximum number of rows, at most 1,024; above it the coldest neighbours share rows. 0: 256.
    /// Default: what fits the terminal, otherwise 256
    #[arg(long, value_name = "ROWS", value_parser = rows)]
    rows: Option<u32>,
    /// Maximum number of columns, at most 2,048; above it adjacent columns are added up. 0: 480.
    /// Default: what fits the terminal, otherwise 480
    #[arg(long, value_name = "COLUMNS", value_parser = columns)]
    columns: Option<u32>,
    /// Whose counts to show
    #[arg(long, value_enum, default_value = "cluster")]
    scope: Scope,
    /// Show counts of this role only: all, leader-write, leader-read or follower-read
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = values::role)]
    role: proto::Role,
    /// Routes of the rows: now, those of today; then, those at the start of the window
    #[arg(long, value_name = "AXIS", default_value = "now", value_parser = values::axis)]
    axis: proto::Axis,
    /// Show the share of each node instead of a heatmap: a table of the nodes; csv has one line per
    /// row with a number for each node, json has both
    #[arg(long, conflicts_with = "live")]
    by_node: bool,
    /// Update until Ctrl-C. On a terminal columns appear as they close, and keys move the cursor,
    /// zoom and pan (? lists them); json has one object per line
    #[arg(long)]
    live: bool,
    /// How to print; json has the whole matrix, csv one line per row
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn rows(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 0, MAX_ROWS).map(|rows| rows as u32)
}

fn columns(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 0, MAX_COLUMNS).map(|columns| columns as u32)
}

/// The query, before the clock and the terminal are taken into account.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    /// Which numbers.
    pub series: proto::Series,
    /// Which roles.
    pub role: proto::Role,
    /// The length of the window until now.
    pub last: Option<Duration>,
    /// Start of the window, instead of `last`.
    pub from_ms: Option<u64>,
    /// End of the window, instead of `last`.
    pub to_ms: Option<u64>,
    /// First key.
    pub start: Bytes,
    /// First key after the range.
    pub end: Option<Bytes>,
    /// Row budget; 0: that of the server; absent: that of the drawing.
    pub rows: Option<u32>,
    /// Column budget; 0: that of the server; absent: that of the drawing.
    pub columns: Option<u32>,
    /// Cluster or node.
    pub scope: Scope,
    /// Routes of today or of the window's beginning.
    pub axis: proto::Axis,
    /// Also what each node contributed.
    pub by_node: bool,
}

impl Query {
    /// The request at `now_ms`, for a drawing or with the budgets of the server.
    pub fn request(&self, now_ms: u64, drawing: Option<&Drawing>) -> proto::GetMatrixRequest {
        let budget = drawing.map(Drawing::budget);
        let fits = |cells: usize, most: u64| (cells as u64).min(most) as u32;
        let last_ms = self.last.map(|last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX));
        proto::GetMatrixRequest {
            series: self.series.into(),
            from_ms: last_ms.map(|last_ms| now_ms.saturating_sub(last_ms)).or(self.from_ms),
            to_ms: self.to_ms,
            start: self.start.clone(),
            end: self.end.clone(),
            max_rows: self.rows.or(budget.map(|(_, rows)| fits(rows, MAX_ROWS))).unwrap_or(0),
            max_columns: self
                .columns
                .or(budget.map(|(columns, _)| fits(columns, MAX_COLUMNS)))
                .unwrap_or(0),
            role: self.role.into(),
            axis: self.axis.into(),
            by_node: self.by_node,
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// [`CliError::HeatUnavailable`] if the visualizer is off, otherwise the error of the call.
    pub async fn ask(
        &self,
        client: &Client,
        drawing: Option<&Drawing>,
    ) -> Result<proto::Matrix, CliError> {
        let request = &self.request(now_ms(), drawing);
        let scope = self.scope;
        let answer = client.call(Effect::Read, |channel| async move {
            let mut client = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            match scope {
                Scope::Cluster => client.get_matrix(request.clone()).await,
                Scope::Node => client.get_node_matrix(request.clone()).await,
            }
        });
        match answer.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(CallError::Refused { address, status }) if status.code() == Code::Unavailable => {
                Err(CliError::HeatUnavailable(CallError::Refused { address, status }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Unix milliseconds of this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl HeatArgs {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// Names the flag and its value.
    pub fn query(&self) -> Result<Query, UsageError> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            let (from, end) = (text::time_utc(from), text::time_utc(to));
            let reason = format!("the window must end after it begins: {end} is not after {from}");
            return Err(UsageError::value("--to <TIME>", to, reason));
        }
        if let (Some(from), None) = (self.from, self.to)
            && from > now_ms().saturating_add(MOST_AHEAD_MS)
        {
            let reason = format!("the window would begin in the future: {}", text::time_utc(from));
            return Err(UsageError::value("--from <TIME>", from, reason));
        }
        if let Some(end) = &self.end
            && self.start.as_ref().is_some_and(|start| start >= end)
        {
            let reason = "the key range ends before it begins (--start)";
            return Err(UsageError::value("--end <KEY>", text::preview(end), reason));
        }
        if let Some(end) = self.end.as_ref().filter(|end| end.is_empty()) {
            let reason = "no key is before the empty key";
            return Err(UsageError::value("--end <KEY>", text::preview(end), reason));
        }
        if let (true, Some(to)) = (self.live, self.to) {
            let reason = "a live heatmap has no end (--live)";
            return Err(UsageError::value("--to <TIME>", to, reason));
        }
        Ok(Query {
            series: self.series,
            role: self.role,
            last: self.last,
            from_ms: self.from,
            to_ms: self.to,
            start: self.start.clone().unwrap_or_default(),
            end: self.end.clone(),
            rows: self.rows,
            columns: self.columns,
            scope: self.scope,
            axis: self.axis,
            by_node: self.by_node,
        })
    }
}

/// Runs `heat`.
pub async fn run(args: HeatArgs, color: ColorDepth) -> Result<(), CliError> {
    let query = args.query()?;
    let client = args.nodes.client()?;
    if args.live {
        // Keys need stdin and stdout to be terminals.
        let keys = io::stdout().is_terminal() && io::stdin().is_terminal();
        if args.format == Format::Table && keys {
            return live::run(query, client, color).await;
        }
        return again(&query, &client, args.format, color).await;
    }
    let drawing = if args.by_node { None } else { drawing(args.format, color) };
    let mut matrix = query.ask(&client, drawing.as_ref()).await?;
    let mut clipped = false;
    if drawing.is_some() {
        clipped = clip(&query, &client, drawing.as_ref(), &mut matrix).await?;
    }
    let mut out = output::stdout();
    if args.by_node && args.format != Format::Json {
        by_node::print(&mut out, &matrix, args.format)?;
        out.flush()?;
        return Ok(());
    }
    let node = Some(&matrix).filter(|_| drawing.is_some() && query.scope == Scope::Node);
    if let Some(words) = node.and_then(counted_by) {
        writeln!(out, "{words}")?;
    }
    print(&mut out, &matrix, args.format, drawing.as_ref())?;
    if let (true, Some(first)) = (clipped, matrix.columns.first()) {
        writeln!(
            out,
            "nothing was counted in this window before {}",
            text::time_utc(first.start_ms)
        )?;
    }
    out.flush()?;
    Ok(())
}

/// The only node that was asked.
pub(super) fn counted_by(matrix: &proto::Matrix) -> Option<String> {
    let node = matrix.nodes.first()?;
    Some(format!("counted by node {} ({}) alone", node.id, text::inert(&node.address)))
}

/// Narrows a window without a given start to the columns with counts; returns whether it did.
async fn clip(
    query: &Query,
    client: &Client,
    drawing: Option<&Drawing>,
    matrix: &mut proto::Matrix,
) -> Result<bool, CliError> {
    if query.from_ms.is_some() {
        return Ok(false);
    }
    let mut clipped = false;
    for _ in 0..CLIPS {
        let Some(first) = first_counted(matrix).filter(|first| *first > 0) else { break };
        let from_ms = Some(matrix.columns[first].start_ms);
        let narrow = Query { from_ms, last: None, ..query.clone() };
        *matrix = narrow.ask(client, drawing).await?;
        clipped = true;
    }
    Ok(clipped)
}

/// The first column that has counts, or may have.
fn first_counted(matrix: &proto::Matrix) -> Option<usize> {
    let counted = |at: usize| {
        matrix.rows.iter().any(|row| {
            let marked = |flags: &[u32]| flags.contains(&(at as u32));
            row.values.get(at).is_some_and(|value| *value > 0)
                || marked(&row.partial)
                || marked(&row.conflict)
        })
    };
    (0..matrix.columns.len()).find(|at| counted(*at))
}

/// The drawing for a format; `None` if nothing is drawn. A piped drawing is as high as its rows.
fn drawing(format: Format, color: ColorDepth) -> Option<Drawing> {
    let (width, height) = output::size();
    (format == Format::Table).then_some(Drawing { width, height, color })
}

fn print(
    out: &mut impl Write,
    matrix: &proto::Matrix,
    format: Format,
    drawing: Option<&Drawing>,
) -> io::Result<()> {
    match (format, drawing) {
        (Format::Csv, _) => csv_rows(out, matrix),
        (Format::Table, Some(drawing)) => out.write_all(render(matrix, drawing).as_bytes()),
        _ => output::json_line(out, &MatrixJson::from(matrix)),
    }
}

/// One line per row; the header names each column by its start in Unix milliseconds.
fn csv_rows(out: &mut impl Write, matrix: &proto::Matrix) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().flexible(true).from_writer(out);
    let fixed = ["bucket_id", "start", "end", "group_id", "route_count", "total"];
    let starts = matrix.columns.iter().map(|column| column.start_ms.to_string());
    csv.write_record(fixed.map(str::to_owned).into_iter().chain(starts))?;
    for row in &matrix.rows {
        let total = row.values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        let fixed = [
            key_text(row.bucket_id.as_bytes()).into_owned(),
            key_text(&row.start).into_owned(),
            row.end.as_deref().map(key_text).unwrap_or_default().into_owned(),
            row.group_id.map(|group| group.to_string()).unwrap_or_default(),
            row.route_count.to_string(),
            total.to_string(),
        ];
        csv.write_record(fixed.into_iter().chain(row.values.iter().map(u64::to_string)))?;
    }
    csv.flush()
}

/// Queries until Ctrl-C. A failure of the first query ends the command; later failures are shown.
async fn again(
    query: &Query,
    client: &Client,
    format: Format,
    color: ColorDepth,
) -> Result<(), CliError> {
    let in_place = format == Format::Table && io::stdout().is_terminal();
    let mut matrix = query.ask(client, drawing(format, color).as_ref()).await?;
    let mut screen = if in_place { Some(Screen::enter()?) } else { None };
    let mut failure = None;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let drawing = drawing(format, color);
        match (&mut screen, &drawing) {
            (Some(screen), Some(drawing)) => screen.show(&live_text(&matrix, drawing, &failure))?,
            _ => print_live(&matrix, format, drawing.as_ref(), failure.as_deref())?,
        }
        let every = live_every(&matrix);
        tokio::select! {
            _ = &mut interrupt => break,
            () = tokio::time::sleep(every) => {}
        }
        let next = tokio::select! {
            _ = &mut interrupt => break,
            next = query.ask(client, drawing.as_ref()) => next,
        };
        match next {
            Ok(next) => (matrix, failure) = (next, None),
            Err(error) => failure = Some(error.to_string()),
        }
    }
    drop(screen);
    if let (true, Some(drawing)) = (in_place, drawing(format, color)) {
        let mut out = output::stdout();
        out.write_all(render(&matrix, &drawing).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn print_live(
    matrix: &proto::Matrix,
    format: Format,
    drawing: Option<&Drawing>,
    failure: Option<&str>,
) -> io::Result<()> {
    if let Some(failure) = failure {
        let _ = writeln!(io::stderr(), "keyviz: {failure}");
        return Ok(());
    }
    let mut out = output::stdout();
    print(&mut out, matrix, format, drawing)?;
    if format != Format::Json {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A drawing with one line reserved for the latest failure.
pub fn live_text(matrix: &proto::Matrix, drawing: &Drawing, failure: &Option<String>) -> String {
    let drawing = Drawing { height: drawing.height.saturating_sub(1), ..*drawing };
    let mut picture = render(matrix, &drawing);
    if let Some(failure) = failure {
        picture.push_str(&text::shorten(&text::inert(failure), drawing.width));
        picture.push('\n');
    }
    picture
}

/// Four times a column, within bounds.
pub fn live_every(matrix: &proto::Matrix) -> Duration {
    let column = matrix.columns.last();
    let length = column.map_or(1000, |column| column.end_ms.saturating_sub(column.start_ms));
    Duration::from_millis(length / 4).clamp(LIVE_EVERY.0, LIVE_EVERY.1)
}

#[cfg(test)]
#[path = "heat_tests.rs"]
mod tests;
