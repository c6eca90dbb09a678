//! `delete-range`: removes all keys of a range, in parts that take less than the timeout each, so that
//! a failure says how far it came.
//!
//! A part ends where routes end, and after so many keys. An earlier version of the node knows no
//! number of keys and says nothing of a part that failed on its way; then the part counts as not done.

use std::io::Write as _;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tonic::Status;

use super::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use super::kv::OneFormat;
use super::{CallError, CliError, UsageError, notation, output, text, values};
use keyviz_json::Key;
use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::metadata::{DELETED_METADATA, NEXT_METADATA};
use keyviz_proto::routes_client::RoutesClient;

/// Most parts of a range: a range over more routes has several routes a part.
const MAX_PARTS: usize = 256;

/// Keys that one call removes: a second's work of a busy node.
const KEYS_A_CALL: u64 = 16 * 1_024;

/// `delete-range`.
#[derive(Args, Debug)]
#[command(after_help = "\
Atomic in each step (at most 1,024 keys or 1 MiB), not across steps. Where it fails on the way, stderr
says how far it came and the command exits with 6; run it again to remove the rest.")]
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
    /// Where it goes on after a failure; null where all is done.
    next: Option<Key<'a>>,
}

/// Removes the keys of a range.
pub async fn run(args: DeleteRangeArgs) -> Result<(), CliError> {
    let DeleteRangeArgs { start, end, .. } = &args;
    if let Some(end) = end.as_ref().filter(|end| *end <= start) {
        let reason = "the end of the range is not after its start";
        return Err(UsageError::value("<END>", notation::shown(end), reason).into());
    }
    let client = Client::from(args.nodes.clone());
    let parts = parts(&client, start, end.as_ref()).await?;
    let (deleted, failure) = delete_parts(&client, &parts, KEYS_A_CALL).await;
    let left = failure.as_ref().map(|(from, _)| from.clone());
    let next = left.as_deref().map(Key);
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
    failure.map_or(Ok(()), |(from, source)| Err(cut_short(start, &from, deleted, source)))
}

/// Where a delete failed, and why.
type Failure = (Bytes, CallError);

/// Removes part after part until one fails; how many keys that were.
async fn delete_parts(
    client: &Client,
    parts: &[(Bytes, Option<Bytes>)],
    keys_a_call: u64,
) -> (u64, Option<Failure>) {
    let mut deleted = 0;
    for (from, to) in parts {
        let mut next = Some(from.clone());
        while let Some(from) = next.take() {
            match delete(client, &from, to.as_ref(), keys_a_call).await {
                Ok(Part { deleted: more, next: rest, cut }) => {
                    deleted += more;
                    if let Some(cut) = cut {
                        return (deleted, Some((rest.unwrap_or(from), cut)));
                    }
                    next = rest;
                }
                Err(error) => return (deleted, Some((from, error))),
            }
        }
    }
    (deleted, None)
}

/// What to say where the part from `from` on failed.
fn cut_short(start: &Bytes, from: &Bytes, deleted: u64, source: CallError) -> CliError {
    // Before the first part nothing was done.
    match from == start {
        true => source.into(),
        false => {
            let next = notation::shown(from).into_owned();
            CliError::DeleteRangeCut { deleted, next, source }
        }
    }
}

/// What one call did.
struct Part {
    deleted: u64,
    /// Where to go on.
    next: Option<Bytes>,
    /// Why it went no further, where it failed on its way.
    cut: Option<CallError>,
}

async fn delete(
    client: &Client,
    start: &Bytes,
    end: Option<&Bytes>,
    max_keys: u64,
) -> Result<Part, CallError> {
    let request = &proto::DeleteRangeRequest { start: start.clone(), end: end.cloned(), max_keys };
    let call = client.call_where(Effect::Write, |channel| async move {
        match KvClient::new(channel).delete_range(request.clone()).await {
            // Part of it is done, whatever the status means otherwise.
            Err(status) if progress(&status).is_some() => Ok(Err(status)),
            answer => answer.map(Ok),
        }
    });
    let (address, answer) = call.await?;
    Ok(match answer {
        Ok(answer) => {
            let proto::DeleteRangeResponse { deleted, next } = answer.into_inner();
            Part { deleted, next, cut: None }
        }
        Err(status) => {
            let (deleted, next) = progress(&status).unwrap_or_default();
            let (address, status) = (address.clone(), Box::new(status));
            Part { deleted, next: Some(next), cut: Some(CallError::Refused { address, status }) }
        }
    })
}

/// How far a range delete came that failed on its way.
fn progress(status: &Status) -> Option<(u64, Bytes)> {
    let metadata = status.metadata();
    let deleted = metadata.get(DELETED_METADATA)?.to_str().ok()?.parse().ok()?;
    Some((deleted, metadata.get_bin(NEXT_METADATA)?.to_bytes().ok()?))
}

/// The range in parts that end where routes end.
async fn parts(
    client: &Client,
    start: &Bytes,
    end: Option<&Bytes>,
) -> Result<Vec<(Bytes, Option<Bytes>)>, CallError> {
    let list = client.call(Effect::Read, |channel| async move {
        let mut client = RoutesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        client.list_routes(proto::ListRoutesRequest::default()).await
    });
    let routes = list.await?.into_inner().routes;
    let bounds: Vec<Bytes> = routes.into_iter().map(|route| route.start).collect();
    Ok(cut(start, end, &bounds))
}

fn cut(start: &Bytes, end: Option<&Bytes>, bounds: &[Bytes]) -> Vec<(Bytes, Option<Bytes>)> {
    let inside: Vec<&Bytes> = bounds
        .iter()
        .filter(|bound| *bound > start && end.is_none_or(|end| *bound < end))
        .collect();
    let step = (inside.len() + 1).div_ceil(MAX_PARTS);
    let starts = inside.into_iter().skip(step - 1).step_by(step);
    let starts: Vec<Bytes> = std::iter::once(start).chain(starts).cloned().collect();
    let ends = starts[1..].iter().cloned().map(Some).chain([end.cloned()]);
    starts.iter().cloned().zip(ends).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Exit;
    use super::super::fake::{self, Fault, Store};
    use super::*;

    #[tokio::test]
    async fn a_range_that_is_deleted_in_part_says_how_far() {
        let keys = ["a", "b", "c", "f", "m", "z"].map(Bytes::from);
        let bounds = ["", "f", "m"].map(|key| Bytes::from_static(key.as_bytes()));
        let by_route = cut(&bounds[0], None, &bounds);
        // The last part fails before its first step, or the only part on its way.
        for (parts, keys_a_call) in [(by_route, 2), (vec![(bounds[0].clone(), None)], 0)] {
            let store = Arc::new(Store::default());
            store.map.lock().extend(keys.iter().map(|key| (key.clone(), Bytes::new())));
            let node = fake::start(store.clone()).await;
            node.fail(Fault::RangeCut, 1);
            let client = Client::new(vec![node.address.clone()], Duration::from_millis(500));
            let (deleted, failure) = delete_parts(&client, &parts, keys_a_call).await;
            let (from, source) = failure.expect("it is cut");
            let error = cut_short(&bounds[0], &from, deleted, source);
            assert_eq!(error.exit(), Exit::Partial);
            let words = error.to_string();
            assert!(
                words.starts_with("4 keys were deleted: all before m; those from m on"),
                "{words}"
            );
            assert_eq!(store.map.lock().len(), 2);

            let parts = cut(&bounds[2], None, &bounds);
            let (deleted, failure) = delete_parts(&client, &parts, 0).await;
            let (from, source) = failure.expect("the only part fails");
            let error = cut_short(&bounds[2], &from, deleted, source);
            assert_eq!(error.exit(), Exit::Unreachable);
        }
    }

    #[test]
    fn parts_end_where_routes_end_and_cover_the_range() {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let bounds = [key(""), key("b"), key("f"), key("m")];
        let parts = cut(&key("b"), Some(&key("m")), &bounds);
        let expected = [(key("b"), Some(key("f"))), (key("f"), Some(key("m")))];
        assert_eq!(parts, expected);
        assert_eq!(cut(&key("x"), None, &bounds), [(key("x"), None)]);
        let many: Vec<Bytes> = (0..1_000).map(|at| Bytes::from(format!("{at:04}"))).collect();
        let parts = cut(&Bytes::new(), None, &many);
        assert!(parts.len() <= MAX_PARTS, "{}", parts.len());
        assert_eq!((&parts[0].0, &parts[parts.len() - 1].1), (&Bytes::new(), &None));
        assert!(parts.windows(2).all(|pair| pair[0].1.as_ref() == Some(&pair[1].0)));
    }
}
