//! `delete-range`: deletes all keys of a range, in parts, so that a failure says how far it came.

use std::io::Write as _;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::kv::OneFormat;
use crate::client::NodeArgs;
use crate::flags::values;
use crate::terminal::{notation, output, text};
use crate::{CliError, UsageError};
use keyviz_client::{DeleteRangeError, KeyRange};
use keyviz_json::Key;

/// `delete-range`.
#[derive(Args, Debug)]
#[command(after_help = "\
Atomic in each step (at most 1,024 keys or 1 MiB), not across steps. If it fails midway, stderr
says how far it got and the command exits with 6; run it again to remove the rest.")]
pub struct DeleteRangeArgs {
    /// First key, inclusive; '' is the beginning of the key space
    #[arg(value_parser = values::bound)]
    start: Bytes,
    /// First key after the range
    #[arg(value_parser = values::bound, required_unless_present = "to_end")]
    end: Option<Bytes>,
    /// Remove everything from START to the end of the key space
    #[arg(long, conflicts_with = "end")]
    to_end: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Serialize)]
struct DeleteRangeJson<'a> {
    start: Key<'a>,
    end: Option<Key<'a>>,
    /// Keys that were removed.
    deleted: u64,
    /// Where to continue after a failure; null if everything was deleted.
    next: Option<Key<'a>>,
}

/// Removes the keys of a range.
pub async fn run(args: DeleteRangeArgs) -> Result<(), CliError> {
    let DeleteRangeArgs { start, end, .. } = &args;
    if let Some(end) = end.as_ref().filter(|end| *end <= start) {
        let reason = "the end of the range is not after its start";
        return Err(UsageError::value("<END>", notation::shown(end), reason).into());
    }
    let client = args.nodes.client()?;
    let range = KeyRange { start: start.clone(), end: end.clone() };
    let (deleted, failure) = match client.delete_range(range).await {
        Ok(deleted) => (deleted, None),
        Err(error) => (error.deleted, Some(error)),
    };
    let next = failure.as_ref().map(|error| Key(&error.next));
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => {
            let end = end.as_deref().map(Key);
            let json = DeleteRangeJson { start: Key(start), end, deleted, next };
            output::json_line(&mut out, &json)?;
        }
        OneFormat::Table if failure.is_none() => {
            writeln!(out, "{} keys deleted", text::thousands(deleted))?;
        }
        OneFormat::Table => {}
    }
    out.flush()?;
    failure.map_or(Ok(()), |error| Err(cut_short(start, error)))
}

/// The error of a range that was deleted in part.
fn cut_short(start: &Bytes, error: DeleteRangeError) -> CliError {
    let DeleteRangeError { deleted, next, source } = error;
    // Before the first part nothing was done.
    match next == *start {
        true => source.into(),
        false => {
            let next = notation::shown(&next).into_owned();
            CliError::DeleteRangeCut { deleted, next, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exit;

    #[test]
    fn a_range_that_is_deleted_in_part_says_how_far() {
        let cut = |next: &'static str| {
            let source = keyviz_client::Error::NoNode(Vec::new());
            let error = DeleteRangeError { deleted: 2, next: Bytes::from(next), source };
            cut_short(&Bytes::from("a"), error)
        };
        let error = cut("m");
        assert_eq!(error.exit(), Exit::Partial);
        let words = error.to_string();
        assert!(words.starts_with("2 keys were deleted: all before m; those from m on"), "{words}");
        assert_eq!(cut("a").exit(), Exit::Unreachable);
    }
}
