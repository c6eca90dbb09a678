//! `heat`: requests a matrix and draws or prints it.

mod boundaries;
mod by_node;
mod csv;
pub(crate) mod hot;
mod query;
mod rows;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::client::{Client, NodeArgs};
use super::flags::values;
use super::heatmap::{Drawing, render};
use super::terminal::output::{self, ColorDepth, Format};
use super::terminal::screen::Screen;
use super::terminal::text;
use super::{CliError, UsageError, live};
use keyviz_json::MatrixJson;
use keyviz_proto as proto;

pub use query::{MAX_COLUMNS, MAX_ROWS, Query, Scope, counted_by, live_every, now_ms};
pub(super) use rows::{LiveRows, more_detail};

/// Maximum lead of a clock of the cluster over that of this machine.
const MOST_AHEAD_MS: u64 = 60_000;
/// Maximum number of times that a window is narrowed to its counts; each time columns get shorter.
const CLIPS: u32 = 3;

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
    /// Rows between the keys of this file, one a line, ascending, at most 1,024; `hex:...` as
    /// elsewhere, and `-` for stdin. Rows stay the same whatever is planned today, so that windows
    /// can be compared
    #[arg(long, value_name = "FILE", conflicts_with = "rows")]
    boundaries: Option<PathBuf>,
    /// A full grid of estimates: what was counted for several cells together is divided evenly over
    /// them, and marked
    #[arg(long)]
    spread: bool,
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
            boundaries: self
                .boundaries
                .as_deref()
                .map(boundaries::read)
                .transpose()?
                .unwrap_or_default(),
            spread: self.spread,
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
        }) || matrix
            .blocks
            .iter()
            .any(|block| (block.column..block.column + block.column_count).contains(&(at as u32)))
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
        (Format::Csv, _) => csv::print(out, matrix),
        (Format::Table, Some(drawing)) => out.write_all(render(matrix, drawing).as_bytes()),
        _ => output::json_line(out, &MatrixJson::from(matrix)),
    }
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
    let mut rows = LiveRows::new(&query.boundaries, &matrix);
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
        let kept = query.on(&rows);
        let next = tokio::select! {
            _ = &mut interrupt => break,
            next = kept.ask(client, drawing.as_ref()) => next,
        };
        match next {
            Ok(next) => {
                rows.shown(&next);
                (matrix, failure) = (next, None);
            }
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

#[cfg(test)]
#[path = "heat_tests.rs"]
mod tests;
