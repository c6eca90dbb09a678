//! Removes the rows and the log of a group from a node that no longer holds it.
//!
//! A mark (`e/<group>` in `meta`) is durable before anything is removed and is removed last, so
//! that an erasure interrupted by a crash is completed before the group is opened again: rows
//! without their log, or a log without its rows, must never be taken for a replica.

use std::collections::BTreeSet;
use std::io;

use super::seal::seal;
use super::{Storage, generation_key, group_of};
use keyviz_types::GroupId;

pub(super) const MARK: &[u8] = b"e/";

fn mark_key(group: GroupId) -> Vec<u8> {
    [MARK, &group.0.to_be_bytes()].concat()
}

impl Storage {
    /// Groups of which this folder has rows, or has begun to remove them.
    pub(crate) fn stored_groups(&self) -> io::Result<BTreeSet<GroupId>> {
        let names = self.inner.rows.tree_names();
        let mut groups: BTreeSet<GroupId> =
            names.iter().filter_map(|name| group_of(name)).map(|(id, _)| id).collect();
        for row in self.inner.meta.range(MARK..) {
            let (key, _) = row?;
            let Some(group) = key.strip_prefix(MARK) else { break };
            groups.extend(<[u8; 8]>::try_from(group).map(|id| GroupId(u64::from_be_bytes(id))));
        }
        Ok(groups)
    }

    /// Whether no group ever wrote an entry, a vote or a membership here: nothing was promised.
    pub fn has_no_log(&self) -> io::Result<bool> {
        match self.inner.log.range(..).next() {
            None => Ok(true),
            Some(row) => row.map(|_| false),
        }
    }

    /// Removes a group that is not open. Nothing of its log may be held any more.
    pub(crate) async fn erase_group(&self, group: GroupId) -> io::Result<()> {
        self.put_meta(mark_key(group), seal(&[])).await?;
        let storage = self.clone();
        let erased = crate::blocking(move || storage.finish_erasing(group));
        erased.await.unwrap_or_else(|_| Err(io::Error::other("erasing a group panicked")))
    }

    /// Finishes an erasure that was begun, if there is one. Blocks.
    pub(crate) fn finish_erasing(&self, group: GroupId) -> io::Result<()> {
        let inner = &self.inner;
        if inner.meta.get(&mark_key(group))?.is_none() {
            return Ok(());
        }
        for name in inner.rows.tree_names() {
            if group_of(&name).is_some_and(|(id, _)| id == group) {
                inner.rows.drop_tree(&name)?;
            }
        }
        inner.meta.delete(&generation_key(group))?;
        inner.generations.lock().remove(&group);
        let (first, end) = (group.0.to_be_bytes(), group.0.saturating_add(1).to_be_bytes());
        // From the end, so that what a crash leaves is a log without a hole.
        while let Some(row) = inner.log.range(&first[..]..&end[..]).next_back() {
            inner.log.delete(&row?.0)?;
        }
        inner.meta.delete(&super::closed::mark_key(group))?;
        inner.sync()?;
        inner.meta.delete(&mark_key(group))
    }
}

#[cfg(test)]
mod tests {
    use super::super::StorageOptions;
    use super::*;
    use crate::log::record::Key;

    fn vote_key(group: GroupId) -> Vec<u8> {
        Key::Vote.encode(group).to_vec()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_erasure_takes_all_of_one_group_and_is_finished_after_a_crash() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        let (gone, kept) = (GroupId(7), GroupId(8));
        for group in [gone, kept] {
            drop(storage.open_space(group).expect("opens"));
            let key = vote_key(group);
            storage.inner.log.put(&key, vec![1]).expect("writes");
        }
        // Begun and cut short.
        storage.put_meta(mark_key(gone), seal(&[])).await.expect("marks");
        assert_eq!(storage.stored_groups().expect("reads"), [gone, kept].into());
        drop(storage);
        let storage = Storage::open(folder.path(), StorageOptions::default()).expect("opens");
        storage.finish_erasing(gone).expect("erases");
        storage.finish_erasing(kept).expect("has no mark");
        assert_eq!(storage.stored_groups().expect("reads"), [kept].into());
        let left = storage.inner.log.range(..).map(|row| row.expect("reads").0.to_vec());
        assert_eq!(left.collect::<Vec<_>>(), [vote_key(kept)]);
        storage.erase_group(kept).await.expect("erases");
        assert!(storage.stored_groups().expect("reads").is_empty());
    }
}
