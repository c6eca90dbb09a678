//! `batch`: applies the operations in a file atomically.
//!
//! ```text
//! # one operation a line; empty lines and lines that begin with # are skipped
//! put KEY VALUE
//! delete KEY
//! ```

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::kv::OneFormat;
use crate::CliError;
use crate::client::NodeArgs;
use crate::flags::value_input::STDIN;
use crate::flags::values::{self, MAX_VALUE_BYTES, ValueError};
use crate::terminal::notation::{self, NotationError};
use crate::terminal::output;
use crate::terminal::text::{self, inert};
use keyviz_kv::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;

/// Maximum size of a file: a batch with every byte escaped, and the words around it.
const MAX_FILE_BYTES: u64 = 8 * MAX_BATCH_BYTES as u64;

/// `batch`.
#[derive(Args, Debug)]
#[command(after_help = "\
The file has one operation a line:

  put KEY VALUE
  delete KEY

KEY ends at the first space; VALUE is the rest of the line and may be empty. In both,
\\n \\r \\t \\xNN \\u{N} are escapes, a backslash is written as \\\\ and a space in a key as \\x20;
`hex:` and digits stand for any bytes. Empty lines and lines that begin with # are skipped.
All operations are applied or none, in the order of the file: at most 1,024 operations and 4 MiB,
with all keys in one Raft group (otherwise the batch is refused, exit code 5).")]
pub struct BatchArgs {
    /// File with one operation per line; - reads stdin
    file: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// A file that is no batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It cannot be read.
    #[error("cannot read the batch {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// An error of the operating system.
        source: io::Error,
    },
    /// A line is no operation.
    #[error("{file}: line {line}: {fault}")]
    Line {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// The file has no operation.
    #[error("{0} has no operation")]
    Empty(String),
    /// There is too much in it.
    #[error(
        "{0} has more than {MAX_BATCH_OPERATIONS} operations or 4 MiB, which a batch cannot have"
    )]
    TooLarge(String),
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineFault {
    /// It is no UTF-8.
    #[error("it is not UTF-8; write other bytes as hex:...")]
    NotText,
    /// The line does not begin with an operation.
    #[error("{:?} is no operation; a line is `put KEY VALUE` or `delete KEY`", inert(.0))]
    Operation(String),
    /// The value is missing.
    #[error("`put KEY VALUE` has a space after the key, also where the value is empty")]
    NoValue,
    /// Something follows the key of a delete.
    #[error("`delete KEY` ends with the key; write a space in a key as \\x20")]
    MoreThanKey,
    /// The key is none.
    #[error("the key: {0}")]
    Key(ValueError),
    /// The value is none.
    #[error("the value: {0}")]
    Value(ValueError),
}

#[derive(Serialize)]
struct BatchJson {
    operations: u64,
    puts: u64,
    deletes: u64,
}

/// Applies the operations of a file.
pub async fn run(args: BatchArgs) -> Result<(), CliError> {
    let (name, content) = read(&args.file)?;
    let operations = parse(&name, &content)?;
    let puts = operations.iter().filter(|op| matches!(op, Operation::Put(_))).count() as u64;
    let all = operations.len() as u64;
    args.nodes.client()?.batch(operations.into_iter().collect()).await?;
    let mut out = output::stdout();
    let json = BatchJson { operations: all, puts, deletes: all - puts };
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &json)?,
        OneFormat::Table => writeln!(out, "{} operations applied", text::thousands(all))?,
    }
    out.flush()?;
    Ok(())
}

/// The name and the bytes of the file.
fn read(file: &PathBuf) -> Result<(String, Vec<u8>), BatchError> {
    let stdin = file.as_os_str() == STDIN;
    let name = if stdin { "stdin".to_owned() } else { file.display().to_string() };
    let mut content = Vec::new();
    let read = match stdin {
        true => io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut content),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)),
    };
    match read {
        Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => Err(BatchError::TooLarge(name)),
        Ok(_) => Ok((name, content)),
        Err(source) => Err(BatchError::Read { file: name, source }),
    }
}

fn parse(file: &str, content: &[u8]) -> Result<Vec<Operation>, BatchError> {
    let mut operations = Vec::new();
    let mut bytes = 0;
    for (at, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let failed = |fault| BatchError::Line { file: file.to_owned(), line: at + 1, fault };
        let text = std::str::from_utf8(line).map_err(|_| failed(LineFault::NotText))?;
        let operation = operation(text).map_err(failed)?;
        bytes += match &operation {
            Operation::Put(put) => put.key.len() + put.value.len(),
            Operation::Delete(delete) => delete.key.len(),
        };
        operations.push(operation);
        if operations.len() > MAX_BATCH_OPERATIONS || bytes > MAX_BATCH_BYTES {
            return Err(BatchError::TooLarge(file.to_owned()));
        }
    }
    match operations.is_empty() {
        true => Err(BatchError::Empty(file.to_owned())),
        false => Ok(operations),
    }
}

fn operation(line: &str) -> Result<Operation, LineFault> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let key = |text| values::key(text).map_err(LineFault::Key);
    match name {
        "put" => {
            let (text, value_text) = rest.split_once(' ').ok_or(LineFault::NoValue)?;
            let key = key(text)?;
            Ok(Operation::Put(proto::PutRequest { key, value: value(value_text)? }))
        }
        "delete" if rest.contains(' ') => Err(LineFault::MoreThanKey),
        "delete" => Ok(Operation::Delete(proto::DeleteRequest { key: key(rest)? })),
        other => Err(LineFault::Operation(other.to_owned())),
    }
}

fn value(text: &str) -> Result<Bytes, LineFault> {
    let value = notation::parse(text)
        .map_err(|error: NotationError| LineFault::Value(ValueError::Notation(error)))?;
    match value.len() > MAX_VALUE_BYTES {
        true => Err(LineFault::Value(ValueError::LargeValue(value.len()))),
        false => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(content: &str) -> (usize, LineFault) {
        match parse("f", content.as_bytes()).expect_err("it is malformed") {
            BatchError::Line { line, fault, .. } => (line, fault),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_line_is_an_operation_and_its_escapes_are_read() {
        let content =
            "# a comment\nput a b c\r\n\ndelete x\\x20y\nput hex:ff two\\nlines\nput e \n";
        let put = |key: &'static [u8], value: &'static [u8]| {
            let (key, value) = (Bytes::from_static(key), Bytes::from_static(value));
            Operation::Put(proto::PutRequest { key, value })
        };
        let delete = Operation::Delete(proto::DeleteRequest { key: Bytes::from_static(b"x y") });
        let expected = vec![put(b"a", b"b c"), delete, put(b"\xff", b"two\nlines"), put(b"e", b"")];
        assert_eq!(parse("f", content.as_bytes()).expect("it is a batch"), expected);
    }

    #[test]
    fn a_line_that_is_no_operation_is_named() {
        assert_eq!(fault("put a b\nset a b"), (2, LineFault::Operation("set".into())));
        assert_eq!(fault("put a"), (1, LineFault::NoValue));
        assert_eq!(fault("delete a b"), (1, LineFault::MoreThanKey));
        assert_eq!(fault("delete "), (1, LineFault::Key(ValueError::EmptyKey)));
        assert!(matches!(fault("put a \\q"), (1, LineFault::Value(_))));
        assert!(matches!(parse("f", b"put \xff b"), Err(BatchError::Line { line: 1, .. })));
        assert!(matches!(parse("f", b"# nothing\n"), Err(BatchError::Empty(_))));
        let many = "delete k\n".repeat(MAX_BATCH_OPERATIONS + 1);
        assert!(matches!(parse("f", many.as_bytes()), Err(BatchError::TooLarge(_))));
    }
}
