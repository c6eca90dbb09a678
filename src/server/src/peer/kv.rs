//! Serves requests of other nodes. A peer's request is never forwarded.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use keyviz_directory::Directory;
use keyviz_kv::{
    Consistency, Coordinator, KvError, PeerOutcome, PeerRead, PeerReadReply, ScanRange,
};
use keyviz_proto as proto;
use keyviz_proto::peer_read_request::Read;
use keyviz_proto::{move_read_response, peer_read_response, propose_response, read_index_response};
use keyviz_types::GroupId;

use super::checks::{check_cluster, not_leader};
use super::proposed::propose_all;
use keyviz_peer::moves_wire::{chunk_to_wire, read_from_wire};
use keyviz_peer::status::{invalid, kv_status};

pub(crate) struct KvPeerService {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) directory: Arc<Directory>,
}

#[tonic::async_trait]
impl proto::kv_peer_server::KvPeer for KvPeerService {
    type ProposeStream = BoxStream<'static, Result<proto::ProposeBatchChunk, Status>>;

    async fn propose(
        &self,
        request: Request<proto::ProposeBatchRequest>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let batch = request.into_inner();
        check_cluster(&self.directory, &batch.cluster_id)?;
        let group = data_group(batch.group_id)?;
        let bytes = batch.commands.iter().map(|command| command.len()).sum();
        let admitted = self.coordinator.admit_node(bytes).map_err(kv_status)?;
        let coordinator = Arc::clone(&self.coordinator);
        let answers = propose_all(coordinator, group, batch).map(move |answer| {
            // The batch counts as in progress until its last answer.
            let _under_way = &admitted;
            answer
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        let read = request.into_inner();
        check_cluster(&self.directory, &read.cluster_id)?;
        let group = data_group(read.group_id)?;
        let outcome = match self.coordinator.read_index_here(group).await.map_err(kv_status)? {
            PeerOutcome::Done(index) => read_index_response::Outcome::Index(index),
            PeerOutcome::NotLeader(hint) => {
                read_index_response::Outcome::NotLeader(not_leader(hint))
            }
        };
        Ok(Response::new(proto::ReadIndexResponse { outcome: Some(outcome) }))
    }

    async fn read(
        &self,
        request: Request<proto::PeerReadRequest>,
    ) -> Result<Response<proto::PeerReadResponse>, Status> {
        let read = request.into_inner();
        check_cluster(&self.directory, &read.cluster_id)?;
        let group = data_group(read.group_id)?;
        let _admitted = self.coordinator.admit_node(0).map_err(kv_status)?;
        let consistency = i32::try_from(read.consistency)
            .map_err(|_| KvError::Undecodable { reason: "consistency out of range".to_owned() })
            .map_err(kv_status)?;
        let consistency = Consistency::try_from(consistency).map_err(invalid)?;
        let read = match read.read {
            Some(Read::Get(key)) => PeerRead::Get(key),
            Some(Read::Page(page)) => PeerRead::Page(ScanRange {
                start: page.start,
                end: page.end,
                max_rows: page.max_rows,
                max_bytes: page.max_bytes,
                keys_only: page.keys_only,
                continued: page.continued,
                uncounted: page.uncounted,
            }),
            None => return Err(Status::invalid_argument("a peer read of nothing")),
        };
        let outcome =
            self.coordinator.read_here(group, consistency, read).await.map_err(kv_status)?;
        Ok(Response::new(proto::PeerReadResponse { outcome: Some(read_outcome(outcome)) }))
    }

    async fn move_step(
        &self,
        request: Request<proto::MoveStepRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let proto::MoveStepRequest { cluster_id, group_id, step } = request.into_inner();
        check_cluster(&self.directory, &cluster_id)?;
        let group = data_group(group_id)?;
        let _admitted = self.coordinator.admit_node(step.len()).map_err(kv_status)?;
        let outcome = match self.coordinator.move_step_here(group, step).await.map_err(kv_status)? {
            PeerOutcome::Done(reply) => propose_response::Outcome::Reply(reply),
            PeerOutcome::NotLeader(hint) => propose_response::Outcome::NotLeader(not_leader(hint)),
        };
        Ok(Response::new(proto::ProposeResponse { outcome: Some(outcome) }))
    }

    async fn move_read(
        &self,
        request: Request<proto::MoveReadRequest>,
    ) -> Result<Response<proto::MoveReadResponse>, Status> {
        let read = request.into_inner();
        check_cluster(&self.directory, &read.cluster_id)?;
        let group = data_group(read.group_id)?;
        let _admitted = self.coordinator.admit_node(0).map_err(kv_status)?;
        let nothing = || Status::invalid_argument("a part of a move that is none");
        let read = read_from_wire(read).ok_or_else(nothing)?;
        let outcome = match self.coordinator.move_read_here(group, &read).map_err(kv_status)? {
            PeerOutcome::Done(chunk) => move_read_response::Outcome::Rows(chunk_to_wire(chunk)),
            PeerOutcome::NotLeader(hint) => move_read_response::Outcome::NotHere(not_leader(hint)),
        };
        Ok(Response::new(proto::MoveReadResponse { outcome: Some(outcome) }))
    }
}

/// Checks that a group holds data: the catalog group accepts no key-value commands.
fn data_group(group: u64) -> Result<GroupId, Status> {
    if group == GroupId::CATALOG.0 {
        return Err(Status::invalid_argument("group 0 is the catalog's and holds no keys"));
    }
    Ok(GroupId(group))
}

fn read_outcome(outcome: PeerOutcome<PeerReadReply>) -> peer_read_response::Outcome {
    match outcome {
        PeerOutcome::Done(PeerReadReply::Value(value)) => {
            peer_read_response::Outcome::Value(proto::PeerValue { value })
        }
        PeerOutcome::Done(PeerReadReply::Page(page)) => {
            let rows = page
                .rows
                .into_iter()
                .map(|row| proto::PeerRow { key: row.key, value: row.value })
                .collect();
            peer_read_response::Outcome::Page(proto::PeerPage { rows, next: page.next })
        }
        PeerOutcome::NotLeader(hint) => peer_read_response::Outcome::NotLeader(not_leader(hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_of_another_cluster_is_refused_and_one_that_knows_none_yet_is_not() {
        let directory = Directory::new();
        assert!(check_cluster(&directory, "another").is_ok(), "this node knows none yet");
        directory.set_cluster_id("ours");
        assert!(check_cluster(&directory, "ours").is_ok() && check_cluster(&directory, "").is_ok());
        let refused = check_cluster(&directory, "another").expect_err("another cluster");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("another"), "{refused}");
    }
}
