//! Copies of other nodes' histories on disk: one set of rows beside the groups, so that all of its
//! room is given back at once when the disk runs full. Of everything that a node stores it is the
//! first to go.

use std::io;
use std::sync::Arc;

use keyviz_core::history::copies::{CopyRecord, CopyStore};
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
        if copies.is_open() {
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
