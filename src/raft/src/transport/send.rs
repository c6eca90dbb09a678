//! Sends a snapshot: rows as chunks, or a note that the receiver has them already.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::held::{HeldRange, digest};
use super::pace::Pace;
use super::receive::encode_rows;
use crate::machine::apply::RUN_BYTES;
use crate::storage::SnapshotView;
use keyviz_proto as proto;
use keyviz_proto::raft_snapshot_chunk::Part;

/// A range that the receiver holds is read whole up to this size; one that has grown beyond it is
/// sent.
const RANGE_BYTES: usize = 4 * RUN_BYTES;

fn chunk(part: Part) -> proto::RaftSnapshotChunk {
    proto::RaftSnapshotChunk { part: Some(part) }
}

/// The rows of a snapshot against what the receiver holds.
struct Sending {
    view: SnapshotView,
    held: VecDeque<HeldRange>,
    /// Rows of the first held range were sent already, since it did not fit one chunk.
    in_range: bool,
    rows: u64,
    crc: crc32fast::Hasher,
}

impl Sending {
    /// The next part; the trailer at the end.
    fn next(&mut self) -> std::io::Result<Part> {
        let Some(range) = self.held.front().cloned() else {
            let run = self.view.next_run(RUN_BYTES)?;
            if run.is_empty() {
                let crc = self.crc.clone().finalize();
                return Ok(Part::Trailer(proto::RaftSnapshotTrailer { rows: self.rows, crc }));
            }
            return Ok(self.rows(encode_rows(&run), run.len(), Bytes::new()));
        };
        let run = self.view.run_to(Some(&range.to), RANGE_BYTES)?;
        let rows = encode_rows(&run.rows);
        if !run.complete {
            self.in_range = true;
            return Ok(self.rows(rows, run.rows.len(), Bytes::new()));
        }
        self.held.pop_front();
        let whole = !std::mem::take(&mut self.in_range);
        if whole && run.rows.len() as u64 == range.rows && digest(&rows) == range.digest {
            self.rows += range.rows;
            self.crc.update(&range.digest.to_le_bytes());
            return Ok(Part::Keep(proto::RaftSnapshotKeep { to: range.to }));
        }
        Ok(self.rows(rows, run.rows.len(), range.to))
    }

    fn rows(&mut self, rows: Bytes, count: usize, to: Bytes) -> Part {
        self.rows += count as u64;
        let crc = crc32fast::hash(&rows);
        self.crc.update(&crc.to_le_bytes());
        Part::Rows(proto::RaftSnapshotRows { rows, crc, to })
    }
}

/// The chunks of a snapshot for a receiver that holds `held`, sent no faster than `pace`, and the
/// time the last one was taken.
/// The stream ends without trailer when the rows cannot be read, which the receiver refuses.
pub(crate) fn chunks(
    header: proto::RaftSnapshotHeader,
    view: SnapshotView,
    held: Vec<HeldRange>,
    pace: Arc<Pace>,
) -> (impl Stream<Item = proto::RaftSnapshotChunk> + Send + 'static, watch::Receiver<Instant>) {
    let (progress, watched) = watch::channel(Instant::now());
    let sending = Sending {
        view,
        held: held.into(),
        in_range: false,
        rows: 0,
        crc: crc32fast::Hasher::new(),
    };
    let rows = futures::stream::unfold(Some(sending), move |sending| {
        let (progress, pace) = (progress.clone(), pace.clone());
        async move {
            let mut sending = sending?;
            let read = crate::blocking(move || {
                let part = sending.next();
                (sending, part)
            });
            let (sending, part) = match read.await {
                Ok((sending, Ok(part))) => (sending, part),
                Ok((_, Err(error))) => {
                    tracing::warn!("reading a snapshot failed: {error}");
                    return None;
                }
                Err(_) => return None,
            };
            progress.send_replace(Instant::now());
            if let Part::Rows(rows) = &part {
                pace.take(rows.rows.len()).await;
                progress.send_replace(Instant::now());
            }
            let ended = matches!(part, Part::Trailer(_));
            Some((chunk(part), (!ended).then_some(sending)))
        }
    });
    let header = futures::stream::once(async { chunk(Part::Header(header)) });
    (header.chain(rows).boxed(), watched)
}
