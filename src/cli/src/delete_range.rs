//! `delete-range`: removes all keys of a range, route by route, so that a failure says how far it
//! came.

use std::io::Write as _;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::client::{Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use super::kv::OneFormat;
use super::{CallError, CliError, UsageError, notation, output, text, values};
use keyviz_json::Key;
use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::routes_client::RoutesClient;

/// Most parts of a range: a range over more routes has several routes a part.
const MAX_PARTS: usize = 256;

/// `delete-range`.
#[derive(Args, Debug)]
#[command(after_help = "\
Atomic in each route, not across routes. Where it fails on the way, stderr says how far it came and
the command exits with 6; run it again to remove the rest.")]
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
    let (deleted, failure) = delete_parts(&client, &parts).await;
    let next = failure.as_ref().map(|(from, _)| Key(from));
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
    failure.map_or(Ok(()), |(from, source)| Err(cut_short(start, from, deleted, source)))
}

/// A part that failed: its first key, and why.
type Failure<'a> = (&'a Bytes, CallError);

/// Removes part after part until one fails; how many keys that were.
async fn delete_parts<'a>(
    client: &Client,
    parts: &'a [(Bytes, Option<Bytes>)],
) -> (u64, Option<Failure<'a>>) {
    let mut deleted = 0;
    for (from, to) in parts {
        match delete(client, from, to.as_ref()).await {
            Ok(more) => deleted += more,
            Err(error) => return (deleted, Some((from, error))),
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

async fn delete(client: &Client, start: &Bytes, end: Option<&Bytes>) -> Result<u64, CallError> {
    let request = &proto::DeleteRangeRequest { start: start.clone(), end: end.cloned() };
    let answer = client.call(Effect::Write, |channel| async move {
        KvClient::new(channel).delete_range(request.clone()).await
    });
    Ok(answer.await?.into_inner().deleted)
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
        let store = Arc::new(Store::default());
        for key in ["a", "f", "m", "z"] {
            store.map.lock().insert(Bytes::from(key), Bytes::new());
        }
        let node = fake::start(store.clone()).await;
        node.fail(Fault::RangeCut, 1);
        let client = Client::new(vec![node.address.clone()], Duration::from_millis(500));
        let bounds = ["", "f", "m"].map(|key| Bytes::from_static(key.as_bytes()));
        let parts = cut(&bounds[0], None, &bounds);
        let (deleted, failure) = delete_parts(&client, &parts).await;
        let (from, source) = failure.expect("the last part fails");
        let error = cut_short(&bounds[0], from, deleted, source);
        assert_eq!(error.exit(), Exit::Partial);
        let words = error.to_string();
        assert!(words.starts_with("2 keys were deleted: all before m; those from m on"), "{words}");
        assert_eq!(store.map.lock().len(), 2);

        let parts = cut(&bounds[2], None, &bounds);
        let (deleted, failure) = delete_parts(&client, &parts).await;
        let (from, source) = failure.expect("the only part fails");
        assert_eq!(cut_short(&bounds[2], from, deleted, source).exit(), Exit::Unreachable);
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
