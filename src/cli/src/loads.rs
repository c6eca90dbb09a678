//! `loads`: load by group, leader, node, route or prefix, summed exactly.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use tonic::Code;

use super::client::{Client, NodeArgs};
use super::flags::values;
use super::heat::{Scope, now_ms};
use super::terminal::output::{self, Format};
use super::terminal::text;
use super::{CallError, CliError, UsageError};
use keyviz_client::LoadsQuery;
use keyviz_json::{LoadsJson, grouping_from_name, key_text};
use keyviz_proto as proto;
use keyviz_proto::load::Of;

/// Longest key in a table.
const KEY_CELLS: usize = 40;

/// `loads`.
#[derive(Args, Debug)]
#[command(after_help = "\
Numbers are counts over the window, not rates; all loads and what is shared add up to the total,
which is that of `keyviz heat` for the same window and keys. What was counted for several loads
together is listed as shared and never divided.")]
pub struct LoadsArgs {
    /// First key, inclusive; absent: the beginning of the key space
    #[arg(value_name = "START", value_parser = values::bound)]
    start: Option<Bytes>,
    /// First key after the range; absent: the end of the key space
    #[arg(value_name = "END", value_parser = values::bound)]
    end: Option<Bytes>,
    /// What to sum by: route, group (that holds the routes now), leader (that leads them now), node
    /// (that counted) or prefix
    #[arg(long, value_name = "WHAT", default_value = "group", value_parser = grouping)]
    by: proto::LoadGrouping,
    /// Only these routes, groups or nodes, also those without load
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    ids: Vec<u64>,
    /// By prefix: parts of a key that a prefix has, at most 16
    #[arg(
        long,
        value_name = "PARTS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=16),
    )]
    depth: u32,
    /// By prefix: what parts a key
    #[arg(long, value_name = "TEXT", default_value = "/", value_parser = values::key)]
    delimiter: Bytes,
    /// By prefix: exactly these, instead of --depth and --delimiter
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', value_parser = values::key)]
    prefixes: Vec<Bytes>,
    /// Length of the window until the end of the last closed column, such as 5m or 1h
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        value_parser = values::duration,
    )]
    last: Duration,
    /// Whose counts
    #[arg(long, value_enum, default_value = "cluster")]
    scope: Scope,
    /// How to print; json has the whole answer, csv one line per load
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn grouping(text: &str) -> Result<proto::LoadGrouping, String> {
    grouping_from_name(text).ok_or_else(|| "one of route, group, leader, node, prefix".to_owned())
}

impl LoadsArgs {
    fn request(&self) -> Result<proto::GetLoadsRequest, UsageError> {
        if let Some(end) = &self.end
            && self.start.as_ref().is_some_and(|start| start >= end)
        {
            let reason = "the key range ends before it begins (START)";
            return Err(UsageError::value("[END]", text::preview(end), reason));
        }
        let by_prefix = self.by == proto::LoadGrouping::Prefix;
        if !by_prefix && !self.prefixes.is_empty() {
            let flag = "--prefixes <KEY,...>";
            return Err(UsageError::Needs { flag, needs: "--by prefix" });
        }
        let found = by_prefix && self.prefixes.is_empty();
        let last_ms = u64::try_from(self.last.as_millis()).unwrap_or(u64::MAX);
        Ok(proto::GetLoadsRequest {
            by: self.by.into(),
            from_ms: Some(now_ms().saturating_sub(last_ms)),
            to_ms: None,
            start: self.start.clone().unwrap_or_default(),
            end: self.end.clone(),
            ids: self.ids.clone(),
            prefix_depth: if found { self.depth } else { 0 },
            delimiter: if found { self.delimiter.clone() } else { Bytes::new() },
            prefixes: self.prefixes.clone(),
        })
    }
}

/// Runs `loads`.
pub async fn run(args: LoadsArgs) -> Result<(), CliError> {
    let request = args.request()?;
    let loads = ask(&args.nodes.client()?, request, args.scope).await?;
    let mut out = output::stdout();
    match args.format {
        Format::Json => {
            let loads = LoadsJson::of(&loads).expect("an answer without a summary is an error");
            output::json_line(&mut out, &loads)?;
        }
        Format::Csv => csv_rows(&mut out, &loads)?,
        Format::Table => {
            writeln!(out, "{}\n", table(&loads).trim_fmt())?;
            words(&loads).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn ask(
    client: &Client,
    request: proto::GetLoadsRequest,
    scope: Scope,
) -> Result<proto::Loads, CliError> {
    let query = LoadsQuery::from(request);
    let answer = match scope {
        Scope::Cluster => client.loads(query).await,
        Scope::Node => client.node_loads(query).await,
    };
    match answer {
        Err(CallError::Refused { address, status }) if status.code() == Code::Unavailable => {
            Err(CliError::HeatUnavailable(CallError::Refused { address, status }))
        }
        answer => Ok(answer?),
    }
}

/// What a load is of: the kind, its name, its keys.
fn of(load: &proto::Load) -> (&'static str, String, Option<String>) {
    let keys = load.start.as_deref().map(|start| range(start, load.end.as_deref()));
    match &load.of {
        Some(Of::RouteId(id)) => ("route", id.to_string(), keys),
        Some(Of::GroupId(id)) => ("group", id.to_string(), keys),
        Some(Of::NodeId(id)) => ("node", id.to_string(), keys),
        Some(Of::Prefix(prefix)) => {
            ("prefix", text::shorten(&text::preview(prefix), KEY_CELLS).into_owned(), keys)
        }
        None => ("", String::new(), keys),
    }
}

fn range(start: &[u8], end: Option<&[u8]>) -> String {
    let shown = |key: &[u8]| text::shorten(&text::preview(key), KEY_CELLS / 2).into_owned();
    let start = if start.is_empty() { "the start".to_owned() } else { shown(start) };
    format!("{start} .. {}", end.map_or_else(|| "the end".to_owned(), shown))
}

fn counts(counts: Option<proto::Counts>) -> [u64; 4] {
    let proto::Counts { reads, writes, read_bytes, write_bytes } = counts.unwrap_or_default();
    [reads, writes, read_bytes, write_bytes]
}

/// The loads, those with the most operations first, and the total.
fn table(loads: &proto::Loads) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["LOAD OF", "", "READS", "WRITES", "READ BYTES", "WRITE BYTES", "KEYS"]);
    let row = |kind: &str, name: String, of: Option<proto::Counts>, keys: Option<String>| {
        let [reads, writes, read_bytes, write_bytes] = counts(of);
        [
            kind.to_owned(),
            name,
            text::thousands(reads),
            text::thousands(writes),
            text::short_bytes(read_bytes),
            text::short_bytes(write_bytes),
            keys.unwrap_or_default(),
        ]
    };
    let mut sorted: Vec<&proto::Load> = loads.loads.iter().collect();
    let operations = |load: &proto::Load| {
        let [reads, writes, ..] = counts(load.counts);
        reads.saturating_add(writes)
    };
    sorted.sort_by_key(|load| std::cmp::Reverse(operations(load)));
    for load in sorted {
        let (kind, name, keys) = of(load);
        table.add_row(row(kind, name, load.counts, keys));
    }
    for shared in &loads.shared {
        let keys = range(&shared.start, shared.end.as_deref());
        table.add_row(row("shared", String::new(), shared.counts, Some(keys)));
    }
    let total = loads.summary.as_ref().and_then(|summary| summary.total);
    table.add_row(row("total", String::new(), total, None));
    for column in 1..=5 {
        let column = table.column_mut(column).expect("the table has seven columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What is said beside the table.
fn words(loads: &proto::Loads) -> Vec<String> {
    let Some(summary) = &loads.summary else { return Vec::new() };
    let (from, to) = (text::time_utc(summary.from_ms), text::time_utc(summary.to_ms));
    let mut lines = vec![format!("from {from} to {to}")];
    if counts(summary.straddling) != [0; 4] {
        let [reads, writes, ..] = counts(summary.straddling);
        lines.push(format!(
            "and at most {} reads and {} writes more, counted with keys or time beyond",
            text::thousands(reads),
            text::thousands(writes)
        ));
    }
    if summary.partial {
        lines.push("partial: counts are missing, so loads may be higher".to_owned());
    }
    for node in summary.nodes.iter().filter(|node| !node.ok) {
        lines.push(format!("node {} did not answer: {}", node.id, text::inert(&node.error)));
    }
    lines
}

/// One line per load, those that are shared last.
fn csv_rows(out: &mut impl Write, loads: &proto::Loads) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().from_writer(out);
    csv.write_record([
        "of",
        "id",
        "prefix",
        "start",
        "end",
        "reads",
        "writes",
        "read_bytes",
        "write_bytes",
    ])?;
    let key = |key: Option<&[u8]>| key.map_or_else(String::new, |key| key_text(key).into_owned());
    for load in &loads.loads {
        let (kind, name, _) = of(load);
        let (id, prefix) = match &load.of {
            Some(Of::Prefix(prefix)) => (String::new(), key(Some(prefix))),
            _ => (name, String::new()),
        };
        let [start, end] = [load.start.as_deref(), load.end.as_deref()].map(key);
        let numbers = counts(load.counts).map(|number| number.to_string());
        csv.write_record([kind.to_owned(), id, prefix, start, end].iter().chain(&numbers))?;
    }
    for shared in &loads.shared {
        let [start, end] = [Some(&shared.start[..]), shared.end.as_deref()].map(key);
        let numbers = counts(shared.counts).map(|number| number.to_string());
        let named = ["shared".to_owned(), String::new(), String::new(), start, end];
        csv.write_record(named.iter().chain(&numbers))?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads() -> proto::Loads {
        let counts =
            |reads, writes| Some(proto::Counts { reads, writes, ..proto::Counts::default() });
        let load = |of, of_all| proto::Load { of: Some(of), counts: of_all, ..Default::default() };
        let summary = proto::LoadsSummary {
            total: counts(1_234, 5),
            straddling: counts(0, 7),
            partial: true,
            nodes: vec![proto::NodeStatus { id: 9, error: "\x1b[2J".into(), ..Default::default() }],
            ..Default::default()
        };
        let shared = proto::SharedLoad {
            start: "a,b".into(),
            end: Some("\x1b".into()),
            counts: counts(1_000, 0),
        };
        proto::Loads {
            loads: vec![
                load(Of::GroupId(1), counts(4, 0)),
                load(Of::Prefix("user/".into()), counts(230, 5)),
            ],
            shared: vec![shared],
            summary: Some(summary),
        }
    }

    #[test]
    fn the_table_has_the_largest_load_first_and_the_total_last() {
        let table = table(&loads()).to_string();
        assert!(!table.contains('\x1b'), "{table}");
        let lines: Vec<&str> = table.lines().skip(1).map(str::trim).collect();
        assert!(lines[0].starts_with("prefix") && lines[0].contains("user/"), "{table}");
        assert!(lines[1].starts_with("group"), "{table}");
        assert!(lines[2].starts_with("shared") && lines[2].contains("a,b .. "), "{table}");
        assert!(lines[3].starts_with("total") && lines[3].contains("1,234"), "{table}");
        let words = words(&loads()).join("\n");
        assert!(words.contains("7 writes more") && words.contains("partial"), "{words}");
        assert!(words.contains("node 9 did not answer") && !words.contains('\x1b'), "{words}");
    }

    #[test]
    fn csv_has_a_line_a_load() {
        let mut out = Vec::new();
        csv_rows(&mut out, &loads()).expect("a vector takes everything");
        let out = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = out.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "group,1,,,,4,0,0,0",
                "prefix,,user/,,,230,5,0,0",
                "shared,,,\"a,b\",hex:1b,1000,0,0,0"
            ]
        );
    }
}
