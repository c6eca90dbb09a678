//! A snapshot on the wire: cut into checksummed chunks on one side, joined on the other.
//!
//! A chunk is a run of rows, each as length u32 little-endian and bytes of the key, then of the
//! value. The trailer has the number of rows and a checksum over the chunk checksums, so a missing,
//! doubled or reordered chunk is found, and rows must ascend. Nothing of the receiving group
//! changes before the trailer was checked.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::pace::Pace;
use crate::keyviz::GroupId;
use crate::proto;
use crate::proto::raft_snapshot_chunk::Part;
use crate::raft::apply::{RUN_BYTES, Staged};
use crate::raft::storage::{KeyValue, SnapshotView};
use crate::raft::types::{SnapshotMeta, Vote};
use crate::raft::wire::{self, Invalid};

const VERSION: u32 = 1;

pub(crate) fn header(
    hello: proto::RaftHello,
    group: GroupId,
    vote: Vote,
    meta: &SnapshotMeta,
) -> proto::RaftSnapshotHeader {
    proto::RaftSnapshotHeader {
        hello: Some(hello),
        group: group.0,
        vote: Some(wire::vote_to_proto(&vote)),
        last: meta.last_log_id.map(wire::log_id_to_proto),
        membership_at: meta.last_membership.log_id().map(wire::log_id_to_proto),
        membership: Some(wire::membership_to_proto(meta.last_membership.membership())),
        version: VERSION,
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

fn chunk(part: Part) -> proto::RaftSnapshotChunk {
    proto::RaftSnapshotChunk { part: Some(part) }
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

/// The chunks of a snapshot, sent no faster than `pace`, and the time the last one was taken. The stream ends without trailer
/// when the rows cannot be read, which the receiver refuses.
pub(crate) fn chunks(
    header: proto::RaftSnapshotHeader,
    view: SnapshotView,
    pace: Arc<Pace>,
) -> (impl Stream<Item = proto::RaftSnapshotChunk> + Send + 'static, watch::Receiver<Instant>) {
    struct Sending {
        view: Option<SnapshotView>,
        rows: u64,
        crc: crc32fast::Hasher,
        progress: watch::Sender<Instant>,
        pace: Arc<Pace>,
    }
    let (progress, watched) = watch::channel(Instant::now());
    let start =
        Sending { view: Some(view), rows: 0, crc: crc32fast::Hasher::new(), progress, pace };
    let rows = futures::stream::unfold(start, |mut sending| async move {
        let mut view = sending.view.take()?;
        let read = crate::raft::blocking(move || {
            let run = view.next_run(RUN_BYTES);
            (view, run)
        });
        let (view, run) = match read.await {
            Ok((view, Ok(run))) => (view, run),
            Ok((_, Err(error))) => {
                tracing::warn!("reading a snapshot failed: {error}");
                return None;
            }
            Err(_) => return None,
        };
        sending.progress.send_replace(Instant::now());
        if run.is_empty() {
            let crc = sending.crc.clone().finalize();
            let trailer = proto::RaftSnapshotTrailer { rows: sending.rows, crc };
            return Some((chunk(Part::Trailer(trailer)), sending));
        }
        sending.view = Some(view);
        sending.rows += run.len() as u64;
        let rows = encode_rows(&run);
        sending.pace.take(rows.len()).await;
        sending.progress.send_replace(Instant::now());
        let crc = crc32fast::hash(&rows);
        sending.crc.update(&crc.to_le_bytes());
        Some((chunk(Part::Rows(proto::RaftSnapshotRows { rows, crc })), sending))
    });
    let header = futures::stream::once(async { chunk(Part::Header(header)) });
    (header.chain(rows).boxed(), watched)
}

/// Takes the chunks after the header, in order.
pub(crate) struct Receiving {
    staged: Staged,
    rows: u64,
    crc: crc32fast::Hasher,
    last_key: Option<Bytes>,
}

impl Receiving {
    pub(crate) fn new(staged: Staged) -> Self {
        Self { staged, rows: 0, crc: crc32fast::Hasher::new(), last_key: None }
    }

    /// Checks and stages one chunk. Blocks on the database.
    pub(crate) fn rows(&mut self, chunk: proto::RaftSnapshotRows) -> Result<(), tonic::Status> {
        if crc32fast::hash(&chunk.rows) != chunk.crc {
            return Err(Invalid("a chunk's checksum does not match").into());
        }
        self.crc.update(&chunk.crc.to_le_bytes());
        for (key, value) in decode_rows(chunk.rows)? {
            if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                return Err(Invalid("its rows do not ascend").into());
            }
            crate::raft::storage::check_key(&key)
                .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
            self.staged
                .rows()
                .load(&key, &value)
                .map_err(|error| tonic::Status::internal(error.to_string()))?;
            self.rows += 1;
            self.last_key = Some(key);
        }
        Ok(())
    }

    /// Checks the trailer and gives the staged rows.
    pub(crate) fn finish(self, trailer: proto::RaftSnapshotTrailer) -> Result<Staged, Invalid> {
        if trailer.rows != self.rows || trailer.crc != self.crc.finalize() {
            return Err(Invalid("chunks are missing"));
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
