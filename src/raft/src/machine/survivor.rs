//! Reads the rows of a node that does not run, for a group that has lost its majority.
//!
//! A replica's rows end at the last entry that it applied, and its log may continue: the leader's
//! commit index reaches a follower one message after the entry does. An acknowledged entry is in
//! the logs of a majority, so the entries after the applied one may be acknowledged writes.
//! [`Survivor::replay`] applies them all, as a leader that is elected from this log would. Entries
//! that were never acknowledged may be among them.
//!
//! Works on a copy of the folder: a replica that applied entries which its group never committed
//! could not return to that group.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _, RaftStateMachine as _};

use super::Machine;
use super::apply::Applier;
use super::dump::Dump;
use crate::storage::{Folder, OpenError, Storage, StorageOptions};
use crate::types::{Entry, LogPosition};
use keyviz_types::{GroupId, Term};

/// Entries that are read and applied at a time.
const RUN_ENTRIES: u64 = 1024;

/// Entries before the last common one that two logs are compared by.
const COMPARED_ENTRIES: u64 = 1024;

/// Files of a folder that its copy creates again.
const NOT_COPIED: [&str; 2] = ["LOCK", "lost+found"];

/// A replica as found in the folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SurvivingReplica {
    /// The last entry that its rows contain.
    pub applied: Option<LogPosition>,
    /// The last entry of its log.
    pub last: LogPosition,
    /// The latest term that it voted in.
    pub term: Term,
}

/// A copy of a stopped node's folder.
#[derive(Debug)]
pub struct Survivor {
    storage: Storage,
    replicas: BTreeMap<GroupId, SurvivingReplica>,
}

impl Survivor {
    /// Copies the folder of a node that does not run to `copy`, an empty folder, and opens the
    /// copy. The folder itself is locked meanwhile and not changed. `progress` takes the bytes
    /// copied so far. Blocks on the disk; the log writer runs on a thread of its own.
    ///
    /// # Errors
    /// The folder is in use, is no node's, or cannot be read; or the copy cannot be written.
    pub fn copy(
        from: &Path,
        copy: &Path,
        options: StorageOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, OpenError> {
        let held = Folder::open_existing(from)?;
        let mut copied = 0;
        copy_folder(from, copy, &mut |bytes| {
            copied += bytes;
            progress(copied);
        })
        .map_err(|error| OpenError::from_io(copy, error))?;
        drop(held);
        let storage = Storage::open(copy, options)?;
        let replicas = Self::survey(&storage).map_err(|error| OpenError::from_io(copy, error))?;
        Ok(Survivor { storage, replicas })
    }

    fn survey(storage: &Storage) -> io::Result<BTreeMap<GroupId, SurvivingReplica>> {
        let mut replicas = BTreeMap::new();
        for group in storage.stored_groups()? {
            let log = storage.open_log(group)?;
            let applied = storage.open_space(group)?.applied();
            let Some(last) = log.last().map(LogPosition::from).max(applied) else { continue };
            let term = log.vote().map_or(last.term, |vote| vote.leader_id.term).max(last.term);
            replicas.insert(group, SurvivingReplica { applied, last, term: Term(term) });
        }
        Ok(replicas)
    }

    /// The replicas that have entries.
    pub fn replicas(&self) -> &BTreeMap<GroupId, SurvivingReplica> {
        &self.replicas
    }

    /// The storage of the copy.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// An entry of `other` that this replica of the group contradicts: a committed one that its log
    /// does not have, or a recent one where its log has another entry of the same term. The latter
    /// happens where a node that forgot its vote led a term that had a leader.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn contradicts<'a>(
        &'a self,
        group: GroupId,
        other: &'a Survivor,
    ) -> BoxFuture<'a, io::Result<Option<LogPosition>>> {
        async move {
            let of = |survivor: &Survivor| survivor.replicas.get(&group).copied();
            let (Some(mine), Some(theirs)) = (of(self), of(other)) else { return Ok(None) };
            let known = other.storage.open_log(group)?.read_committed().await?;
            let committed = theirs.applied.max(known.map(LogPosition::from));
            let common = mine.last.index.min(theirs.last.index);
            let compared = common.saturating_sub(COMPARED_ENTRIES)..common + 1;
            let entries = async |survivor: &Survivor, range: Range<u64>| {
                let mut reader = survivor.storage.open_log(group)?.get_log_reader().await;
                let entries = reader.try_get_log_entries(range).await?;
                let by_index = entries.into_iter().map(|entry| (entry.log_id.index, entry));
                io::Result::Ok(by_index.collect::<BTreeMap<u64, Entry>>())
            };
            let mine_of = entries(self, compared.clone()).await?;
            let theirs_of = entries(other, compared).await?;
            for (index, theirs) in &theirs_of {
                let same_term = |mine: &&Entry| mine.log_id == theirs.log_id;
                if mine_of.get(index).filter(same_term).is_some_and(|mine| mine != theirs) {
                    return Ok(Some(theirs.log_id.into()));
                }
            }
            let Some(committed) = committed else { return Ok(None) };
            let at = entries(self, committed.index..committed.index + 1).await?;
            let lacks = match at.get(&committed.index) {
                Some(entry) => LogPosition::from(entry.log_id) != committed,
                // Not in the log any more: it was applied here too, and a later one after it.
                None => mine.applied < Some(committed),
            };
            Ok(lacks.then_some(committed))
        }
        .boxed()
    }

    /// Applies the entries of the log that follow the rows, and returns the rows.
    ///
    /// # Errors
    /// The folder has no replica of the group, a record is damaged, or the log does not continue
    /// the rows.
    pub fn replay(&self, group: GroupId, machine: impl Machine) -> BoxFuture<'_, io::Result<Dump>> {
        self.replay_into(group, Box::new(machine)).boxed()
    }

    async fn replay_into(&self, group: GroupId, machine: Box<dyn Machine>) -> io::Result<Dump> {
        let replica = self.replicas.get(&group).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no replica of group {group}"))
        })?;
        let mut log = self.storage.open_log(group)?;
        let keyspace = self.storage.open_space(group)?;
        let mut applier = Applier::open(self.storage.clone(), keyspace.clone(), machine)?;
        let mut next = replica.applied.map_or(0, |at| at.index + 1);
        while next <= replica.last.index {
            let end = (next + RUN_ENTRIES).min(replica.last.index + 1);
            let mut reader = log.get_log_reader().await;
            let entries = reader.try_get_log_entries(next..end).await?;
            let continues = entries.first().is_some_and(|entry| entry.log_id.index == next);
            let Some(last) = entries.last().map(|entry| entry.log_id.index).filter(|_| continues)
            else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("group {group}: entry {next} follows the rows and is not in the log"),
                ));
            };
            let run = entries.into_iter().map(|entry| Ok((entry, None)));
            applier.apply(stream::iter(run)).await?;
            next = last + 1;
        }
        Dump::of(keyspace.view(), replica.term)
    }
}

/// Copies files and folders; links are not followed, because a node makes none.
fn copy_folder(from: &Path, to: &Path, copied: &mut dyn FnMut(u64)) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if NOT_COPIED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            copy_folder(&entry.path(), &to.join(&name), copied)?;
        } else if kind.is_file() {
            copied(fs::copy(entry.path(), to.join(&name))?);
        }
    }
    Ok(())
}
