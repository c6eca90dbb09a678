//! Detects a leader that contradicts entries committed by this replica.
//!
//! Raft rules this out unless a voter forgot entries that it acknowledged. If the group continued,
//! two replicas could have committed different entries. The group is therefore closed on this node,
//! both logs are named, and an operator decides which node to replace.

use openraft::raft::AppendEntriesRequest;

use crate::log::GroupLog;
use crate::types::{LogId, LogPosition, Types};

/// Two entries at one log position, of which this replica has committed the first.
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

/// Compares an append with a log whose entries up to `committed` are committed. Entries that are
/// not in memory are not compared, but the log keeps them.
pub(crate) fn find(
    log: &GroupLog,
    committed: Option<LogId>,
    append: &AppendEntriesRequest<Types>,
) -> Result<(), Contradiction> {
    let Some(committed) = committed else { return Ok(()) };
    // It is of an earlier leader; openraft refuses its vote.
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
