//! Copies of other nodes' histories on disk: one set of rows beside the groups, so that all of its
//! room is given back at once when the disk runs full. Of everything that a node stores it is the
//! first to go.

use std::io;
use std::sync::Arc;

use keyviz_core::copies::{CopyRecord, CopyStore};
use keyviz_fanout::LocalMatrix;
use keyviz_raft::{SideRows, Storage};

/// The name of the rows.
pub(super) const ROWS: &str = "copies";

/// Copies are kept while this many times the bytes are free below which the node is read-only, and
/// again with an eighth of them more. The own history goes at one and a half times.
const FLOORS: u64 = 2;

struct CopyRows(SideRows);

impl CopyStore for CopyRows {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(key).map_err(io::Error::from)?.map(Into::into))
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.0.each(visit).map_err(io::Error::from)
    }

    fn apply(&self, puts: Vec<CopyRecord>, deletes: Vec<Vec<u8>>, sync: bool) -> io::Result<()> {
        self.0.apply(puts, deletes)?;
        if sync { self.0.sync() } else { Ok(()) }
    }
}

/// Opens the stored copies where there is room for them, and drops them where there is none.
/// Blocking.
pub(crate) fn keep(storage: &Storage, local: &LocalMatrix) {
    let Some(copies) = local.copies() else { return };
    let (free, floor) = storage.free_bytes();
    let least = FLOORS * floor + if copies.is_open() { 0 } else { floor / 8 };
    if free < least {
        let stored = storage.side_names(ROWS).is_ok_and(|names| names.iter().any(|it| it == ROWS));
        if copies.is_open() || stored {
            tracing::warn!("copies of other nodes' histories are dropped to make room on the disk");
            copies.close();
            if let Err(error) = storage.remove_side(ROWS) {
                tracing::warn!(%error, "the copies of other nodes' histories could not be removed");
            }
        }
        return;
    }
    if copies.is_open() {
        return;
    }
    let open = || {
        let rows = storage.open_side(ROWS)?;
        copies.open(Arc::new(CopyRows(rows)))
    };
    match open() {
        Ok(0) => {}
        Ok(damaged) => {
            let what = "records of other nodes' histories are damaged and were left out; they are \
                        fetched again";
            tracing::warn!(damaged, "{what}");
        }
        Err(error) => {
            let what = "the copies of other nodes' histories cannot be used and are fetched again";
            tracing::warn!(%error, "{what}");
            if let Err(error) = storage.remove_side(ROWS).and_then(|()| open().map(drop)) {
                tracing::warn!(%error, "no copies of other nodes' histories are kept");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_core::copies::{Copies, CopyPush, Inventory, Outbox};
    use keyviz_core::{History, HistoryConfig, Incarnation, NodeId, Sampler, SamplerConfig};
    use keyviz_fanout::Clock;
    use keyviz_raft::StorageOptions;

    const NOW: u64 = 1_800_000_000_000;

    fn local() -> LocalMatrix {
        let config = HistoryConfig::default();
        let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
        let history = History::new(config, NodeId(1), Incarnation(1), NOW).expect("valid");
        let clock = Clock::of(|| NOW);
        LocalMatrix::new(Arc::new(sampler), Arc::new(history), clock, true)
            .with_copies(Arc::new(Copies::new(NodeId(1), config.step_ms, 1 << 30, 1)))
    }

    fn take_one(local: &LocalMatrix) {
        let config = HistoryConfig::default();
        let other = History::new(config, NodeId(2), Incarnation(1), NOW).expect("valid");
        let parcel = Outbox::new(&Inventory::default(), &[]).open(&other.checkpoint());
        let push = CopyPush {
            node: NodeId(2),
            incarnation: Incarnation(1),
            step_ms: config.step_ms,
            complete_to_ms: Some(NOW),
            left_ms: None,
            forgotten_before_ms: 0,
            records: parcel.records,
            removed: Vec::new(),
        };
        local.copies().expect("it has some").take(push, NOW).expect("it is sound");
    }

    fn held(local: &LocalMatrix) -> usize {
        local.held_copies().len()
    }

    #[tokio::test]
    async fn no_harm_copies_survive_a_restart_and_are_the_first_to_go_where_room_is_short() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = StorageOptions { min_free_bytes: Some(0), ..StorageOptions::default() };
        let free = {
            let storage = Storage::open(folder.path(), options).expect("a store");
            let local = local();
            assert_eq!(held(&local), 0);
            keep(&storage, &local);
            take_one(&local);
            assert_eq!(held(&local), 1);
            storage.free_bytes().0
        };
        {
            let storage = Storage::open(folder.path(), options).expect("a store");
            let local = local();
            keep(&storage, &local);
            assert_eq!(held(&local), 1, "after a restart");
        }
        // Enough for the own history, too little for copies.
        let scarce = StorageOptions { min_free_bytes: Some(free / 10 * 6), ..options };
        let storage = Storage::open(folder.path(), scarce).expect("a store");
        assert_eq!(storage.disk_space(), keyviz_raft::DiskSpace::Ample);
        let local = local();
        keep(&storage, &local);
        assert!(!local.copies().expect("it has some").is_open() && held(&local) == 0);
        assert!(storage.side_names(ROWS).expect("lists").is_empty(), "its room is given back");
    }

    #[tokio::test]
    async fn no_harm_copies_whose_database_is_damaged_begin_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = StorageOptions { min_free_bytes: Some(0), ..StorageOptions::default() };
        {
            let storage = Storage::open(folder.path(), options).expect("a store");
            let local = local();
            keep(&storage, &local);
            take_one(&local);
        }
        let file = folder.path().join("side").join(ROWS).join("db");
        std::fs::write(file, [0x55; 4_096]).expect("the folder is ours");
        let storage = Storage::open(folder.path(), options).expect("a store");
        let local = local();
        keep(&storage, &local);
        assert!(local.copies().expect("it has some").is_open());
        assert_eq!(held(&local), 0);
        take_one(&local);
        assert_eq!(held(&local), 1);
    }
}
