//! Receives a snapshot in checksummed chunks.
//!
//! A chunk is a run of rows, each as length u32 little-endian and bytes of the key, then of the
//! value. The trailer has the number of rows and a checksum over the chunk checksums, so a missing,
//! doubled or reordered chunk is found, and rows must ascend. The receiving group does not change
//! before the trailer has been checked. The staged rows of an interrupted snapshot are reused by
//! the next one, see `held.rs`.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use super::held::{HeldRange, Partial, digest};
use crate::machine::apply::Staged;
use crate::storage::KeyValue;
use crate::types::{SnapshotMeta, Vote};
use crate::wire::{self, Invalid};
use keyviz_proto as proto;
use keyviz_types::GroupId;

const VERSION: u32 = 1;

pub(crate) fn header(
    hello: proto::RaftHello,
    group: GroupId,
    vote: Vote,
    meta: &SnapshotMeta,
    partial: u64,
) -> proto::RaftSnapshotHeader {
    proto::RaftSnapshotHeader {
        hello: Some(hello),
        group: group.0,
        vote: Some(wire::vote_to_proto(&vote)),
        last: meta.last_log_id.map(wire::log_id_to_proto),
        membership_at: meta.last_membership.log_id().map(wire::log_id_to_proto),
        membership: Some(wire::membership_to_proto(meta.last_membership.membership())),
        version: VERSION,
        partial,
    }
}

/// Reads what a header says the snapshot is.
pub(crate) fn meta(header: &proto::RaftSnapshotHeader) -> Result<SnapshotMeta, Invalid> {
    if header.version != VERSION {
        return Err(Invalid("its snapshot format is unknown"));
    }
    let last = header.last.ok_or(Invalid("a snapshot of nothing"))?;
    let membership = wire::stored_membership(header.membership_at, header.membership.clone())?;
    if membership.log_id().is_some_and(|at| at.index > last.index) {
        return Err(Invalid("its membership is later than its last entry"));
    }
    Ok(SnapshotMeta {
        last_log_id: Some(wire::log_id_from_proto(last)),
        last_membership: membership,
    })
}

pub(crate) fn encode_rows(rows: &[KeyValue]) -> Bytes {
    let mut bytes = BytesMut::new();
    for (key, value) in rows {
        for part in [key, value] {
            let length = u32::try_from(part.len()).expect("rows are far below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes.freeze()
}

pub(crate) fn decode_rows(mut bytes: Bytes) -> Result<Vec<KeyValue>, Invalid> {
    let take = |bytes: &mut Bytes| {
        let length = bytes.try_get_u32_le().ok()? as usize;
        (bytes.len() >= length).then(|| bytes.split_to(length))
    };
    let mut rows = Vec::new();
    while bytes.has_remaining() {
        let row = take(&mut bytes).and_then(|key| Some((key, take(&mut bytes)?)));
        rows.push(row.ok_or(Invalid("a row is cut short"))?);
    }
    Ok(rows)
}

/// Takes the chunks after the header, in order.
pub(crate) struct Receiving {
    staged: Staged,
    rows: u64,
    crc: crc32fast::Hasher,
    /// All rows up to this key are those of the snapshot.
    position: Option<Bytes>,
    ranges: VecDeque<HeldRange>,
    /// Ranges of an earlier snapshot that come next, and where the first of them begins.
    held: VecDeque<HeldRange>,
    held_from: Option<Bytes>,
    /// Rows of an earlier snapshot may lie after the position.
    resumed: bool,
}

impl Receiving {
    pub(crate) fn new(staged: Staged) -> Self {
        Self {
            staged,
            rows: 0,
            crc: crc32fast::Hasher::new(),
            position: None,
            ranges: VecDeque::new(),
            held: VecDeque::new(),
            held_from: None,
            resumed: false,
        }
    }

    /// Continues with the rows staged before.
    pub(crate) fn resume(partial: Partial) -> Self {
        Self { held: partial.ranges, resumed: true, ..Self::new(partial.staged) }
    }

    /// Rows so far.
    pub(crate) fn received(&self) -> u64 {
        self.rows
    }

    /// What is staged, for a later snapshot: the ranges received, and the held ones after them.
    /// `None` if there are none.
    pub(crate) fn into_partial(mut self) -> Option<(Staged, VecDeque<HeldRange>)> {
        if self.held_from != self.position
            && let Some(rest) = self.held.front_mut()
        {
            // The beginning of this range was replaced: no digest tells what it is now.
            (rest.rows, rest.digest) = (u64::MAX, 0);
        }
        self.ranges.extend(self.held);
        (!self.ranges.is_empty()).then_some((self.staged, self.ranges))
    }

    /// Checks and stages one chunk. Blocks on the database.
    pub(crate) fn rows(&mut self, chunk: proto::RaftSnapshotRows) -> Result<(), tonic::Status> {
        let failed = |error: std::io::Error| tonic::Status::internal(error.to_string());
        if crc32fast::hash(&chunk.rows) != chunk.crc {
            return Err(Invalid("a chunk's checksum does not match").into());
        }
        let digest = digest(&chunk.rows);
        let rows = decode_rows(chunk.rows)?;
        let mut last = self.position.as_ref();
        for (key, _) in &rows {
            if last.is_some_and(|last| last >= key) {
                return Err(Invalid("its rows do not ascend").into());
            }
            crate::storage::check_key(key)
                .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
            last = Some(key);
        }
        let to = match (chunk.to.is_empty(), last) {
            (false, last) if last.is_none_or(|last| *last <= chunk.to) => chunk.to,
            (true, Some(last)) if !rows.is_empty() => last.clone(),
            _ => return Err(Invalid("a chunk ends before its rows do").into()),
        };
        if self.resumed {
            let stale = self.staged.rows().clear(self.position.as_deref(), Some(&to));
            stale.map_err(failed)?;
        }
        self.staged.rows().load(&rows).map_err(failed)?;
        self.crc.update(&chunk.crc.to_le_bytes());
        let count = rows.len() as u64;
        self.passed(HeldRange { to, rows: count, digest });
        Ok(())
    }

    /// The sender has the same rows in the next range that is held.
    pub(crate) fn keep(&mut self, keep: proto::RaftSnapshotKeep) -> Result<(), Invalid> {
        let held = self.held.front().filter(|range| range.to == keep.to).cloned();
        match held {
            Some(range) if self.held_from == self.position && range.rows != u64::MAX => {
                self.crc.update(&range.digest.to_le_bytes());
                self.passed(range);
                Ok(())
            }
            _ => Err(Invalid("it keeps a range that is not held")),
        }
    }

    /// All rows up to the end of this range are those of the snapshot.
    fn passed(&mut self, range: HeldRange) {
        while self.held.front().is_some_and(|held| held.to <= range.to) {
            self.held_from = self.held.pop_front().map(|held| held.to);
        }
        self.rows += range.rows;
        self.position = Some(range.to.clone());
        self.ranges.push_back(range);
    }

    /// Checks the trailer and gives the staged rows. Blocks on the database.
    pub(crate) fn finish(
        mut self,
        trailer: proto::RaftSnapshotTrailer,
    ) -> Result<Staged, tonic::Status> {
        if trailer.rows != self.rows || trailer.crc != self.crc.finalize() {
            return Err(Invalid("chunks are missing").into());
        }
        if self.resumed {
            let stale = self.staged.rows().clear(self.position.as_deref(), None);
            stale.map_err(|error| tonic::Status::internal(error.to_string()))?;
        }
        Ok(self.staged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_wire_and_cut_rows_are_refused() {
        let rows: Vec<KeyValue> =
            vec![(Bytes::from("a"), Bytes::from("1")), (Bytes::from("b"), Bytes::new())];
        let bytes = encode_rows(&rows);
        assert_eq!(decode_rows(bytes.clone()).unwrap(), rows);
        for cut in 1..bytes.len() {
            let whole_row = cut == 10;
            assert_eq!(decode_rows(bytes.slice(..cut)).is_ok(), whole_row, "cut at {cut}");
        }
        assert!(decode_rows(Bytes::from_static(&[255, 255, 255, 255, 1])).is_err());
    }
}
