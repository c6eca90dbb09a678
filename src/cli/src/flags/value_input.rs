//! Values from the command line, from stdin and from files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::values::{self, MAX_VALUE_BYTES, ValueError};
use crate::{CliError, UsageError};

/// The argument that means stdin.
pub const STDIN: &str = "-";

/// A value argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueArg {
    /// The value itself.
    Given(Bytes),
    /// All of stdin.
    Stdin,
}

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ValueInputError {
    /// Stdin cannot be read.
    #[error("cannot read the value from stdin: {0}")]
    Stdin(io::Error),
    /// The file cannot be read.
    #[error("cannot read the value from {}: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// An error of the operating system.
        source: io::Error,
    },
}

/// Parses a value argument: `-` is stdin, anything else is the value.
///
/// # Errors
/// If the value is too large or malformed hexadecimal.
pub fn argument(text: &str) -> Result<ValueArg, ValueError> {
    match text {
        STDIN => Ok(ValueArg::Stdin),
        text => values::value(text).map(ValueArg::Given),
    }
}

/// The value of an argument or a file; bytes from stdin and files are used unchanged.
///
/// # Errors
/// If it cannot be read or is too large.
pub fn read(given: Option<ValueArg>, file: Option<&Path>) -> Result<Bytes, CliError> {
    match (given, file) {
        (Some(ValueArg::Given(value)), _) => Ok(value),
        (Some(ValueArg::Stdin), _) => from_stdin("<VALUE>"),
        (None, Some(file)) if file.as_os_str() == STDIN => from_stdin("--value-file <FILE>"),
        (None, Some(file)) => {
            let failed = |source| ValueInputError::File { file: file.to_owned(), source };
            let value = std::fs::File::open(file).and_then(bounded).map_err(failed)?;
            checked("--value-file <FILE>", file.display().to_string(), value)
        }
        // The parser requires one of them.
        (None, None) => Ok(Bytes::new()),
    }
}

fn from_stdin(argument: &'static str) -> Result<Bytes, CliError> {
    let value = bounded(io::stdin().lock()).map_err(ValueInputError::Stdin)?;
    checked(argument, STDIN.to_owned(), value)
}

/// Reads one byte more than the maximum, to detect larger values.
fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

fn checked(argument: &'static str, name: String, value: Vec<u8>) -> Result<Bytes, CliError> {
    if value.len() > MAX_VALUE_BYTES {
        let reason = format!("a value has at most {MAX_VALUE_BYTES} bytes, this one has more");
        return Err(UsageError::value(argument, name, reason).into());
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_value_of_up_to_a_mebibyte() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("value");
        std::fs::write(&file, vec![7; MAX_VALUE_BYTES]).expect("it is writable");
        let value = read(None, Some(&file)).expect("it is not too large");
        assert_eq!(value.len(), MAX_VALUE_BYTES);
        std::fs::write(&file, vec![7; MAX_VALUE_BYTES + 1]).expect("it is writable");
        let error = read(None, Some(&file)).expect_err("it is too large");
        assert!(matches!(error, CliError::Usage(_)), "{error}");
        let error = read(None, Some(&folder.path().join("none"))).expect_err("it is not there");
        assert!(error.to_string().contains("cannot read the value from"), "{error}");
    }
}
