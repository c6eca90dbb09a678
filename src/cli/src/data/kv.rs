//! `put`, `get`, `delete` and `scan`.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::CliError;
use crate::client::NodeArgs;
use crate::flags::value_input::{self, ValueArg};
use crate::flags::values;
use crate::terminal::output::{self, Format};
use crate::terminal::talk::say;
use crate::terminal::text;
use keyviz_client::{KeyRange, Scan};
use keyviz_json::{Key, key_text, value_text};
use keyviz_proto as proto;

/// Longest value preview in a table, in terminal cells.
const VALUE_PREVIEW_CELLS: usize = 60;

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Consistency {
    /// The newest acknowledged value, confirmed with a quorum
    #[default]
    Linearizable,
    /// The newest acknowledged value as long as clocks run at similar speed
    Lease,
    /// What the node asked has applied, possibly old
    Stale,
}

impl From<Consistency> for keyviz_client::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => keyviz_client::Consistency::Linearizable,
            Consistency::Lease => keyviz_client::Consistency::Lease,
            Consistency::Stale => keyviz_client::Consistency::Stale,
        }
    }
}

/// How a command on one key prints its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OneFormat {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// `put`.
#[derive(Args, Debug)]
pub struct PutArgs {
    /// Key, 1 to 4,096 bytes
    #[arg(value_parser = values::key)]
    key: Bytes,
    /// Value, at most 1 MiB; - reads stdin
    #[arg(
        value_parser = value_input::argument,
        required_unless_present = "value_file",
        conflicts_with = "value_file"
    )]
    value: Option<ValueArg>,
    /// Use the bytes of this file as the value, unchanged
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Key, 1 to 4,096 bytes
    #[arg(value_parser = values::key)]
    key: Bytes,
    /// What the read promises
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: Consistency,
    /// How to print the value; table prints the value itself
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    /// Write the bytes of the value unchanged, without `hex:` and without a line feed
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Key, 1 to 4,096 bytes
    #[arg(value_parser = values::key)]
    key: Bytes,
    /// Exit with 3 if the key did not exist
    #[arg(long)]
    expect_present: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// `scan`.
#[derive(Args, Debug)]
pub struct ScanArgs {
    /// First key, inclusive; '' is the beginning of the key space
    #[arg(value_parser = values::bound)]
    start: Bytes,
    /// First key after the range; absent: the end of the key space
    #[arg(value_parser = values::bound)]
    end: Option<Bytes>,
    /// Maximum number of rows; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    limit: u64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// What the read promises
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: Consistency,
    /// How to print; json prints one object per line
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Serialize)]
struct PutJson<'a> {
    key: Key<'a>,
    stored: bool,
}

#[derive(Serialize)]
struct GetJson<'a> {
    key: Key<'a>,
    value: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize)]
struct DeleteJson<'a> {
    key: Key<'a>,
    existed: bool,
}

#[derive(Serialize)]
struct ScanRowJson<'a> {
    key: Key<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<std::borrow::Cow<'a, str>>,
}

/// Stores a value.
pub async fn put(args: PutArgs) -> Result<(), CliError> {
    let value = value_input::read(args.value, args.value_file.as_deref())?;
    let client = args.nodes.client()?;
    client.put(args.key.clone(), value).await?;
    if args.format == OneFormat::Json {
        print_json(&PutJson { key: Key(&args.key), stored: true })?;
    }
    Ok(())
}

/// Reads one key.
pub async fn get(args: GetArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let value = client.get_with(args.key.clone(), args.consistency.into()).await?;
    let mut out = output::stdout();
    match (&value, args.format) {
        (value, OneFormat::Json) => {
            let value = value.as_deref().map(value_text);
            output::json_line(&mut out, &GetJson { key: Key(&args.key), value })?;
        }
        (Some(value), _) if args.raw => out.write_all(value)?,
        (Some(value), _) => writeln!(out, "{}", value_text(value))?,
        (None, _) => {}
    }
    out.flush()?;
    match value {
        Some(_) => Ok(()),
        None => Err(CliError::NoSuchKey(text::preview(&args.key).into_owned())),
    }
}

/// Removes one key. An absent key is not an error, unless it was expected to exist.
pub async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let existed = client.delete(args.key.clone()).await?;
    match args.format {
        OneFormat::Json => {
            print_json(&DeleteJson { key: Key(&args.key), existed })?;
        }
        OneFormat::Table if !existed && !args.expect_present => {
            say!("keyviz: there was no such key");
        }
        OneFormat::Table => {}
    }
    match args.expect_present && !existed {
        true => Err(CliError::NoSuchKey(text::preview(&args.key).into_owned())),
        false => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    let mut out = output::stdout();
    output::json_line(&mut out, value)?;
    out.flush()
}

/// Lists keys and values page by page as they arrive; memory does not grow with the range.
///
/// If the stream breaks, or a slow reader of stdout stalls it for longer than the connection lasts,
/// the scan continues after the last key that was printed.
pub async fn scan(args: ScanArgs) -> Result<(), CliError> {
    if let Some(end) = args.end.as_ref().filter(|end| **end <= args.start) {
        let reason = "the end of the range is not after its start";
        return Err(crate::UsageError::value("[END]", text::preview(end), reason).into());
    }
    let client = args.nodes.client()?;
    let range = KeyRange { start: args.start, end: args.end };
    let mut scan = client.scan(range).limit(args.limit).consistency(args.consistency.into());
    if args.keys_only {
        scan = scan.keys_only();
    }
    let mut out = output::stdout();
    if args.format == Format::Csv {
        writeln!(out, "{}", if args.keys_only { "key" } else { "key,value" })?;
    }
    let listed =
        list(&mut scan, |rows| print_page(&mut out, rows, args.format, args.keys_only)).await;
    out.flush()?;
    listed
}

/// Prints the rows of a scan page by page.
async fn list(
    scan: &mut Scan,
    mut print: impl FnMut(&[proto::KeyValue]) -> std::io::Result<()>,
) -> Result<(), CliError> {
    loop {
        match scan.next_page().await {
            Ok(Some(rows)) => print(&rows)?,
            Ok(None) => return Ok(()),
            Err(source) => {
                return Err(match scan.last_key() {
                    Some(last) => {
                        CliError::ScanCut { last: text::preview(last).into_owned(), source }
                    }
                    None => source.into(),
                });
            }
        }
    }
}

fn print_page(
    out: &mut impl Write,
    rows: &[proto::KeyValue],
    format: Format,
    keys_only: bool,
) -> std::io::Result<()> {
    match format {
        Format::Json => {
            for row in rows {
                let value = (!keys_only).then(|| value_text(&row.value));
                output::json_line(out, &ScanRowJson { key: Key(&row.key), value })?;
            }
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(out);
            for row in rows {
                let key = key_text(&row.key);
                if keys_only {
                    csv.write_record([key.as_ref()])?;
                } else {
                    csv.write_record([key.as_ref(), value_text(&row.value).as_ref()])?;
                }
            }
            csv.flush()?;
        }
        Format::Table => {
            let keys: Vec<_> = rows.iter().map(|row| text::preview(&row.key)).collect();
            let widest = keys.iter().map(|key| text::width(key)).max().unwrap_or(0);
            for (row, key) in rows.iter().zip(&keys) {
                if keys_only {
                    writeln!(out, "{key}")?;
                } else {
                    let value = value_preview(&row.value);
                    writeln!(out, "{}  {value}", text::fit(key, widest))?;
                }
            }
        }
    }
    Ok(())
}

/// The beginning of a value and, if it was shortened, its size.
pub(super) fn value_preview(value: &[u8]) -> String {
    // A character has at most four bytes, so more bytes than these cannot be shown. Most values
    // fill the cells with their first bytes. Combining marks, or a character cut in half, may need
    // more.
    let first = |bytes: usize| text::preview(&value[..value.len().min(bytes)]);
    let mut head = first(VALUE_PREVIEW_CELLS);
    if text::width(&head) < VALUE_PREVIEW_CELLS + 8 {
        head = first(4 * VALUE_PREVIEW_CELLS);
    }
    if text::width(&head) <= VALUE_PREVIEW_CELLS && value.len() <= 4 * VALUE_PREVIEW_CELLS {
        return head.into_owned();
    }
    let size = text::short_bytes(value.len() as u64);
    format!("{} ({size})", text::shorten(&format!("{head}…"), VALUE_PREVIEW_CELLS))
}

#[cfg(test)]
#[path = "kv_tests.rs"]
mod tests;
