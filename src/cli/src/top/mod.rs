//! `top`: the hottest ranges, refreshed in place.
//!
//! On a terminal the table is refreshed until `q`, and a key changes what it is ranked by. Into a
//! pipe, and as JSON or CSV, it is printed once, unless `--watch` asks for more.

mod table;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::sync::mpsc;
use tonic::Code;

use crate::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use crate::flags::values;
use crate::heat::now_ms;
use crate::terminal::output::{self, Format};
use crate::terminal::screen::Screen;
use crate::terminal::text;
use crate::{CallError, CliError, UsageError};
use keyviz_json::{TopRangesJson, rank_from_name};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use view::{Act, View};

/// Most ranges of an answer.
const MAX_RANGES: u64 = 256;
/// Lines of the screen that are no ranges.
const OTHER_LINES: usize = 6;

/// `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// First key, inclusive; absent: the beginning of the key space
    #[arg(value_name = "START", value_parser = values::bound)]
    start: Option<Bytes>,
    /// First key after the range; absent: the end of the key space
    #[arg(value_name = "END", value_parser = values::bound)]
    end: Option<Bytes>,
    /// What to rank by: cost, reads, writes, read-bytes or write-bytes. The cost is in request
    /// units: 1 for 8 reads, for 64 KiB read, for a write, and for 1 KiB written
    #[arg(long, value_name = "RANK", default_value = "cost", value_parser = rank)]
    by: proto::Rank,
    /// Length of the window until now, such as 30s or 1h, including the column in progress
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::duration,
    )]
    last: Duration,
    /// Maximum number of ranges, at most 256; 0: as many as the screen has lines, or 20
    #[arg(long, value_name = "RANGES", default_value_t = 0, value_parser = limit)]
    limit: u32,
    /// Whole routes instead of the parts of them that the load tells apart
    #[arg(long)]
    routes: bool,
    /// Time between two answers, 250ms to 1h
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = |text: &str| {
            values::duration_in(text, Duration::from_millis(250), Duration::from_secs(3_600))
        },
    )]
    every: Duration,
    /// Print one table and end, on a terminal too
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Repeat until Ctrl-C into a pipe too; json has one object per line
    #[arg(long)]
    watch: bool,
    /// How to print; json has the whole answer, csv one line per range
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn limit(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 0, MAX_RANGES).map(|ranges| ranges as u32)
}

fn rank(text: &str) -> Result<proto::Rank, String> {
    rank_from_name(text)
        .ok_or_else(|| "one of cost, reads, writes, read-bytes, write-bytes".to_owned())
}

impl TopArgs {
    fn check(&self) -> Result<(), UsageError> {
        if let Some(end) = &self.end
            && self.start.as_ref().is_some_and(|start| start >= end)
        {
            let reason = "the key range ends before it begins (START)";
            return Err(UsageError::value("[END]", text::preview(end), reason));
        }
        Ok(())
    }

    fn request(&self, view: View) -> proto::TopRangesRequest {
        let last_ms = u64::try_from(self.last.as_millis()).unwrap_or(u64::MAX);
        proto::TopRangesRequest {
            rank: view.rank.into(),
            from_ms: Some(now_ms().saturating_sub(last_ms)),
            to_ms: None,
            start: self.start.clone().unwrap_or_default(),
            end: self.end.clone(),
            limit: self.limit,
            routes: view.routes,
        }
    }

    /// The same for a screen, which has so many lines.
    fn request_for(&self, view: View, lines: usize) -> proto::TopRangesRequest {
        let fits = lines.saturating_sub(OTHER_LINES).clamp(1, MAX_RANGES as usize) as u32;
        let limit = if self.limit == 0 { fits } else { self.limit.min(fits) };
        proto::TopRangesRequest { limit, ..self.request(view) }
    }
}

async fn ask(
    client: &Client,
    request: &proto::TopRangesRequest,
) -> Result<proto::TopRanges, CliError> {
    let answer = client.call(Effect::Read, |channel| async move {
        let mut client = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        client.top_ranges(request.clone()).await
    });
    match answer.await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(CallError::Refused { address, status }) if status.code() == Code::Unavailable => {
            Err(CliError::HeatUnavailable(CallError::Refused { address, status }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs `top`.
pub async fn run(args: TopArgs) -> Result<(), CliError> {
    args.check()?;
    let client = args.nodes.client()?;
    let view = View { rank: args.by, routes: args.routes, paused: false };
    let in_place =
        args.format == Format::Table && !args.once && !args.watch && io::stdout().is_terminal();
    if in_place {
        return on_screen(&args, &client, view).await;
    }
    loop {
        let top = ask(&client, &args.request(view)).await?;
        let mut out = output::stdout();
        print(&mut out, &top, args.format)?;
        out.flush()?;
        drop(out);
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(args.every) => {}
        }
    }
}

/// Keys come one by one, without Enter, while this lives.
struct RawMode;

impl RawMode {
    fn enter() -> io::Result<Self> {
        crossterm::terminal::enable_raw_mode()?;
        Ok(RawMode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that went away need not be restored.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Refreshes the table until `q`. A later failure is shown, and the next answer is waited for.
async fn on_screen(args: &TopArgs, client: &Client, mut view: View) -> Result<(), CliError> {
    let lines = || output::size().1;
    let mut top = ask(client, &args.request_for(view, lines())).await?;
    let mut failure = None::<String>;
    let mut screen = Screen::enter()?;
    let _raw = RawMode::enter()?;
    let (tell, mut keys) = mpsc::channel(16);
    std::thread::spawn(move || read_keys(&tell));
    loop {
        let page = table::page(&top, view, failure.as_deref(), output::size());
        screen.show(&page)?;
        let act = tokio::select! {
            key = keys.recv() => key.map_or(Act::Quit, |key| view.press(key)),
            () = tokio::time::sleep(args.every), if !view.paused => Act::Ask,
        };
        match act {
            Act::Quit => return Ok(()),
            Act::Ask => match ask(client, &args.request_for(view, lines())).await {
                Ok(next) => (top, failure) = (next, None),
                Err(error) => failure = Some(error.to_string()),
            },
            Act::Draw | Act::Nothing => {}
        }
    }
}

/// Reads keys until the receiver is gone.
fn read_keys(tell: &mpsc::Sender<KeyEvent>) {
    while let Ok(event) = event::read() {
        if let Event::Key(key) = event
            && key.kind != KeyEventKind::Release
            && tell.blocking_send(key).is_err()
        {
            return;
        }
    }
}

fn print(out: &mut impl Write, top: &proto::TopRanges, format: Format) -> io::Result<()> {
    match format {
        Format::Json => output::json_line(out, &TopRangesJson::from(top)),
        Format::Csv => table::csv_rows(out, top),
        Format::Table => {
            if !top.ranges.is_empty() {
                writeln!(out, "{}\n", table::table(top).trim_fmt())?;
            }
            table::words(top).iter().try_for_each(|line| writeln!(out, "{line}"))
        }
    }
}
