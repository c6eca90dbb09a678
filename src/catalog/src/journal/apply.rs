//! How the catalog applies the commands of the journal.

use std::sync::Arc;

use super::command::{Begun, JournalCommand};
use super::entry::AutopilotMode;
use super::entry::{
    ActForecast, ActOutcome, ActState, EntryId, Journal, JournalEntry, LayoutAct, LoadChange,
    MAX_CHANGES, MAX_JOURNAL, MAX_TEXT_BYTES, REQUEST_PREFIX,
};
use super::error::JournalError;
use crate::limits::MAX_REQUEST_ID_BYTES;
use crate::machine::error::CatalogError;
use crate::machine::records::{self, RecordChange};
use crate::machine::state::{Catalog, check_time};
use crate::moves::record::{EndedMove, RouteMove};
use crate::routes::route::{Delta, DeltaKind};
use keyviz_types::{GroupId, KeyRange};

/// A command of the journal that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalApplied {
    /// The entry that it is about; 0: none.
    pub id: EntryId,
    /// What to write, atomically with the log position that was applied.
    pub records: Vec<RecordChange>,
}

impl Catalog {
    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Carries out a command of the journal, or refuses it and changes nothing.
    ///
    /// # Errors
    /// Every reason that it can be refused for.
    pub fn apply_journal(
        &mut self,
        command: &JournalCommand,
    ) -> Result<JournalApplied, JournalError> {
        if self.cluster.is_none() {
            return Err(CatalogError::NotBootstrapped.into());
        }
        let mut journal = Journal::clone(&self.journal);
        let mut records = Vec::new();
        let id = match command {
            JournalCommand::SetMode { mode, expected_revision } => {
                journal.expect(*expected_revision)?;
                journal.head.mode = Some(*mode);
                0
            }
            JournalCommand::Open if !journal.is_empty() => {
                return Ok(JournalApplied { id: 0, records });
            }
            JournalCommand::Open => 0,
            JournalCommand::Begin { begun } => match journal.begin(begun, &mut records)? {
                (id, true) => id,
                (id, false) => return Ok(JournalApplied { id, records }),
            },
            JournalCommand::End { id, state, version, time_ms } => {
                check_time(*time_ms)?;
                let version = *version;
                journal.change(*id, &mut records, |entry| {
                    if entry.state != ActState::UnderWay {
                        return Err(JournalError::Ended { id: entry.id });
                    }
                    entry.state = bounded_state(state);
                    entry.ended_ms = (*time_ms).max(entry.started_ms);
                    entry.version = version.max(entry.version);
                    Ok(())
                })?;
                *id
            }
            JournalCommand::Measure { id, outcome } => {
                journal.change(*id, &mut records, |entry| {
                    if entry.state == ActState::UnderWay {
                        return Err(JournalError::UnderWay { id: entry.id });
                    }
                    entry.outcome.get_or_insert_with(|| bounded_outcome(outcome));
                    Ok(())
                })?;
                *id
            }
        };
        self.publish_journal(journal, &mut records)?;
        Ok(JournalApplied { id, records })
    }

    fn publish_journal(
        &mut self,
        mut journal: Journal,
        records: &mut Vec<RecordChange>,
    ) -> Result<(), CatalogError> {
        let revision = journal.head.revision.checked_add(1).ok_or(CatalogError::Exhausted)?;
        journal.head.revision = revision;
        records.push(records::put_journal_head(&journal.head));
        self.journal = Arc::new(journal);
        Ok(())
    }

    /// Enters a split or a merge that was asked for; nothing before the journal was opened, and
    /// nothing for one that belongs to an entry.
    pub(crate) fn enter_change(
        &mut self,
        delta: &Delta,
        request_id: &str,
        records: &mut Vec<RecordChange>,
    ) {
        let first = delta.created.first().map(|route| route.range().start.clone());
        let last = delta.created.last();
        let act = match (delta.kind, first, last) {
            (DeltaKind::Split, Some(_), Some(last)) => {
                LayoutAct::Split { at: last.range().start.to_vec() }
            }
            (DeltaKind::Merge, Some(start), Some(last)) => {
                LayoutAct::Merge { range: KeyRange { start, end: last.range().end.clone() } }
            }
            _ => return,
        };
        let group = last.map(crate::Route::group);
        self.enter(request_id, act, group, delta.time_ms, records, |entry| {
            entry.state = ActState::Done;
            (entry.ended_ms, entry.version) = (delta.time_ms, delta.version);
        });
    }

    /// Enters a move that was asked for.
    pub(crate) fn enter_move(&mut self, moving: &RouteMove, records: &mut Vec<RecordChange>) {
        let act = LayoutAct::Move { range: moving.range.clone(), to: moving.to };
        let request_id = match moving.request_id.is_empty() {
            true => format!("move-{}", moving.id),
            false => moving.request_id.clone(),
        };
        let (from, at_ms) = (Some(moving.from), moving.started_ms);
        self.enter(&request_id, act, from, at_ms, records, |_| {});
    }

    /// The move of an entry that was asked for has ended.
    pub(crate) fn enter_end_of_move(&mut self, ended: &EndedMove, records: &mut Vec<RecordChange>) {
        if self.journal.is_empty() || ended.request_id.starts_with(REQUEST_PREFIX) {
            return;
        }
        let request_id = match ended.request_id.is_empty() {
            true => format!("move-{}", ended.id),
            false => ended.request_id.clone(),
        };
        let Some(id) = self.journal.of_request(&request_id).map(|entry| entry.id) else { return };
        let mut journal = Journal::clone(&self.journal);
        let changed = journal.change(id, records, |entry| {
            if entry.state == ActState::UnderWay {
                entry.state = match ended.reason.is_empty() {
                    true => ActState::Done,
                    false => bounded_state(&ActState::Failed { reason: ended.reason.clone() }),
                };
                (entry.ended_ms, entry.version) = (ended.ended_ms, ended.version);
            }
            Ok(())
        });
        if changed.is_ok() {
            // A revision that is exhausted keeps the entry as it was.
            let _ = self.publish_journal(journal, records);
        }
    }

    fn enter(
        &mut self,
        request_id: &str,
        act: LayoutAct,
        from_group: Option<GroupId>,
        at_ms: u64,
        records: &mut Vec<RecordChange>,
        finish: impl FnOnce(&mut JournalEntry),
    ) {
        if self.journal.is_empty() || request_id.starts_with(REQUEST_PREFIX) {
            return;
        }
        let mut journal = Journal::clone(&self.journal);
        let Some(id) = journal.head.last_id.checked_add(1) else { return };
        let mut entry = JournalEntry {
            id,
            autopilot: false,
            begun: false,
            act,
            why: String::new(),
            finding: String::new(),
            request_id: request_id.to_owned(),
            from_group,
            from_node: None,
            state: ActState::UnderWay,
            started_ms: at_ms,
            ended_ms: 0,
            forecast: None,
            outcome: None,
            undoes: 0,
            undone_by: 0,
            version: 0,
        };
        finish(&mut entry);
        journal.push(entry, records);
        // A revision that is exhausted enters nothing.
        let _ = self.publish_journal(journal, records);
    }
}

impl Journal {
    fn expect(&self, expected: u64) -> Result<(), JournalError> {
        let current = self.head.revision;
        match expected == 0 || expected == current {
            true => Ok(()),
            false => Err(JournalError::WrongRevision { expected, current }),
        }
    }

    /// Begins an act; whether it is a new one.
    fn begin(
        &mut self,
        begun: &Begun,
        records: &mut Vec<RecordChange>,
    ) -> Result<(EntryId, bool), JournalError> {
        if begun.request_id.len() > MAX_REQUEST_ID_BYTES {
            let len = begun.request_id.len() as u64;
            return Err(CatalogError::RequestIdTooLong { len }.into());
        }
        if let Some(known) = self.of_request(&begun.request_id) {
            return match known.act == begun.act {
                true => Ok((known.id, false)),
                false => Err(JournalError::RequestIdReused { id: known.id }),
            };
        }
        self.expect(begun.expected_revision)?;
        let acts = match self.head.mode {
            Some(mode) => mode == AutopilotMode::Act,
            None => begun.by_default,
        };
        if begun.autopilot && !acts {
            return Err(JournalError::NotActing);
        }
        check_time(begun.time_ms)?;
        let id = self.head.last_id.checked_add(1).ok_or(CatalogError::Exhausted)?;
        if begun.undoes != 0 {
            // The entry may be older than the journal reaches.
            let _ = self.change(begun.undoes, records, |entry| {
                entry.undone_by = id;
                Ok(())
            });
        }
        let entry = JournalEntry {
            id,
            autopilot: begun.autopilot,
            begun: true,
            act: begun.act.clone(),
            why: bounded(&begun.why),
            finding: bounded(&begun.finding),
            request_id: begun.request_id.clone(),
            from_group: begun.from_group,
            from_node: begun.from_node,
            state: if begun.done { ActState::Done } else { ActState::UnderWay },
            started_ms: begun.time_ms,
            ended_ms: if begun.done { begun.time_ms } else { 0 },
            forecast: begun.forecast.as_ref().map(bounded_forecast),
            outcome: None,
            undoes: begun.undoes,
            undone_by: 0,
            version: 0,
        };
        self.push(entry, records);
        Ok((id, true))
    }

    fn push(&mut self, entry: JournalEntry, records: &mut Vec<RecordChange>) {
        self.head.last_id = entry.id;
        records.push(records::put_entry(&entry));
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > MAX_JOURNAL {
            let oldest = self.entries.pop_front();
            records.extend(oldest.map(|oldest| records::delete_entry(oldest.id)));
        }
    }

    fn change(
        &mut self,
        id: EntryId,
        records: &mut Vec<RecordChange>,
        change: impl FnOnce(&mut JournalEntry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id);
        let at = at.map_err(|_| JournalError::UnknownEntry { id })?;
        let mut entry = JournalEntry::clone(&self.entries[at]);
        change(&mut entry)?;
        records.push(records::put_entry(&entry));
        self.entries[at] = Arc::new(entry);
        Ok(())
    }
}

/// The beginning of a text.
fn bounded(text: &str) -> String {
    let cut = (0..=MAX_TEXT_BYTES.min(text.len())).rev();
    let cut = cut.into_iter().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..cut].to_owned()
}

fn bounded_state(state: &ActState) -> ActState {
    match state {
        ActState::Failed { reason } => ActState::Failed { reason: bounded(reason) },
        other => other.clone(),
    }
}

/// Those of the largest load, in order.
fn largest(changes: &[LoadChange]) -> Vec<LoadChange> {
    let mut changes = changes.to_vec();
    changes.sort_by_key(|change| (std::cmp::Reverse(change.before.max(change.after)), change.id));
    changes.truncate(MAX_CHANGES);
    changes.sort_by_key(|change| change.id);
    changes
}

fn bounded_forecast(forecast: &ActForecast) -> ActForecast {
    ActForecast {
        nodes: largest(&forecast.nodes),
        groups: largest(&forecast.groups),
        ..forecast.clone()
    }
}

fn bounded_outcome(outcome: &ActOutcome) -> ActOutcome {
    ActOutcome {
        nodes: largest(&outcome.nodes),
        missing: bounded(&outcome.missing),
        ..outcome.clone()
    }
}
