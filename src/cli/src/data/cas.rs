//! `cas`: compare and swap.

use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::kv::{OneFormat, value_preview};
use crate::CliError;
use crate::client::NodeArgs;
use crate::flags::value_input::{self, ValueArg};
use crate::flags::values;
use crate::terminal::{output, text};
use keyviz_client::Swap;
use keyviz_json::{Key, value_text};

/// `cas`.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("expected")
        .required(true)
        .args(["expect", "expect_file", "expect_absent"]),
    group = ArgGroup::new("then").required(true).args(["new", "value_file", "delete"]),
    override_usage = "keyviz cas [OPTIONS] <KEY> <NEW|--value-file <FILE>|--delete> \
                      <--expect <VALUE>|--expect-file <FILE>|--expect-absent>",
    after_help = "\
Where KEY does not hold what was expected nothing is written, what it holds is on stderr (in JSON as
`actual`), and the command exits with 5.

  keyviz cas lock --expect-absent mine     # take the lock
  keyviz cas counter --expect 7 8
  keyviz cas lock --expect mine --delete"
)]
pub struct CasArgs {
    /// Key, 1 to 4,096 bytes
    #[arg(value_parser = values::key)]
    key: Bytes,
    /// Value to write, at most 1 MiB; - reads stdin
    #[arg(value_parser = value_input::argument)]
    new: Option<ValueArg>,
    /// Write only if the key holds this value
    #[arg(long, value_name = "VALUE", value_parser = values::value)]
    expect: Option<Bytes>,
    /// Write only if the key holds the bytes of this file
    #[arg(long, value_name = "FILE")]
    expect_file: Option<PathBuf>,
    /// Write only if the key does not exist
    #[arg(long)]
    expect_absent: bool,
    /// Write the bytes of this file
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Remove the key instead of writing it
    #[arg(long, conflicts_with = "expect_absent")]
    delete: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Serialize)]
struct CasJson<'a> {
    key: Key<'a>,
    swapped: bool,
    /// The value found, if it was not the expected one; null if the key did not exist.
    actual: Option<std::borrow::Cow<'a, str>>,
}

/// Writes a key if its value is the expected one.
pub async fn run(args: CasArgs) -> Result<(), CliError> {
    let expected = match (args.expect, &args.expect_file) {
        (Some(value), _) => Some(value),
        (None, Some(file)) => Some(value_input::read(None, Some(file))?),
        (None, None) => None,
    };
    let value = match args.delete {
        true => None,
        false => Some(value_input::read(args.new, args.value_file.as_deref())?),
    };
    let client = args.nodes.client()?;
    let swap = client.cas(args.key.clone(), expected, value).await?;
    let (swapped, actual) = match &swap {
        Swap::Done => (true, None),
        Swap::Found(actual) => (false, actual.as_deref()),
    };
    if args.format == OneFormat::Json {
        let mut out = output::stdout();
        let actual = actual.map(value_text);
        let json = CasJson { key: Key(&args.key), swapped, actual };
        output::json_line(&mut out, &json)?;
        out.flush()?;
    }
    if swapped {
        return Ok(());
    }
    let found = match actual {
        Some(actual) => format!("holds {}", value_preview(actual)),
        None => "does not exist".to_owned(),
    };
    Err(CliError::NotSwapped { key: text::preview(&args.key).into_owned(), found })
}
