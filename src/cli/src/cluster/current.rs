//! The status of the cluster, from a node.

use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;

use super::super::CliError;
use super::super::client::{Client, Effect, MAX_ANSWER_BYTES};

/// Every member and every group, as reported by a node.
pub async fn status(client: &Client) -> Result<proto::ClusterStatus, CliError> {
    let status = client
        .call(Effect::Read, |channel| async move {
            ClusterClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER_BYTES)
                .get_status(proto::GetStatusRequest {})
                .await
        })
        .await?
        .into_inner();
    Ok(status)
}
