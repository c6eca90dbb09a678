//! The autopilot and its journal for people. Everything that a node sends is made inert.

use std::fmt::Write as _;

use crate::terminal::text::{self, inert, thousands};
use keyviz_proto as proto;

/// Most nodes of a line.
const NODES: usize = 8;

fn load(load: f64) -> String {
    thousands(load.max(0.0).round() as u64)
}

fn wrapped(out: &mut String, indent: &str, line: &str, width: usize) {
    let room = width.saturating_sub(indent.len()).max(20);
    for part in text::wrap(line, room) {
        let _ = writeln!(out, "{indent}{part}");
    }
}

/// What the autopilot does.
pub(super) fn page(told: &proto::Autopilot, width: usize) -> String {
    let mut out = String::new();
    let by = if told.set { "set at run time" } else { "as the node was started" };
    let at = match told.node {
        Some(node) => format!("on node {node}"),
        None => "no node acts at present".to_owned(),
    };
    let mode = inert(&told.mode);
    wrapped(&mut out, "", &format!("autopilot: {mode} ({by}), {at}"), width);
    if !told.nodes.is_empty() {
        let nodes = told.nodes.iter().take(NODES);
        let nodes: Vec<String> =
            nodes.map(|node| format!("node {}: {}/s", node.id, load(node.load))).collect();
        let more = if told.nodes.len() > NODES { " …" } else { "" };
        let line = format!(
            "load: {}{more}; the hottest has {:.2} times the mean",
            nodes.join(", "),
            told.imbalance
        );
        wrapped(&mut out, "", &line, width);
    }
    for reason in &told.reasons {
        wrapped(&mut out, "", &inert(reason), width);
    }
    for act in &told.advice {
        let _ = writeln!(out);
        let verb = if told.mode == "act" { "It does" } else { "It would do" };
        wrapped(&mut out, "", &format!("{verb}: {}", inert(&act.words)), width);
        wrapped(&mut out, "  ", &inert(&act.why), width);
        if let Some(line) = act.forecast.as_ref().map(forecast_line) {
            wrapped(&mut out, "  ", &line, width);
        }
    }
    if let Some(policy) = &told.policy {
        let _ = writeln!(out);
        let line = format!(
            "limits: {} acts a minute ({} in the last one), {} moves at a time of at most {}, \
             above {} and until {} times the mean, cool-down {}, at least {}/s; merges {} after {}",
            policy.acts_per_minute,
            told.acts_last_minute,
            policy.moves,
            text::short_bytes(policy.move_bytes),
            policy.act_above,
            policy.until,
            text::duration(std::time::Duration::from_millis(policy.cool_down_ms)),
            load(policy.least_load),
            inert(&policy.merge),
            text::duration(std::time::Duration::from_millis(policy.merge_after_ms)),
        );
        wrapped(&mut out, "", &line, width);
    }
    out
}

/// The journal, the newest first.
pub(super) fn journal(journal: &proto::Journal, width: usize) -> String {
    let mut out = String::new();
    if journal.entries.is_empty() {
        let line = match journal.revision {
            0 => {
                "Nothing was recorded yet. The journal begins with the first switch of the \
                 autopilot, or the first act of it or of `keyviz why --apply`."
            }
            _ => "No act was recorded.",
        };
        wrapped(&mut out, "", line, width);
    }
    for entry in &journal.entries {
        for (at, line) in entry_lines(entry).iter().enumerate() {
            wrapped(&mut out, if at == 0 { "" } else { "    " }, line, width);
        }
    }
    if journal.more {
        let oldest = journal.entries.last().map_or(0, |entry| entry.id);
        wrapped(&mut out, "", &format!("Older entries follow: --before {oldest}"), width);
    }
    out
}

/// What an act would bring.
pub(crate) fn forecast_line(forecast: &proto::Forecast) -> String {
    format!(
        "forecast: hottest node {}/s to {}/s, {:.2} to {:.2} times the mean ({})",
        load(forecast.hottest_before),
        load(forecast.hottest_after),
        forecast.imbalance_before,
        forecast.imbalance_after,
        changes(&forecast.nodes),
    )
}

fn changes(nodes: &[proto::LoadChange]) -> String {
    let change = |node: &proto::LoadChange| {
        format!("node {}: {} to {}", node.id, load(node.before), load(node.after))
    };
    let told: Vec<String> = nodes.iter().take(NODES).map(change).collect();
    let more = if nodes.len() > NODES { ", …" } else { "" };
    told.join(", ") + more
}

/// One entry: what was done; why, the forecast and the outcome.
pub(crate) fn entry_lines(entry: &proto::JournalEntry) -> Vec<String> {
    let time = text::time_utc(entry.started_ms);
    let took = match entry.ended_ms {
        0 => String::new(),
        ended_ms => {
            let took = std::time::Duration::from_millis(ended_ms.saturating_sub(entry.started_ms));
            format!(" after {:.1}s", took.as_secs_f64())
        }
    };
    let mut lines = vec![format!(
        "{} {time} {}: {} ({}{took})",
        entry.id,
        inert(&entry.by),
        inert(&entry.words),
        inert(&entry.state),
    )];
    let said = [&entry.why, &entry.failure];
    let said = said.into_iter().filter(|said| !said.is_empty());
    lines.extend(said.map(|said| inert(said).into_owned()));
    if entry.undoes > 0 {
        lines.push(format!("takes back {}", entry.undoes));
    }
    if entry.undone_by > 0 {
        lines.push(format!("was taken back by {}", entry.undone_by));
    }
    lines.extend(entry.forecast.as_ref().map(forecast_line));
    if let Some(outcome) = &entry.outcome {
        lines.push(match outcome.nodes.is_empty() {
            true => format!("outcome: not measured: {}", inert(&outcome.missing)),
            false => format!(
                "outcome: hottest node {}/s to {}/s, {:.2} to {:.2} times the mean ({}); {} to {} \
                 operations a second; without the act it would be {:.2} times the mean",
                load(outcome.hottest_before),
                load(outcome.hottest_after),
                outcome.imbalance_before,
                outcome.imbalance_after,
                changes(&outcome.nodes),
                load(outcome.rate_before),
                load(outcome.rate_after),
                outcome.imbalance_without,
            ),
        });
    }
    lines
}
