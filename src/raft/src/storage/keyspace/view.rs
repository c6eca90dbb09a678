//! A view of a group's rows at one moment, read while later batches go on.
//!
//! Before a batch changes a row that the view has not read yet, the row's old value is kept for
//! it. The view reads a run of rows at a time under the lock that a batch takes to keep old
//! values, so a batch waits for one run at most.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::current::{Current, KeyValue};
use super::value;
use crate::types::{LogPosition, StoredMembership};

/// Old values kept for one view; a reader that falls further behind fails and starts over.
const UNDO_BYTES: usize = 64 * 1024 * 1024;

/// The old values that a view needs to ignore the batches since it was taken.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    /// Rows up to this key have been read. `None`: none yet.
    read_to: Option<Bytes>,
    finished: bool,
    /// The view can no longer be read.
    abandoned: bool,
    old: BTreeMap<Bytes, Option<Bytes>>,
    old_bytes: usize,
}

impl Undo {
    /// Keeps the present value of a row that is about to change, if the view still needs it.
    pub(crate) fn keep(
        &mut self,
        key: &Bytes,
        present: impl FnOnce() -> io::Result<Option<Bytes>>,
    ) -> io::Result<()> {
        let read = self.read_to.as_ref().is_some_and(|read_to| key <= read_to);
        if self.finished
            || self.abandoned
            || read
            || self.old.contains_key(key)
            || key.starts_with(value::RESERVED_PREFIX)
        {
            return Ok(());
        }
        let present = present()?;
        self.old_bytes += key.len() + present.as_ref().map_or(0, Bytes::len);
        self.old.insert(key.clone(), present);
        if self.old_bytes > UNDO_BYTES {
            self.abandon();
        }
        Ok(())
    }

    /// Fails the rest of the read.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.old.clear();
    }
}

/// A group's rows at one moment.
#[derive(Debug)]
pub(crate) struct SnapshotView {
    at: Current,
    undo: Arc<Mutex<Undo>>,
}

impl SnapshotView {
    pub(crate) fn new(at: Current, undo: Arc<Mutex<Undo>>) -> Self {
        Self { at, undo }
    }

    pub(crate) fn applied(&self) -> Option<LogPosition> {
        self.at.applied
    }

    pub(crate) fn membership(&self) -> &StoredMembership {
        &self.at.membership
    }

    /// Whether the rest of it can no longer be read.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.undo.lock().abandoned
    }

    /// Whether this many bytes of old values are kept for it, so that it must be read soon.
    pub(crate) fn is_urgent(&self, bytes: usize) -> bool {
        let undo = self.undo.lock();
        undo.abandoned || undo.old_bytes >= bytes
    }

    /// The next rows in key order, about `bytes` of them; empty at the end.
    pub(crate) fn next_run(&mut self, bytes: usize) -> io::Result<Vec<KeyValue>> {
        Ok(self.run_to(None, bytes)?.rows)
    }

    /// The next rows in key order up to and with `to`, about `bytes` of them; `None`: up to the
    /// last.
    pub(crate) fn run_to(&mut self, to: Option<&Bytes>, bytes: usize) -> io::Result<RowRun> {
        let mut undo = self.undo.lock();
        if undo.abandoned {
            return Err(io::Error::other(
                "the snapshot was overtaken while it was read; it must be started again",
            ));
        }
        if undo.finished || to.is_some_and(|to| undo.read_to.as_ref() >= Some(to)) {
            return Ok(RowRun { rows: Vec::new(), complete: true });
        }
        let from = undo.read_to.clone();
        let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut run = Vec::new();
        let mut taken = 0;
        let end = to.map_or(Bound::Unbounded, |to| Bound::Included(&to[..]));
        let mut present = self.at.rows(from, end).peekable();
        let mut all_old = std::mem::take(&mut undo.old);
        // Old values after the end are for a later run.
        let mut later = match to {
            Some(to) => all_old.split_off(&after(to)),
            None => BTreeMap::new(),
        };
        let mut complete = false;
        let mut old = all_old.into_iter().peekable();
        while taken < bytes {
            // An old value stands for the present one of the same key.
            let old_is_next = match (old.peek(), present.peek()) {
                (Some((old, _)), Some(Ok((present, _)))) => old <= present,
                (Some(_), None) => true,
                (None, None) => {
                    complete = true;
                    break;
                }
                (_, Some(_)) => false,
            };
            let (key, value) = if old_is_next {
                let (key, value) = old.next().expect("peeked");
                undo.old_bytes -= key.len() + value.as_ref().map_or(0, Bytes::len);
                if matches!(present.peek(), Some(Ok((present, _))) if *present == key) {
                    present.next();
                }
                (key, value)
            } else {
                let (key, value) = present.next().expect("peeked")?;
                (key, Some(value))
            };
            undo.read_to = Some(key.clone());
            if let Some(value) = value {
                taken += key.len() + value.len();
                run.push((key, value));
            }
        }
        later.extend(old);
        undo.old = later;
        if complete {
            match to {
                Some(to) => undo.read_to = Some(to.clone()),
                None => undo.finished = true,
            }
        }
        Ok(RowRun { rows: run, complete })
    }
}

/// Rows that were read in one go.
#[derive(Debug)]
pub(crate) struct RowRun {
    pub(crate) rows: Vec<KeyValue>,
    /// There are no more up to the key that was asked for.
    pub(crate) complete: bool,
}

/// The first key after `key`.
fn after(key: &Bytes) -> Bytes {
    Bytes::from([&key[..], &[0]].concat())
}
