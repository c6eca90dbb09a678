//! A leader that contradicts what this replica has committed.
//!
//! Raft rules it out, unless some voter forgot what it had acknowledged. Going on would make this
//! replica one of two truths, so the group is closed on this node, with both logs named, until an
//! operator has decided which node to replace.

use openraft::raft::AppendEntriesRequest;

use super::log::GroupLog;
use super::types::{LogId, LogPosition, Types};

/// Two entries for one place of a log, of which this replica has committed the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the leader of term {leader_term} sent entry {theirs}, and this replica has committed entry \
     {ours} in its place: some member has forgotten what it acknowledged"
)]
pub(crate) struct Contradiction {
    ours: LogPosition,
    theirs: LogPosition,
    leader_term: u64,
}

impl Contradiction {
    pub(crate) fn new(ours: LogId, theirs: LogId, leader_term: u64) -> Self {
        Self { ours: ours.into(), theirs: theirs.into(), leader_term }
    }
}

/// Compares an append with a log whose entries up to `committed` are committed. What is not at hand
/// is not compared; the log keeps it all the same.
pub(crate) fn find(
    log: &GroupLog,
    committed: Option<LogId>,
    append: &AppendEntriesRequest<Types>,
) -> Result<(), Contradiction> {
    let Some(committed) = committed else { return Ok(()) };
    // Of an earlier leader: openraft refuses it by its vote.
    if log.vote().is_some_and(|vote| vote.leader_id.term > append.vote.leader_id.term) {
        return Ok(());
    }
    let compare = |theirs: LogId| {
        if theirs.index > committed.index {
            return Ok(());
        }
        let ours = if theirs.index == committed.index {
            Some(committed)
        } else {
            log.log_id_at(theirs.index)
        };
        match ours.filter(|ours| *ours != theirs) {
            Some(ours) => Err(Contradiction::new(ours, theirs, append.vote.leader_id.term)),
            None => Ok(()),
        }
    };
    append.prev_log_id.map_or(Ok(()), compare)?;
    append.leader_commit.map_or(Ok(()), compare)?;
    let within = append.entries.iter().take_while(|entry| entry.log_id.index <= committed.index);
    within.map(|entry| entry.log_id).try_for_each(compare)
}
