//! The results of a run: counts, latencies and the summary.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::terminal::text::thousands;

/// Maximum recorded latency; the minimum is 1 µs, the precision three digits.
const LONGEST_US: u64 = 3_600_000_000;

/// The error of operations that were not started in time; not a gRPC status.
const NOT_BEGUN: &str = "NOT_BEGUN";

/// The four kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A read of one key.
    Read,
    /// A write of one key.
    Write,
    /// A delete of one key.
    Delete,
    /// A range scan.
    Scan,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Delete, Kind::Scan];

    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        matches!(self, Kind::Read | Kind::Scan)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Delete => "delete",
            Kind::Scan => "scan",
        }
    }
}

/// Counts and latencies of one client or of a run.
#[derive(Debug)]
pub struct Stats {
    latency_us: [Histogram<u64>; 4],
    /// Reads that found a value.
    pub found: u64,
    /// Rows that scans returned.
    pub rows: u64,
    /// Failures by gRPC status.
    pub errors: BTreeMap<&'static str, u64>,
    /// Failed writes and deletes that may have happened.
    pub unknown: u64,
    /// Attempts beyond the first.
    pub retries: u64,
}

impl Default for Stats {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Stats {
            latency_us: std::array::from_fn(|_| histogram()),
            found: 0,
            rows: 0,
            errors: BTreeMap::new(),
            unknown: 0,
            retries: 0,
        }
    }
}

impl Stats {
    /// One success.
    pub fn succeeded(&mut self, kind: Kind, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us[kind as usize].saturating_record(us);
    }

    /// One failure.
    pub fn failed(&mut self, status: &'static str) {
        *self.errors.entry(status).or_default() += 1;
    }

    /// Operations that were due before the end of a run and not started in time.
    pub fn not_begun(&mut self, operations: u64) {
        if operations > 0 {
            *self.errors.entry(NOT_BEGUN).or_default() += operations;
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.latency_us[kind as usize].len()
    }
}

/// Latency from the intended start to the answer, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Latency {
    /// Operations.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// 99% of them.
    pub p99_us: u64,
    /// 99.9% of them.
    pub p999_us: u64,
    /// All of them.
    pub max_us: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Latency {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// What reading back found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Keys with an acknowledged value.
    pub right: u64,
    /// Keys that are absent although a value was acknowledged.
    pub absent: u64,
    /// Keys with another value than the acknowledged one.
    pub wrong: u64,
    /// Keys that could not be read.
    pub unread: u64,
}

/// The summary of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LoadReport {
    /// The name of the pattern, or `trace`.
    pub workload: String,
    /// Clients.
    pub clients: usize,
    /// Time from the first operation to the last answer.
    pub duration_s: f64,
    /// Writes that were acknowledged.
    pub writes_acked: u64,
    /// Reads that were answered, whether or not the key existed.
    pub reads_ok: u64,
    /// Those of them that found a value.
    pub reads_found: u64,
    /// Deletes that were acknowledged, whether or not the key existed.
    pub deletes_acked: u64,
    /// Range scans that were answered.
    pub scans_ok: u64,
    /// Rows that they returned.
    pub rows_scanned: u64,
    /// Operations that failed after all attempts.
    pub errors: u64,
    /// Failed operations by gRPC status; `NOT_BEGUN`: due before the end and never sent.
    pub errors_by_kind: BTreeMap<&'static str, u64>,
    /// Failed writes and deletes that may have happened.
    pub unknown: u64,
    /// Attempts beyond the first of an operation.
    pub retries: u64,
    /// Successful operations per second.
    pub ops_per_s: f64,
    /// Over all successful operations.
    pub p50_us: u64,
    /// Over all successful operations.
    pub p99_us: u64,
    /// Over all successful operations.
    pub p999_us: u64,
    /// Over all successful operations.
    pub max_us: u64,
    /// By kind of operation.
    pub latency: BTreeMap<&'static str, Latency>,
    /// Skipped lines of the trace; absent without a trace.
    pub trace_lines_skipped: Option<u64>,
    /// Keys that were read back with an acknowledged value; null without verification.
    pub verified: Option<u64>,
    /// Keys without an acknowledged value.
    pub missing: Option<u64>,
    /// Keys among them with another value.
    pub wrong: Option<u64>,
    /// Keys that could not be read back.
    pub unread: Option<u64>,
    /// The run was interrupted.
    pub interrupted: bool,
}

/// Facts about a run that are not in the statistics.
#[derive(Clone, Debug)]
pub struct Run {
    /// Pattern or trace.
    pub workload: String,
    /// Clients.
    pub clients: usize,
    /// Its length.
    pub duration: Duration,
    /// Lines that were skipped.
    pub trace_lines_skipped: Option<u64>,
    /// Ended early.
    pub interrupted: bool,
    /// What reading back found.
    pub verified: Option<Verified>,
}

impl LoadReport {
    /// Sums up.
    pub fn new(run: Run, stats: Stats) -> Self {
        let mut all = stats.latency_us[0].clone();
        for other in &stats.latency_us[1..] {
            all.add(other).expect("all histograms have the same bounds");
        }
        let total = Latency::of(&all);
        let by_kind = Kind::ALL.into_iter().filter(|kind| stats.count(*kind) > 0);
        let latency =
            by_kind.map(|kind| (kind.name(), Latency::of(&stats.latency_us[kind as usize])));
        let duration_s = run.duration.as_secs_f64();
        let verified = run.verified;
        LoadReport {
            workload: run.workload,
            clients: run.clients,
            duration_s: (duration_s * 1e3).round() / 1e3,
            writes_acked: stats.count(Kind::Write),
            reads_ok: stats.count(Kind::Read),
            reads_found: stats.found,
            deletes_acked: stats.count(Kind::Delete),
            scans_ok: stats.count(Kind::Scan),
            rows_scanned: stats.rows,
            errors: stats.errors.values().sum(),
            latency: latency.collect(),
            errors_by_kind: stats.errors,
            unknown: stats.unknown,
            retries: stats.retries,
            ops_per_s: if duration_s > 0.0 {
                (total.count as f64 / duration_s).round()
            } else {
                0.0
            },
            p50_us: total.p50_us,
            p99_us: total.p99_us,
            p999_us: total.p999_us,
            max_us: total.max_us,
            trace_lines_skipped: run.trace_lines_skipped,
            verified: verified.map(|verified| verified.right),
            missing: verified.map(|verified| verified.absent + verified.wrong),
            wrong: verified.map(|verified| verified.wrong),
            unread: verified.map(|verified| verified.unread),
            interrupted: run.interrupted,
        }
    }

    /// The findings.
    pub fn findings(&self) -> Findings {
        Findings {
            missing: self.missing.unwrap_or(0),
            unread: self.unread.unwrap_or(0),
            nothing_succeeded: self.errors > 0 && self.latency.is_empty(),
        }
    }

    /// For people.
    ///
    /// # Errors
    /// What the writer says.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let ended = if self.interrupted { ", ended early" } else { "" };
        let (workload, clients) = (&self.workload, self.clients);
        writeln!(out, "{workload}, {clients} clients, {} s{ended}\n", self.duration_s)?;
        writeln!(
            out,
            "{:<8} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "", "ok", "p50", "p99", "p99.9", "max"
        )?;
        for (kind, latency) in &self.latency {
            writeln!(out, "{}", latency_line(kind, latency))?;
        }
        let all = Latency {
            count: self.latency.values().map(|latency| latency.count).sum(),
            p50_us: self.p50_us,
            p99_us: self.p99_us,
            p999_us: self.p999_us,
            max_us: self.max_us,
        };
        writeln!(out, "{}\n", latency_line("all", &all))?;
        writeln!(out, "{} operations a second", thousands(self.ops_per_s as u64))?;
        if self.scans_ok > 0 {
            writeln!(out, "{} rows scanned", thousands(self.rows_scanned))?;
        }
        writeln!(out, "{} errors, {} retries", thousands(self.errors), thousands(self.retries))?;
        for (status, count) in &self.errors_by_kind {
            writeln!(out, "  {:<20} {:>12}", status, thousands(*count))?;
        }
        if self.unknown > 0 {
            let unknown = thousands(self.unknown);
            writeln!(out, "  {unknown} of them are writes that may or may not have happened")?;
        }
        if let Some(skipped) = self.trace_lines_skipped.filter(|skipped| *skipped > 0) {
            writeln!(out, "{} lines of the trace were skipped", thousands(skipped))?;
        }
        if let (Some(verified), Some(missing), Some(wrong), Some(unread)) =
            (self.verified, self.missing, self.wrong, self.unread)
        {
            let keys = thousands(verified);
            writeln!(
                out,
                "verified: {keys} keys right, {} missing ({wrong} of them hold another value), \
                 {unread} could not be read",
                thousands(missing)
            )?;
        }
        Ok(())
    }
}

/// Microseconds in a suitable unit.
pub fn latency_words(us: u64) -> String {
    match us {
        us if us < 10_000 => format!("{us} µs"),
        us if us < 10_000_000 => format!("{} ms", us / 1000),
        us => format!("{} s", us / 1_000_000),
    }
}

fn latency_line(name: &str, latency: &Latency) -> String {
    let [p50, p99, p999, max] =
        [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(latency_words);
    format!("{name:<8} {:>12} {p50:>10} {p99:>10} {p999:>10} {max:>10}", thousands(latency.count))
}

/// Findings for which `load` exits with 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Findings {
    /// Keys do not hold the acknowledged values.
    pub missing: u64,
    /// Keys that could not be read back.
    pub unread: u64,
    /// Every operation failed.
    pub nothing_succeeded: bool,
}

impl Findings {
    /// Nothing was found.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.unread == 0 && !self.nothing_succeeded
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.nothing_succeeded {
            parts.push("every operation failed".to_owned());
        }
        if self.missing > 0 {
            parts.push(format!(
                "{} keys do not hold what was acknowledged",
                thousands(self.missing)
            ));
        }
        if self.unread > 0 {
            parts.push(format!("{} keys could not be read back", thousands(self.unread)));
        }
        f.write_str(&parts.join("; "))
    }
}
