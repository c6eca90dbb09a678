//! Copies of histories, between their types and the wire.

use std::time::Duration;

use tonic::{Code, Request, Status};

use keyviz_core::copies::{CopyPush, HeldCopy, Inventory, Taken};
use keyviz_core::history::ColumnId;
use keyviz_core::{Incarnation, NodeId};
use keyviz_proto as proto;

use super::client::PeerClient;

/// Time limit of a call that stores columns or tells of them.
const COPY_WITHIN: Duration = Duration::from_secs(10);

/// Most columns of an inventory: more than any history holds.
const MAX_COLUMNS: usize = 1 << 21;

pub(crate) fn held_to_wire(held: &HeldCopy) -> proto::HeldCopy {
    proto::HeldCopy {
        node_id: held.node.0,
        incarnation: held.incarnation.0,
        oldest_ms: held.oldest_ms,
        newest_ms: held.newest_ms,
        complete_to_ms: held.complete_to_ms,
        left_ms: held.left_ms,
        forgotten_before_ms: held.forgotten_before_ms,
        columns: held.columns,
        lost: held.lost,
    }
}

pub(crate) fn held_from_wire(held: &proto::HeldCopy) -> HeldCopy {
    HeldCopy {
        node: NodeId(held.node_id),
        incarnation: Incarnation(held.incarnation),
        oldest_ms: held.oldest_ms,
        newest_ms: held.newest_ms,
        complete_to_ms: held.complete_to_ms,
        left_ms: held.left_ms,
        forgotten_before_ms: held.forgotten_before_ms,
        columns: held.columns,
        lost: held.lost,
    }
}

fn intervals(starts: &[u64], lengths: &[u64]) -> Option<Vec<ColumnId>> {
    if starts.len() != lengths.len() || starts.len() > MAX_COLUMNS {
        return None;
    }
    let id = |(start_ms, length_ms): (&u64, &u64)| {
        let end_ms = start_ms.checked_add(*length_ms)?;
        Some(ColumnId { start_ms: *start_ms, end_ms })
    };
    starts.iter().zip(lengths).map(id).collect()
}

/// What a node tells of the copy that it keeps.
pub fn inventory_to_wire(inventory: Inventory) -> proto::CopyInventoryResponse {
    let ids = || inventory.columns.iter().map(|(id, _)| *id);
    proto::CopyInventoryResponse {
        generation: inventory.generation,
        start_ms: ids().map(|id| id.start_ms).collect(),
        length_ms: ids().map(|id| id.end_ms - id.start_ms).collect(),
        fingerprints: inventory.columns.iter().map(|(_, print)| *print).collect(),
        complete_to_ms: inventory.complete_to_ms,
        forgotten_before_ms: inventory.forgotten_before_ms,
    }
}

fn inventory_from_wire(answer: &proto::CopyInventoryResponse) -> Result<Inventory, Status> {
    let malformed = || Status::internal("its list of columns does not fit together");
    let ids = intervals(&answer.start_ms, &answer.length_ms).ok_or_else(malformed)?;
    if answer.fingerprints.len() != ids.len() {
        return Err(malformed());
    }
    Ok(Inventory {
        generation: answer.generation,
        columns: ids.into_iter().zip(answer.fingerprints.iter().copied()).collect(),
        complete_to_ms: answer.complete_to_ms,
        forgotten_before_ms: answer.forgotten_before_ms,
    })
}

/// The columns that a node sends to be kept.
///
/// # Errors
/// The lists do not fit together.
pub fn push_from_wire(request: proto::StoreCopyRequest) -> Result<CopyPush, Status> {
    let removed = intervals(&request.removed_start_ms, &request.removed_length_ms);
    let malformed = || Status::invalid_argument("the removed columns do not fit together");
    let record = |record: proto::CopyRecord| (record.key.to_vec(), record.value.to_vec());
    Ok(CopyPush {
        node: NodeId(request.node_id),
        incarnation: Incarnation(request.incarnation),
        step_ms: request.step_ms,
        complete_to_ms: request.complete_to_ms,
        left_ms: request.left_ms,
        forgotten_before_ms: request.forgotten_before_ms,
        records: request.records.into_iter().map(record).collect(),
        removed: removed.ok_or_else(malformed)?,
    })
}

fn push_to_wire(push: CopyPush, sender: proto::CopySender) -> proto::StoreCopyRequest {
    let record = |(key, value): (Vec<u8>, Vec<u8>)| proto::CopyRecord {
        key: key.into(),
        value: value.into(),
    };
    proto::StoreCopyRequest {
        sender: Some(sender),
        node_id: push.node.0,
        incarnation: push.incarnation.0,
        step_ms: push.step_ms,
        complete_to_ms: push.complete_to_ms,
        left_ms: push.left_ms,
        forgotten_before_ms: push.forgotten_before_ms,
        removed_start_ms: push.removed.iter().map(|id| id.start_ms).collect(),
        removed_length_ms: push.removed.iter().map(|id| id.end_ms - id.start_ms).collect(),
        records: push.records.into_iter().map(record).collect(),
    }
}

/// Why a holder did not take columns.
#[derive(Debug, thiserror::Error)]
pub enum CopyCallError {
    /// It is of a version without copies.
    #[error("its version of keyviz keeps no copies of histories yet")]
    Unimplemented,
    /// The call failed or was refused.
    #[error("{}", keyviz_proto::failure::describe(.0))]
    Call(Status),
}

impl From<Status> for CopyCallError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented => CopyCallError::Unimplemented,
            _ => CopyCallError::Call(status),
        }
    }
}

impl PeerClient {
    fn sender(&self, node: NodeId, disk: &[u8]) -> proto::CopySender {
        let (cluster_id, disk) = (self.cluster_id(), disk.to_vec().into());
        proto::CopySender { cluster_id, node_id: node.0, disk }
    }

    /// What the holder `to` has of the history of `of`. `from` is this node with its disk.
    pub async fn copy_inventory(
        &self,
        to: NodeId,
        of: NodeId,
        (from, disk): (NodeId, &[u8]),
    ) -> Result<Inventory, CopyCallError> {
        let sender = Some(self.sender(from, disk));
        let request = proto::CopyInventoryRequest { sender, node_id: of.0 };
        let mut client = self.copies(to)?;
        let answer = client.copy_inventory(self.timed(request)).await?.into_inner();
        Ok(inventory_from_wire(&answer)?)
    }

    /// Gives columns to the holder `to`. `from` is this node with its disk.
    pub async fn store_copy(
        &self,
        to: NodeId,
        (from, disk): (NodeId, &[u8]),
        push: CopyPush,
    ) -> Result<Taken, CopyCallError> {
        let request = push_to_wire(push, self.sender(from, disk));
        let mut client = self.copies(to)?;
        let answer = client.store_copy(self.timed(request)).await?.into_inner();
        Ok(match answer.missing_chunks {
            true => Taken::MissingChunks,
            false => Taken::Stored { generation: answer.generation },
        })
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(COPY_WITHIN);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_and_sent_reads_back_as_it_was() {
        let id = |start_ms| ColumnId { start_ms, end_ms: start_ms + 60_000 };
        let inventory = Inventory {
            generation: 7,
            columns: vec![(id(60_000), 1), (id(120_000), u64::MAX)],
            complete_to_ms: 9,
            forgotten_before_ms: 3,
        };
        let wire = inventory_to_wire(inventory.clone());
        assert_eq!(inventory_from_wire(&wire).expect("sound"), inventory);
        let short = proto::CopyInventoryResponse { fingerprints: vec![1], ..wire };
        assert!(inventory_from_wire(&short).is_err());
        let push = CopyPush {
            node: NodeId(3),
            incarnation: Incarnation(2),
            step_ms: 60_000,
            complete_to_ms: Some(5),
            left_ms: None,
            forgotten_before_ms: 0,
            records: vec![(vec![1], vec![2, 3])],
            removed: vec![id(0)],
        };
        let wire = push_to_wire(push.clone(), proto::CopySender::default());
        assert_eq!(push_from_wire(wire.clone()).expect("sound"), push);
        let endless = proto::StoreCopyRequest { removed_length_ms: vec![u64::MAX], ..wire };
        let late = proto::StoreCopyRequest { removed_start_ms: vec![1], ..endless };
        assert!(push_from_wire(late).is_err());
    }
}
