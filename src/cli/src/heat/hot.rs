//! `hot`: the hottest keys of a window and a key range.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use tonic::Code;

use super::{Scope, now_ms};
use crate::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use crate::flags::values;
use crate::terminal::output::{self, Format};
use crate::terminal::screen::Screen;
use crate::terminal::text::{self, thousands};
use crate::{CallError, CliError, UsageError};
use keyviz_json::{HotKeysJson, key_text, series_name};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;

/// Most keys of an answer.
const MAX_KEYS: u64 = 1_000;
/// Time between two answers of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Cells of the bar of a whole share.
const BAR: usize = 20;
/// Longest key in a table.
const KEY_CELLS: usize = 48;

/// `hot`.
#[derive(Args, Debug)]
pub struct HotArgs {
    /// First key, inclusive; absent: the beginning of the key space
    #[arg(value_name = "START", value_parser = values::bound)]
    start: Option<Bytes>,
    /// First key after the range; absent: the end of the key space
    #[arg(value_name = "END", value_parser = values::bound)]
    end: Option<Bytes>,
    /// What to rank by: reads or writes
    #[arg(long, value_name = "SERIES", default_value = "writes", value_parser = series)]
    series: proto::Series,
    /// Length of the window until now, such as 5m or 1h, including the column in progress [default:
    /// 1h]
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
    /// Maximum number of keys, at most 1,000; 0: 20
    #[arg(long, value_name = "KEYS", default_value_t = 20, value_parser = limit)]
    limit: u32,
    /// Whose counts to show
    #[arg(long, value_enum, default_value = "cluster")]
    scope: Scope,
    /// Also show what each node counted
    #[arg(long)]
    by_node: bool,
    /// Repeat every second until Ctrl-C; json has one object per line
    #[arg(long)]
    watch: bool,
    /// How to print; json has the whole answer, csv one line per key
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn limit(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 0, MAX_KEYS).map(|keys| keys as u32)
}

fn series(text: &str) -> Result<proto::Series, String> {
    match values::series(text).map_err(|error| error.to_string())? {
        series @ (proto::Series::Reads | proto::Series::Writes) => Ok(series),
        _ => Err("keys are ranked by operations: reads or writes, with their bytes beside".into()),
    }
}

impl HotArgs {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// Names the flag and its value.
    pub fn check(&self) -> Result<(), UsageError> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            let (from, end) = (text::time_utc(from), text::time_utc(to));
            let reason = format!("the window must end after it begins: {end} is not after {from}");
            return Err(UsageError::value("--to <TIME>", to, reason));
        }
        if let Some(end) = &self.end
            && self.start.as_ref().is_some_and(|start| start >= end)
        {
            let reason = "the key range ends before it begins (START)";
            return Err(UsageError::value("[END]", text::preview(end), reason));
        }
        Ok(())
    }

    fn request(&self) -> proto::GetHotKeysRequest {
        let last_ms = self.last.map(|last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX));
        proto::GetHotKeysRequest {
            series: self.series.into(),
            from_ms: last_ms.map(|last_ms| now_ms().saturating_sub(last_ms)).or(self.from),
            to_ms: self.to,
            start: self.start.clone().unwrap_or_default(),
            end: self.end.clone(),
            limit: self.limit,
            by_node: self.by_node,
            points: 0,
        }
    }
}

/// Asks for hot keys.
///
/// # Errors
/// [`CliError::HeatUnavailable`] if they are off, otherwise the error of the call.
pub(crate) async fn ask(
    client: &Client,
    scope: Scope,
    request: &proto::GetHotKeysRequest,
) -> Result<proto::HotKeys, CliError> {
    let answer = client.call(Effect::Read, |channel| async move {
        let mut client = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        match scope {
            Scope::Cluster => client.get_hot_keys(request.clone()).await,
            Scope::Node => client.get_node_hot_keys(request.clone()).await,
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

/// Runs `hot`.
pub async fn run(args: HotArgs) -> Result<(), CliError> {
    args.check()?;
    let client = args.nodes.client()?;
    let hot_keys = ask(&client, args.scope, &args.request()).await?;
    if args.watch {
        return watch(&args, &client, hot_keys).await;
    }
    let mut out = output::stdout();
    print(&mut out, &hot_keys, args.format)?;
    out.flush()?;
    Ok(())
}

/// Repeats until Ctrl-C. A later failure is shown, and the next answer is waited for.
async fn watch(
    args: &HotArgs,
    client: &Client,
    mut hot_keys: proto::HotKeys,
) -> Result<(), CliError> {
    let in_place = args.format == Format::Table && io::stdout().is_terminal();
    let mut screen = if in_place { Some(Screen::enter()?) } else { None };
    let mut failure = None::<String>;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let mut page = Vec::new();
        match (&failure, &screen) {
            (Some(failure), None) => {
                let _ = writeln!(io::stderr(), "keyviz: {failure}");
            }
            (failure, _) => {
                print(&mut page, &hot_keys, args.format)?;
                if let Some(failure) = failure {
                    writeln!(page, "not up to date: {}", text::inert(failure))?;
                }
            }
        }
        match &mut screen {
            Some(screen) => screen.show(&String::from_utf8_lossy(&page))?,
            None => {
                let mut out = output::stdout();
                out.write_all(&page)?;
                out.flush()?;
            }
        }
        tokio::select! {
            _ = &mut interrupt => return Ok(()),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let request = args.request();
        let next = tokio::select! {
            _ = &mut interrupt => return Ok(()),
            next = ask(client, args.scope, &request) => next,
        };
        match next {
            Ok(next) => (hot_keys, failure) = (next, None),
            Err(error) => failure = Some(error.to_string()),
        }
    }
}

fn print(out: &mut impl Write, hot_keys: &proto::HotKeys, format: Format) -> io::Result<()> {
    match format {
        Format::Json => output::json_line(out, &HotKeysJson::from(hot_keys)),
        Format::Csv => csv_rows(out, hot_keys),
        Format::Table => {
            if !hot_keys.keys.is_empty() {
                writeln!(out, "{}\n", table(hot_keys).trim_fmt())?;
            }
            words(hot_keys).iter().try_for_each(|line| writeln!(out, "{line}"))
        }
    }
}

/// A key for people: one that may not be shown is marked as a hash by its name.
pub(crate) fn shown(key: &[u8]) -> String {
    if key.is_empty() { "(the first key)".to_owned() } else { text::preview(key).into_owned() }
}

/// `lower` where that is exact, else both bounds.
pub(crate) fn bounds(lower: u64, upper: u64) -> String {
    match lower == upper {
        true => thousands(lower),
        false => format!("{}..{}", thousands(lower), thousands(upper)),
    }
}

fn table(hot_keys: &proto::HotKeys) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let what = series_name(hot_keys.series()).to_uppercase();
    let nodes = hot_keys.keys.iter().any(|key| !key.nodes.is_empty());
    let fixed = ["KEY", &what, "SHARE", "", "BYTES", "SINCE", "UNTIL"];
    table.set_header(fixed.into_iter().chain(nodes.then_some("BY NODE")));
    for key in &hot_keys.keys {
        let full = (key.share * BAR as f64).round() as usize;
        let mut row = vec![
            text::shorten(&shown(&key.key), KEY_CELLS).into_owned(),
            bounds(key.lower, key.upper),
            format!("{:.1}%", key.share * 100.0),
            "█".repeat(full.min(BAR)),
            text::short_bytes(key.bytes),
            text::time_utc(key.first_ms),
            text::time_utc(key.last_ms),
        ];
        if nodes {
            let of = |node: &proto::HotKeyNode| {
                format!("{}: {}", node.id, bounds(node.lower, node.upper))
            };
            row.push(key.nodes.iter().map(of).collect::<Vec<_>>().join(", "));
        }
        table.add_row(row);
    }
    for column in [1, 2, 4] {
        let column = table.column_mut(column).expect("the table has seven columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What is said below the table.
fn words(hot_keys: &proto::HotKeys) -> Vec<String> {
    let what = series_name(hot_keys.series());
    let all = thousands(hot_keys.operations);
    let above = thousands(hot_keys.threshold);
    let mut lines = vec![match hot_keys.keys.is_empty() {
        true => format!("no key has more than {above} of {all} {what}"),
        false => format!("every key with more than {above} of {all} {what} is listed"),
    }];
    if hot_keys.hashed {
        lines.push("keys are shown as salted hashes (--keyviz-hot-keys=hashed)".to_owned());
    }
    if hot_keys.partial {
        lines.push("partial: counts or keys are missing, so numbers may be higher".to_owned());
    }
    for node in hot_keys.nodes.iter().filter(|node| !node.ok) {
        let error = text::inert(&node.error);
        lines.push(format!("node {} did not answer: {error}", node.id));
    }
    lines
}

/// One line per key.
fn csv_rows(out: &mut impl Write, hot_keys: &proto::HotKeys) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().from_writer(out);
    let mut nodes: Vec<u64> =
        hot_keys.keys.iter().flat_map(|key| key.nodes.iter().map(|node| node.id)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let fixed = ["key", "lower", "upper", "share", "bytes", "first_ms", "last_ms"];
    let of_nodes = nodes.iter().map(|node| format!("node_{node}"));
    csv.write_record(fixed.map(str::to_owned).into_iter().chain(of_nodes))?;
    for key in &hot_keys.keys {
        let fixed = [
            key_text(&key.key).into_owned(),
            key.lower.to_string(),
            key.upper.to_string(),
            key.share.to_string(),
            key.bytes.to_string(),
            key.first_ms.to_string(),
            key.last_ms.to_string(),
        ];
        let of = |id: &u64| {
            let node = key.nodes.iter().find(|node| node.id == *id);
            node.map_or_else(String::new, |node| node.lower.to_string())
        };
        csv.write_record(fixed.into_iter().chain(nodes.iter().map(of)))?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot_keys() -> proto::HotKeys {
        let key = |key: &'static [u8], lower, upper, share| proto::HotKey {
            key: key.into(),
            lower,
            upper,
            share,
            bytes: 12_345,
            first_ms: 1_800_000_000_000,
            last_ms: 1_800_000_060_000,
            nodes: vec![proto::HotKeyNode { id: 2, lower, upper }],
            ..Default::default()
        };
        proto::HotKeys {
            series: proto::Series::Reads.into(),
            keys: vec![key(b"user/1", 1_500, 1_500, 0.75), key(b"\x1b[2J", 20, 31, 0.01)],
            threshold: 11,
            operations: 2_000,
            partial: true,
            nodes: vec![proto::NodeStatus { id: 3, error: "\x1b[2J".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn the_table_has_bounds_bars_and_words_and_no_escape_of_a_key() {
        let mut out = Vec::new();
        print(&mut out, &hot_keys(), Format::Table).expect("a vector takes everything");
        let out = String::from_utf8(out).expect("text");
        assert!(!out.contains('\x1b'), "{out}");
        for part in ["user/1", "1,500", "75.0%", &"█".repeat(15), "20..31", r"\x1b[2J"] {
            assert!(out.contains(part), "{part} in {out}");
        }
        assert!(out.contains("every key with more than 11 of 2,000 reads is listed"), "{out}");
        assert!(out.contains("partial") && out.contains("node 3 did not answer"), "{out}");
        let mut cold = hot_keys();
        cold.keys.clear();
        assert_eq!(words(&cold)[0], "no key has more than 11 of 2,000 reads");
    }

    #[test]
    fn csv_has_a_line_a_key() {
        let mut out = Vec::new();
        print(&mut out, &hot_keys(), Format::Csv).expect("a vector takes everything");
        let expected = "key,lower,upper,share,bytes,first_ms,last_ms,node_2\n\
            user/1,1500,1500,0.75,12345,1800000000000,1800000060000,1500\n\
            hex:1b5b324a,20,31,0.01,12345,1800000000000,1800000060000,20\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
