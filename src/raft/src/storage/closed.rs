//! Groups that were permanently closed on this node, `x/<group>` in `meta`: why, as text.

use std::io;

use super::Storage;
use super::seal::{seal, unseal};
use keyviz_types::GroupId;

pub(super) const MARK: &[u8] = b"x/";

pub(super) fn mark_key(group: GroupId) -> Vec<u8> {
    [MARK, &group.0.to_be_bytes()].concat()
}

impl Storage {
    /// Records that a group must never be opened here again. Erasing the group removes the record.
    pub(crate) async fn close_group(&self, group: GroupId, reason: &str) -> io::Result<()> {
        self.put_meta(mark_key(group), seal(reason.as_bytes())).await
    }

    /// Why a group was closed; `None`: it was not.
    pub(crate) fn closed_group(&self, group: GroupId) -> io::Result<Option<String>> {
        let Some(record) = self.inner.meta.get(&mark_key(group))? else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(unseal(&record)?).into_owned()))
    }
}
