//! Findings as a page for people. Everything that a node sends is made inert.

use std::fmt::Write as _;
use std::time::Duration;

use crate::terminal::notation;
use crate::terminal::text::{self, inert, thousands};
use keyviz_proto as proto;

/// Cells of a sparkline.
const SPARK: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Most numbers and remedies that are shown of a finding; JSON has all.
const FACTS: usize = 4;
const REMEDIES: usize = 3;
/// Most nodes whose forecast is shown.
const NODES: usize = 8;

/// The page, in lines of at most `width` cells.
pub(super) fn page(found: &proto::Findings, width: usize) -> String {
    let mut page = Page { out: String::new(), width: width.max(40) };
    page.head(found);
    for (at, finding) in found.findings.iter().enumerate() {
        page.finding(at + 1, finding, found.to_ms);
    }
    if found.findings.is_empty() {
        page.out.push('\n');
        page.line(
            "",
            match found.rate > 0.0 {
                true => "Nothing stands out.",
                false => "Nothing was counted at the end of this window.",
            },
        );
    }
    if !found.resolved.is_empty() {
        page.out.push_str("\nEnded\n");
    }
    for ended in &found.resolved {
        page.ended(ended);
    }
    if found.omitted > 0 {
        let more = format!("{} more findings are not shown (--most)", found.omitted);
        page.out.push('\n');
        page.line("", &more);
    }
    page.out
}

/// The findings in one line, the first first: what, where, how much, since when, on which node.
pub(crate) fn line(found: &proto::Findings) -> String {
    let told = |(at, finding): (usize, &proto::Finding)| {
        let place = match &finding.key {
            Some(key) => notation::shown(key).into_owned(),
            None => notation::range(&finding.start, finding.end.as_deref()),
        };
        let mut words = format!("{} {}: {place}", at + 1, inert(&finding.kind));
        if finding.rate > 0.0 {
            words.push_str(&format!(", {}, {}", rate(finding.rate), percent(finding.share)));
        }
        if finding.since_earliest_ms.is_some() {
            words.push_str(&format!(", since {}", clock(finding.since_ms, found.to_ms)));
        }
        if let Some(node) = finding.nodes.first() {
            words.push_str(&format!(", node {node}"));
        }
        words
    };
    let words: Vec<String> = found.findings.iter().enumerate().map(told).collect();
    match words.is_empty() {
        true if found.rate > 0.0 => format!("nothing stands out, {} in all", rate(found.rate)),
        true => String::new(),
        false => words.join(" · "),
    }
}

struct Page {
    out: String,
    width: usize,
}

fn rate(rate: f64) -> String {
    let whole = rate.max(0.0).round();
    if rate > 0.0 && whole < 10.0 { format!("{rate:.1}/s") } else { thousands(whole as u64) + "/s" }
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// `11:41:48Z`, or the whole time where it is another day than `now_ms`.
fn clock(unix_ms: u64, now_ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    let time = text::time_utc(unix_ms);
    match time.split_once('T') {
        Some((_, clock)) if unix_ms / DAY_MS == now_ms / DAY_MS => clock.to_owned(),
        _ => time,
    }
}

fn ago(since_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    // Minutes are enough for what has gone on for some.
    let seconds = if seconds >= 600 { seconds / 60 * 60 } else { seconds };
    text::duration(Duration::from_secs(seconds))
}

fn sparkline(values: &[u64]) -> String {
    let width = values.len().div_ceil(SPARK).max(1);
    let points: Vec<u64> =
        values.chunks(width).map(|chunk| chunk.iter().copied().max().unwrap_or(0)).collect();
    let most = points.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| BARS[(u128::from(*value) * 7 / u128::from(most)) as usize];
    points.iter().map(bar).collect()
}

/// A measure of a finding: whole where it is large, a percentage where it is a part.
fn measure(name: &str, value: f64) -> String {
    let part = name.starts_with("share") || name.starts_with("part");
    match value {
        value if part => percent(value),
        value if value.fract() == 0.0 || value >= 100.0 => thousands(value.max(0.0) as u64),
        value => format!("{value:.1}"),
    }
}

impl Page {
    /// Wrapped, with `indent` before each line.
    fn line(&mut self, indent: &str, words: &str) {
        let lines = text::wrap(words, self.width.saturating_sub(indent.len()));
        for (at, line) in lines.iter().enumerate() {
            // A bullet is of the first line.
            let indent = if at == 0 { indent } else { &indent.replace('-', " ") };
            let _ = writeln!(self.out, "{indent}{line}");
        }
    }

    fn head(&mut self, found: &proto::Findings) {
        let mut parts = vec![
            format!("{} in all", rate(found.rate)),
            format!("{} to {}", text::time_utc(found.from_ms), clock(found.to_ms, found.from_ms)),
            format!("{} columns", found.columns),
        ];
        if found.partial_columns > 0 {
            parts.push(format!("{} of them may miss counts", found.partial_columns));
        }
        parts.push(format!("{} of {} members answered", found.responded, found.expected));
        for line in text::wrap_parts(&parts, " · ", self.width) {
            let _ = writeln!(self.out, "{line}");
        }
        for node in found.nodes.iter().filter(|node| !node.ok) {
            let words = format!("node {} did not answer: {}", node.id, inert(&node.error));
            self.line("", &words);
        }
    }

    fn finding(&mut self, number: usize, finding: &proto::Finding, now_ms: u64) {
        let place = match &finding.key {
            Some(key) => format!("the key {}", notation::shown(key)),
            None => notation::range(&finding.start, finding.end.as_deref()),
        };
        let head = format!("{number}. {}: {place}", inert(&finding.kind));
        let _ = writeln!(self.out, "\n{}", text::shorten(&head, self.width));
        let indent = "   ";
        let since = match finding.since_earliest_ms {
            Some(_) => {
                let began = clock(finding.since_ms, now_ms);
                format!("since {began} ({})", ago(finding.since_ms, now_ms))
            }
            None => format!("since {} or longer", clock(finding.since_ms, now_ms)),
        };
        let numbers = [
            format!("{} of the operations", percent(finding.share)),
            rate(finding.rate),
            since,
            format!("confidence {}", percent(finding.confidence)),
        ];
        let served = [("group", &finding.groups), ("node", &finding.nodes)];
        let served = served.iter().filter(|(_, ids)| !ids.is_empty()).map(|(what, ids)| {
            let many = if ids.len() > 1 { "s" } else { "" };
            let listed: Vec<String> = ids.iter().take(NODES).map(u64::to_string).collect();
            let more = if ids.len() > NODES { ", …" } else { "" };
            format!("{what}{many} {}{more}", listed.join(", "))
        });
        let parts: Vec<String> = numbers.into_iter().chain(served).collect();
        for line in text::wrap_parts(&parts, " · ", self.width - indent.len()) {
            let _ = writeln!(self.out, "{indent}{line}");
        }
        if finding.sparkline.len() > 1 {
            let _ = writeln!(self.out, "{indent}{}", sparkline(&finding.sparkline));
        }
        self.line(indent, &inert(&finding.summary));
        let fact = |fact: &proto::Fact| {
            let name = inert(&fact.name);
            let level = fact.level.map(|level| format!(" (level {})", measure(&name, level)));
            format!("{name} {}{}", measure(&name, fact.value), level.unwrap_or_default())
        };
        let facts: Vec<String> = finding.facts.iter().take(FACTS).map(fact).collect();
        if !facts.is_empty() {
            self.line(indent, &format!("Because: {}.", facts.join("; ")));
        }
        self.line(indent, &format!("What helps: {}", inert(&finding.advice)));
        for remedy in finding.remedies.iter().take(REMEDIES) {
            self.remedy(remedy);
        }
        let _ = writeln!(self.out, "{indent}id {}", inert(&finding.id));
    }

    fn remedy(&mut self, remedy: &proto::Remedy) {
        let forecast = remedy.forecast.clone().unwrap_or_default();
        self.line("   - ", &inert(&remedy.words));
        let words = match forecast.routes_saved {
            0 => format!(
                "hottest node {} to {}, {:.2} to {:.2} times the mean",
                rate(forecast.hottest_before),
                rate(forecast.hottest_after),
                forecast.imbalance_before,
                forecast.imbalance_after,
            ),
            saved => format!("{} routes fewer", thousands(saved)),
        };
        self.line("     ", &words);
        let node = |node: &proto::LoadChange| {
            format!("node {} {} to {}", node.id, rate(node.before), rate(node.after))
        };
        let nodes: Vec<String> = forecast.nodes.iter().take(NODES).map(node).collect();
        if forecast.routes_saved == 0 {
            for line in text::wrap_parts(&nodes, " · ", self.width - 5) {
                let _ = writeln!(self.out, "     {line}");
            }
        }
    }

    fn ended(&mut self, finding: &proto::Finding) {
        let ended_ms = finding.resolved_ms.unwrap_or_default();
        let times = format!(
            "{} to {}: {}, {}",
            text::time_utc(finding.since_ms),
            clock(ended_ms, finding.since_ms),
            inert(&finding.kind),
            inert(&finding.summary),
        );
        self.line("   ", &times);
    }
}
