//! Calls for digests of replicas, and for advancing groups to an entry.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Code, Request, Status};

use keyviz_proto as proto;
use keyviz_proto::advance_response;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_proto::failure::describe;
use keyviz_raft::RowsDigest;
use keyviz_security::AuthChannel;
use keyviz_types::{GroupId, NodeId};

use super::client::PeerClient;
use super::members::LeaderAnswer;

/// The progress of a digest.
pub type DigestUpdates = BoxStream<'static, Result<proto::DigestAtUpdate, Status>>;

/// The interval of progress reports.
pub const TELL_EVERY: Duration = Duration::from_millis(500);

/// Advancing a group takes so long at most.
pub const ADVANCE_WITHIN: Duration = Duration::from_secs(15);

/// The digest as a message.
pub fn to_wire(digest: &RowsDigest) -> proto::RowsDigest {
    let RowsDigest { digest, rows, bytes, .. } = *digest;
    let digest = Bytes::copy_from_slice(&digest.to_be_bytes());
    proto::RowsDigest { digest, rows, bytes }
}

/// The digest of a message; `None`: its length is wrong.
pub fn from_wire(index: u64, digest: &proto::RowsDigest) -> Option<RowsDigest> {
    let proto::RowsDigest { digest, rows, bytes } = digest;
    let digest = u128::from_be_bytes(digest.as_ref().try_into().ok()?);
    Some(RowsDigest { index, digest, rows: *rows, bytes: *bytes })
}

/// Why a node did not answer as requested, as text.
pub fn reason(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            "it runs a version that cannot verify replicas; upgrade it".to_owned()
        }
        _ => describe(status),
    }
}

impl PeerClient {
    fn verifier(&self, to: NodeId) -> Result<ClusterPeerClient<AuthChannel>, Status> {
        let channel = self.channel(to).map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(ClusterPeerClient::new(channel))
    }

    /// The digest of a replica of `to`, with progress.
    pub async fn digest_at(
        &self,
        to: NodeId,
        group: GroupId,
        index: u64,
        bytes_per_s: u64,
    ) -> Result<DigestUpdates, Status> {
        let cluster_id = self.cluster_id();
        let ask = proto::DigestAtRequest { cluster_id, group_id: group.0, index, bytes_per_s };
        let updates = self.verifier(to)?.digest_at(Request::new(ask)).await?;
        Ok(updates.into_inner().boxed())
    }

    /// Asks `to`, which should lead the group, to advance it to an entry.
    pub async fn advance(
        &self,
        to: NodeId,
        group: GroupId,
        index: u64,
    ) -> Result<LeaderAnswer<()>, Status> {
        let cluster_id = self.cluster_id();
        let ask = proto::AdvanceRequest { cluster_id, group_id: group.0, index };
        let mut request = Request::new(ask);
        request.set_timeout(ADVANCE_WITHIN + TELL_EVERY);
        match self.verifier(to)?.advance(request).await?.into_inner().outcome {
            Some(advance_response::Outcome::Done(_)) => Ok(Ok(())),
            Some(advance_response::Outcome::NotLeader(hint)) => {
                Ok(Err((hint.leader != 0).then_some(NodeId(hint.leader))))
            }
            None => Err(Status::internal("an answer without an outcome")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_the_wire_and_one_of_another_length_is_none() {
        let digest = RowsDigest { index: 7, digest: 0x0102 << 100, rows: 3, bytes: 9 };
        let mut wire = to_wire(&digest);
        assert_eq!(from_wire(7, &wire), Some(digest));
        wire.digest = Bytes::from_static(b"short");
        assert_eq!(from_wire(7, &wire), None);
    }
}
