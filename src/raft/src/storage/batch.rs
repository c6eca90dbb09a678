//! The changes that a state machine makes while it applies entries, not yet written.

use std::ops::Bound;

use bytes::Bytes;

use super::keyspace::current::{Changes, KeyValue};
use super::keyspace::{Keyspace, KeyspaceError, Page, PageLimit, check_key};
use crate::types::{LogPosition, StoredMembership};

/// Changes to a [`Keyspace`], written together with the log position they bring it to. Reads
/// through the batch see its earlier changes.
#[derive(Debug)]
pub struct Batch<'a> {
    keyspace: &'a Keyspace,
    changes: Changes,
    changes_of_command: usize,
    bytes: usize,
    replayable: bool,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(keyspace: &'a Keyspace) -> Self {
        Self {
            keyspace,
            changes: Changes::default(),
            changes_of_command: 0,
            bytes: 0,
            replayable: false,
        }
    }

    /// The value of `key` as of the changes so far.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyspaceError> {
        match self.changes.rows.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.keyspace.get(key),
        }
    }

    /// Puts a row.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), KeyspaceError> {
        check_key(&key)?;
        self.bytes += key.len() + value.len();
        self.change(key, Some(value));
        Ok(())
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, key: Bytes) -> Result<(), KeyspaceError> {
        check_key(&key)?;
        self.bytes += key.len();
        self.change(key, None);
        Ok(())
    }

    /// Declares that the changes of this command depend neither on rows nor on the memory of the
    /// machine, so that applying it again after a crash is harmless, and that readers may see its
    /// changes one by one. Such commands are cheaper to write. Without this call the changes of a
    /// command are applied exactly once.
    pub fn allow_replay(&mut self) {
        self.replayable = true;
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        self.changes.rows.insert(key, value);
        self.changes_of_command += 1;
        self.changes.several |= self.changes_of_command > 1;
    }

    /// Rows between two bounds as of the changes so far, in key order, up to a limit.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: PageLimit,
    ) -> Result<Page, KeyspaceError> {
        let current = self.keyspace.current();
        let mut stored = current.rows(from, to).peekable();
        let mut changed = self
            .changes
            .rows
            .iter()
            .filter(|(key, _)| !key.starts_with(super::RESERVED_PREFIX))
            .filter(|(key, _)| std::ops::RangeBounds::<[u8]>::contains(&(from, to), key.as_ref()))
            .peekable();
        let mut page = Page::default();
        let mut bytes = 0;
        loop {
            let changed_is_next = match (changed.peek(), stored.peek()) {
                (Some((changed, _)), Some(Ok((stored, _)))) => *changed <= stored,
                (Some(_), None) => true,
                (None, None) => return Ok(page),
                (_, Some(_)) => false,
            };
            let row: Option<KeyValue> = if changed_is_next {
                let (key, value) = changed.next().expect("peeked");
                if matches!(stored.peek(), Some(Ok((stored, _))) if stored == key) {
                    stored.next();
                }
                value.as_ref().map(|value| (key.clone(), value.clone()))
            } else {
                Some(stored.next().expect("peeked")?)
            };
            let Some((key, value)) = row else { continue };
            bytes += key.len() + value.len();
            if page.rows.len() >= limit.rows || (bytes > limit.bytes && !page.rows.is_empty()) {
                page.more = true;
                return Ok(page);
            }
            page.rows.push((key, value));
        }
    }

    /// Bytes of keys and values changed so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn begin_command(&mut self) {
        self.changes_of_command = 0;
        self.replayable = false;
    }

    /// The command that began last is done.
    pub(crate) fn end_command(&mut self) {
        self.changes.once |= !self.replayable && self.changes_of_command > 0;
    }

    pub(crate) fn set_applied(&mut self, at: LogPosition) {
        self.changes.applied = Some(at);
    }

    pub(crate) fn set_membership(&mut self, membership: StoredMembership) {
        self.changes.set_membership(membership);
    }

    pub(crate) fn into_changes(mut self) -> Changes {
        self.end_command();
        self.changes
    }
}
