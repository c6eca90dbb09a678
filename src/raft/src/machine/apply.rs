//! Committed entries into a group's state machine, and snapshots out of and into it.
//!
//! A "snapshot" in openraft's sense is the point up to which the log may be purged. The rows are
//! on disk already, so making one is a sync that makes them durable up to a point, whatever the
//! size of the data. Rows are only read and sent when a follower needs them, from a
//! [`SnapshotView`] that does not hold up the batches that follow.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Machine;
use crate::log::GroupLog;
use crate::runtime::is_reproducible;
use crate::storage::{Batch, Current, Keyspace, SnapshotView, Storage};
use crate::types::{LogId, LogPosition, Payload, Reply, SnapshotMeta, StoredMembership, Types};

/// A run of entries this large or larger is applied on a blocking thread: below it, handing over
/// costs more than it saves the runtime's thread.
const INLINE_ENTRIES: usize = 64;
const INLINE_BYTES: usize = 64 * 1024;

/// The most that one atomic batch covers.
const BATCH_ENTRIES: usize = 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of rows read at a time from a snapshot.
pub(crate) const RUN_BYTES: usize = 256 * 1024;

type Snapshot = openraft::alias::SnapshotOf<Types, Transfer>;

/// The rows of a snapshot.
pub(crate) enum Transfer {
    /// To be read here and sent.
    View(Box<SnapshotView>),
    /// Received here, to be installed.
    Staged(Staged),
}

/// A tree that a snapshot was received into. Dropped with the value unless it was installed.
pub(crate) struct Staged {
    storage: Storage,
    keyspace: Keyspace,
    current: Option<Current>,
}

impl Staged {
    pub(crate) fn new(storage: Storage, keyspace: Keyspace) -> io::Result<Self> {
        let current = storage.stage(keyspace.group())?;
        Ok(Self { storage, keyspace, current: Some(current) })
    }

    pub(crate) fn rows(&mut self) -> &mut Current {
        self.current.as_mut().expect("taken only by install, which consumes it")
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let Some(current) = self.current.take() else { return };
        drop_tree(self.storage.clone(), self.keyspace.clone(), current);
    }
}

/// Drops a tree that is not the current one, off the runtime's threads: it visits every page.
fn drop_tree(storage: Storage, keyspace: Keyspace, tree: Current) {
    let work = move || {
        let generation = tree.generation;
        drop(tree);
        if let Err(error) = storage.drop_generation(keyspace.group(), generation) {
            tracing::warn!(group = %keyspace.group(), "dropping an old tree failed: {error}");
        }
    };
    if is_reproducible() {
        return work();
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        // Without a runtime the process is ending; the tree goes when the group is next opened.
        Err(_) => drop(work),
    }
}

/// openraft's view of a group's state machine.
pub(crate) struct Applier {
    storage: Storage,
    /// The log that the entries come from.
    log: Option<GroupLog>,
    keyspace: Keyspace,
    machine: Arc<Mutex<Box<dyn Machine>>>,
    applied: Arc<watch::Sender<Option<u64>>>,
}

impl Applier {
    /// Opens the rows of the space's group and restores the machine from them.
    pub(crate) fn open(
        storage: Storage,
        keyspace: Keyspace,
        mut machine: Box<dyn Machine>,
    ) -> io::Result<Self> {
        machine.restore(&keyspace)?;
        let applied = watch::Sender::new(keyspace.applied().map(|at| at.index));
        let machine = Arc::new(Mutex::new(machine));
        Ok(Self { storage, log: None, keyspace, machine, applied: Arc::new(applied) })
    }

    /// Applies no entry before it is durable in `log`, even if it is committed: after a crash the
    /// rows must not contain entries that the log lacks.
    pub(crate) fn behind(mut self, log: GroupLog) -> Self {
        self.log = Some(log);
        self
    }

    /// Changes whenever entries were applied: the index of the last one.
    pub(crate) fn watch_applied(&self) -> Arc<watch::Sender<Option<u64>>> {
        self.applied.clone()
    }

    async fn apply_run(&self, run: Vec<EntryResponder<Types>>, bytes: usize) -> io::Result<()> {
        if let (Some(log), Some((last, _))) = (&self.log, run.last()) {
            log.durable(last.log_id.index).await?;
        }
        let (keyspace, machine) = (self.keyspace.clone(), self.machine.clone());
        let applied = self.applied.clone();
        let inline = run.len() < INLINE_ENTRIES && bytes < INLINE_BYTES;
        let work = move || apply_entries(&keyspace, &machine, &applied, run);
        let panicked = || io::Error::other("the state machine panicked");
        if inline {
            // A panic stops the group like any other failure, rather than leaving it without its
            // state machine.
            return catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()));
        }
        crate::blocking(work).await.unwrap_or_else(|_| Err(panicked()))
    }

    fn view(&self) -> Snapshot {
        let view = self.keyspace.view();
        let meta = SnapshotMeta {
            last_log_id: view.applied().map(LogId::from),
            last_membership: view.membership().clone(),
        };
        Snapshot { meta, snapshot: Transfer::View(Box::new(view)) }
    }
}

fn apply_entries(
    keyspace: &Keyspace,
    machine: &Mutex<Box<dyn Machine>>,
    applied: &watch::Sender<Option<u64>>,
    run: Vec<EntryResponder<Types>>,
) -> io::Result<()> {
    let mut machine = machine.lock();
    let mut run = run.into_iter().peekable();
    while run.peek().is_some() {
        let mut batch = Batch::new(keyspace);
        let mut answers = Vec::new();
        let mut last = None;
        let end = keyspace.batch_end();
        while answers.len() < BATCH_ENTRIES && batch.bytes() < BATCH_BYTES {
            let Some((entry, responder)) = run.next() else { break };
            let at = LogPosition::from(entry.log_id);
            batch.begin_command();
            let reply = match entry.payload {
                Payload::Blank => Reply::default(),
                Payload::Normal(command) => Reply(machine.apply(at, &command.0, &mut batch)?),
                Payload::Membership(membership) => {
                    batch.set_membership(StoredMembership::new(Some(entry.log_id), membership));
                    Reply::default()
                }
            };
            batch.end_command();
            batch.set_applied(at);
            last = Some(at);
            answers.push((responder, reply));
            if at.index == end {
                break;
            }
        }
        keyspace.write(&batch.into_changes())?;
        if let Some(last) = last {
            machine.written(keyspace, last);
            applied.send_replace(Some(last.index));
        }
        for (responder, reply) in answers {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
    }
    Ok(())
}

fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Normal(command) => command.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Transfer;
    type SnapshotBuilder = Mark;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.keyspace.applied().map(LogId::from);
        Ok((applied, StoredMembership::clone(&self.keyspace.membership())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut run = Vec::new();
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let item = item?;
            bytes += payload_bytes(&item.0.payload);
            run.push(item);
            if bytes >= BATCH_BYTES {
                self.apply_run(std::mem::take(&mut run), bytes).await?;
                bytes = 0;
            }
        }
        if run.is_empty() { Ok(()) } else { self.apply_run(run, bytes).await }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Mark> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Mark {
        Mark { storage: self.storage.clone(), snapshot: Some(self.view()) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Transfer,
    ) -> Result<(), io::Error> {
        let mut staged = match snapshot {
            Transfer::Staged(staged) => staged,
            Transfer::View(mut view) => {
                let mut staged = Staged::new(self.storage.clone(), self.keyspace.clone())?;
                loop {
                    let run = view.next_run(RUN_BYTES)?;
                    if run.is_empty() {
                        break staged;
                    }
                    staged.rows().load(&run)?;
                }
            }
        };
        let mut changes = Batch::new(&self.keyspace);
        changes.set_membership(meta.last_membership.clone());
        if let Some(last) = meta.last_log_id {
            changes.set_applied(last.into());
        }
        staged.rows().write(&changes.into_changes())?;
        let next = staged.rows().generation;
        self.storage.commit_generation(self.keyspace.group(), next).await?;
        let next = staged.current.take().expect("only this takes it");
        self.machine.lock().replacing();
        let old = self.keyspace.replace(next);
        self.machine.lock().restore(&self.keyspace)?;
        self.applied.send_replace(self.keyspace.applied().map(|at| at.index));
        drop_tree(self.storage.clone(), self.keyspace.clone(), old);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.keyspace.applied().map(|_| self.view()))
    }
}

/// Makes the rows durable up to a point, so that the log before it may go.
pub(crate) struct Mark {
    storage: Storage,
    snapshot: Option<Snapshot>,
}

impl RaftSnapshotBuilder<Types> for Mark {
    type SnapshotData = Transfer;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.storage.sync_rows().await?;
        self.snapshot.take().ok_or_else(|| io::Error::other("this builder was used before"))
    }
}
