//! Catalog changes, proposed by another node.

use bytes::Bytes;
use futures::future::BoxFuture;

use keyviz_catalog_group::{CatalogOutcome, PeerCatalog};
use keyviz_kv::{PeerError, PeerOutcome};
use keyviz_proto as proto;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_raft::MAX_MESSAGE_BYTES;
use keyviz_types::{GroupId, NodeId};

use super::answers::{propose_outcome, write_error};
use super::client::PeerClient;
use super::status::{is_disk_full, is_not_applied};
use keyviz_proto::failure::describe;

impl PeerCatalog for PeerClient {
    fn propose(&self, to: NodeId, command: Bytes) -> BoxFuture<'static, CatalogOutcome> {
        let channel = self.channel(to);
        let request = self.request(proto::ProposeRequest {
            cluster_id: self.cluster_id(),
            group_id: GroupId::CATALOG.0,
            command,
        });
        Box::pin(async move {
            let channel = match channel {
                Ok(channel) => channel,
                Err(error) => return CatalogOutcome::NotSent(error.to_string()),
            };
            let mut client = ClusterPeerClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            let outcome = match client.propose_catalog(request).await {
                Ok(response) => propose_outcome(response.into_inner()),
                Err(status) if is_disk_full(&status) => {
                    let reason = status.message().trim_start_matches("the change was refused: ");
                    return CatalogOutcome::DiskFull(reason.to_owned());
                }
                // It was not proposed; another leader may propose it.
                Err(status) if is_not_applied(&status) => {
                    return CatalogOutcome::NotSent(describe(&status));
                }
                Err(status) => Err(write_error(to, GroupId::CATALOG, &status)),
            };
            match outcome {
                Ok(PeerOutcome::Done(reply)) => CatalogOutcome::Done(reply),
                Ok(PeerOutcome::NotLeader(leader)) => CatalogOutcome::NotLeader(leader),
                Err(error @ PeerError::NotSent { .. }) => {
                    CatalogOutcome::NotSent(error.to_string())
                }
                Err(error) => CatalogOutcome::Unknown(error.to_string()),
            }
        })
    }
}
