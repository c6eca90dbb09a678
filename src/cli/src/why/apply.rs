//! `why --preview` and `why --apply`: a remedy of a finding, before and after.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::CliError;
use crate::autopilot::{entry_lines, forecast_line, journal};
use crate::client::Client;
use crate::data::kv::OneFormat;
use crate::terminal::text::{self, inert};
use crate::terminal::{output, talk::say};
use keyviz_client::Effect;
use keyviz_json::{ActPreviewJson, JournalEntryJson};
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;

/// Interval of the questions for how an act goes on.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The wait ends after this time without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The outcome is waited for so long after the end of an act: some columns of any step.
const OUTCOME_WITHIN: Duration = Duration::from_secs(60);

/// Why a remedy was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// A finding that is not there, or no longer.
    #[error("there is no finding {0}; `keyviz why` lists them")]
    NoSuchFinding(String),
    /// A finding that nothing helps, or a remedy that it does not have.
    #[error("the finding {finding} has no such remedy: {advice}")]
    NoSuchRemedy {
        /// The finding.
        finding: String,
        /// What helps, in words.
        advice: String,
    },
    /// The act was not done.
    #[error("the act was not done: {0}")]
    Failed(String),
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// A finding, by its id or its number on the page.
    pub finding: &'a str,
    /// Which of its remedies, from 1.
    pub remedy: u32,
    /// Act, and do not only look.
    pub act: bool,
    /// Wait for end and outcome.
    pub wait: bool,
    pub format: OneFormat,
}

/// The act of a remedy.
fn act(remedy: &proto::Remedy) -> proto::Act {
    proto::Act {
        act: remedy.act.clone(),
        at: remedy.at.clone(),
        start: remedy.start.clone(),
        end: remedy.end.clone(),
        group: remedy.group,
        node: remedy.node,
    }
}

/// The finding and the remedy that are meant.
pub(super) fn find<'a>(
    found: &'a proto::Findings,
    finding: &str,
    remedy: u32,
) -> Result<(&'a proto::Finding, &'a proto::Remedy), ApplyError> {
    let number = finding.parse::<usize>().ok().filter(|number| (1..=256).contains(number));
    let by_id = found.findings.iter().find(|known| known.id == finding);
    let meant = by_id.or_else(|| found.findings.get(number? - 1));
    let meant = meant.ok_or_else(|| ApplyError::NoSuchFinding(finding.to_owned()))?;
    let remedy = meant.remedies.get(remedy.saturating_sub(1) as usize);
    let remedy = remedy.ok_or_else(|| ApplyError::NoSuchRemedy {
        finding: inert(&meant.id).into_owned(),
        advice: inert(&meant.advice).into_owned(),
    })?;
    Ok((meant, remedy))
}

/// Shows what a remedy would do, and does it where that is wanted.
pub(super) async fn run(
    client: &Client,
    found: &proto::Findings,
    wanted: Wanted<'_>,
) -> Result<(), CliError> {
    let (finding, remedy) = find(found, wanted.finding, wanted.remedy)?;
    let request = &proto::ActRequest {
        act: Some(act(remedy)),
        finding: finding.id.clone(),
        request_id: format!("{:032x}", rand::random::<u128>()),
        ..Default::default()
    };
    let preview = client.call(Effect::Read, |channel| async move {
        ClusterClient::new(channel).preview_act(request.clone()).await
    });
    let preview = preview.await?.into_inner();
    let mut out = output::stdout();
    if !wanted.act {
        match wanted.format {
            OneFormat::Json => output::json_line(&mut out, &ActPreviewJson::from(&preview))?,
            OneFormat::Table => {
                for line in preview_lines(&preview) {
                    writeln!(out, "{line}")?;
                }
            }
        }
        out.flush()?;
        return Ok(());
    }
    preview_lines(&preview).iter().for_each(|line| say!("keyviz: {line}"));
    let begun = client.call(Effect::Repeatable, |channel| async move {
        ClusterClient::new(channel).do_act(request.clone()).await
    });
    let mut entry = begun.await?.into_inner();
    if wanted.wait {
        entry = wait(client, entry).await?;
    }
    match wanted.format {
        OneFormat::Json => output::json_line(&mut out, &JournalEntryJson::from(&entry))?,
        OneFormat::Table => {
            for line in entry_lines(&entry) {
                writeln!(out, "{line}")?;
            }
        }
    }
    out.flush()?;
    match entry.state.as_str() {
        "failed" => Err(ApplyError::Failed(inert(&entry.failure).into_owned()).into()),
        _ => Ok(()),
    }
}

fn preview_lines(preview: &proto::ActPreview) -> Vec<String> {
    let mut lines = vec![inert(&preview.words).into_owned()];
    let said = [&preview.why, &preview.refused];
    lines.extend(said.into_iter().filter(|said| !said.is_empty()).map(|said| inert(said).into()));
    lines.extend(preview.forecast.as_ref().map(forecast_line));
    for group in preview.forecast.iter().flat_map(|forecast| &forecast.groups) {
        if (group.before - group.after).abs() >= 0.5 {
            let (before, after) = (group.before.max(0.0) as u64, group.after.max(0.0) as u64);
            let (before, after) = (text::thousands(before), text::thousands(after));
            lines.push(format!("group {}: {before}/s to {after}/s", group.id));
        }
    }
    lines
}

/// Waits until an act has ended and was measured.
async fn wait(
    client: &Client,
    mut entry: proto::JournalEntry,
) -> Result<proto::JournalEntry, CliError> {
    let mut heard = Instant::now();
    let mut ended = None;
    loop {
        let over = match entry.state.as_str() {
            "under-way" => false,
            "done" => {
                let since: Instant = *ended.get_or_insert_with(Instant::now);
                entry.outcome.is_some() || since.elapsed() > OUTCOME_WITHIN
            }
            _ => true,
        };
        if over {
            return Ok(entry);
        }
        tokio::time::sleep(ASK_EVERY).await;
        match journal(client, 1, entry.id + 1).await {
            Ok(told) => {
                heard = Instant::now();
                // A node that is behind may not have heard of it.
                let now = told.entries.into_iter().find(|now| now.id == entry.id);
                entry = now.unwrap_or(entry);
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
    }
}
