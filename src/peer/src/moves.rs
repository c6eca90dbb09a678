//! Steps of moves and reads for them, made at another node.

use bytes::Bytes;
use tonic::Request;

use keyviz_kv::{MoveChunk, MoveRead, PeerError, PeerOutcome};
use keyviz_proto as proto;
use keyviz_proto::kv_peer_client::KvPeerClient;
use keyviz_proto::move_read_response::Outcome;
use keyviz_security::AuthChannel;
use keyviz_types::{GroupId, NodeId};

use super::answers::{not_leader, propose_outcome, read_error, undecodable, write_error};
use super::moves_wire::{chunk_from_wire, read_to_wire};

type Client = Result<KvPeerClient<AuthChannel>, PeerError>;

/// `frame` has the deadline and the metadata of the call.
pub(crate) async fn step(
    client: Client,
    frame: Request<()>,
    cluster_id: String,
    (to, group): (NodeId, GroupId),
    step: Bytes,
) -> Result<PeerOutcome<Bytes>, PeerError> {
    let request = frame.map(|()| proto::MoveStepRequest { cluster_id, group_id: group.0, step });
    let response = client?.move_step(request).await;
    propose_outcome(response.map_err(|status| write_error(to, group, &status))?.into_inner())
}

/// As [`step`].
pub(crate) async fn read(
    client: Client,
    frame: Request<()>,
    cluster_id: String,
    (to, group): (NodeId, GroupId),
    read: MoveRead,
) -> Result<PeerOutcome<MoveChunk>, PeerError> {
    let request = frame.map(|()| read_to_wire(cluster_id, group, read));
    let response = client?.move_read(request).await.map_err(|status| read_error(to, &status))?;
    match response.into_inner().outcome {
        Some(Outcome::Rows(rows)) => Ok(PeerOutcome::Done(chunk_from_wire(rows))),
        Some(Outcome::NotHere(hint)) => Ok(not_leader(hint)),
        None => Err(undecodable("a part of a move without an outcome")),
    }
}
