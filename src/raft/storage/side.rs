//! Rows of a node that belong to no group: written in atomic batches like those of a group, and
//! never replicated.

use std::io;
use std::ops::Bound;

use bytes::Bytes;

use super::space::{Changes, Current, KeyValue, PageLimit, Space, SpaceError};
use super::{Storage, Tree};
use crate::keyviz::GroupId;

/// Rows beside the groups, by name. One writer; what is written survives the process at once and a
/// power loss after the node's next sync.
#[derive(Clone, Debug)]
pub struct SideRows {
    space: Space,
}

fn side_tree(name: &str) -> String {
    format!("side.{name}")
}

const PAGE: PageLimit = PageLimit { rows: 1_024, bytes: 4 << 20 };

impl Storage {
    /// Opens the rows of a name, which may be none.
    pub fn open_side(&self, name: &str) -> io::Result<SideRows> {
        let tree = self.inner.engine.tree(&side_tree(name))?;
        // The number names no group: it is only shown in messages.
        Ok(SideRows { space: Space::new(GroupId(u64::MAX), Current::open(tree, 0)?) })
    }

    /// Drops the rows of a name, which gives their room to other rows, and opens it empty.
    pub fn clear_side(&self, name: &str) -> io::Result<SideRows> {
        self.inner.engine.drop_tree(&side_tree(name))?;
        self.open_side(name)
    }
}

impl Storage {
    /// Names of rows beside the groups that begin with `prefix`.
    pub fn side_names(&self, prefix: &str) -> Vec<String> {
        let names = self.inner.engine.tree_names();
        let side = |name: String| name.strip_prefix("side.").map(str::to_owned);
        names.into_iter().filter_map(side).filter(|name| name.starts_with(prefix)).collect()
    }
}

impl SideRows {
    /// Rows as they lie in a tree, for reading.
    pub(super) fn unopened(tree: Tree) -> Self {
        SideRows { space: Space::new(GroupId(u64::MAX), Current::unopened(tree, 0, None)) }
    }

    /// All rows in key order. Reads page by page, so writes in between may or may not be seen.
    pub fn rows(&self) -> Result<Vec<KeyValue>, SpaceError> {
        let mut rows: Vec<KeyValue> = Vec::new();
        loop {
            let from = rows.last().map(|(key, _)| key.clone());
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = self.space.scan(from, Bound::Unbounded, PAGE)?;
            rows.extend(page.rows);
            if !page.more {
                return Ok(rows);
            }
        }
    }

    /// Writes and deletes rows: all of it or, after a crash, none.
    pub fn apply(
        &self,
        puts: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        deletes: impl IntoIterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let deletes = deletes.into_iter().map(|key| (Bytes::from(key), None));
        let puts =
            puts.into_iter().map(|(key, value)| (Bytes::from(key), Some(Bytes::from(value))));
        let rows = deletes.chain(puts).collect();
        self.space.write(&Changes { rows, several: true, ..Changes::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::StorageOptions;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn side_rows_survive_a_restart_whatever_their_size() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let long = vec![7u8; 300_000];
        {
            let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
            let side = storage.open_side("history").expect("opens");
            side.apply([(b"a".to_vec(), long.clone()), (b"b".to_vec(), vec![])], [])
                .expect("writes");
            side.apply([(b"c".to_vec(), vec![1])], [b"b".to_vec()]).expect("writes");
            drop(side);
            storage.close().await.expect("closes");
        }
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        let rows = storage.open_side("history").expect("opens").rows().expect("reads");
        let rows: Vec<(&[u8], &[u8])> =
            rows.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        assert_eq!(rows, [(&b"a"[..], long.as_slice()), (b"c", &[1])]);
        assert!(storage.open_side("other").expect("opens").rows().expect("reads").is_empty());
        let cleared = storage.clear_side("history").expect("clears");
        assert!(cleared.rows().expect("reads").is_empty());
        cleared.apply([(b"d".to_vec(), vec![2])], []).expect("writes");
        assert_eq!(storage.open_side("history").expect("opens").rows().expect("reads").len(), 1);
    }
}
