//! Creates groups in an empty folder, for a node that is restored.

use std::collections::BTreeMap;
use std::io;

use super::keyspace::check_key;
use super::keyspace::current::{Changes, Current, KeyValue};
use super::{Storage, record_key, seal};
use crate::log::{purged_record, vote_record};
use crate::types::{LogId, LogPosition, Member, Membership, RaftNodeId, StoredMembership, Vote};
use keyviz_types::{GroupId, Term};

/// A group that is being put into a folder that no node has used yet.
#[derive(Debug)]
pub struct Seed {
    storage: Storage,
    group: GroupId,
    rows: Current,
}

/// The position from which a seeded group continues. The same on all of its members.
#[derive(Clone, Debug)]
pub struct SeedPoint {
    /// The last entry that the rows contain; the log before it is gone.
    pub applied: LogPosition,
    /// No leader of an earlier life had a later term.
    pub term: Term,
    /// The voters.
    pub members: BTreeMap<RaftNodeId, Member>,
}

/// A group cannot be seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The members contradict each other.
    #[error("the members of the group make no membership")]
    Membership,
    /// A row that no client can have written, or the database failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Storage {
    /// Begins a group. Nothing of it may be in the folder.
    pub fn seed(&self, group: GroupId) -> io::Result<Seed> {
        let rows = self.open_space(group)?.current().clone();
        Ok(Seed { storage: self.clone(), group, rows })
    }

    /// Writes a small record of the node. Durable once the storage is closed.
    pub fn seed_record(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.inner.meta.put(&record_key(name), seal(value))
    }

    /// As [`Storage::close`], for who may block.
    pub fn close_now(&self) -> io::Result<()> {
        self.inner.writer.stop();
        self.inner.sync()
    }
}

impl Seed {
    /// Puts rows, best in order. Blocks on the database.
    pub fn put(&mut self, rows: &[KeyValue]) -> Result<(), SeedError> {
        for (key, _) in rows {
            check_key(key).map_err(io::Error::from)?;
        }
        Ok(self.rows.load(rows)?)
    }

    /// Writes where the group goes on from. Durable once the storage is closed.
    ///
    /// The node has voted for itself in the latest known term, so the first leader has a later
    /// term, and counts of the old and the restored group cannot be confused.
    pub fn finish(mut self, node: RaftNodeId, point: &SeedPoint) -> Result<(), SeedError> {
        let voters = point.members.keys().copied().collect();
        let membership = Membership::new(vec![voters], point.members.clone())
            .map_err(|_| SeedError::Membership)?;
        let at = LogId::from(point.applied);
        let mut changes = Changes { applied: Some(point.applied), ..Changes::default() };
        changes.set_membership(StoredMembership::new(Some(at), membership));
        self.rows.write(&changes)?;
        let log = &self.storage.inner.log;
        let (key, purged) = purged_record(self.group, at);
        log.put(&key, purged)?;
        let (key, vote) = vote_record(self.group, &Vote::new(point.term.0, node));
        log.put(&key, vote)?;
        Ok(())
    }
}
