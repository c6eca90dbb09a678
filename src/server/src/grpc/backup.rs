//! The `Backup` service: sends the data and the history of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::audit;
use keyviz_backup::Part;
use keyviz_fanout::LocalMatrix;
use keyviz_proto as proto;
use keyviz_raft::{Dump, Groups, KeyValue, ReadError};
use keyviz_types::GroupId;

/// Parts that wait for the client, of 256 KiB and one row each.
const PARTS_QUEUED: usize = 4;

/// Bytes of history records in one part.
const HISTORY_PART_BYTES: usize = 256 << 10;

#[derive(Clone)]
pub(crate) struct BackupService {
    pub(crate) groups: Groups,
    pub(crate) local: Arc<LocalMatrix>,
    pub(crate) timeout: Duration,
}

type Parts = BoxStream<'static, Result<proto::BackupPart, Status>>;
type Taken = mpsc::Sender<Result<proto::BackupPart, Status>>;

/// Runs blocking work off the runtime, and streams its parts.
fn stream(work: impl FnOnce(&Taken) -> Result<(), Status> + Send + 'static) -> Response<Parts> {
    let (taken, parts) = mpsc::channel(PARTS_QUEUED);
    tokio::task::spawn_blocking(move || {
        if let Err(status) = work(&taken) {
            // A client that went away needs no reason.
            let _ = taken.blocking_send(Err(status));
        }
    });
    Response::new(ReceiverStream::new(parts).boxed())
}

fn give(taken: &Taken, part: Part) -> Result<(), Status> {
    let part = proto::BackupPart { part: Some(part) };
    taken.blocking_send(Ok(part)).map_err(|_| Status::cancelled("the client went away"))
}

fn rows(rows: impl IntoIterator<Item = KeyValue>) -> Part {
    let rows = rows.into_iter().map(|(key, value)| proto::BackupRow { key, value }).collect();
    Part::Rows(proto::BackupRows { rows })
}

fn end(rows: u64) -> Part {
    Part::SectionEnd(proto::BackupSectionEnd { rows })
}

fn dump_group(group: GroupId, mut dump: Dump, taken: &Taken) -> Result<(), Status> {
    let at = dump.applied();
    let header = proto::BackupGroup {
        group_id: group.0,
        applied_term: at.term,
        applied_index: at.index,
        term: dump.term().0,
    };
    give(taken, Part::Group(header))?;
    let mut count = 0;
    loop {
        // More was written in between than is kept for a dump: it has to be restarted.
        let run = dump.next_run().map_err(|error| Status::aborted(error.to_string()))?;
        if run.is_empty() {
            return give(taken, end(count));
        }
        count += run.len() as u64;
        give(taken, rows(run))?;
    }
}

/// The node's own history, even if its sampler is off, and those that it keeps for nodes that have
/// left.
fn dump_histories(local: &LocalMatrix, taken: &Taken) -> Result<(), Status> {
    let (node_id, incarnation) = (local.history().node().0, local.history().incarnation().0);
    let own = proto::BackupHistory { node_id, incarnation, held_by: 0 };
    dump_history(own, local.export(), taken)?;
    for (left, incarnation, records) in local.export_kept() {
        let (left, incarnation) = (left.0, incarnation.0);
        let kept = proto::BackupHistory { node_id: left, incarnation, held_by: node_id };
        dump_history(kept, records, taken)?;
    }
    Ok(())
}

fn dump_history(
    header: proto::BackupHistory,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    taken: &Taken,
) -> Result<(), Status> {
    give(taken, Part::History(header))?;
    let count = records.len() as u64;
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (key, value) in records {
        bytes += key.len() + value.len();
        part.push((key.into(), value.into()));
        if bytes >= HISTORY_PART_BYTES {
            give(taken, rows(std::mem::take(&mut part)))?;
            bytes = 0;
        }
    }
    give(taken, rows(part))?;
    give(taken, end(count))
}

#[tonic::async_trait]
impl proto::backup_server::Backup for BackupService {
    type DumpGroupStream = Parts;
    type DumpHistoryStream = Parts;

    async fn dump_group(
        &self,
        request: Request<proto::DumpGroupRequest>,
    ) -> Result<Response<Parts>, Status> {
        let id = GroupId(request.into_inner().group_id);
        audit::note(format_args!("back up group {id}"));
        let group = self.groups.get(id).ok_or_else(|| {
            Status::failed_precondition(format!("this node has no replica of Raft group {id}"))
        })?;
        let dump = group.dump(self.timeout).await.map_err(|error| match error {
            ReadError::NotLeader { .. } => {
                Status::failed_precondition(format!("this node does not lead Raft group {id}"))
            }
            error => Status::unavailable(format!("Raft group {id}: {error}")),
        })?;
        Ok(stream(move |taken| dump_group(id, dump, taken)))
    }

    async fn dump_history(
        &self,
        _request: Request<proto::DumpHistoryRequest>,
    ) -> Result<Response<Parts>, Status> {
        audit::note("back up the history of this node");
        let local = Arc::clone(&self.local);
        Ok(stream(move |taken| dump_histories(&local, taken)))
    }
}
