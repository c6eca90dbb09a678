//! Hands the columns of a leaving node to a remaining one.

use std::sync::Arc;

use futures::StreamExt as _;
use tonic::{Code, Status, Streaming};

use keyviz_core::history::HistoryHandoff;
use keyviz_directory::Directory;
use keyviz_fanout::{HandoffError, HandoffStore, Incoming, LocalMatrix};
use keyviz_proto as proto;
use keyviz_proto::cluster_peer_client::ClusterPeerClient;
use keyviz_types::NodeId;

use super::checks::check_cluster;
use keyviz_peer::{PeerClient, answers::passed_on};

/// Bytes of records in one message, plus at most one record.
const CHUNK_BYTES: usize = 1 << 20;

/// Messages that wait to be sent.
const CHUNKS_QUEUED: usize = 4;

/// Both sides of it.
pub(crate) struct Handoffs {
    pub(crate) local: Arc<LocalMatrix>,
    pub(crate) store: Arc<dyn HandoffStore>,
    pub(crate) directory: Arc<Directory>,
}

impl Handoffs {
    /// Sends all columns that this node counted or keeps to `heir`; returns the number of records.
    pub(crate) async fn send(&self, heir: NodeId, peers: &PeerClient) -> Result<u64, Status> {
        if !self.local.enabled() {
            return Ok(0);
        }
        match self.send_records(heir, peers, true).await {
            Err(status) if without_hot_keys(status.code()) => {
                self.send_records(heir, peers, false).await
            }
            sent => sent,
        }
    }

    async fn send_records(
        &self,
        heir: NodeId,
        peers: &PeerClient,
        hot_keys: bool,
    ) -> Result<u64, Status> {
        let channel =
            peers.channel(heir).map_err(|error| Status::unavailable(error.to_string()))?;
        let (chunks, queue) = tokio::sync::mpsc::channel(CHUNKS_QUEUED);
        let (local, cluster_id) = (Arc::clone(&self.local), peers.cluster_id());
        let packing = tokio::task::spawn_blocking(move || {
            for handoff in local.handoffs() {
                let node_id = handoff.node.0;
                let wanted = |record: &(Vec<u8>, Vec<u8>)| {
                    hot_keys || !HistoryHandoff::is_hot_keys(&record.0)
                };
                let mut records = handoff.records().filter(wanted).peekable();
                while records.peek().is_some() {
                    let (mut bytes, mut chunk) = (0, Vec::new());
                    while bytes < CHUNK_BYTES
                        && let Some((key, value)) = records.next()
                    {
                        bytes += key.len() + value.len();
                        let (key, value) = (key.into(), value.into());
                        chunk.push(proto::HistoryRecord { key, value });
                    }
                    let (cluster_id, records) = (cluster_id.clone(), chunk);
                    let chunk = proto::InheritChunk { cluster_id, node_id, records };
                    if chunks.blocking_send(chunk).is_err() {
                        // The receiver has stopped; its answer says why.
                        return;
                    }
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
        let mut client = ClusterPeerClient::new(channel)
            .max_encoding_message_size(keyviz_raft::MAX_MESSAGE_BYTES);
        let stored = client.inherit(stream).await;
        packing.await.map_err(|_| Status::internal("packing the columns panicked"))?;
        Ok(stored.map_err(|status| passed_on(heir, status))?.into_inner().records)
    }

    /// Receives the columns of a leaving node.
    pub(crate) async fn receive(
        &self,
        chunks: Streaming<proto::InheritChunk>,
    ) -> Result<u64, Status> {
        if !self.local.enabled() {
            return Err(Status::unavailable("keyviz is disabled on this node"));
        }
        let (mut stored, mut now) = (0, None::<Incoming>);
        let mut chunks = chunks.fuse();
        while let Some(chunk) = chunks.next().await {
            let proto::InheritChunk { cluster_id, node_id, records } = chunk?;
            check_cluster(&self.directory, &cluster_id)?;
            let node = NodeId(node_id);
            if now.as_ref().is_some_and(|now| now.node() != node) {
                stored += self.finish(now.take()).await?;
            }
            let incoming = now.get_or_insert_with(|| Incoming::new(node, &self.local));
            for record in records {
                let (key, value) = (record.key.into(), record.value.into());
                incoming.push(key, value).map_err(|error| handoff_status(&error))?;
            }
        }
        Ok(stored + self.finish(now).await?)
    }

    async fn finish(&self, incoming: Option<Incoming>) -> Result<u64, Status> {
        let Some(incoming) = incoming else { return Ok(0) };
        let (local, store) = (Arc::clone(&self.local), Arc::clone(&self.store));
        let finishing = tokio::task::spawn_blocking(move || incoming.finish(&local, &store));
        let finished =
            finishing.await.map_err(|_| Status::internal("storing the columns panicked"))?;
        finished.map_err(|error| handoff_status(&error))
    }
}

/// Whether the heir may take the columns without their hot keys. An earlier version takes records
/// of hot keys for damaged ones, and has no room for them beside a full history. A record of many
/// long keys can be over the limit of a message.
fn without_hot_keys(code: Code) -> bool {
    matches!(code, Code::DataLoss | Code::ResourceExhausted | Code::OutOfRange)
}

fn handoff_status(error: &HandoffError) -> Status {
    match error {
        HandoffError::Damaged { .. } => Status::data_loss(error.to_string()),
        HandoffError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        HandoffError::Store { .. } => Status::internal(error.to_string()),
    }
}
