//! What the demo tells beside the picture: what is found in the load, what the autopilot does about
//! it or would do, what that should bring, and what it brought.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::client::Client;
use crate::autopilot::{entry_lines, forecast_line};
use crate::terminal::text::inert;
use keyviz_client::{Effect, MAX_ANSWER_BYTES};
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_proto::key_viz_client::KeyVizClient;

/// Interval of the questions; findings take some matrices each.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// The window of the findings.
const WINDOW_MS: u64 = 120_000;

/// Findings that are told must be as sure as this.
const SURE: f64 = 0.5;

/// Entries of the journal that are looked at.
const ENTRIES: u32 = 32;

/// What was told already.
#[derive(Default)]
pub(super) struct Story {
    asked: Option<Instant>,
    findings: BTreeSet<String>,
    /// How much of each entry of the journal.
    entries: BTreeMap<u64, (String, bool)>,
    advice: Option<String>,
}

impl Story {
    /// What is new, line by line. A node that does not answer tells nothing.
    pub(super) async fn news(&mut self, client: &Client, now_ms: u64) -> Vec<String> {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return Vec::new();
        }
        self.asked = Some(Instant::now());
        let request = &proto::GetFindingsRequest {
            from_ms: Some(now_ms.saturating_sub(WINDOW_MS)),
            max_findings: 8,
            ..Default::default()
        };
        let found = client.call(Effect::Read, |channel| async move {
            KeyVizClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER_BYTES)
                .get_findings(request.clone())
                .await
        });
        let journal = client.call(Effect::Read, |channel| async move {
            let log = proto::AutopilotLogRequest { limit: ENTRIES, before: 0 };
            ClusterClient::new(channel).autopilot_log(log).await
        });
        let autopilot = client.call(Effect::Read, |channel| async move {
            ClusterClient::new(channel).get_autopilot(proto::GetAutopilotRequest {}).await
        });
        let (found, journal, autopilot) = futures::join!(found, journal, autopilot);
        let mut lines = Vec::new();
        if let Ok(found) = found {
            self.find(found.get_ref(), &mut lines);
        }
        if let Ok(autopilot) = autopilot {
            self.advise(autopilot.get_ref(), &mut lines);
        }
        if let Ok(journal) = journal {
            self.act(&journal.get_ref().entries, &mut lines);
        }
        lines
    }

    fn find(&mut self, found: &proto::Findings, lines: &mut Vec<String>) {
        for finding in found.findings.iter().filter(|finding| finding.confidence >= SURE) {
            if self.findings.insert(finding.id.clone()) {
                let (kind, summary) = (inert(&finding.kind), inert(&finding.summary));
                lines.push(format!("found: {kind}: {summary}"));
            }
        }
        for ended in &found.resolved {
            if self.findings.remove(&ended.id) {
                lines.push(format!("ended: {}: {}", inert(&ended.kind), inert(&ended.summary)));
            }
        }
    }

    fn advise(&mut self, autopilot: &proto::Autopilot, lines: &mut Vec<String>) {
        let advice = autopilot.advice.first().filter(|_| autopilot.mode == "advise");
        let Some(advice) = advice else { return };
        if self.advice.as_ref() != Some(&advice.words) {
            self.advice = Some(advice.words.clone());
            lines.push(format!("advice: {} {}", inert(&advice.words), inert(&advice.why)));
            lines.extend(advice.forecast.as_ref().map(|of| format!("  {}", forecast_line(of))));
            lines.push("  `keyviz autopilot act` lets the autopilot do it".to_owned());
        }
    }

    fn act(&mut self, entries: &[proto::JournalEntry], lines: &mut Vec<String>) {
        for entry in entries.iter().rev() {
            let measured = entry.outcome.as_ref().is_some_and(|of| !of.nodes.is_empty());
            let told = (entry.state.clone(), measured);
            if self.entries.get(&entry.id) == Some(&told) {
                continue;
            }
            let first = self.entries.insert(entry.id, told).is_none();
            let all = entry_lines(entry);
            let part = |name: &str| {
                let found = all.iter().find(|line| line.starts_with(name));
                found.map(|line| format!("  {line}"))
            };
            lines.extend(all.first().map(|line| format!("act {line}")));
            if first {
                lines.extend(part("forecast"));
            }
            if measured {
                lines.extend(part("outcome"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_bounded_and_proven_the_demo_tells_finding_act_forecast_and_outcome_once() {
        let mut story = Story::default();
        let finding = proto::Finding {
            id: "f".to_owned(),
            kind: "hot-range".to_owned(),
            summary: "It is hot\x1b.".to_owned(),
            confidence: 0.9,
            ..Default::default()
        };
        let found = proto::Findings { findings: vec![finding.clone()], ..Default::default() };
        let mut entry = proto::JournalEntry {
            id: 1,
            by: "autopilot".to_owned(),
            words: "Move it".to_owned(),
            state: "under-way".to_owned(),
            forecast: Some(proto::Forecast { hottest_before: 9.0, ..Default::default() }),
            ..Default::default()
        };
        let mut lines = Vec::new();
        story.find(&found, &mut lines);
        story.act(std::slice::from_ref(&entry), &mut lines);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("found: hot-range") && !lines[0].contains('\x1b'));
        assert!(lines[1].contains("Move it") && lines[2].contains("forecast"), "{lines:?}");
        lines.clear();
        story.find(&found, &mut lines);
        story.act(std::slice::from_ref(&entry), &mut lines);
        assert!(lines.is_empty(), "{lines:?}");
        let change = proto::LoadChange { id: 1, before: 9.0, after: 4.0 };
        let outcome = proto::ActOutcome { nodes: vec![change], ..Default::default() };
        (entry.state, entry.outcome) = ("done".to_owned(), Some(outcome));
        story.act(&[entry], &mut lines);
        assert!(lines.len() == 2 && lines[1].contains("outcome"), "{lines:?}");
        lines.clear();
        let ended = proto::Findings { resolved: vec![finding], ..Default::default() };
        story.find(&ended, &mut lines);
        assert!(lines[0].starts_with("ended: hot-range"), "{lines:?}");
    }
}
