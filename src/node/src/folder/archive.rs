//! Keeps the history over a restart: closed columns as they close, the column in progress every
//! second, all in rows beside the groups.
//!
//! A fault here costs history, never the store: it is logged, and retried with the next flush.

use std::io;

use keyviz_core::history::{Column, ColumnId};
use keyviz_core::sampler::Counts;
use keyviz_core::{Archive, Flushed, History, Window};
use keyviz_fanout::LocalMatrix;
use keyviz_raft::{DiskSpace, KeyspaceError, SideRows, Storage};

/// The name of the rows.
pub(super) const ROWS: &str = "history";

/// Why the history of earlier lives cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The rows could not be opened.
    #[error("the stored history could not be opened: {0}")]
    Open(#[source] io::Error),
    /// The rows could not be read.
    #[error("the stored history could not be read: {0}")]
    Read(#[from] KeyspaceError),
    /// The result of reading them could not be written.
    #[error("the stored history could not be put in order: {0}")]
    Write(#[source] io::Error),
}

/// The stored history of one node. One writer owns it: the flusher.
pub(crate) struct HistoryArchive {
    storage: Storage,
    /// `None`: the disk is short of space, or storing failed. The stored history was dropped, and
    /// nothing is stored.
    rows: Option<SideRows>,
    archive: Archive,
    /// The last checkpoint, so that a second without traffic writes nothing.
    checkpoint: Option<(ColumnId, Counts)>,
}

impl HistoryArchive {
    /// Loads what earlier processes stored into the history. Damaged records are passed over,
    /// counted and reported.
    pub(crate) fn open(storage: &Storage, local: &LocalMatrix) -> Result<Self, ArchiveError> {
        let has_run = local.history().incarnation().0 > 1;
        if storage.disk_space() < DiskSpace::Ample {
            if has_run {
                forget_all(local);
            }
            storage.remove_side(ROWS).map_err(ArchiveError::Open)?;
            let (archive, storage) = (Archive::default(), storage.clone());
            return Ok(HistoryArchive { storage, rows: None, archive, checkpoint: None });
        }
        let rows = storage.open_side(ROWS).map_err(ArchiveError::Open)?;
        let opened = Archive::open(rows.rows()?);
        for damaged in &opened.damaged {
            tracing::warn!(
                key = %keyviz_json::key_text(&damaged.key),
                error = %damaged.error,
                "a stored column is damaged and was left out"
            );
        }
        if !opened.damaged.is_empty() {
            let (records, columns) = (opened.damaged.len(), opened.lost.len());
            local.count_damaged_records(records as u64);
            tracing::warn!(
                records,
                columns,
                "part of the stored history is damaged: its columns are shown as partial"
            );
        }
        let damaged = opened.damaged.into_iter().map(|damaged| damaged.key);
        let deletes = opened.garbage.deletes.into_iter().chain(damaged);
        rows.apply(opened.garbage.puts, deletes).map_err(ArchiveError::Write)?;
        let mut archive = HistoryArchive {
            storage: storage.clone(),
            rows: Some(rows),
            archive: opened.archive,
            checkpoint: None,
        };
        local.history().forget_before(opened.forgotten_before_ms);
        if opened.columns.is_empty() && opened.forgotten_before_ms == 0 && has_run {
            // A node that has run before stored columns, unless its disk was short of room.
            forget_all(local);
        }
        let restored = local.history().restore(opened.columns);
        let lost = local.history().lose(opened.lost);
        for changed in [restored, lost] {
            archive.store(&changed, local.history()).map_err(ArchiveError::Write)?;
        }
        Ok(archive)
    }

    /// Where to store; `None`: nowhere. When the disk is full, the stored history is removed; when
    /// there is again, all that is in memory is stored.
    fn rows(&mut self, history: &History) -> io::Result<Option<&SideRows>> {
        let scarce = self.storage.disk_space() < DiskSpace::Ample;
        if scarce && self.rows.is_some() {
            tracing::warn!("the stored history is dropped to make room on the disk");
            self.give_way()?;
        } else if !scarce && self.rows.is_none() {
            // Including the rest of an interrupted removal.
            self.storage.remove_side(ROWS)?;
            let rows = self.storage.open_side(ROWS)?;
            let columns = history.inspect(Window { from_ms: 0, to_ms: u64::MAX });
            let mut batch = self.archive.batch(columns.iter().map(AsRef::as_ref), &[]);
            let forgotten = history.holdings().forgotten_before_ms;
            batch.puts.extend(self.archive.note_forgotten(forgotten));
            if let Err(error) = rows.apply(batch.puts, batch.deletes) {
                drop(rows);
                self.give_way()?;
                return Err(error);
            }
            self.rows = Some(rows);
            tracing::info!(columns = columns.len(), "the history is stored again");
        }
        Ok(self.rows.as_ref())
    }

    /// Removes the stored records. Their contents are still in memory.
    fn give_way(&mut self) -> io::Result<()> {
        (self.rows, self.archive, self.checkpoint) = (None, Archive::default(), None);
        self.storage.remove_side(ROWS)
    }

    /// Stores the changes of a flush and the column in progress. After a failure the whole history
    /// is stored again with a later flush.
    pub(crate) fn store(&mut self, flushed: &Flushed, history: &History) -> io::Result<()> {
        let open = history.checkpoint();
        let checkpoint = (open.id(), open.total());
        let quiet = self.checkpoint == Some(checkpoint);
        let quiet = quiet && flushed.closed.is_empty() && flushed.removed.is_empty();
        let columns = flushed.closed.iter().map(AsRef::as_ref).chain([&open]);
        let stored = self.write(columns, flushed, history, quiet);
        if stored.is_ok() && self.rows.is_some() {
            self.checkpoint = Some(checkpoint);
        }
        stored
    }

    /// Stores the columns that a clean stop closed.
    pub(crate) fn finish(&mut self, flushed: &Flushed, history: &History) -> io::Result<()> {
        let columns = flushed.closed.iter().map(AsRef::as_ref);
        self.write(columns, flushed, history, false)
    }

    fn write<'a>(
        &mut self,
        columns: impl Iterator<Item = &'a Column>,
        flushed: &Flushed,
        history: &History,
        quiet: bool,
    ) -> io::Result<()> {
        let Some(rows) = self.rows(history)?.filter(|_| !quiet).cloned() else { return Ok(()) };
        let mut batch = self.archive.batch(columns, &flushed.removed);
        let forgotten = history.holdings().forgotten_before_ms;
        batch.puts.extend(self.archive.note_forgotten(forgotten));
        let mut written = rows.apply(batch.puts, batch.deletes);
        if !flushed.closed.is_empty() {
            // So that a file that loses a closed column is refused, and not taken for a shorter
            // one.
            written = written.and_then(|()| rows.sync());
        }
        if written.is_err() {
            drop(rows);
            self.give_way()?;
        }
        written
    }
}

/// Counts from before this start are lost.
fn forget_all(local: &LocalMatrix) {
    let now_ms = local.clock().now_ms();
    tracing::warn!("the stored history is lost: earlier counts of this node are missing");
    local.history().forget_before(now_ms);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use keyviz_core::{
        GroupId, History, HistoryConfig, Incarnation, KeyRange, NodeId, RouteId, RouteSpec,
        Sampler, SamplerConfig, Window,
    };
    use keyviz_fanout::Clock;
    use keyviz_raft::StorageOptions;

    const MINUTE_MS: u64 = 60_000;
    const START_MS: u64 = 1_800_000_000_000;

    fn local(life: u64, now_ms: u64) -> LocalMatrix {
        let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
        let (id, range, group) = (RouteId::FIRST, KeyRange::all(), GroupId(1));
        sampler.publish_routes(1, [RouteSpec { id, range, group }]).expect("a table");
        let config = HistoryConfig::default();
        let history = History::new(config, NodeId(1), Incarnation(life), now_ms);
        let history = history.expect("defaults are valid");
        LocalMatrix::new(Arc::new(sampler), Arc::new(history), Clock::of(move || now_ms), true)
    }

    /// Records three reads in a minute, and has them flushed.
    fn a_minute(local: &LocalMatrix, minute: u64) -> Flushed {
        let epoch = local.sampler().epoch();
        let located = epoch.locate(b"k").expect("published");
        (0..3).for_each(|_| epoch.record_read(located, b"k", 1, 1));
        local.history().add(START_MS + minute * MINUTE_MS, local.sampler().harvest())
    }

    /// Three such minutes, stored as the flusher does.
    fn store_three_minutes(storage: &Storage) {
        let local = local(1, START_MS);
        let mut archive = HistoryArchive::open(storage, &local).expect("an empty archive");
        for minute in 1..=3 {
            let flushed = a_minute(&local, minute);
            archive.store(&flushed, local.history()).expect("the disk works");
        }
    }

    fn columns(local: &LocalMatrix) -> Vec<(u64, u64, bool)> {
        let window = Window { from_ms: START_MS, to_ms: START_MS + 3 * MINUTE_MS };
        let columns = local.history().inspect(window);
        columns.iter().map(|it| (it.start_ms(), it.total().reads, it.partial())).collect()
    }

    #[tokio::test]
    async fn honest_partiality_a_damaged_record_is_skipped_counted_and_shown_as_partial() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("a store");
        store_three_minutes(&storage);
        let rows = storage.open_side(ROWS).expect("rows");
        let all = rows.rows().expect("readable");
        let second = (START_MS + MINUTE_MS).to_be_bytes();
        let of_second = |(key, _): &&(bytes::Bytes, bytes::Bytes)| key[1..].starts_with(&second);
        let (key, value) = all.iter().find(of_second).expect("it is stored");
        let (key, mut value) = (key.to_vec(), value.to_vec());
        *value.last_mut().expect("a record has bytes") ^= 1;
        rows.apply([(key, value)], []).expect("the disk works");

        let later_ms = START_MS + 10 * MINUTE_MS;
        let expected: Vec<_> = [(3, false), (0, true), (3, false)]
            .into_iter()
            .zip(0..)
            .map(|((reads, partial), minute)| (START_MS + minute * MINUTE_MS, reads, partial))
            .collect();
        let again = local(2, later_ms);
        HistoryArchive::open(&storage, &again).expect("the others are readable");
        assert_eq!((again.damaged_records(), columns(&again)), (1, expected.clone()));
        // The mark is stored too; the damaged record is gone.
        let third = local(3, later_ms);
        HistoryArchive::open(&storage, &third).expect("all are readable");
        assert_eq!((third.damaged_records(), columns(&third)), (0, expected));
    }

    #[tokio::test]
    async fn honest_partiality_what_was_forgotten_is_told_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("a store");
        let first = local(1, START_MS);
        let mut archive = HistoryArchive::open(&storage, &first).expect("an empty archive");
        let forgotten = |local: &LocalMatrix| local.history().holdings().forgotten_before_ms;
        assert_eq!(forgotten(&first), 0, "a node that never ran has nothing to forget");
        first.history().forget_before(START_MS - MINUTE_MS);
        let flushed = a_minute(&first, 1);
        archive.store(&flushed, first.history()).expect("the disk works");
        drop(archive);
        for life in 2..4 {
            let again = local(life, START_MS + 10 * MINUTE_MS);
            HistoryArchive::open(&storage, &again).expect("readable");
            assert_eq!(forgotten(&again), START_MS - MINUTE_MS, "life {life}");
        }

        // All of it is gone, as where the disk was short of room.
        storage.remove_side(ROWS).expect("the disk works");
        let emptied = local(4, START_MS + 11 * MINUTE_MS);
        HistoryArchive::open(&storage, &emptied).expect("readable");
        assert_eq!(forgotten(&emptied), START_MS + 11 * MINUTE_MS);
        let after = local(5, START_MS + 12 * MINUTE_MS);
        HistoryArchive::open(&storage, &after).expect("readable");
        assert_eq!(forgotten(&after), START_MS + 11 * MINUTE_MS);
    }

    #[tokio::test]
    async fn no_harm_a_history_that_could_not_be_stored_is_stored_anew_and_the_store_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("a store");
        let first = local(1, START_MS);
        let mut archive = HistoryArchive::open(&storage, &first).expect("an empty archive");
        let flushed = a_minute(&first, 1);
        archive.store(&flushed, first.history()).expect("the disk works");

        let broken = std::io::Error::other("the disk is gone");
        archive.rows.as_ref().expect("it stores").fail(&broken);
        let flushed = a_minute(&first, 2);
        archive.store(&flushed, first.history()).expect_err("its database fails");
        assert!(storage.fault().is_none() && archive.rows.is_none());
        storage.put_record("node", b"goes on").await.expect("the store does");

        let flushed = a_minute(&first, 3);
        archive.store(&flushed, first.history()).expect("it has a new database");
        drop(archive);
        let again = local(2, START_MS + 10 * MINUTE_MS);
        HistoryArchive::open(&storage, &again).expect("readable");
        let expected = (0..3).map(|minute| (START_MS + minute * MINUTE_MS, 3, false));
        assert_eq!(columns(&again), expected.collect::<Vec<_>>());
    }
}
