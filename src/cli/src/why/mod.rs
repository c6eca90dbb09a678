//! `why`: says why the load is as it is, since when, and what would help.

mod apply;
mod page;
#[cfg(test)]
mod tests;

pub use apply::ApplyError;

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::client::{Client, NodeArgs};
use super::data::kv::OneFormat;
use super::flags::values;
use super::heat::now_ms;
use super::terminal::output;
use super::terminal::text;
use super::{CallError, CliError, UsageError};
use keyviz_client::{Effect, MAX_ANSWER_BYTES};
use keyviz_json::FindingsJson;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_types::KeyRange;
pub(crate) use page::line;

/// Between the first key and the end of a range.
const TO: &str = "..";

/// `why`.
#[derive(Args, Debug)]
#[command(after_help = "\
RANGE is START..END, START.., ..END, or the beginning of keys: `user/` is all keys that begin with
it. Write a dot of a key as \\x2e where two follow each other. Shares are of the load of RANGE.")]
pub struct WhyArgs {
    /// The keys to look at; absent: all
    #[arg(value_parser = range)]
    range: Option<KeyRange>,
    /// Length of the window until now, such as 5m or 1h, including the column in progress
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        default_value = "1h",
        conflicts_with_all = ["from", "to"],
    )]
    last: Duration,
    /// Start of the window: RFC 3339 or Unix milliseconds; absent: 1h before its end
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    from: Option<u64>,
    /// End of the window, exclusive: RFC 3339 or Unix milliseconds; absent: now. Findings are then
    /// those of that time, with the routes and leaders of today
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    to: Option<u64>,
    /// Maximum number of findings that go on, and of those that have ended
    #[arg(long, value_name = "FINDINGS", default_value = "8", value_parser = most)]
    most: u32,
    /// Show what a remedy of this finding would do to each node and group, and do nothing; a
    /// finding is its id, or its number on the page
    #[arg(long, value_name = "FINDING")]
    preview: Option<String>,
    /// Do it, wait, and show what came of it
    #[arg(long, value_name = "FINDING", conflicts_with = "preview")]
    apply: Option<String>,
    /// Which remedy of the finding, from 1, in the order of the page
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=16),
    )]
    remedy: u32,
    /// Return once the act has begun; `autopilot log` shows what comes of it
    #[arg(long, requires = "apply")]
    no_wait: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn most(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 1, 256).map(|most| most as u32)
}

fn range(text: &str) -> Result<KeyRange, values::ValueError> {
    let Some((start, end)) = text.split_once(TO) else {
        let start = values::bound(text)?;
        let end = after_prefix(&start);
        return Ok(KeyRange { start, end });
    };
    let end = Some(values::bound(end)?).filter(|end| !end.is_empty());
    Ok(KeyRange { start: values::bound(start)?, end })
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

impl WhyArgs {
    /// The request at `now_ms`.
    ///
    /// # Errors
    /// Names the flag and its value.
    fn request(&self, now_ms: u64) -> Result<proto::GetFindingsRequest, UsageError> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            let (from, end) = (text::time_utc(from), text::time_utc(to));
            let reason = format!("the window must end after it begins: {end} is not after {from}");
            return Err(UsageError::value("--to <TIME>", to, reason));
        }
        let KeyRange { start, end } = self.range.clone().unwrap_or_else(KeyRange::all);
        if let Some(end) = end.as_ref().filter(|end| **end <= start) {
            let reason = "the end of the range is not after its start";
            return Err(UsageError::value("[RANGE]", text::preview(end), reason));
        }
        let given = self.from.is_some() || self.to.is_some();
        let last_ms = u64::try_from(self.last.as_millis()).unwrap_or(u64::MAX);
        Ok(proto::GetFindingsRequest {
            from_ms: self.from.or((!given).then(|| now_ms.saturating_sub(last_ms))),
            to_ms: self.to,
            start,
            end,
            max_findings: self.most,
        })
    }
}

/// Runs `why`.
pub async fn run(args: WhyArgs) -> Result<(), CliError> {
    let request = args.request(now_ms())?;
    let client = args.nodes.client()?;
    let found = ask(&client, &request).await?;
    if let Some(finding) = args.apply.as_ref().or(args.preview.as_ref()) {
        let wanted = apply::Wanted {
            finding,
            remedy: args.remedy,
            act: args.apply.is_some(),
            wait: !args.no_wait,
            format: args.format,
        };
        return apply::run(&client, &found, wanted).await;
    }
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &FindingsJson::from(&found))?,
        OneFormat::Table => out.write_all(page::page(&found, output::size().0).as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

pub(crate) async fn ask(
    client: &Client,
    request: &proto::GetFindingsRequest,
) -> Result<proto::Findings, CliError> {
    let answer = client.call(Effect::Read, |channel| async move {
        KeyVizClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .get_findings(request.clone())
            .await
    });
    match answer.await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(CallError::Refused { address, status })
            if status.code() == tonic::Code::Unavailable =>
        {
            Err(CliError::HeatUnavailable(CallError::Refused { address, status }))
        }
        Err(error) => Err(error.into()),
    }
}
