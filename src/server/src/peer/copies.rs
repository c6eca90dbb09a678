//! Keeps copies of other nodes' histories, for the nodes themselves and for other holders.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use keyviz_core::copies::Taken;
use keyviz_directory::MembershipState;
use keyviz_peer::copies_wire::{inventory_to_wire, push_from_wire};
use keyviz_proto as proto;
use keyviz_types::{DiskId, NodeId};

use super::checks::check_cluster;
use super::matrix::MatrixPeer;
use super::statuses::copy_status;

impl MatrixPeer {
    pub(super) async fn tell_inventory(
        &self,
        request: Request<proto::CopyInventoryRequest>,
    ) -> Result<Response<proto::CopyInventoryResponse>, Status> {
        let request = request.into_inner();
        let of = NodeId(request.node_id);
        self.check_sender(request.sender)?;
        let copies = self.local.copies().ok_or_else(no_copies)?;
        let copies = Arc::clone(copies);
        let reading = tokio::task::spawn_blocking(move || copies.inventory(of));
        let inventory =
            reading.await.map_err(|_| Status::internal("reading the copies panicked"))?;
        let inventory = inventory.map_err(|error| copy_status(&error))?;
        Ok(Response::new(inventory_to_wire(inventory)))
    }

    pub(super) async fn take_copy(
        &self,
        request: Request<proto::StoreCopyRequest>,
    ) -> Result<Response<proto::StoreCopyResponse>, Status> {
        let mut request = request.into_inner();
        let sender = self.check_sender(request.sender.take())?;
        let of = NodeId(request.node_id);
        if of != sender && self.directory.members().contains_key(&of) {
            return Err(Status::failed_precondition(format!(
                "node {sender} sends the columns of node {of}, which is a member and sends its own"
            )));
        }
        let push = push_from_wire(request)?;
        let copies = Arc::clone(self.local.copies().ok_or_else(no_copies)?);
        let now_ms = self.local.clock().now_ms();
        let storing = tokio::task::spawn_blocking(move || copies.take(push, now_ms));
        let taken = storing.await.map_err(|_| Status::internal("storing the copy panicked"))?;
        let answer = match taken.map_err(|error| copy_status(&error))? {
            Taken::Stored { generation } => {
                proto::StoreCopyResponse { generation, missing_chunks: false }
            }
            Taken::MissingChunks => {
                proto::StoreCopyResponse { generation: 0, missing_chunks: true }
            }
        };
        Ok(Response::new(answer))
    }

    /// Checks that a sender is the member that it says, with the disk that the cluster knows.
    fn check_sender(&self, sender: Option<proto::CopySender>) -> Result<NodeId, Status> {
        let sender = sender.ok_or_else(|| Status::invalid_argument("columns without a sender"))?;
        check_cluster(&self.directory, &sender.cluster_id)?;
        if self.directory.membership_state() == MembershipState::Refused {
            let reason = self.directory.refusal().as_str().to_owned();
            return Err(Status::unavailable(reason));
        }
        let node = NodeId(sender.node_id);
        if !self.directory.members().contains_key(&node) {
            return Err(Status::failed_precondition(format!(
                "node {node} is no member of this cluster"
            )));
        }
        let roster = self.groups.as_ref().and_then(|groups| groups.peers().roster());
        let known = roster.and_then(|roster| roster.known_disk(node));
        let theirs = DiskId::from_bytes(&sender.disk);
        match known {
            Some(known) if theirs != Some(known) => Err(Status::permission_denied(format!(
                "the sender says that it is node {node}, and its disk is not that of node {node}"
            ))),
            _ => Ok(node),
        }
    }
}

fn no_copies() -> Status {
    Status::unimplemented("this node keeps no copies of histories")
}

#[cfg(test)]
mod tests {
    use super::super::statuses::answer_status;
    use super::*;
    use keyviz_core::copies::CopyError;
    use keyviz_fanout::WorkError;
    use tonic::Code;

    #[test]
    fn honest_partiality_each_refusal_of_a_copy_has_its_status_and_words() {
        let refused = [
            (CopyError::Own(NodeId(1)), Code::FailedPrecondition),
            (CopyError::Step { theirs_ms: 1, ours_ms: 2 }, Code::FailedPrecondition),
            (CopyError::Stale { node: NodeId(2), theirs: 1, known: 2 }, Code::FailedPrecondition),
            (CopyError::Unborn { found: 3, latest: 2 }, Code::InvalidArgument),
            (CopyError::Future { start_ms: 9, now_ms: 1 }, Code::InvalidArgument),
            (CopyError::TooLarge { bytes: 9, limit: 1 }, Code::ResourceExhausted),
            (CopyError::Closed { reason: "it is full" }, Code::Unavailable),
        ];
        for (error, code) in refused {
            let status = copy_status(&error);
            assert_eq!((status.code(), status.message()), (code, &*error.to_string()));
        }
        let busy = WorkError::Failed { reason: "x".to_owned() };
        assert_eq!(answer_status(busy.into()).code(), Code::Internal);
    }
}
