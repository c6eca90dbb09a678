//! What came of acts: what each member served before and after, from the history.

use std::collections::BTreeMap;

use keyviz_catalog::{ActOutcome, ActState, Journal, JournalCommand, JournalEntry, LayoutAct};
use keyviz_catalog_group::CatalogChangeError;
use keyviz_core::autopilot::{BYTES_OF_ONE, Measured, outcome};
use keyviz_fanout::{FindingsError, LastColumns};
use tonic::Status;

use super::Autopilot;
use super::look::past;
use super::wire::outcome_to_stored;

/// Columns before and after an act that are compared.
const COLUMNS: u64 = 4;

/// What ended so long ago is not measured any more, in columns.
const OLD: u64 = 600;

/// Why an act was not measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeasureError {
    #[error(transparent)]
    Findings(#[from] FindingsError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
    #[error(transparent)]
    Change(#[from] CatalogChangeError),
}

/// Of an act: the columns before it and after it, in Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Windows {
    before: (u64, u64),
    after: (u64, u64),
}

fn windows(entry: &JournalEntry, step_ms: u64) -> Windows {
    let floor = |at_ms: u64| at_ms - at_ms % step_ms;
    let (start, end) = (floor(entry.started_ms), floor(entry.ended_ms + step_ms - 1));
    let length = COLUMNS * step_ms;
    Windows { before: (start.saturating_sub(length), start), after: (end, end + length) }
}

/// Whether an act changes who serves what.
fn moves_load(entry: &JournalEntry) -> bool {
    matches!(
        entry.act,
        LayoutAct::Move { .. } | LayoutAct::SplitAndMove { .. } | LayoutAct::TransferLeader { .. }
    )
}

/// The act that began before another could be measured.
fn began_meanwhile(journal: &Journal, entry: &JournalEntry, to_ms: u64) -> Option<u64> {
    let later = journal.entries().filter(|other| other.id > entry.id && moves_load(other));
    let mut later = later.filter(|other| !matches!(other.state, ActState::Failed { .. }));
    later.find(|other| other.started_ms < to_ms).map(|other| other.id)
}

impl Autopilot {
    /// Measures the oldest act that is due.
    pub(super) async fn measure(&self) -> Result<(), MeasureError> {
        let journal = self.journal();
        let (now_ms, step_ms) = (self.parts.findings.now_ms(), self.parts.findings.step_ms());
        let due = |entry: &&std::sync::Arc<JournalEntry>| {
            let Windows { after: (_, to_ms), .. } = windows(entry, step_ms);
            let done = entry.state == ActState::Done && entry.outcome.is_none();
            // The flush of the last column may be a second late.
            let ended = to_ms + step_ms.min(1_000) <= now_ms;
            done && moves_load(entry) && ended && to_ms + OLD * step_ms > now_ms
        };
        let Some(entry) = journal.entries().find(due) else { return Ok(()) };
        let Windows { before, after } = windows(entry, step_ms);
        let counted_after = self.parts.findings.counted(Some(after.0), Some(after.1)).await?;
        let meanwhile = began_meanwhile(&journal, entry, after.1);
        let (measured_before, missing) = match meanwhile {
            Some(other) => {
                let why = format!(
                    "act {other} began before this one could be measured; what it came to is that \
                     of both"
                );
                (Measured::default(), why)
            }
            None => {
                let counted = self.parts.findings.counted(Some(before.0), Some(before.1)).await?;
                let partial = counted.partial || counted_after.partial;
                let why = if partial { "a member did not answer" } else { "" };
                (measured(&counted, step_ms), why.to_owned())
            }
        };
        let status = self.parts.cluster.status().await?;
        let topology = self.topology(&status);
        let measured_after = measured(&counted_after, step_ms);
        let Some(past) = past(entry) else { return Ok(()) };
        let load = (&counted_after.load, &topology, after.1);
        let found = outcome(&past, (&measured_before, &measured_after), load);
        let alone = missing.is_empty();
        let (from_ms, to_ms) = after;
        let stored = outcome_to_stored(&found, alone);
        let outcome = Box::new(ActOutcome { from_ms, to_ms, missing, ..stored });
        self.change(&JournalCommand::Measure { id: entry.id, outcome }).await?;
        Ok(())
    }
}

fn measured(counted: &LastColumns, step_ms: u64) -> Measured {
    let columns = counted.load.columns.iter();
    let time_ms: u64 = columns.map(|column| column.end_ms - column.start_ms).sum();
    let seconds = time_ms.max(step_ms) as f64 / 1e3;
    let cost = |of: &keyviz_fanout::ServedCounts| {
        (of.operations as f64 + of.bytes as f64 / BYTES_OF_ONE) / seconds
    };
    let nodes: BTreeMap<_, f64> =
        counted.nodes.iter().map(|(node, of)| (*node, cost(of))).collect();
    let operations: u64 = counted.nodes.values().map(|of| of.operations).sum();
    Measured { nodes, operations: operations as f64 / seconds }
}
