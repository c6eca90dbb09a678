//! `put`, `get`, `delete` and `scan`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::client::{Client, Effect, NodeArgs};
use super::output::{self, Format};
use super::talk::say;
use super::value_input::{self, ValueArg};
use super::values::MAX_KEY_BYTES;
use super::{CallError, CliError, text, values};
use keyviz_client::Meaning;
use keyviz_json::{Key, key_text, value_text};
use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;

/// Longest value preview in a table, in terminal cells.
const VALUE_PREVIEW_CELLS: usize = 60;

/// Attempts in a row at a scan that bring no row.
const SCAN_ATTEMPTS: u32 = 5;
/// The pause before a scan that broke goes on.
const SCAN_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Consistency {
    /// The newest acknowledged value, confirmed with a quorum
    #[default]
    Linearizable,
    /// The newest acknowledged value as long as clocks run at like speed
    Lease,
    /// What the node at hand has applied; may be old
    Stale,
}

impl From<Consistency> for proto::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => proto::Consistency::Linearizable,
            Consistency::Lease => proto::Consistency::Lease,
            Consistency::Stale => proto::Consistency::Stale,
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
    /// Value, at most 1 MiB; - reads it from stdin
    #[arg(
        value_parser = value_input::argument,
        required_unless_present = "value_file",
        conflicts_with = "value_file"
    )]
    value: Option<ValueArg>,
    /// Take the bytes of this file as the value, unchanged
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
    /// How to print the value; a table has the bare value
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    /// Write the value's bytes as they are, without `hex:` and without a line feed
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
    /// Exit with 3 where there was no such key
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
    /// Most rows to list; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    limit: u64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// What the read promises
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: Consistency,
    /// How to print; json is one object a line
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
    let client = Client::from(args.nodes);
    let request = proto::PutRequest { key: args.key.clone(), value };
    let request = &request;
    client
        .call(
            Effect::Write,
            |channel| async move { KvClient::new(channel).put(request.clone()).await },
        )
        .await?;
    if args.format == OneFormat::Json {
        print_json(&PutJson { key: Key(&args.key), stored: true })?;
    }
    Ok(())
}

/// Reads one key.
pub async fn get(args: GetArgs) -> Result<(), CliError> {
    let client = Client::from(args.nodes);
    let consistency = proto::Consistency::from(args.consistency).into();
    let request = proto::GetRequest { key: args.key.clone(), consistency };
    let request = &request;
    let answer = client
        .call(Effect::Read, |channel| async move {
            KvClient::new(channel)
                .max_decoding_message_size(super::client::MAX_ANSWER_BYTES)
                .get(request.clone())
                .await
        })
        .await?
        .into_inner();
    let mut out = output::stdout();
    match (&answer.value, args.format) {
        (value, OneFormat::Json) => {
            let value = value.as_deref().map(value_text);
            output::json_line(&mut out, &GetJson { key: Key(&args.key), value })?;
        }
        (Some(value), _) if args.raw => out.write_all(value)?,
        (Some(value), _) => writeln!(out, "{}", value_text(value))?,
        (None, _) => {}
    }
    out.flush()?;
    match answer.value {
        Some(_) => Ok(()),
        None => Err(CliError::NoSuchKey(text::preview(&args.key).into_owned())),
    }
}

/// Removes one key. A key that was not there is no failure, unless it was expected: it is gone.
pub async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = Client::from(args.nodes);
    let request = proto::DeleteRequest { key: args.key.clone() };
    let request = &request;
    let answer = client
        .call(Effect::Write, |channel| async move {
            KvClient::new(channel).delete(request.clone()).await
        })
        .await?
        .into_inner();
    match args.format {
        OneFormat::Json => {
            print_json(&DeleteJson { key: Key(&args.key), existed: answer.existed })?;
        }
        OneFormat::Table if !answer.existed && !args.expect_present => {
            say!("keyviz: there was no such key");
        }
        OneFormat::Table => {}
    }
    match args.expect_present && !answer.existed {
        true => Err(CliError::NoSuchKey(text::preview(&args.key).into_owned())),
        false => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    let mut out = output::stdout();
    output::json_line(&mut out, value)?;
    out.flush()
}

/// Lists keys and values page by page, as they come: memory does not grow with the range.
///
/// A stream that breaks, or that a slow reader of stdout held up for longer than the connection
/// lasts, is opened again after the last key that was printed.
pub async fn scan(args: ScanArgs) -> Result<(), CliError> {
    if let Some(end) = args.end.as_ref().filter(|end| **end <= args.start) {
        let reason = "the end of the range is not after its start";
        return Err(super::UsageError::value("[END]", text::preview(end), reason).into());
    }
    let client = Client::from(args.nodes);
    let request = proto::ScanRequest {
        start: args.start,
        end: args.end,
        limit: args.limit,
        consistency: proto::Consistency::from(args.consistency).into(),
        keys_only: args.keys_only,
    };
    let mut out = output::stdout();
    if args.format == Format::Csv {
        writeln!(out, "{}", if args.keys_only { "key" } else { "key,value" })?;
    }
    let listed =
        list(&client, request, |rows| print_page(&mut out, rows, args.format, args.keys_only))
            .await;
    out.flush()?;
    listed
}

/// Prints the rows of a scan, over as many streams as it takes.
async fn list(
    client: &Client,
    mut request: proto::ScanRequest,
    mut print: impl FnMut(&[proto::KeyValue]) -> std::io::Result<()>,
) -> Result<(), CliError> {
    let mut last: Option<Bytes> = None;
    let mut attempts = 0;
    loop {
        let before = last.clone();
        let cut = match stretch(client, &mut request, &mut last, &mut print).await {
            Ok(()) => return Ok(()),
            Err(Stop::Output(error)) => return Err(error.into()),
            Err(Stop::Call(error)) => error,
        };
        attempts = if last == before { attempts + 1 } else { 1 };
        let Some(last) = &last else { return Err(cut.into()) };
        if attempts > SCAN_ATTEMPTS || !may_resume(&cut) {
            let last = text::preview(last).into_owned();
            return Err(CliError::ScanCut { last, source: cut });
        }
        tokio::time::sleep(SCAN_AGAIN_AFTER).await;
    }
}

/// What ended a stretch of a scan before its end.
enum Stop {
    Output(std::io::Error),
    Call(CallError),
}

/// Whether a scan can go on after this, at whichever node answers.
fn may_resume(cut: &CallError) -> bool {
    match cut {
        CallError::NoNode(_) => true,
        CallError::Refused { status, .. } => {
            let code = status.code();
            Meaning::of(status).read_again(status)
                || matches!(code, tonic::Code::Cancelled | tonic::Code::DeadlineExceeded)
        }
        CallError::Credentials(_) | CallError::Unknown { .. } => false,
    }
}

/// Where a scan goes on after `key`: at the smallest key after it, or at the longest key itself, which
/// is then read again.
fn from_after(key: &Bytes) -> Bytes {
    match key.len() < MAX_KEY_BYTES {
        true => [&key[..], &[0]].concat().into(),
        false => key.clone(),
    }
}

/// Reads one stream to its end, or until it breaks; then `request` asks for what is left.
async fn stretch(
    client: &Client,
    request: &mut proto::ScanRequest,
    last: &mut Option<Bytes>,
    print: &mut impl FnMut(&[proto::KeyValue]) -> std::io::Result<()>,
) -> Result<(), Stop> {
    let timeout = client.timeout();
    let mut first = request.clone();
    if first.limit > 0 && last.as_ref() == Some(&first.start) {
        first.limit = first.limit.saturating_add(1);
    }
    let first = &first;
    let opened = client.call_where(Effect::Read, |channel| async move {
        let mut client =
            KvClient::new(channel).max_decoding_message_size(super::client::MAX_ANSWER_BYTES);
        let mut pages = client.scan(first.clone()).await?.into_inner();
        let first = pages.message().await?;
        Ok((first, pages))
    });
    let (address, (mut page, mut pages)) = opened.await.map_err(Stop::Call)?;
    while let Some(rows) = page {
        let listed = |row: &&proto::KeyValue| last.as_ref().is_some_and(|last| row.key <= *last);
        let rows = &rows.rows[rows.rows.iter().take_while(listed).count()..];
        print(rows).map_err(Stop::Output)?;
        if let Some(row) = rows.last() {
            *last = Some(row.key.clone());
            request.start = from_after(&row.key);
        }
        if request.limit > 0 {
            request.limit = request.limit.saturating_sub(rows.len() as u64);
            if request.limit == 0 {
                return Ok(());
            }
        }
        let next = tokio::time::timeout(timeout, pages.message()).await;
        let next = next.unwrap_or_else(|_| Err(super::client::local_timeout(timeout)));
        page = next.map_err(|status| {
            let (address, status) = (address.clone(), Box::new(status));
            Stop::Call(CallError::Refused { address, status })
        })?;
    }
    Ok(())
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

/// The beginning of a value and, where that is not all of it, its size.
pub(super) fn value_preview(value: &[u8]) -> String {
    // Four bytes a character at most: more bytes than these cannot be shown anyway.
    // Most of what is stored fills the cells with its first bytes. A mark that takes no cell of its own, or a
    // character that the cut goes through, may need more of it.
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
